"""Uncertainty: bootstrap over subjects, permutation of labels in blocks, corrected resampled t-test.

Axes: B draws, N subjects, Q repeats, K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.metrics import Floats, Metric, over_repeats
from boldmill.rng import generator

MIN_DEFINED = 0.5
"""Share of bootstrap draws that must define the metric for an interval to be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with its percentile interval; the bounds are NaN where too few draws define the metric."""

    value: float
    low: float
    high: float


def bootstrap_weights(groups: Sequence[str], draws: int, *key: str | int) -> Floats:
    """Return how often each draw takes each subject, whole families being drawn together.

    Parameters
    ----------
    groups : sequence of N str
        Family (or the subject itself) of each subject.
    draws : int
        B.

    Returns
    -------
    (B, N) float array
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rng = generator("bootstrap", *key)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, member].astype(np.float64)


def interval(metric: Metric, truth: NDArray[Any], scores: Floats, weights: Floats, level: float = 0.95) -> Interval:
    """Return a metric (mean over repeats) with its bootstrap percentile interval over subjects.

    Repeats overlap, so they are averaged inside each draw and never counted as independent samples.
    """
    value = float(over_repeats(metric, truth, scores)[0])
    drawn = over_repeats(metric, truth, scores, weights)
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size < MIN_DEFINED * len(weights):
        return Interval(value=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def block_permutations(
    subjects: Sequence[str], groups: Sequence[str], layers: Sequence[str], draws: int, *key: str | int
) -> NDArray[np.int64]:
    """Return permutations of subjects that respect exchangeability blocks (Winkler et al. 2015, NeuroImage 123).

    A family moves as a whole onto a family of the same make-up (same number of subjects in each layer), and the members
    within one layer of a family are shuffled. With no families this is a plain permutation within each layer.

    Parameters
    ----------
    subjects, groups : sequence of N str
        Name of each subject and its family.
    layers : sequence of N str
        Subjects are exchanged within a layer only (for instance held out or not).
    draws : int
        B.

    Returns
    -------
    (B, N) int array
        In draw b, subject i takes the label (and the fold) of subject ``[b, i]``.
    """
    families: dict[str, list[int]] = {}
    for i in np.argsort(np.asarray(subjects, dtype=str), kind="stable"):
        families.setdefault(groups[int(i)], []).append(int(i))
    for members in families.values():
        members.sort(key=lambda i: (layers[i], subjects[i]))
    alike: dict[tuple[str, ...], list[str]] = {}
    for family in sorted(families):
        alike.setdefault(tuple(layers[i] for i in families[family]), []).append(family)
    rng = generator("permutation", *key)
    out = np.tile(np.arange(len(subjects)), (draws, 1))
    for row in out:
        for layer_of_slot, names in alike.items():
            if len(layer_of_slot) == 1:  # no families: the common case, in one draw
                alone = np.array([families[name][0] for name in names])
                row[alone] = rng.permutation(alone)
                continue
            for family, giver in zip(names, rng.permutation(len(names)), strict=True):
                taken = np.array(families[names[giver]])
                for layer in sorted(set(layer_of_slot)):
                    slots = np.flatnonzero(np.array(layer_of_slot) == layer)
                    row[np.array(families[family])[slots]] = rng.permutation(taken[slots])
    return out


def p_value(observed: float, null: Floats, *, lower_is_better: bool = False) -> float:
    """Return the one-sided permutation p-value (1 + #null at least as good) / (1 + draws); NaN if undefined."""
    null = null[np.isfinite(null)]
    if not np.isfinite(observed) or not null.size:
        return float("nan")
    slack = 1e-12 * max(1.0, abs(observed))
    good = null <= observed + slack if lower_is_better else null >= observed - slack
    return float((1 + good.sum()) / (1 + null.size))


def corrected_resampled_t(differences: Floats, n_test: float, n_train: float) -> tuple[float, float]:
    """Return t and two-sided p of per-fold differences of two methods (Nadeau and Bengio 2003, eq. 9).

    The variance is inflated by ``1/n + n_test/n_train``, because the training sets of repeated folds overlap. Both are
    NaN where all differences are equal but not 0: no variance tells how far to trust them.

    Parameters
    ----------
    differences : (Q * K,) float array
        Score of one method minus score of the other, fold by fold.
    n_test, n_train : float
        Mean sizes of test and training folds.
    """
    from scipy.stats import t as student

    n = differences.size
    mean, variance = float(differences.mean()), float(differences.var(ddof=1)) if n > 1 else float("nan")
    if not np.isfinite(variance):
        return float("nan"), float("nan")
    if variance <= 1e-24:
        return (0.0, 1.0) if abs(mean) <= 1e-12 else (float("nan"), float("nan"))
    t = mean / np.sqrt((1 / n + n_test / n_train) * variance)
    return float(t), float(2 * student.sf(abs(t), n - 1))
