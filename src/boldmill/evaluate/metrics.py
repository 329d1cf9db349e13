"""Scores of predictions, weighted so that one call gives the value and its whole bootstrap.

Axes: B draws (rows of weights), N subjects. Every metric takes truth (N,), score (N,), weights (B, N) and returns (B,);
where a draw leaves it undefined (a single class, no variance) the value is NaN. A classification score is a log-odds or
margin: above 0 means positive. Metrics of several classes take scores (N, C).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Metric = Callable[[NDArray[Any], Floats, Floats], Floats]


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Divide, with NaN where the denominator is 0."""
    return np.asarray(np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0))


def _table(truth: NDArray[Any], score: Floats, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return weighted true positives, false negatives, true negatives, false positives, each (B,)."""
    positive, called = truth.astype(bool), score > 0
    hit = [weights[:, a & b].sum(axis=1) for a in (positive, ~positive) for b in (called, ~called)]
    return hit[0], hit[1], hit[3], hit[2]


def accuracy(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Share of correct calls."""
    tp, fn, tn, fp = _table(truth, score, weights)
    return _ratio(tp + tn, tp + tn + fp + fn)


def sensitivity(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """True positive rate TP / (TP + FN): of the truly positive, the share called positive."""
    tp, fn, _, _ = _table(truth, score, weights)
    return _ratio(tp, tp + fn)


def specificity(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """True negative rate TN / (TN + FP)."""
    _, _, tn, fp = _table(truth, score, weights)
    return _ratio(tn, tn + fp)


def balanced_accuracy(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Mean of sensitivity and specificity."""
    return (sensitivity(truth, score, weights) + specificity(truth, score, weights)) / 2


def f1(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Harmonic mean of precision and sensitivity of the positive class."""
    tp, fn, _, fp = _table(truth, score, weights)
    return _ratio(2 * tp, 2 * tp + fp + fn)


def auc(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve: P(score of a positive > score of a negative), ties counting one half."""
    if not score.size:  # a repeat whose tested subjects all lack a score
        return np.full(len(weights), np.nan)
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    positive = truth.astype(bool)[order]
    ordered = weights[:, order]
    pos = np.add.reduceat(ordered * positive, starts, axis=1)
    neg = np.add.reduceat(ordered * ~positive, starts, axis=1)
    below = np.cumsum(neg, axis=1) - neg / 2
    return _ratio((pos * below).sum(axis=1), pos.sum(axis=1) * neg.sum(axis=1))


def mae(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Mean absolute error, in the unit of the target."""
    return _ratio(weights @ np.abs(truth - score), weights.sum(axis=1))


def r2(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Coefficient of determination against the mean of the tested subjects (0 for that mean, may be negative)."""
    total = weights.sum(axis=1)
    mean = _ratio(weights @ truth, total)
    spread = (weights * (truth[None] - mean[:, None]) ** 2).sum(axis=1)
    left = weights @ (truth - score) ** 2
    return np.asarray(1 - _ratio(left, np.where(spread > 1e-12, spread, 0.0)))


def pearson_r(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Signed Pearson correlation of truth and prediction."""
    total = weights.sum(axis=1)[:, None]
    safe = np.where(total > 0, total, np.nan)
    a = truth[None] - (weights @ truth)[:, None] / safe
    b = score[None] - (weights @ score)[:, None] / safe
    bottom = np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))
    floor = 1e-12 * (1 + np.abs(truth).max(initial=0)) * (1 + np.abs(score).max(initial=0))
    return _ratio((weights * a * b).sum(axis=1), np.where(bottom > floor, bottom, 0.0))


def _recalls(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Return the share of each class that is called correctly, (B, C); NaN where a draw has nobody of it."""
    called = np.argmax(score, axis=1)
    hits = [_ratio(weights[:, (truth == c) & (called == c)].sum(1), weights[:, truth == c].sum(1)) for c in
            range(score.shape[1])]  # fmt: skip
    return np.stack(hits, axis=1)


def multiclass_accuracy(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Share of subjects whose largest score (N, C) is that of their class."""
    right = np.argmax(score, axis=1) == truth
    return _ratio(weights[:, right].sum(axis=1), weights.sum(axis=1))


def multiclass_balanced_accuracy(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Mean over classes of the share called correctly."""
    return np.asarray(_recalls(truth, score, weights).mean(axis=1))


def macro_auc(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Mean over classes of the AUC of the class against all others, from its own score."""
    return np.asarray(np.mean([auc(truth == c, score[:, c], weights) for c in range(score.shape[1])], axis=0))


def macro_f1(truth: NDArray[Any], score: Floats, weights: Floats) -> Floats:
    """Mean over classes of F1 of the class against all others."""
    called = np.argmax(score, axis=1)
    each = [f1(truth == c, np.where(called == c, 1.0, -1.0), weights) for c in range(score.shape[1])]
    return np.asarray(np.mean(each, axis=0))


CLASSIFICATION: dict[str, Metric] = {
    "auc": auc,
    "balanced_accuracy": balanced_accuracy,
    "accuracy": accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "f1": f1,
}
MULTICLASS: dict[str, Metric] = {
    "macro_auc": macro_auc,
    "balanced_accuracy": multiclass_balanced_accuracy,
    "accuracy": multiclass_accuracy,
    "macro_f1": macro_f1,
}
"""Scores are (N, C), one per class; the largest is the call."""
REGRESSION: dict[str, Metric] = {"pearson_r": pearson_r, "mae": mae, "r2": r2}
LOWER_IS_BETTER = frozenset({"mae"})


KINDS: dict[str, dict[str, Metric]] = {
    "classification": CLASSIFICATION,
    "multiclass": MULTICLASS,
    "regression": REGRESSION,
}


def metrics_of(kind: str) -> dict[str, Metric]:
    """Return the metrics of a kind of task, the leading one first."""
    return KINDS[kind]


def known(scores: Floats) -> NDArray[np.bool_]:
    """Return which subjects have a score, (Q, N), of scores (Q, N) or (Q, N, C)."""
    finite = np.isfinite(scores)
    return np.asarray(finite if finite.ndim == 2 else finite.all(axis=2))


def over_repeats(metric: Metric, truth: NDArray[Any], scores: Floats, weights: Floats | None = None) -> Floats:
    """Return the mean over repeats of a metric, per draw.

    Parameters
    ----------
    metric : callable
        One of this module.
    truth : (N,) array
        One label or value per subject.
    scores : (Q, N) or (Q, N, C) float array
        Scores per repeat and subject; NaN where a repeat does not test a subject: its metric is over the others.
    weights : (B, N) float array, optional
        How often each draw takes each subject; default: every subject once (B = 1). All repeats take the same draw.

    Returns
    -------
    (B,) array
        Repeats with their own test sets may leave some undefined (a single class): the mean is over the others, NaN
        where they are fewer than half.
    """
    rows = np.ones((1, truth.size)) if weights is None else weights
    seen = known(scores)
    if seen.all():
        return np.asarray(np.mean([metric(truth, score, rows) for score in scores], axis=0))
    each = np.array([metric(truth[k], score[k], rows[:, k]) for score, k in zip(scores, seen, strict=True)])
    defined = np.isfinite(each)
    mean = np.where(defined, each, 0.0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    return np.asarray(np.where(2 * defined.sum(axis=0) >= len(scores), mean, np.nan))
