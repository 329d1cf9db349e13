"""Difference of a method from the reference baseline, on the same tested subjects of the same fits.

Axes: B draws, J fits, Q repeats, S subjects, C classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.design import LEAVE_SITE, Design
from boldmill.evaluate.metrics import LOWER_IS_BETTER, metrics_of, over_repeats
from boldmill.evaluate.null import blank, counted
from boldmill.evaluate.stats import MIN_DEFINED, bootstrap_weights, corrected_resampled_t
from boldmill.evaluate.table import Row
from boldmill.evaluate.tasks import Task

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_TESTED = 2
"""Fewest tested subjects of a metric."""
MIN_SITES = 3
"""Fewest test sites of a t-test where others are left out for their single class."""


def compare(
    task: Task, design: Design, row: Row, ours: Floats, reference: Floats, *, than: str, draws: int, seed: int
) -> Row:
    """Return the row of the gain in the leading metric over the method called ``than``.

    Parameters
    ----------
    row : Row
        A row of the method, for its names and sizes.
    ours, reference : (Q, S[, C]) array
        Subject scores.

    The interval is a paired bootstrap over subjects. Where the design has several test sets, the corrected resampled
    t-test over them (of AUC, or of the mean absolute error) is added.
    """
    name, metric = next(iter(metrics_of(task.kind).items()))
    chosen = counted(ours, design.tested) & counted(reference, design.tested)
    keep = np.asarray(chosen.any(axis=0))
    row = replace(row, metric=f"{name}_over_{than}", n_test=int(keep.sum()), p_permutation=np.nan, p_kind="n/a")
    row = replace(row, value=np.nan, ci_low=np.nan, ci_high=np.nan)
    if keep.sum() < MIN_TESTED:
        return replace(row, note=f"n/a: {int(keep.sum())} tested subjects with both scores")
    groups = [group for group, k in zip(task.groups, keep, strict=True) if k]
    weights = bootstrap_weights(groups, draws, seed, task.name, design.protocol)
    truth, pair = task.truth[keep], [blank(scores, chosen)[:, keep] for scores in (ours, reference)]
    gain = float(np.subtract(*(over_repeats(metric, truth, s)[0] for s in pair)))
    drawn = np.subtract(*(over_repeats(metric, truth, s, weights) for s in pair))
    drawn = drawn[np.isfinite(drawn)]
    p, words = fold_test(task, design, chosen, ours, reference)
    note = f"paired bootstrap; {words}"
    if not np.isfinite(gain) or drawn.size < MIN_DEFINED * len(weights):
        note = f"interval n/a: the metric is undefined in most draws; {note}"
        return replace(row, value=gain, p_t=p, note=note)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return replace(row, value=gain, ci_low=float(low), ci_high=float(high), p_t=p, note=note)


def fold_test(task: Task, design: Design, chosen: Mask, ours: Floats, reference: Floats) -> tuple[float, str]:
    """Return p of the corrected resampled t-test of the difference per test set, and the test (or why not) in words.

    Test sites of a single class are left out of leave-one-site-out, for they say nothing about any method.
    """
    names = [name for name in metrics_of(task.kind) if name in ("auc", "macro_auc", "mae")]
    metric = metrics_of(task.kind)[names[0]]
    sign = -1.0 if names[0] in LOWER_IS_BETTER else 1.0
    differences: list[float] = []
    n_test: list[int] = []
    n_train: list[int] = []
    sets = 0
    for repeat, test, train in zip(design.repeat, design.test, design.train, strict=True):
        own = test & chosen[repeat]
        if not own.any():  # a fold without anybody who counts is no test set
            continue
        sets += 1
        if design.protocol == LEAVE_SITE and np.unique(task.truth[own]).size < 2:
            continue
        values = [
            float(over_repeats(metric, task.truth[own], s[repeat : repeat + 1, own])[0]) for s in (ours, reference)
        ]
        differences.append(sign * (values[0] - values[1]))
        n_test.append(int(own.sum()))
        n_train.append(int(train.sum()))
    found = np.array(differences)
    left = sets - found.size
    if left and found.size < MIN_SITES:
        return np.nan, f"no t-test: {left} of {sets} test sites have a single class"
    if sets < 2:
        return np.nan, "no t-test: one test set"
    if not np.isfinite(found).all():
        lost = int((~np.isfinite(found)).sum())
        return np.nan, f"no t-test: {names[0]} is undefined in {lost} of {found.size} test sets"
    t, p = corrected_resampled_t(found, float(np.mean(n_test)), float(np.mean(n_train)))
    if np.isnan(p):
        return np.nan, f"no t-test: the same difference in all {found.size} test sets"
    over = f"{found.size} sites ({left} of a single class left out)" if left else f"{found.size} test sets"
    return p, f"corrected resampled t-test of {names[0]} over {over}: t = {t:.3g}, p = {p:.3g}"
