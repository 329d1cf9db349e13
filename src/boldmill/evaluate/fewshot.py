"""Few-shot evaluation: k subjects per class of the pre-training split against all held-out subjects.

Axes: D draws, S subjects, N scans of the task, B bootstrap draws, R of them beside each draw.

The protocol is our reading: shots and sampling of the BrainMass paper are not public. A draw orders the subjects of
each class at random, one per family, and k shots are the first k of each class: the draws of a curve are nested. Data
sets that a task only tests (``external``) are never drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.crossval import Fit
from boldmill.evaluate.few_fits import nearest_centroid, span_logistic
from boldmill.evaluate.metrics import CLASSIFICATION, Metric
from boldmill.evaluate.stats import MIN_DEFINED, bootstrap_weights
from boldmill.evaluate.tasks import Task
from boldmill.rng import generator

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CLASSIFIERS: dict[str, Fit] = {"logistic": span_logistic, "centroid": nearest_centroid}
METRICS = ("auc", "balanced_accuracy")
NAN = float("nan")
CHANCE = "0"
"""``k`` of the rows of chance: no label was read."""
CEILING = "all"
"""``k`` of the rows with every labelled subject of the pre-training split."""
INTERVAL = "interval: 95 % of draws x bootstrap of the test subjects, the spread of one experiment"
MIN_PER_DRAW = 20
"""Fewest bootstrap draws of the test subjects beside each draw of the training subjects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotRow:
    """One point of a curve: a metric at k subjects per class (``0``: chance, ``all``: every labelled subject)."""

    task: str
    method: str
    k: str
    metric: str
    value: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    draws: int = 0
    n_test: int = 0
    note: str = ""


def few_shot_rows(
    task: Task,
    sets: Mapping[str, tuple[Floats, str]],
    shots: Sequence[int],
    draws: int,
    bootstrap: int,
    seed: int,
) -> list[FewShotRow]:
    """Return the curve of every feature set and classifier, with chance and the ceiling.

    Parameters
    ----------
    task : Task
        A classification with two classes; subjects of its external data sets neither teach nor are tested.
    sets : mapping
        Name -> features of the task's scans (N, P), and what to say of them. All sets draw and test the same subjects:
        those that have features in every set.
    shots : sequence of int
        k, rising.
    draws, bootstrap : int
        Draws of training subjects; bootstrap draws of the test subjects, spread over them.
    """
    usable = np.ones(len(task.member), dtype=bool)
    for features, _ in sets.values():
        usable &= np.isfinite(features).any(axis=1)
    known = np.zeros(len(task.subjects), dtype=bool)
    known[task.member[usable]] = True
    known &= ~task.external
    pool, test = known & ~task.heldout, known & task.heldout
    order = draw_orders(task, pool, draws, seed)
    masks: dict[str, Mask] = {str(k): shots_of(order, k, len(pool)) for k in shots}
    masks[CEILING] = pool[None]
    groups = [group for group, tested in zip(task.groups, test, strict=True) if tested]
    weights = bootstrap_weights(groups, bootstrap, seed, task.name, "few-shot") if groups else np.zeros((0, 0))
    empty = FewShotRow(task=task.name, method="chance", k=CHANCE, metric="", n_test=int(test.sum()))
    rows = [replace(empty, metric=m, value=0.5, note="chance: scores without information") for m in METRICS]
    for name, (features, said) in sets.items():
        for kind, fit in CLASSIFIERS.items():
            for k, mask in masks.items():
                base = replace(empty, method=f"{name}_{kind}", k=k, note=said)
                if not len(mask) or not test.any():
                    why = "no held-out subjects" if len(mask) else too_few(order)
                    rows += [replace(base, metric=m, note=_joined(f"n/a: {why}", said)) for m in METRICS]
                    continue
                rows += curve_point(base, task, fit, features, mask, test, usable, weights)
    return rows


def curve_point(
    base: FewShotRow,
    task: Task,
    fit: Fit,
    features: Floats,
    drawn: Mask,
    test: Mask,
    usable: Mask,
    weights: Floats,
) -> list[FewShotRow]:
    """Return the rows of one classifier at one k.

    Parameters
    ----------
    drawn : (D, S) bool array
        Training subjects of each draw.
    test : (S,) bool array
        Test subjects, none of whom is ever drawn.
    usable : (N,) bool array
        Scans with features.
    weights : (B, tested) array
        Bootstrap of the test subjects.
    """
    truth = np.repeat(task.truth[None, task.member], len(drawn), axis=0)
    by_scan = fit(features, truth, drawn[:, task.member] & usable)
    by_scan[:, ~usable] = np.nan
    scores = task.of_subjects(by_scan)[:, test]
    rows = []
    for name in METRICS:
        value, low, high = spread(CLASSIFICATION[name], task.truth[test], scores, weights)
        said = INTERVAL if len(drawn) > 1 else f"{int(drawn.sum())} training subjects; interval: bootstrap"
        if not np.isfinite(value):
            said = "n/a: the held-out subjects are all of one class"
        note = _joined(said, base.note)
        rows.append(replace(base, metric=name, value=value, ci_low=low, ci_high=high, draws=len(drawn), note=note))
    return rows


def draw_orders(task: Task, pool: Mask, draws: int, seed: int) -> list[NDArray[np.int64]]:
    """Return, per class, subjects of the pool in random order, one per family, (D, families of the class)."""
    out = []
    for label in (0.0, 1.0):
        members = np.flatnonzero(pool & (task.truth == label))
        found = []
        for draw in range(draws):
            mixed = generator("few-shot", task.name, int(label), draw, seed).permutation(members)
            families = [task.groups[i] for i in mixed]
            first = np.sort(np.unique(families, return_index=True)[1]) if families else np.zeros(0, dtype=np.int64)
            found.append(mixed[first])
        out.append(np.stack(found).astype(np.int64))
    return out


def shots_of(order: Sequence[NDArray[Any]], k: int, subjects: int) -> Mask:
    """Return the subjects (D, S) of the first k of every class; (0, S) where a class has fewer families."""
    if any(one.shape[1] < k for one in order):
        return np.zeros((0, subjects), dtype=bool)
    chosen = np.zeros((len(order[0]), subjects), dtype=bool)
    for one in order:
        np.put_along_axis(chosen, one[:, :k], True, axis=1)
    return chosen


def too_few(order: Sequence[NDArray[Any]]) -> str:
    """Return why a k cannot be drawn."""
    return f"the pre-training split has {min(one.shape[1] for one in order)} subjects (families) of one class"


def spread(metric: Metric, truth: Floats, scores: Floats, weights: Floats) -> tuple[float, float, float]:
    """Return the mean over draws of a metric, and the 95 % interval over draws and test subjects together.

    Parameters
    ----------
    scores : (D, tested) array
        One row per draw of training subjects.
    weights : (B, tested) array
        Bootstrap of the test subjects, shared out: each draw takes the next R = max(20, B // D) of them, from the start
        again after the last. The percentiles are those of D x R values.
    """
    once = np.ones((1, truth.size))
    value = float(np.mean([metric(truth, row, once)[0] for row in scores]))
    each = np.arange(min(len(weights), max(MIN_PER_DRAW, len(weights) // len(scores))))
    drawn = np.concatenate(
        [metric(truth, row, weights[(d * len(each) + each) % len(weights)]) for d, row in enumerate(scores)]
    )
    wanted = MIN_DEFINED * drawn.size
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or drawn.size < wanted:
        return value, NAN, NAN
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value, float(low), float(high)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
