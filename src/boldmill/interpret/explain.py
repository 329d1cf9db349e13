"""Explain one two-class task: which regions the model attends to, and which its probe decides by.

Only held-out subjects are explained, each by a probe that was fitted without it: the folds of the evaluation, its
training scans from all splits, its tested subjects from the held-out one. So no map describes a subject that model or
probe was fitted on.

Axes: N scans of the task, T explained scans, S explained subjects, R regions, E edges, F features, K folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.tasks import CannotEvaluate
from boldmill.interpret.maps import Stability, effect_size, rank_correlation, region_sums, stability
from boldmill.rng import generator, key128

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Folds
    from boldmill.evaluate.tasks import Task
    from boldmill.interpret.config import InterpretConfig

Floats = NDArray[np.float64]
ROLLOUT, GRADIENTS = "rollout", "integrated_gradients"
PASS = 16
"""Scans per forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """One map of one task.

    Parameters
    ----------
    name : {"rollout", "integrated_gradients"}
    value : (R,) array
        What regions are ranked by: mean absolute attribution (log-odds), or the size of the class difference in
        rollout (absolute Cohen's d).
    positive, negative : (R,) array
        Mean over the subjects of either class: signed attribution, or rollout relevance (1: no region stands out).
    edges : (E,) array
        What edges are drawn by: half the class difference of the signed attribution, which says how far the edge pulls
        the classes apart (from a mean baseline, plain means over both classes cancel), or d of the rollout between two
        regions.
    stable : Stability
        Over disjoint test folds.
    auc : float
        Of the explained probe, on the explained subjects; NaN for rollout, which has no probe.
    gap : float
        Completeness: mean gap over mean absolute log-odds difference; NaN for rollout.
    shuffled : float
        Rank correlation with the map of a probe fitted to shuffled labels: near 1, the map is the network's and says
        little of the task. NaN for rollout.
    subjects : int
        How many are explained.
    note : str
    """

    name: str
    value: Floats
    positive: Floats
    negative: Floats
    edges: Floats
    stable: Stability
    auc: float
    gap: float
    shuffled: float
    subjects: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What is explained: a model in eval mode, the cleaned FC of every scan of the task, their frozen features.

    ``fc(rows)`` returns (n, R, R) float32 matrices of rows of the task, as the model reads them.
    """

    model: Any
    device: str
    fc: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    features: Floats
    regions: int


def chosen_scans(
    task: Task, folds: Folds, scan_ids: list[str], most: int, known: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return rows of the task (T,) that are explained: scans of held-out subjects, thinned by stable hash.

    A subject without a test fold (-1: of a data set that is tested only) is neither explained nor learnt from.

    Raises
    ------
    CannotEvaluate
        No held-out subject, or none of one class.
    """
    rows = np.flatnonzero((task.heldout & (folds.of[0] >= 0))[task.member] & known)
    rows = np.array(sorted(rows, key=lambda row: key128("interpret", scan_ids[row]))[:most], dtype=np.int64)
    classes = np.unique(task.truth[task.member[rows]])
    if len(classes) < 2:
        why = "no held-out subject has a label" if not len(classes) else "the held-out subjects are all of one class"
        raise CannotEvaluate("cannot explain", task.name, why, "hold out more subjects (snapshot.heldout)")
    return np.sort(rows)


def by_subject(values: Floats, member: NDArray[np.int64]) -> Floats:
    """Average scans (T, ...) over each subject in ``member`` (T,), in the order of subjects: (S, ...)."""
    order = np.unique(member)
    return np.stack([values[member == one].mean(axis=0) for one in order])


def rollout_map(inputs: Inputs, task: Task, rows: NDArray[np.int64], folds: Folds, config: InterpretConfig) -> Map:
    """Return the class difference in attention rollout over the explained subjects; no probe takes part."""
    import torch

    from boldmill.interpret.rollout import relevance, rollout

    scans, between = [], []
    upper = np.triu_indices(inputs.regions, k=1)
    for start in range(0, len(rows), PASS):
        fc = torch.from_numpy(inputs.fc(rows[start : start + PASS])).to(inputs.device)
        flow = rollout(inputs.model, fc)
        scans.append(relevance(flow).double().cpu().numpy())
        both = (flow + flow.transpose(1, 2)).double().cpu().numpy()
        between.append(both[:, upper[0], upper[1]])
    member = task.member[rows]
    level, edges = by_subject(np.concatenate(scans), member), by_subject(np.concatenate(between), member)
    subjects = np.unique(member)
    positive = task.truth[subjects] > 0.5
    maps = [
        np.abs(effect_size(level[chosen], positive[chosen]))
        for of in folds.of[: config.repeats, subjects]
        for chosen in (of == k for k in range(folds.number))
    ]
    stable = stability(np.array(maps), config.top, np.arange(len(maps)) // folds.number)
    notes = ["class difference in Cohen's d; descriptive, not tested"]
    if stable.folds < 2:
        notes.append("stability n/a: fewer than two folds with two held-out subjects of either class")
    return Map(
        name=ROLLOUT,
        value=np.abs(effect_size(level, positive)),
        positive=level[positive].mean(axis=0),
        negative=level[~positive].mean(axis=0),
        edges=np.nan_to_num(effect_size(edges, positive)),
        stable=stable,
        auc=float("nan"),
        gap=float("nan"),
        shuffled=float("nan"),
        subjects=len(subjects),
        note="; ".join(notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """Out-of-fold attributions: ``edges`` (Q, T, E), ``scores`` (Q, T) log-odds, and the completeness ``gap``."""

    edges: Floats
    scores: Floats
    gap: float


def attributions(
    inputs: Inputs, name: str, labels: Floats, of: NDArray[np.int64], rows: NDArray[np.int64], config: InterpretConfig
) -> Attributed:
    """Explain rows (T,), each by the probe fitted on all scans of the other folds.

    Parameters
    ----------
    labels : (N,) array
        0/1 of every scan of the task.
    of : (Q, N) int array
        Its test fold in each repeat; -1: in none.

    Raises
    ------
    CannotEvaluate
        The training scans of a fold are all of one class.
    """
    import torch

    from boldmill.interpret.gradients import integrated_gradients
    from boldmill.interpret.probe import fit_direction

    known = np.asarray(np.isfinite(inputs.features).all(axis=1))
    edges = np.zeros((len(of), len(rows), inputs.regions * (inputs.regions - 1) // 2))
    scores, gaps, sizes = np.full((len(of), len(rows)), np.nan), [], []
    for repeat, fold in enumerate(of):
        starts = baselines(inputs, fold, known, config.baseline)
        for k in np.unique(fold[rows]):
            here = np.flatnonzero(fold[rows] == k)
            train = (fold >= 0) & (fold != k) & known
            if len(np.unique(labels[train])) < 2:
                why = "the training scans of a fold are all of one class"
                raise CannotEvaluate("cannot explain", name, why, "add subjects, or lower evaluate.folds")
            probe = fit_direction(inputs.features, labels, train)
            start = torch.from_numpy(starts[int(k)]).to(inputs.device)
            direction = torch.from_numpy(probe.weights.astype(np.float32)).to(inputs.device)
            fc = torch.from_numpy(inputs.fc(rows[here])).to(inputs.device)
            found = integrated_gradients(inputs.model, fc, start, direction, config.ig_steps)
            edges[repeat, here], scores[repeat, here] = found.edges, probe.log_odds(inputs.features[rows[here]])
            gaps.append(found.gap)
            sizes.append(np.abs(found.difference))
    gap = float(np.concatenate(gaps).mean() / max(np.concatenate(sizes).mean(), 1e-12))
    return Attributed(edges=edges, scores=scores, gap=gap)


def gradients_map(
    inputs: Inputs, task: Task, rows: NDArray[np.int64], folds: Folds, config: InterpretConfig, seed: int
) -> Map:
    """Return integrated gradients of the probe's log-odds, each explained scan by the probe of its own test fold.

    The same is done once more with shuffled labels (a subject takes label and fold of another, so that every training
    set keeps its classes): how alike the two maps are tells how much of the map is the network's alone. The data
    randomisation test of Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018 (arXiv 1810.03292).
    """
    of, member = folds.of[: config.repeats], task.member[rows]
    subjects = np.unique(member)
    found = attributions(inputs, task.name, task.truth[task.member], of[:, task.member], rows, config)
    signed = by_subject(np.moveaxis(found.edges, 0, 1), member)  # (S, Q, E)
    size, sums = region_sums(np.abs(signed), inputs.regions), region_sums(signed, inputs.regions)
    own = of[:, subjects]
    parts = [(q, k) for q in range(len(own)) for k in np.unique(own[q])]
    maps = [size[own[q] == k, q].mean(axis=0) for q, k in parts]
    positive = task.truth[subjects] > 0.5
    notes = ["log-odds of the positive class; each subject by the probe of its test fold"]
    if found.gap > config.tolerance:
        notes.append(f"completeness gap {found.gap:.1%} of the explained log-odds: raise interpret.ig_steps")
    inside = np.flatnonzero(folds.of[0] >= 0)
    moves = np.arange(len(task.subjects))
    moves[inside] = inside[generator("interpret shuffled", task.name, seed).permutation(len(inside))]
    control = attributions(
        inputs, task.name, task.truth[moves][task.member], of[:1, moves][:, task.member], rows, config
    )
    shuffled = region_sums(np.abs(by_subject(control.edges[0], member)), inputs.regions)
    return Map(
        name=GRADIENTS,
        value=size.mean(axis=(0, 1)),
        positive=sums[positive].mean(axis=(0, 1)),
        negative=sums[~positive].mean(axis=(0, 1)),
        edges=(signed[positive].mean(axis=(0, 1)) - signed[~positive].mean(axis=(0, 1))) / 2,
        stable=stability(np.array(maps), config.top, [q for q, _ in parts]),
        auc=mean_auc(positive, by_subject(found.scores.T, member).T),
        gap=found.gap,
        shuffled=rank_correlation(size.mean(axis=(0, 1)), shuffled.mean(axis=0)),
        subjects=len(subjects),
        note="; ".join(notes),
    )


def baselines(
    inputs: Inputs, fold: NDArray[np.int64], known: NDArray[np.bool_], kind: str
) -> dict[int, NDArray[np.float32]]:
    """Return the start of the path (R, R) of each fold: the mean FC of all scans outside it, or no correlation.

    Parameters
    ----------
    fold : (N,) int array
        Test fold of every scan of the task; -1: in none, and no training scan either.
    known : (N,) bool array
        Scans with features.
    kind : {"mean", "zero"}
    """
    numbers = np.unique(fold[fold >= 0]).tolist()
    if kind == "zero":
        return {k: np.eye(inputs.regions, dtype=np.float32) for k in numbers}
    sums = {k: np.zeros((inputs.regions, inputs.regions)) for k in numbers}  # every scan is read once, for all folds
    counts = {k: int((known & (fold == k)).sum()) for k in numbers}
    for k in numbers:
        rows = np.flatnonzero(known & (fold == k))
        for start in range(0, len(rows), PASS):
            sums[k] += inputs.fc(rows[start : start + PASS]).sum(axis=0, dtype=np.float64)
    total, count = sum(sums.values()), sum(counts.values())
    return {k: np.asarray((total - sums[k]) / max(count - counts[k], 1), dtype=np.float32) for k in numbers}


def mean_auc(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Return the AUC of subject scores (Q, S), averaged over repeats."""
    from sklearn.metrics import roc_auc_score

    return float(np.mean([roc_auc_score(positive, row) for row in scores]))
