"""Scores of a method under a design: every fit is trained on its own subjects and keeps the scores of its test set.

Axes: B draws, J fits, Q repeats, N scans, S subjects, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.folds import dealt, repeated_group_folds
from boldmill.evaluate.tasks import CannotEvaluate, Task

if TYPE_CHECKING:
    from boldmill.evaluate.design import Design

Floats = NDArray[np.float64]
Fit = Callable[[Floats, Floats, NDArray[np.bool_]], Floats]
"""(features (N, P), truth (B, N), train (B, N)) -> scores (B, N)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """Test fold of each subject in each repeat, (Q, S), and how many folds there are; -1: an external subject."""

    number: int
    of: NDArray[np.int64]


def make_folds(task: Task, config: EvaluateConfig, seed: int) -> Folds:
    """Return the folds of a task: the same for every method and protocol."""
    inside = np.flatnonzero(~task.external)
    groups = [task.groups[i] for i in inside]
    stratum, number = dealt(task.truth[inside], task.kind, groups, config.folds)
    if number < 2:
        whose = "there is" if task.kind == "regression" else "one class has"
        raise CannotEvaluate("cannot make folds", task.name, f"{whose} a single subject or family", "add subjects")
    of = np.full((config.repeats, len(task.subjects)), -1, dtype=np.int64)
    of[:, inside] = repeated_group_folds(stratum, groups, number, config.repeats, seed, task.name)
    return Folds(number=number, of=of)


def scan_scores(
    fit: Fit,
    features: Floats,
    truth: Floats,
    design: Design,
    task: Task,
    *,
    moves: NDArray[np.int64] | None = None,
) -> Floats:
    """Return the score of every scan in the fit that tests it.

    A fit is given 0 in place of every label outside its training set: a test label cannot reach it.

    Parameters
    ----------
    fit : callable
        Method.
    features : (N, P) array
        One row per scan of the task; a row of NaN only is a scan without features: neither learnt from nor scored.
    truth : (B, S) array
        Labels of the subjects in each draw.
    design : Design
        Who is trained on and tested. Fits that test nobody who counts are not run.
    moves : (B, S) int array, optional
        In draw b, subject i has the role of subject ``moves[b, i]``; default: its own.

    Returns
    -------
    (B, Q, N) array, or (B, Q, N, C) for a task of several classes (each against the rest)
        NaN where a scan is not tested in a repeat. A class that a fit never learnt (it is in no training row) is never
        called: where the method gives it no score, it has one less than the lowest of the draw.
    """
    if task.kind != "multiclass":
        return _scan_scores(fit, features, truth, design, task, moves)
    ones = [(truth == c).astype(np.float64) for c in range(len(task.classes))]
    scores = np.stack([_scan_scores(fit, features, one, design, task, moves, unlearnt=-np.inf) for one in ones], -1)
    finite = np.isfinite(scores)
    lowest = np.where(finite, scores, np.inf).min(axis=(1, 2, 3), keepdims=True) - 1
    unlearnt = np.isneginf(scores)
    return np.asarray(np.where(unlearnt, np.where(finite.any(axis=-1, keepdims=True), lowest, np.nan), scores))


def _scan_scores(
    fit: Fit,
    features: Floats,
    truth: Floats,
    design: Design,
    task: Task,
    moves: NDArray[np.int64] | None,
    *,
    unlearnt: float = np.nan,
) -> Floats:
    """Return scores (B, Q, N); ``unlearnt`` stands where a fit without a positive training row gives none."""
    usable = np.isfinite(features).any(axis=1)
    labels = truth[:, task.member]
    role = np.arange(len(task.subjects))[None] if moves is None else moves
    of_scan = role[:, task.member]
    out = np.full((len(truth), design.repeats, len(task.member)), np.nan)
    wanted = [j for j in range(len(design.test)) if (design.test[j] & design.scored).any()]
    # One draw: all fits in one call. Many draws: a call per fit, whose training rows are the same in all draws where
    # only labels move, so that a method can share its work between them.
    batches = [wanted] if len(truth) == 1 else [[j] for j in wanted]
    for batch in batches:
        train = np.concatenate([np.broadcast_to(design.train[j][of_scan], labels.shape) for j in batch]) & usable
        given = np.where(train, np.tile(labels, (len(batch), 1)), 0.0)
        scores = np.asarray(fit(features, given, train))
        scores = np.where(np.isnan(scores) & (given == 0).all(axis=1, keepdims=True), unlearnt, scores)
        scores = scores.reshape(len(batch), *labels.shape)
        for j, found in zip(batch, scores, strict=True):
            test = np.broadcast_to(design.test[j][of_scan], labels.shape) & usable
            out[:, design.repeat[j]][test] = found[test]
    return out


def cross_validate(fit: Fit, features: Floats, task: Task, design: Design | Folds) -> Floats:
    """Return the scores (Q, N[, C]) of the real labels; bare folds stand for the protocol ``cv``."""
    from boldmill.evaluate.design import of_folds

    plan = of_folds(design) if isinstance(design, Folds) else design
    return np.asarray(scan_scores(fit, features, task.truth[None], plan, task)[0])


def of_subjects(task: Task, scores: Floats) -> Floats:
    """Average scan scores (..., N), or (..., N, C) of a task of several classes, over the scans of each subject."""
    if task.kind == "multiclass":
        return np.asarray(np.moveaxis(task.of_subjects(np.moveaxis(scores, -1, 0)), 0, -1))
    return task.of_subjects(scores)
