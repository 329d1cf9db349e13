"""Zero-shot transfer: what one task taught, applied to another task whose labels are not read.

Axes: N scans of the cohort, S subjects of the target.

Two readings, both ours, since the BrainMass paper's protocol is not public: (a) nearest centroid, the class prototypes
of the source; (b) the source's classifier (logistic, or the published RBF support vector machine), applied unchanged.
Features are z-scored with the source's statistics. Classes are matched by each task's `positive` label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import LeakageError
from boldmill.evaluate.baselines import svm_probe
from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.crossval import Fit
from boldmill.evaluate.few_fits import nearest_centroid, span_logistic
from boldmill.evaluate.leakage import refuse_overlap
from boldmill.evaluate.metrics import CLASSIFICATION
from boldmill.evaluate.null import VARIED, varied
from boldmill.evaluate.protocol import undefined
from boldmill.evaluate.stats import block_permutations, bootstrap_weights, interval, p_value
from boldmill.evaluate.tasks import CannotEvaluate, Task

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NAN = float("nan")


def classifiers() -> dict[str, tuple[Fit, str]]:
    """Return the two readings: name -> classifier, and what the table says of it."""
    unchanged = "the source's classifier, unchanged"
    return {
        "centroid": (nearest_centroid, "nearest class prototype of the source"),
        "logistic": (span_logistic, unchanged),
        "svm_rbf": (svm_probe("classification"), unchanged),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRow:
    """One metric of one transferred classifier; ``task`` is the name of the transfer."""

    task: str
    source: str
    target: str
    method: str
    metric: str
    value: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    p_permutation: float = NAN
    n_test: int = 0
    note: str = ""


def sides(source: Task, target: Task, trained: frozenset[str], groups: Mapping[str, str]) -> tuple[Mask, Mask]:
    """Return the source's training subjects and the target's test subjects, as masks over each task's subjects.

    The source teaches with its subjects of the pre-training split; where all of it was held out, with all; never with
    data sets that it only tests (``external``). A task that is its own target is tested on its held-out subjects.

    Parameters
    ----------
    trained : frozenset of str
        Subjects the model was pre-trained on.
    groups : mapping
        Subject -> family (or the subject itself).

    Raises
    ------
    CannotEvaluate
        One side is empty, or the source has one class.
    LeakageError
        A target subject or its family was in pre-training, or teaches.
    """
    own = ~source.external
    whole = bool(source.heldout[own].all()) and source.name != target.name
    learn = own if whole else own & ~source.heldout
    test = target.heldout if source.name == target.name else np.ones(len(target.subjects), dtype=bool)
    where = f"{source.name} to {target.name}"
    if not learn.any() or np.unique(source.truth[learn]).size < 2:
        raise CannotEvaluate("cannot learn", where, "the source has no two classes to learn", "choose another source")
    if not test.any():
        raise CannotEvaluate("nothing to test", where, "no subject of the target is held out", "hold some out")
    tested = [subject for subject, wanted in zip(target.subjects, test, strict=True) if wanted]
    taught = frozenset(subject for subject, wanted in zip(source.subjects, learn, strict=True) if wanted)
    refuse_overlap(tested, trained, groups, what=f"pre-training ({where})")
    refuse_overlap(tested, taught, groups, what=f"source task ({where})")
    return learn, test


def transfer_rows(
    name: str,
    source: Task,
    target: Task,
    cohort: Cohort,
    sets: Mapping[str, tuple[Floats, str]],
    trained: frozenset[str],
    *,
    families: Mapping[str, str],
    bootstrap: int,
    permutations: int,
    seed: int,
) -> list[TransferRow]:
    """Return every metric of every feature set and classifier; a refused transfer is one row that says why.

    Parameters
    ----------
    sets : mapping
        Name -> features of the cohort's scans (N, P), and what to say of them.
    trained : frozenset of str
        Subjects the model was pre-trained on.
    families : mapping
        Subject -> family (or the subject itself), of everybody in the snapshot.
    """
    empty = TransferRow(task=name, source=source.name, target=target.name, method="n/a", metric="n/a")
    try:
        learn, test = sides(source, target, trained, families)
    except (LeakageError, CannotEvaluate) as error:
        return [replace(empty, note=f"n/a: {error}")]
    taught, tested = source.rows[learn[source.member]], target.rows[test[target.member]]
    truth = np.full(len(cohort), np.nan)
    truth[taught] = source.truth[source.member[learn[source.member]]]
    said = "chance: scores without information"
    rows = [replace(empty, method="chance", metric=m, value=0.5, note=said) for m in ("auc", "balanced_accuracy")]
    for set_name, (features, said) in sets.items():
        # The target's labels are not even here: all rows but the source's are NaN and outside `train`.
        train = (np.isin(np.arange(len(cohort)), taught) & np.isfinite(features).any(axis=1))[None]
        for kind, (fit, what) in classifiers().items():
            by_cohort = np.full(len(cohort), np.nan)
            scored = np.isin(np.arange(len(cohort)), tested) & np.isfinite(features).any(axis=1)
            used = scored | train[0]
            by_cohort[used] = fit(features[used], truth[None, used], train[:, used])[0]
            scores = target.of_subjects(by_cohort[target.rows][None])[0]
            base = replace(empty, method=f"{set_name}_{kind}", note="; ".join(part for part in (what, said) if part))
            rows += metric_rows(base, target, scores, test, bootstrap, permutations, seed)
    return rows


def metric_rows(
    base: TransferRow,
    target: Task,
    scores: Floats,
    test: Mask,
    bootstrap: int,
    permutations: int,
    seed: int,
) -> list[TransferRow]:
    """Return all metrics of subject scores (S,) with bootstrap intervals and permutation p-values.

    Nothing is fitted to the target, so its labels are permuted against fixed scores: whole families, within the sites
    of each data set. Where labels hardly vary within sites, few of them can move and p is near 1: the note says so.
    """
    keep = test & np.isfinite(scores)
    if not keep.any():
        return [
            replace(base, metric=name, note=f"n/a: no tested subject has features; {base.note}")
            for name in CLASSIFICATION
        ]
    chosen = np.flatnonzero(keep)
    groups = [target.groups[i] for i in chosen]
    layers = [target.places[i] for i in chosen]
    share = varied(target.truth[chosen], layers)
    if share < VARIED:
        said = f"p means little: labels vary within the site of {share:.0%} of subjects, and move within sites only"
        base = replace(base, note="; ".join(part for part in (said, base.note) if part))
    names = [target.subjects[i] for i in chosen]
    moves = block_permutations(names, groups, layers, permutations, seed, base.task, "zero-shot")
    weights = bootstrap_weights(groups, bootstrap, seed, base.task, "zero-shot")
    truth, kept = target.truth[chosen], scores[chosen]
    rows = []
    for name, metric in CLASSIFICATION.items():
        found = interval(metric, truth, kept[None], weights)
        once = np.ones((1, len(chosen)))
        null = np.array([metric(truth[move], kept, once)[0] for move in moves])
        reason = undefined(found.value, found.low, truth, "classification")
        rows.append(
            replace(
                base,
                metric=name,
                value=found.value,
                ci_low=found.low,
                ci_high=found.high,
                p_permutation=p_value(found.value, null),
                n_test=len(chosen),
                note="; ".join(part for part in (reason, base.note) if part),
            )
        )
    return rows
