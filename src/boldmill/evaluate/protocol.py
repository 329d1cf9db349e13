"""Rows of one method on one task, under each protocol asked for.

Axes: Q repeats, N scans, S subjects, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.compare import MIN_TESTED, compare
from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.crossval import Fit, cross_validate, of_subjects
from boldmill.evaluate.design import CV, HELDOUT, NESTED, Design
from boldmill.evaluate.harmonise import unharmonised_note
from boldmill.evaluate.leakage import overlap
from boldmill.evaluate.method import Method
from boldmill.evaluate.metrics import metrics_of
from boldmill.evaluate.nested import nested
from boldmill.evaluate.null import Null, blank, counted, fixed_p, refit_null, refit_p
from boldmill.evaluate.rows import MISSING
from boldmill.evaluate.stats import bootstrap_weights, interval
from boldmill.evaluate.table import Predictions, Row
from boldmill.evaluate.tasks import Task

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SITE_METRICS = 3
"""Metrics given for every tested site, the leading ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What all methods of one task share.

    ``trained`` holds the subjects that pre-trained methods have seen, ``group_of`` the family of everybody.
    ``references`` keeps the scores (Q, S) of the first method under each protocol.
    """

    task: Task
    designs: Mapping[str, Design]
    cohort: Cohort
    config: EvaluateConfig
    seed: int
    predictions: Predictions
    trained: Collection[str] = frozenset()
    group_of: Mapping[str, str] = field(default_factory=dict)
    references: dict[str, tuple[str, Floats]] = field(default_factory=dict)


def evaluate_method(
    context: Context, method: Method, *, model: str, text_encoder: str = MISSING, epochs: str = MISSING
) -> list[Row]:
    """Return the rows of one method under each protocol.

    A pre-trained method is not run under a protocol that tests anyone it was trained on (or a relative); its row says
    so. ``cv`` and ``heldout`` share their fits, and ``nested`` those of a method without hyperparameters to choose.
    """
    task, config = context.task, context.config
    features = method.features[task.rows]
    done: dict[str, tuple[Floats, Null | None]] = {}
    rows: list[Row] = []
    for protocol, design in context.designs.items():
        base = Row(
            task=task.name, kind=task.kind, method=method.name, model=model, protocol=protocol, metric="",
            text_encoder=text_encoder, epochs=epochs,
        )  # fmt: skip
        if why := seen_before(context, method, design):
            rows.append(replace(base, metric=MISSING, note=why))
            continue
        said = (method.note, unlearnt_note(task, design), design.note, task.note)
        base = replace(base, note="; ".join(part for part in said if part))
        usable = np.isfinite(features).any(axis=1)
        roles = [part[:, task.member] & usable for part in (design.train, design.test & design.scored)]
        if left := unharmonised_note(method.fit, features, *roles):
            base = replace(base, note=f"{left}; {base.note}")
        searched = protocol == NESTED and bool(method.grid)
        if protocol == NESTED and not searched:
            base = replace(base, note=f"without a grid to choose from: as under cv; {base.note}".removesuffix("; "))
        fit = _searched(context, method) if searched else method.fit
        shared = CV if CV in done and protocol in (HELDOUT, NESTED) and not searched else protocol
        if shared not in done:
            by_scan = cross_validate(fit, features, task, design)
            null = None
            if method.permute == "refit" and not searched:
                null = refit_null(fit, features, task, design, config.permutations, context.seed)
            done[shared] = by_scan, null
        by_scan, null = done[shared]
        scores = of_subjects(task, by_scan)
        context.predictions.add(task, context.cohort, design, method=method.name, scores=by_scan)
        found = metric_rows(context, design, base, features, scores, null)
        rows += found
        than, reference = context.references.setdefault(protocol, (method.name, scores))
        if than != method.name:
            gain = compare(
                task, design, found[0], scores, reference, than=than, draws=config.bootstrap, seed=context.seed
            )
            rows.append(gain)
    return rows


def seen_before(context: Context, method: Method, design: Design) -> str:
    """Return why a pre-trained method is not run under a design, or an empty string."""
    if not method.pretrained:
        return ""
    tested = [context.task.subjects[i] for i in np.flatnonzero(design.tested.any(axis=0)).tolist()]
    both = overlap(tested, context.trained, context.group_of)
    if not both:
        return ""
    return f"not run: {len(both)} of {len(tested)} tested subjects (or their families) were in pre-training"


def unlearnt_note(task: Task, design: Design) -> str:
    """Return how many fits learn fewer classes than the task has, in words; nothing where all learn all."""
    fits = design.train[(design.test & design.scored).any(axis=1)]
    lacking = sum(np.unique(task.truth[fit]).size < len(task.classes) for fit in fits)
    if task.kind != "multiclass" or not lacking:
        return ""
    return f"{lacking} of {len(fits)} fits lack a class in training and never call it"


def _searched(context: Context, method: Method) -> Fit:
    task = context.task
    groups = [task.groups[subject] for subject in task.member]
    kind = "regression" if task.kind == "regression" else "classification"
    return nested(method.grid, groups, kind, context.config.inner_folds, task.name, context.seed)


def metric_rows(
    context: Context, design: Design, base: Row, features: Floats, scores: Floats, null: Null | None
) -> list[Row]:
    """Return one row per metric over all tested subjects, then the leading ones per site where the design asks."""
    task, config = context.task, context.config
    chosen = counted(scores, design.tested)
    keep = np.asarray(chosen.any(axis=0))
    base = replace(base, n_test=int(keep.sum()), n_train=training_size(task, design, features))
    if lost := int((design.tested.any(axis=0) & ~keep).sum()):
        base = replace(base, note=f"{lost} tested subjects without a score; {base.note}".removesuffix("; "))
    if keep.sum() < MIN_TESTED:
        why = f"n/a: {int(keep.sum())} tested subjects with a score"
        return [replace(base, metric=name, note=f"{why}; {base.note}") for name in metrics_of(task.kind)]
    if null is not None:
        chance, who, kind = refit_p(task, scores, design.tested, null), null.note, "refit"
    else:
        chance, who = fixed_p(task, design, scores, design.tested, config.permutations, context.seed)
        kind = "fixed"
    base = replace(base, p_kind=kind, note="; ".join(part for part in (base.note, who) if part))
    rows = _measured(context, design, base, scores, chosen, list(metrics_of(task.kind)))
    rows = [replace(row, p_permutation=chance[row.metric]) for row in rows]
    if design.by_site:
        few = list(metrics_of(task.kind))[:SITE_METRICS]
        for site in sorted({site for site, k in zip(task.sites, keep, strict=True) if k}):
            own = chosen & np.array([s == site for s in task.sites])
            name = f"site {site}" if site == base.fold else site  # a site called "all" is not all sites
            part = replace(base, fold=name, n_test=int(own.any(axis=0).sum()), p_kind=MISSING, note="")
            rows += _measured(context, design, part, scores, own, few)
    return rows


def _measured(context: Context, design: Design, base: Row, scores: Floats, chosen: Mask, names: list[str]) -> list[Row]:
    """Return rows with value and interval over the chosen subjects (Q, S)."""
    task = context.task
    keep = np.asarray(chosen.any(axis=0))
    truth, own = task.truth[keep], blank(scores, chosen)[:, keep]
    groups = [group for group, k in zip(task.groups, keep, strict=True) if k]
    key = (task.name, base.protocol) if base.fold == "all" else (task.name, base.protocol, base.fold)
    weights = bootstrap_weights(groups, context.config.bootstrap, context.seed, *key)
    rows = []
    for name in names:
        metric = metrics_of(task.kind)[name]
        if keep.sum() < MIN_TESTED:
            rows.append(replace(base, metric=name, note="n/a: one tested subject"))
            continue
        found = interval(metric, truth, own, weights)
        reason = undefined(found.value, found.low, truth, task.kind, len(task.classes))
        note = "; ".join(part for part in (reason, base.note) if part)
        rows.append(replace(base, metric=name, value=found.value, ci_low=found.low, ci_high=found.high, note=note))
    return rows


def undefined(value: float, low: float, truth: Floats, kind: str, classes: int = 2) -> str:
    """Return why a value or its interval is n/a, or an empty string.

    Parameters
    ----------
    truth : (N,) array
        Labels or values of the tested subjects.
    classes : int
        How many there are (multiclass).
    """
    if np.isfinite(value):
        return "" if np.isfinite(low) else "interval n/a: most bootstrap draws leave the metric undefined"
    present = np.unique(truth).size
    if kind == "regression":
        return "n/a: the tested subjects all have one value" if present < 2 else "n/a: constant scores"
    if present < 2:
        return "n/a: the tested subjects are all of one class"
    if kind == "multiclass" and present < classes:
        return f"n/a: the tested subjects are of {present} of {classes} classes"
    return "n/a: most test sets lack a class"


def training_size(task: Task, design: Design, features: Floats) -> int:
    """Return the mean number of training subjects of the fits that score a subject that counts."""
    usable = np.zeros(len(task.subjects), dtype=bool)
    usable[task.member[np.isfinite(features).any(axis=1)]] = True
    used = (design.test & design.scored).any(axis=1)
    return round(float((design.train[used] & usable).sum(axis=1).mean())) if used.any() else 0
