"""Linear probes fitted for many folds at once: selection, scaling, imputation and penalty see training rows only.

Axes: B fits (folds, repeats, permutations), N samples (scans), P features, D kept features.

A fit is a row of ``train`` (which samples it may learn from) and a row of ``truth`` (the labels it is given). Every
statistic is a product with the training mask, so that thousands of fits are a few matrix products. Each fit scores all
N samples; the caller keeps those of the test fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.bymask import by_mask
from boldmill.evaluate.linear import PENALTIES, compress, kernel_ridge, logistic, logistic_shared, ridge_shared

__all__ = ["PENALTIES", "Probe", "design", "probe_scores", "svm_scores"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CHUNK_NUMBERS = 4_000_000
"""Numbers in the largest temporary array."""
MANY_SAMPLES = 200
"""From here on every fold is solved by itself: its matrices are large enough to fill the cores."""
FEW_LABELS, SMALL_DESIGN = 8, 16_000
"""Logistic fits of folds with fewer labels, and a design (N x P) of at most so many numbers, are solved beside those of
other folds (draws of a small cohort have folds of their own): a fold's own solver has the price of many fits. Larger
designs cost more side by side (measured: 80 x 256 takes 1.4 times as long, 16 x 800 half)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One linear probe.

    Parameters
    ----------
    kind : {"logistic", "ridge"}
        L2 logistic regression (classes weighted to balance), or ridge with the penalty chosen by leave-one-out in the
        training fold.
    select : int, optional
        Keep this many features with the largest ANOVA F (equivalently the largest squared correlation with the target).
    scale : bool
        z-score each feature; otherwise it is only centred.
    c : float
        Inverse L2 penalty of the logistic regression, as in scikit-learn.
    """

    kind: Literal["logistic", "ridge"]
    select: int | None = None
    scale: bool = True
    c: float = 1.0


def probe_scores(probe: Probe, features: Floats, truth: Floats, train: Mask) -> Floats:
    """Fit the probe B times and score every sample.

    Parameters
    ----------
    features : (N, P) float array
        NaN where a feature is missing: replaced by the training mean.
    truth : (B, N) float array
        0/1 labels, or values; only training rows are looked at.
    train : (B, N) bool array
        Training samples of each fit.

    Returns
    -------
    (B, N) float array
        Log-odds of the positive class, or predicted values; NaN for a fit whose training rows hold a single class.
    """
    n, p = features.shape
    if not len(truth):
        return np.empty((0, n))
    folds = by_mask(train)
    chosen = probe.select is not None and probe.select < p
    if probe.kind == "ridge" and not probe.scale and not chosen and n <= p and np.isfinite(features).all():
        return _shared_kernel(features, truth, folds)
    seen = np.isfinite(features)
    shifted = features - np.where(seen, features, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    out = np.empty((len(train), n))
    alone = np.ones(len(train), dtype=bool)
    if not chosen and (n >= MANY_SAMPLES or len(folds) < len(train)):
        small = probe.kind == "logistic" and n < MANY_SAMPLES and n * p <= SMALL_DESIGN
        few = FEW_LABELS if small else 0
        shared = [fold for fold in folds if len(fold[1]) >= few]
        _per_fold(probe, shifted, truth, shared, out)
        for _, fits in shared:
            alone[fits] = False
    keep = min(probe.select or p, p)
    widest = max(n * keep, n * n if keep > n or probe.kind == "ridge" else 0, p, 1)
    rest = np.flatnonzero(alone)
    step = max(1, CHUNK_NUMBERS // widest)
    for start in range(0, len(rest), step):
        rows = rest[start : start + step]
        labels, mask = np.where(train[rows], truth[rows], 0.0), train[rows]
        x = design(shifted, labels, mask, keep=keep, scale=probe.scale)
        if probe.kind == "logistic":
            out[rows] = logistic(compress(x), labels, mask, probe.c)
        else:
            out[rows] = kernel_ridge(x @ np.swapaxes(x, 1, 2), labels[:, None], mask)[:, 0]
    return out


def design(features: Floats, truth: Floats, train: Mask, *, keep: int, scale: bool) -> Floats:
    """Return the (B, N, D) design matrices: selected, centred, scaled and imputed with training statistics."""
    seen = np.isfinite(features)
    filled = np.where(seen, features, 0.0)
    weight = train.astype(np.float64)
    if seen.all():
        count = np.broadcast_to(weight.sum(axis=1, keepdims=True), (len(weight), features.shape[1]))
    else:
        count = weight @ seen.astype(np.float64)
    count = np.maximum(count, 1)
    mean = (weight @ filled) / count
    variance = np.maximum((weight @ filled**2) / count - mean**2, 0)
    sd = np.sqrt(variance)
    usable = sd > 1e-7 * (1 + np.abs(mean))
    if keep < features.shape[1]:
        rows = np.maximum(weight.sum(1, keepdims=True), 1)
        centred = np.where(train, truth - (truth * weight).sum(1, keepdims=True) / rows, 0.0)
        # The mean of `centred` over the rows a feature is seen in is not 0 where some are missing: correct for it.
        covariance = centred @ filled - mean * (centred @ seen if not seen.all() else 0.0)
        strength = np.divide(np.abs(covariance), sd, out=np.full_like(sd, -1.0), where=usable)
        columns = np.sort(np.argpartition(-strength, keep - 1, axis=1)[:, :keep], axis=1)
    else:
        columns = np.broadcast_to(np.arange(features.shape[1]), (len(weight), features.shape[1]))
    row = np.arange(len(weight))[:, None]
    out = np.moveaxis(filled[:, columns], 0, 1) - mean[row, columns][:, None, :]
    if scale:
        chosen, good = sd[row, columns], usable[row, columns]
        out = out * np.where(good, 1 / np.where(good, chosen, 1.0), 0.0)[:, None, :]
    if not seen.all():
        out = np.where(np.moveaxis(seen[:, columns], 0, 1), out, 0.0)
    return np.asarray(out)


def _per_fold(
    probe: Probe, features: Floats, truth: Floats, folds: list[tuple[Mask, NDArray[np.int64]]], out: Floats
) -> None:
    """Fit all labels of a training fold together: design, kernel and rotation do not depend on labels."""
    for mask, fits in folds:
        labels = np.where(mask, truth[fits], 0.0)
        x = design(features, labels[:1], mask[None], keep=features.shape[1], scale=probe.scale)
        if probe.kind == "logistic":
            out[fits] = logistic_shared(x[0], labels, mask, probe.c)
        elif features.shape[1] < len(features):
            out[fits] = ridge_shared(x[0], labels, mask)
        else:
            out[fits] = kernel_ridge(x @ np.swapaxes(x, 1, 2), labels[None], mask[None])[0]


def _shared_kernel(features: Floats, truth: Floats, folds: list[tuple[Mask, NDArray[np.int64]]]) -> Floats:
    """Ridge on features that are only centred: one kernel for all fits, centred with each fold's training rows."""
    shifted = features - features.mean(axis=0)
    kernel = shifted @ shifted.T
    out = np.empty(truth.shape)
    # Folds with a single label each (small cohorts, every draw with folds of its own) go through in batches.
    alone = [(mask, fits) for mask, fits in folds if len(fits) == 1]
    step = max(1, CHUNK_NUMBERS // kernel.size)
    batches = [alone[start : start + step] for start in range(0, len(alone), step)]
    for batch in batches + [[fold] for fold in folds if len(fold[1]) > 1]:
        mask = np.stack([own for own, _ in batch])
        fits = np.stack([own for _, own in batch])
        weight = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
        to_mean = weight @ kernel  # (M, N): inner product of every row with the training mean
        middle = np.einsum("mn,mn->m", to_mean, weight)
        centred = kernel[None] - to_mean[:, :, None] - to_mean[:, None, :] + middle[:, None, None]
        out[fits] = kernel_ridge(centred, np.where(mask[:, None], truth[fits], 0.0), mask)
    return out


def svm_scores(features: Floats, truth: Floats, train: Mask, kind: str) -> Floats:
    """Score with an RBF support vector machine (C = 1, gamma = "scale") on standardised features, fit by fit.

    Parameters and result as :func:`probe_scores`. This is BrainMass's downstream classifier with the scaler inside the
    training fold (arXiv 2403.01433, section 6 of its fact sheet).
    """
    from sklearn.svm import SVC, SVR

    out = np.full(truth.shape, np.nan)
    for mask, fits in by_mask(train):
        if not mask.any():
            continue
        x = design(features, truth[fits[:1]], mask[None], keep=features.shape[1], scale=True)[0]
        kernel = _rbf(x, mask)
        for fit in fits:
            labels = truth[fit, mask]
            if kind == "classification":
                if np.unique(labels).size < 2:
                    continue
                machine: Any = SVC(C=1.0, kernel="precomputed", class_weight="balanced")
                out[fit] = machine.fit(kernel[mask], labels > 0.5).decision_function(kernel)
            else:
                centre, spread = labels.mean(), labels.std() or 1.0
                machine = SVR(C=1.0, kernel="precomputed").fit(kernel[mask], (labels - centre) / spread)
                out[fit] = machine.predict(kernel) * spread + centre
    return out


def _rbf(x: Floats, train: NDArray[np.bool_]) -> Floats:
    """Return the kernel (N, training rows) of scikit-learn's ``gamma="scale"``: one product, where libsvm loops."""
    variance = x[train].var()
    gamma = 1 / (x.shape[1] * variance) if variance > 0 else 1.0
    size = np.einsum("np,np->n", x, x)
    distance = size[:, None] + size[train] - 2 * (x @ x[train].T)
    return np.asarray(np.exp(-gamma * np.maximum(distance, 0)))
