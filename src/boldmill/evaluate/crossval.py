"""Cross-validated scores of a probe and their permutation null: the whole fold pipeline runs again for every draw.

Axes: B draws, Q repeats, N scans, S subjects.

A draw moves label and fold together from one subject to another. Labels keep their share in every fold, as the
stratified folds of the real labels do; permuting labels alone would compare stratified folds with unstratified ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.folds import possible_folds, repeated_group_folds, strata
from boldmill.evaluate.metrics import LOWER_IS_BETTER, metrics_of, over_repeats
from boldmill.evaluate.stats import block_permutations, p_value
from boldmill.evaluate.tasks import CannotEvaluate, Task

Floats = NDArray[np.float64]
Fit = Callable[[Floats, Floats, NDArray[np.bool_]], Floats]
"""(features (N, P), truth (B, N), train (B, N)) -> scores (B, N)."""

MANY_SCANS = 60
"""Above this number of scans the null is that of the first repeat only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """Test fold of each subject in each repeat, (Q, S), and how many folds there are."""

    number: int
    of: NDArray[np.int64]


def make_folds(task: Task, config: EvaluateConfig, seed: int) -> Folds:
    """Return the folds of a task: the same for every method and protocol."""
    stratum = strata(task.truth, task.kind)
    number = possible_folds(stratum, task.groups, config.folds)
    if number < 2:
        raise CannotEvaluate("cannot make folds", task.name, "one class has a single subject or family", "add subjects")
    try:
        of = repeated_group_folds(stratum, task.groups, number, config.repeats, seed, task.name)
    except ConfigError as error:
        raise CannotEvaluate(error.what, task.name, error.why, error.fix) from error
    return Folds(number=number, of=of)


def scan_scores(fit: Fit, features: Floats, truth: Floats, fold: NDArray[np.int64], number: int, task: Task) -> Floats:
    """Return the out-of-fold score of every scan.

    Parameters
    ----------
    fit : callable
        Probe.
    features : (N, P) array
        One row per scan of the task; a row of NaN only is a scan without features: neither learnt from nor scored.
    truth : (B, S) array
        Labels of the subjects in each draw.
    fold : (B, Q, S) int array
        Their test folds.

    Returns
    -------
    (B, Q, N) array
    """
    draws, repeats, _ = fold.shape
    usable = np.isfinite(features).any(axis=1)
    labels = np.repeat(truth[:, task.member], repeats, axis=0)
    of_scan = fold[:, :, task.member].reshape(draws * repeats, -1)
    out = np.full(of_scan.shape, np.nan)
    for k in range(number):
        test = of_scan == k
        scores = np.asarray(fit(features, labels, ~test & usable))
        out[test] = scores[test]
    out[:, ~usable] = np.nan
    return np.asarray(out.reshape(draws, repeats, -1))


def cross_validate(fit: Fit, features: Floats, task: Task, folds: Folds) -> Floats:
    """Return out-of-fold scores (Q, N) of the real labels."""
    return scan_scores(fit, features, task.truth[None], folds.of[None], folds.number, task)[0]


def permutation_null(
    fit: Fit, features: Floats, task: Task, folds: Folds, draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Return permuted labels (B, S) and the out-of-fold subject scores (B, Q, S) they give.

    Draws exchange subjects within the held-out ones and within the others, so that one null serves both protocols and
    the held-out labels stay the same set.
    """
    layers = ["heldout" if held else "other" for held in task.heldout]
    moves = block_permutations(task.subjects, task.groups, layers, draws, seed, task.name)
    truth = task.truth[moves]
    fold = np.moveaxis(folds.of[: null_repeats(task, folds)][:, moves], 1, 0)
    return truth, task.of_subjects(scan_scores(fit, features, truth, fold, folds.number, task))


def null_repeats(task: Task, folds: Folds) -> int:
    """Return how many repeats the observed value and the null of a permutation test are taken over."""
    return len(folds.of) if len(task.rows) <= MANY_SCANS else 1


def measure(metric: Any, truth: Floats, scores: Floats, tested: NDArray[np.bool_]) -> float:
    """Return a metric over the tested subjects that have a score in every repeat, averaged over repeats."""
    keep = tested & np.isfinite(scores).all(axis=0)
    if not keep.any():
        return float("nan")
    return float(over_repeats(metric, truth[keep], scores[:, keep])[0])


def permutation_p(
    task: Task, folds: Folds, scores: Floats, tested: NDArray[np.bool_], null: tuple[Floats, Floats]
) -> dict[str, float]:
    """Return the p-value of every metric over the tested subjects (S,), from scores (Q, S) and their null."""
    used = scores[: null_repeats(task, folds)]
    found = {}
    for name, metric in metrics_of(task.kind).items():
        drawn = np.array([measure(metric, t, s, tested) for t, s in zip(*null, strict=True)])
        observed = measure(metric, task.truth, used, tested)
        found[name] = p_value(observed, drawn, lower_is_better=name in LOWER_IS_BETTER)
    return found
