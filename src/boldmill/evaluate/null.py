"""Permutation nulls of a method's metrics: the whole pipeline again for every draw, or the same predictions.

Axes: B draws, Q repeats, N scans, S subjects, C classes.

Who may exchange labels:

- Nobody across the border between held-out, external and all other subjects.
- Few scans, cross-validation: label and role move together from one subject to another. Labels keep their share in
  every fold, as the stratified folds of the real labels do; permuting labels alone would compare stratified folds with
  unstratified ones.
- Else labels move alone, among subjects with the same role in every fit used, so that all of the above holds and every
  draw trains on the same scans: a method can share an eigendecomposition between all draws. Folds differ between
  repeats, so observed value and null are those of the first repeat (the 70/15/15 split needs no such care, since its
  test sets are never pooled, and keeps all repeats).
- Labels that move alone stay within their site where they vary within sites: what a site alone tells about the label
  is part of the null, and p says what the method knows beyond it.

``fixed`` keeps the predictions and permutes the labels of the tested subjects. It needs no refit and suits slow fits;
it asks whether these predictions go with these labels, not whether the procedure finds anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.crossval import Fit, of_subjects, scan_scores
from boldmill.evaluate.design import Design
from boldmill.evaluate.metrics import LOWER_IS_BETTER, known, metrics_of, over_repeats
from boldmill.evaluate.stats import block_permutations, p_value
from boldmill.evaluate.tasks import Task

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MANY_SCANS = 60
"""Above this number of scans labels move alone, and the null of folds is that of the first repeat only."""
VARIED = 0.5
"""Share of subjects that must have another label within their site for labels to be permuted within sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Null:
    """Labels (B, S) and subject scores (B, Q, S[, C]) of every draw, and who exchanged labels, in words."""

    truth: Floats
    scores: Floats
    note: str


def moves_together(task: Task, design: Design) -> bool:
    """Return whether label and role move together."""
    return design.stratified and len(task.rows) <= MANY_SCANS


def null_repeats(task: Task, design: Design) -> int:
    """Return how many repeats the observed value and the null of a refitted permutation test are taken over."""
    return 1 if design.stratified and len(task.rows) > MANY_SCANS else design.repeats


def refit_null(fit: Fit, features: Floats, task: Task, design: Design, draws: int, seed: int) -> Null:
    """Return the null of a method fitted again for every draw.

    Held-out subjects exchange labels among themselves only, so that one null serves ``cv`` and ``heldout``.
    """
    used = design.first(null_repeats(task, design))
    if moves_together(task, design):
        layers = _standing(task)
        moves = block_permutations(task.subjects, task.groups, layers, draws, seed, task.name)
        truth = task.truth[moves]
        scores = scan_scores(fit, features, truth, used, task, moves=moves)
        return Null(truth=truth, scores=of_subjects(task, scores), note="labels permuted together with their folds")
    # Test sets that are never pooled need no equal shares: all repeats then share one permutation.
    pooled = design.stratified or design.by_site
    layers, note = exchangeable(task, used if pooled or used.repeats == 1 else None)
    moves = block_permutations(task.subjects, task.groups, layers, draws, seed, task.name, design.protocol)
    truth = task.truth[moves]
    scores = scan_scores(fit, features, truth, used, task)
    if used.repeats < design.repeats:
        note += ", p of the first repeat"
    return Null(truth=truth, scores=of_subjects(task, scores), note=note)


def exchangeable(task: Task, design: Design | None, among: Mask | None = None) -> tuple[list[str], str]:
    """Return the layer of each subject within which labels are permuted, and what layers are, in words.

    Layers are held out, external or neither, the role in every fit of ``design`` where one is given, and the site (of
    a data set) where at least half of the subjects (of those ``among`` whom labels move, (S,)) have somebody with
    another label in the same layer and site.
    """
    parts = [_standing(task)]
    words = "held-out status"
    if design is not None:
        role = design.train * 1 + design.test * 2 + design.validation * 3
        parts.append(["".join(map(str, column)) for column in role.T])
        words = "test set"
    plain = list(map("|".join, zip(*parts, strict=True)))
    places = task.places
    by_site = list(map("|".join, zip(plain, places, strict=True)))
    chosen = np.flatnonzero(np.ones(len(plain)) if among is None else among).tolist()
    if len({places[i] for i in chosen}) < 2 or varied(task.truth[chosen], [by_site[i] for i in chosen]) < VARIED:
        return plain, f"labels permuted within {words}"
    return by_site, f"labels permuted within site and {words}"


def _standing(task: Task) -> list[str]:
    """Return what no label is ever exchanged across: external, held out, or other."""
    pairs = zip(task.external, task.heldout, strict=True)
    return ["external" if external else "heldout" if held else "other" for external, held in pairs]


def varied(truth: Floats, layers: Sequence[str]) -> float:
    """Return the share of subjects in layers with more than one label."""
    labels: dict[str, set[float]] = defaultdict(set)
    for layer, value in zip(layers, truth, strict=True):
        labels[layer].add(float(value))
    return float(np.mean([len(labels[layer]) > 1 for layer in layers]))


def measure(metric: Any, truth: Floats, scores: Floats, tested: Mask) -> float:
    """Return a metric over the tested subjects, averaged over repeats.

    ``tested`` is (S,), the same in every repeat, or (Q, S). A subject is left out if a repeat tests it without a score.
    """
    chosen = counted(scores, np.broadcast_to(tested, scores.shape[:2]))
    keep = np.asarray(chosen.any(axis=0))
    if not keep.any():
        return float("nan")
    return float(over_repeats(metric, truth[keep], blank(scores, chosen)[:, keep])[0])


def counted(scores: Floats, tested: Mask) -> Mask:
    """Return who counts in each repeat (Q, S): tested, and scored in every repeat that tests them."""
    lost = (tested & ~known(scores)).any(axis=0)
    return np.asarray(tested & ~lost)


def blank(scores: Floats, chosen: Mask) -> Floats:
    """Return scores with NaN wherever a subject does not count."""
    mask = chosen if scores.ndim == 2 else chosen[..., None]
    return np.asarray(np.where(mask, scores, np.nan))


def refit_p(task: Task, scores: Floats, tested: Mask, null: Null) -> dict[str, float]:
    """Return the p-value of every metric over the tested subjects (Q, S), from scores (Q, S[, C]) and their null."""
    repeats = null.scores.shape[1]
    found = {}
    for name, metric in metrics_of(task.kind).items():
        drawn = np.array(
            [measure(metric, t, s, tested[:repeats]) for t, s in zip(null.truth, null.scores, strict=True)]
        )
        observed = measure(metric, task.truth, scores[:repeats], tested[:repeats])
        found[name] = p_value(observed, drawn, lower_is_better=name in LOWER_IS_BETTER)
    return found


def fixed_p(
    task: Task, design: Design, scores: Floats, tested: Mask, draws: int, seed: int
) -> tuple[dict[str, float], str]:
    """Return the p-value of every metric with the predictions kept and the labels of tested subjects permuted."""
    chosen = counted(scores, tested)
    keep = np.asarray(chosen.any(axis=0))
    layers, note = exchangeable(task, design if design.repeats == 1 else None, keep)
    layers = [layer if k else "untested" for layer, k in zip(layers, keep, strict=True)]
    moves = block_permutations(task.subjects, task.groups, layers, draws, seed, task.name, design.protocol, "fixed")
    own = blank(scores, chosen)[:, keep]
    found = {}
    for name, metric in metrics_of(task.kind).items():
        observed = float(over_repeats(metric, task.truth[keep], own)[0])
        drawn = np.array([over_repeats(metric, task.truth[move][keep], own)[0] for move in moves])
        found[name] = p_value(observed, drawn, lower_is_better=name in LOWER_IS_BETTER)
    return found, note
