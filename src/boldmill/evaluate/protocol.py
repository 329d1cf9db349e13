"""Rows of one method on one task, under the protocols ``cv`` and ``heldout``.

Axes: Q repeats, N scans, S subjects, K folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.crossval import Folds, cross_validate, permutation_null, permutation_p
from boldmill.evaluate.method import Method
from boldmill.evaluate.metrics import LOWER_IS_BETTER, Metric, metrics_of, over_repeats
from boldmill.evaluate.stats import MIN_DEFINED, bootstrap_weights, corrected_resampled_t, interval
from boldmill.evaluate.table import Predictions, Row
from boldmill.evaluate.tasks import Task

Floats = NDArray[np.float64]

CV, HELDOUT = "cv", "heldout"
MIN_TESTED = 2
"""Fewest tested subjects of a metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Out-of-fold scores of a method, kept for the comparison with the reference: subject scores (Q, S)."""

    method: str
    scores: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What all methods of one task share."""

    task: Task
    folds: Folds
    cohort: Cohort
    config: EvaluateConfig
    seed: int
    predictions: Predictions


def evaluate_method(
    context: Context, method: Method, *, model: str, protocols: tuple[str, ...], text_encoder: str, note: str = ""
) -> tuple[list[Row], Scored]:
    """Cross-validate one method and return its rows under each protocol.

    The scores of both protocols are those of the same folds; ``heldout`` takes the metric over held-out subjects only.
    A pre-trained model is given ``heldout`` alone.
    """
    task, folds = context.task, context.folds
    features = method.features[task.rows]
    by_scan = cross_validate(method.fit, features, task, folds)
    scores = task.of_subjects(by_scan)
    null = None
    if method.permute == "refit":
        null = permutation_null(method.fit, features, task, folds, context.config.permutations, context.seed)
    rows: list[Row] = []
    for protocol in protocols:
        tested = np.ones(len(task.subjects), dtype=bool) if protocol == CV else task.heldout
        base = Row(
            task=task.name,
            kind=task.kind,
            method=method.name,
            model=model,
            protocol=protocol,
            metric="",
            text_encoder=text_encoder,
            note="; ".join(part for part in (method.note, note) if part),
        )
        rows += _rows(context, base, features, scores, tested, null)
        context.predictions.add(
            task, context.cohort, method=method.name, protocol=protocol, scores=by_scan, folds=folds.of, tested=tested
        )
    return rows, Scored(method=method.name, scores=scores)


def _rows(
    context: Context,
    base: Row,
    features: Floats,
    scores: Floats,
    tested: NDArray[np.bool_],
    null: tuple[Floats, Floats] | None,
) -> list[Row]:
    task, config = context.task, context.config
    keep = tested & np.isfinite(scores).all(axis=0)
    base = replace(base, n_test=int(keep.sum()), n_train=training_size(task, context.folds, features, tested))
    if keep.sum() < MIN_TESTED:
        why = f"n/a: {int(keep.sum())} tested subjects with a score"
        return [replace(base, metric=name, note=f"{why}; {base.note}") for name in metrics_of(task.kind)]
    chance = permutation_p(task, context.folds, scores, tested, null) if null is not None else {}
    groups = [group for group, k in zip(task.groups, keep, strict=True) if k]
    weights = bootstrap_weights(groups, config.bootstrap, context.seed, task.name, base.protocol)
    rows = []
    for name, metric in metrics_of(task.kind).items():
        found = interval(metric, task.truth[keep], scores[:, keep], weights)
        reason = undefined(found.value, found.low, task.truth[keep])
        rows.append(
            replace(
                base,
                metric=name,
                value=found.value,
                ci_low=found.low,
                ci_high=found.high,
                p_permutation=chance.get(name, float("nan")),
                note="; ".join(part for part in (reason, base.note) if part),
            )
        )
    return rows


def undefined(value: float, low: float, truth: Floats) -> str:
    """Return why a value or its interval is n/a, or an empty string."""
    if not np.isfinite(value):
        return "n/a: the tested subjects are all of one class" if np.unique(truth).size < 2 else "n/a: constant scores"
    return "" if np.isfinite(low) else "interval n/a: most bootstrap draws leave the metric undefined"


def training_size(task: Task, folds: Folds, features: Floats, tested: NDArray[np.bool_]) -> int:
    """Return the mean number of training subjects of the fits that score the tested subjects."""
    usable = np.zeros(len(task.subjects), dtype=bool)
    usable[task.member[np.isfinite(features).any(axis=1)]] = True
    counts = [
        int((usable & (row != k)).sum()) for row in folds.of for k in range(folds.number) if (tested & (row == k)).any()
    ]
    return round(float(np.mean(counts))) if counts else 0


def compare(context: Context, row: Row, ours: Scored, reference: Scored) -> Row:
    """Return the row of the gain over the reference method in the leading metric, on the same tested subjects.

    The interval is a paired bootstrap over subjects. Where every test fold defines AUC (or the mean absolute error) the
    note adds the corrected resampled t-test over folds and repeats.
    """
    task = context.task
    name, metric = next(iter(metrics_of(task.kind).items()))
    both = np.isfinite(ours.scores).all(axis=0) & np.isfinite(reference.scores).all(axis=0)
    keep = np.asarray(both & task.heldout if row.protocol == HELDOUT else both)
    row = replace(row, metric=f"{name}_over_{reference.method}", n_test=int(keep.sum()), p_permutation=np.nan)
    row = replace(row, value=np.nan, ci_low=np.nan, ci_high=np.nan)
    if keep.sum() < MIN_TESTED:
        return replace(row, note=f"n/a: {int(keep.sum())} tested subjects with both scores")
    groups = [group for group, k in zip(task.groups, keep, strict=True) if k]
    weights = bootstrap_weights(groups, context.config.bootstrap, context.seed, task.name, row.protocol)
    truth, pair = task.truth[keep], (ours.scores[:, keep], reference.scores[:, keep])
    gain = float(np.subtract(*(over_repeats(metric, truth, s)[0] for s in pair)))
    drawn = np.subtract(*(over_repeats(metric, truth, s, weights) for s in pair))
    drawn = drawn[np.isfinite(drawn)]
    note = f"paired bootstrap; {fold_test(context, keep, ours, reference)}"
    if not np.isfinite(gain) or drawn.size < MIN_DEFINED * len(weights):
        return replace(row, value=gain, note=f"interval n/a: the metric is undefined in most draws; {note}")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return replace(row, value=gain, ci_low=float(low), ci_high=float(high), note=note)


def fold_test(context: Context, keep: NDArray[np.bool_], ours: Scored, reference: Scored) -> str:
    """Return the corrected resampled t-test of the difference per test fold in words, or why there is none."""
    task, folds = context.task, context.folds
    name = "auc" if task.kind == "classification" else "mae"
    metric: Metric = metrics_of(task.kind)[name]
    sign = -1.0 if name in LOWER_IS_BETTER else 1.0
    differences: list[float] = []
    n_test: list[int] = []
    for repeat, of in enumerate(folds.of):
        for k in range(folds.number):
            chosen = keep & (of == k)
            values = [
                float(over_repeats(metric, task.truth[chosen], s[repeat : repeat + 1, chosen])[0])
                if chosen.any()
                else np.nan
                for s in (ours.scores, reference.scores)
            ]
            differences.append(sign * (values[0] - values[1]))
            n_test.append(int(chosen.sum()))
    found = np.array(differences)
    if not np.isfinite(found).all():
        return f"no t-test: {name} is undefined in {int((~np.isfinite(found)).sum())} of {found.size} test folds"
    mean_test = float(np.mean(n_test))
    t, p = corrected_resampled_t(found, mean_test, len(task.subjects) * (1 - 1 / folds.number))
    return f"corrected resampled t-test of {name} over {found.size} folds: t = {t:.3g}, p = {p:.3g}"
