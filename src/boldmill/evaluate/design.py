"""Who is trained on and who is tested, fit by fit: the protocols of the evaluation.

Axes: J fits, S subjects, Q repeats.

`cv`, `nested` (the same folds; hyperparameters chosen by inner folds), `heldout` (the same folds, scored on subjects
that no model was pre-trained on), `split` (fitted once on everyone else, tested on the held-out subjects), `paper`
(70/15/15, repeated), `leave-one-site-out`, `external` (fitted on some data sets, tested on others unchanged). Groups
never cross: a training subject with a tested relative is taken out of that fit and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.crossval import Folds, make_folds
from boldmill.evaluate.folds import strata
from boldmill.evaluate.tasks import CannotEvaluate, Task
from boldmill.rng import generator

Mask = NDArray[np.bool_]

CV, NESTED, HELDOUT, SPLIT, PAPER, EXTERNAL = "cv", "nested", "heldout", "split", "paper", "external"
LEAVE_SITE = "leave-one-site-out"

PERIOD, SHARE = 20, 3
"""Of 20 units in a row, 3 are tested and 3 validate: exactly 15 % each (protocol paper)."""
MIN_UNITS = 7
"""A site of fewer units has no test unit of its own at 15 %: such sites are dealt together, by label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The fits of one protocol.

    Parameters
    ----------
    protocol : str
        Name in the tables.
    train, test, validation : (J, S) bool array
        Roles of each subject in each fit; they never overlap, and no group is in two of them. A fit that needs a
        validation part of its own takes it from its training subjects; ``validation`` is left out of both others.
    repeat : (J,) int array
        Repeat that each fit belongs to; a subject is tested once per repeat at most.
    names : tuple of J str
        Fold or site of each fit.
    scored : (S,) bool array
        Tested subjects that count.
    stratified : bool
        Test sets keep the shares of the labels, so that a permutation has to keep them too.
    by_site : bool
        The table has a row per tested site beside the pooled one.
    note : str
        Said in the table.
    """

    protocol: str
    train: Mask
    test: Mask
    validation: Mask
    repeat: NDArray[np.int64]
    names: tuple[str, ...]
    scored: Mask
    stratified: bool = False
    by_site: bool = False
    note: str = ""

    @property
    def repeats(self) -> int:
        """Number of repeats Q."""
        return int(self.repeat.max()) + 1

    @property
    def tested(self) -> Mask:
        """Who is tested and counts in each repeat, (Q, S)."""
        out = np.zeros((self.repeats, self.test.shape[1]), dtype=bool)
        np.logical_or.at(out, self.repeat, self.test)
        return np.asarray(out & self.scored)

    @property
    def fold(self) -> NDArray[np.int64]:
        """The fit that tests each subject in each repeat, (Q, S); -1 where none does."""
        out = np.full((self.repeats, self.test.shape[1]), -1, dtype=np.int64)
        for fit, (repeat, test) in enumerate(zip(self.repeat, self.test, strict=True)):
            out[repeat, test] = fit
        return out

    def first(self, repeats: int) -> Design:
        """Return the fits of the first repeats only."""
        keep = self.repeat < repeats
        names = tuple(name for name, k in zip(self.names, keep, strict=True) if k)
        return replace(
            self,
            train=self.train[keep],
            test=self.test[keep],
            validation=self.validation[keep],
            repeat=self.repeat[keep],
            names=names,
        )


def of_folds(folds: Folds, protocol: str = CV, note: str = "") -> Design:
    """Return the design of cross-validation folds: a fit per repeat and fold, all other subjects in training."""
    inside = folds.of >= 0
    test = np.concatenate([of[None] == np.arange(folds.number)[:, None] for of in folds.of])
    return Design(
        protocol=protocol,
        train=np.asarray(~test & np.repeat(inside, folds.number, axis=0)),
        test=test,
        validation=np.zeros_like(test),
        repeat=np.repeat(np.arange(len(folds.of)), folds.number),
        names=tuple(str(k) for _ in folds.of for k in range(folds.number)),
        scored=np.ones(test.shape[1], dtype=bool),
        stratified=True,
        note=note,
    )


def cv(task: Task, config: EvaluateConfig, seed: int) -> Design:
    """Repeated stratified folds over all subjects that are not external."""
    folds = make_folds(task, config, seed)
    whose = "there are" if task.kind == "regression" else "a class has"
    fewer = "" if folds.number == config.folds else f"{folds.number} folds: {whose} no more subjects or families"
    return of_folds(folds, note=fewer)


def heldout(task: Task, config: EvaluateConfig, seed: int) -> Design:
    """The folds of ``cv``, scored on held-out subjects only."""
    if not (task.heldout & ~task.external).any():
        raise CannotEvaluate(
            "nobody to score", task.name, "no labelled subject is held out", "hold subjects or sites out"
        )
    return replace(cv(task, config, seed), protocol=HELDOUT, scored=task.heldout)


def nested(task: Task, config: EvaluateConfig, seed: int) -> Design:
    """The folds of ``cv``; the fit itself chooses its hyperparameters inside the training part."""
    return replace(cv(task, config, seed), protocol=NESTED)


def split(task: Task, config: EvaluateConfig, seed: int) -> Design:
    """One fit on all subjects a model may have been pre-trained on, tested on the held-out ones, pooled over sites."""
    tested = task.heldout & ~task.external
    if not tested.any():
        raise CannotEvaluate("cannot split", task.name, "no labelled subject is held out", "hold subjects or sites out")
    return _single(task, SPLIT, ~task.heldout & ~task.external, tested)


def external(task: Task, config: EvaluateConfig, seed: int) -> Design:
    """One fit on all subjects of the task's own data sets, tested on those of its external ones, unchanged."""
    if not task.external.any():
        why = "no labelled subject is of an external data set" + (f" ({task.note})" if task.note else "")
        raise CannotEvaluate("no external test", task.name, why, f"set evaluate.tasks[{task.name}].external")
    return _single(task, EXTERNAL, ~task.external, task.external)


def leave_one_site_out(task: Task, config: EvaluateConfig, seed: int) -> Design:
    """A fit per site, on all other sites; the pooled row counts every subject once."""
    inside = ~task.external
    names = sorted({site for site, k in zip(task.sites, inside, strict=True) if k})
    if len(names) < 2:
        raise CannotEvaluate("cannot leave a site out", task.name, f"the only site is {names[0]}", "use protocol cv")
    test = np.array([[s == name for s in task.sites] for name in names]) & inside
    train, note = purge(inside & ~test, test, task.groups)
    if all(np.unique(task.truth[fit]).size < 2 for fit in train):
        why = "without a site, the labels of all others are equal"
        raise CannotEvaluate("nothing to learn from", task.name, why, "use protocol cv, or another column")
    return Design(
        protocol=LEAVE_SITE,
        train=train,
        test=test,
        validation=np.zeros_like(test),
        repeat=np.zeros(len(names), dtype=np.int64),
        names=tuple(names),
        scored=np.ones(test.shape[1], dtype=bool),
        by_site=True,
        note=note,
    )


def paper(task: Task, config: EvaluateConfig, seed: int) -> Design:
    """The split of the paper: 70 % training, 15 % validation, 15 % test, stratified by site, ten repeats.

    Units are families. They are put in order of site (sites too small for a test unit of their own together), then of
    label, then at random, and dealt along that order; so every site, and every label within it, has its share to one
    unit. Only the test part is scored (arXiv 2403.01433; section 6 of its fact sheet).
    """
    inside = np.flatnonzero(~task.external)
    stratum = strata(task.truth[inside], task.kind)
    names, first = np.unique(np.array(task.groups, dtype=str)[inside], return_index=True)
    if len(names) < PERIOD:
        why = f"there are {len(names)} subjects or families"
        raise CannotEvaluate("cannot split 70/15/15", task.name, why, f"at least {PERIOD} are needed")
    site = [task.sites[inside[i]] for i in first]
    size = {name: site.count(name) for name in set(site)}
    place = [name if size[name] >= MIN_UNITS else "" for name in site]
    groups = np.array(task.groups, dtype=str)
    roles = np.full((config.paper_repeats, len(groups)), -1, dtype=np.int64)
    for repeat in range(config.paper_repeats):
        rng = generator("paper split", repeat, seed, task.name)
        shuffled = rng.permutation(len(names))
        phase = int(rng.integers(PERIOD))
        order = sorted(shuffled, key=lambda i: (place[i], int(stratum[first[i]])))
        turn = {str(names[unit]): (SHARE * k + phase) % PERIOD for k, unit in enumerate(order)}
        roles[repeat, inside] = [turn[group] for group in groups[inside]]
    test = (roles >= 0) & (roles < SHARE)
    validation = (roles >= PERIOD // 2) & (roles < PERIOD // 2 + SHARE)
    return Design(
        protocol=PAPER,
        train=np.asarray((roles >= 0) & ~test & ~validation),
        test=np.asarray(test),
        validation=np.asarray(validation),
        repeat=np.arange(config.paper_repeats),
        names=tuple(str(repeat) for repeat in range(config.paper_repeats)),
        scored=np.ones(len(groups), dtype=bool),
        note=f"70/15/15, {config.paper_repeats} repeats, about {round(float(test.sum(axis=1).mean()))} tested in each",
    )


def purge(train: Mask, test: Mask, groups: Sequence[str]) -> tuple[Mask, str]:
    """Take training subjects (J, S) out that have a tested relative in the same fit, and say how many they were."""
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    kept = train.copy()
    for fit, tested in enumerate(test):
        kept[fit] &= ~np.isin(member, member[tested])
    lost = int((train & ~kept).any(axis=0).sum())
    return kept, f"{lost} subjects left out of a training set for a tested relative" if lost else ""


def _single(task: Task, protocol: str, train: Mask, test: Mask) -> Design:
    kept, note = purge(train[None], test[None], task.groups)
    if np.unique(task.truth[kept[0]]).size < 2:
        why = f"the labels of its {int(kept.sum())} training subjects are all equal or there are none"
        raise CannotEvaluate("nothing to learn from", task.name, why, "hold fewer subjects out")
    return Design(
        protocol=protocol,
        train=kept,
        test=test[None],
        validation=np.zeros_like(kept),
        repeat=np.zeros(1, dtype=np.int64),
        names=(protocol,),
        scored=np.ones(len(test), dtype=bool),
        by_site=len({site for site, tested in zip(task.sites, test, strict=True) if tested}) > 1,
        note=note,
    )


PROTOCOLS: dict[str, Callable[[Task, EvaluateConfig, int], Design]] = {
    CV: cv,
    NESTED: nested,
    HELDOUT: heldout,
    SPLIT: split,
    PAPER: paper,
    LEAVE_SITE: leave_one_site_out,
    EXTERNAL: external,
}
"""Name of a protocol -> the function that makes its design; each may raise :class:`CannotEvaluate`."""
