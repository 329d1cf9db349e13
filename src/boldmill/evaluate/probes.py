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

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

CHUNK_NUMBERS = 4_000_000
"""Numbers in the largest temporary array."""
PENALTIES = 10.0 ** np.arange(-3, 4)
"""Ridge penalties tried, in units of the mean diagonal of the kernel."""


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
    if probe.kind == "ridge" and not probe.scale and probe.select is None and np.isfinite(features).all():
        return _shared_kernel(features, truth, train)
    n, p = features.shape
    keep = min(probe.select or p, p)
    widest = max(n * keep, n * n, p if probe.select else 0)
    step = max(1, CHUNK_NUMBERS // max(1, widest))
    shifted = features - np.nan_to_num(np.nanmean(np.where(np.isfinite(features), features, np.nan), axis=0))
    parts = []
    for start in range(0, len(truth), step):
        rows = slice(start, start + step)
        labels, mask = np.where(train[rows], truth[rows], 0.0), train[rows]
        kept = design(shifted, labels, mask, keep=keep, scale=probe.scale)
        solve = _logistic if probe.kind == "logistic" else _ridge
        parts.append(solve(_compress(kept), labels, mask, probe.c))
    return np.concatenate(parts) if parts else np.empty((0, n))


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
        centred = np.where(train, truth - (truth * weight).sum(1, keepdims=True) / weight.sum(1, keepdims=True), 0.0)
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


def _compress(design_matrix: Floats) -> Floats:
    """Rotate D > N features into N without changing any inner product: an L2 fit stays exactly the same."""
    _, n, d = design_matrix.shape
    if d <= n:
        return design_matrix
    values, vectors = np.linalg.eigh(design_matrix @ np.swapaxes(design_matrix, 1, 2))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])


def _logistic(x: Floats, truth: Floats, train: Mask, c: float) -> Floats:
    """Newton's method with step halving; class weights n / (2 n_class), intercept not penalised."""
    b, n, d = x.shape
    x = np.concatenate([x, np.ones((b, n, 1))], axis=2)
    sign = np.where(truth > 0.5, 1.0, -1.0)
    positive = (train & (truth > 0.5)).sum(axis=1)
    total = train.sum(axis=1)
    single = (positive == 0) | (positive == total)
    weight = np.where(sign > 0, total[:, None] / (2 * np.maximum(positive, 1)[:, None]), 0.0)
    weight = np.where(sign < 0, total[:, None] / (2 * np.maximum(total - positive, 1)[:, None]), weight) * train * c
    penalty = np.r_[np.ones(d), 0.0]
    beta = np.zeros((b, d + 1))

    def objective(beta: Floats) -> Floats:
        margin = sign * np.einsum("bnd,bd->bn", x, beta)
        return np.asarray((weight * np.logaddexp(0, -margin)).sum(1) + 0.5 * (penalty * beta**2).sum(1))

    value = objective(beta)
    for _ in range(50):
        margin = np.clip(np.einsum("bnd,bd->bn", x, beta), -500, 500)
        probability = 1 / (1 + np.exp(-margin))
        gradient = np.einsum("bnd,bn->bd", x, weight * (probability - (sign > 0))) + penalty * beta
        curvature = weight * probability * (1 - probability)
        hessian = np.swapaxes(x * curvature[:, :, None], 1, 2) @ x + np.diag(penalty + 1e-10)
        move = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        scale = np.ones(b)
        for _ in range(8):
            worse = objective(beta - scale[:, None] * move) > value + 1e-12
            if not worse.any():
                break
            scale[worse] /= 2
        beta = beta - scale[:, None] * move
        value = objective(beta)
        if np.abs(gradient).max(initial=0) < 1e-8:
            break
    scores = np.einsum("bnd,bd->bn", x, beta)
    scores[single] = np.nan
    return np.asarray(scores)


def _shared_kernel(features: Floats, truth: Floats, train: Mask) -> Floats:
    """Ridge on features that are only centred: one kernel for all fits, centred with each fit's training rows."""
    shifted = features - features.mean(axis=0)
    kernel = shifted @ shifted.T
    step = max(1, CHUNK_NUMBERS // kernel.size)
    parts = []
    for start in range(0, len(truth), step):
        mask = train[start : start + step]
        weight = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
        to_mean = weight @ kernel  # (B, N): inner product of every row with the training mean
        middle = np.einsum("bn,bn->b", to_mean, weight)
        centred = kernel[None] - to_mean[:, :, None] - to_mean[:, None, :] + middle[:, None, None]
        parts.append(_kernel_ridge(centred, np.where(mask, truth[start : start + step], 0.0), mask))
    return np.concatenate(parts) if parts else np.empty((0, len(features)))


def _ridge(x: Floats, truth: Floats, train: Mask, _c: float) -> Floats:
    """Ridge on centred features."""
    return _kernel_ridge(x @ np.swapaxes(x, 1, 2), truth, train)


def _kernel_ridge(kernel: Floats, truth: Floats, train: Mask) -> Floats:
    """Ridge with a centred kernel (B, N, N); the penalty with the smallest leave-one-out error in the training rows."""
    weight = train.astype(np.float64)
    count = np.maximum(weight.sum(axis=1), 1)[:, None]
    inside = kernel * weight[:, :, None] * weight[:, None, :]
    mean = (truth * weight).sum(axis=1, keepdims=True) / count
    centred = (truth - mean) * weight
    values, vectors = np.linalg.eigh(inside)
    values = np.maximum(values, 0)
    size = np.maximum(np.trace(inside, axis1=1, axis2=2) / count[:, 0], 1e-12)
    projected = np.einsum("bnk,bn->bk", vectors, centred)
    best, best_error = np.zeros(len(kernel)), np.full(len(kernel), np.inf)
    for factor in PENALTIES:
        penalty = factor * size[:, None]
        fitted = np.einsum("bnk,bk->bn", vectors, values / (values + penalty) * projected)
        leverage = np.einsum("bnk,bk->bn", vectors**2, values / (values + penalty)) + 1 / count
        left = (centred - fitted) / np.maximum(1 - leverage, 1e-9) * weight
        error = (left**2).sum(axis=1)
        better = error < best_error
        best[better], best_error[better] = penalty[better, 0], error[better]
    dual = np.einsum("bnk,bk->bn", vectors, projected / (values + best[:, None]))
    return np.asarray(np.einsum("bnm,bm->bn", kernel, dual * weight) + mean)


def svm_scores(features: Floats, truth: Floats, train: Mask, kind: str) -> Floats:
    """Score with an RBF support vector machine (C = 1, gamma = "scale") on standardised features, fit by fit.

    Parameters and result as :func:`probe_scores`. This is BrainMass's downstream classifier with the scaler inside the
    training fold (arXiv 2403.01433, section 6 of its fact sheet).
    """
    from sklearn.svm import SVC, SVR

    out = np.full(truth.shape, np.nan)
    for i, (labels, mask) in enumerate(zip(truth, train, strict=True)):
        x = design(features, labels[None], mask[None], keep=features.shape[1], scale=True)[0]
        kernel = _rbf(x, mask)
        if kind == "classification":
            if np.unique(labels[mask]).size < 2:
                continue
            machine: Any = SVC(C=1.0, kernel="precomputed", class_weight="balanced")
            out[i] = machine.fit(kernel[mask], labels[mask] > 0.5).decision_function(kernel)
        else:
            centre, spread = labels[mask].mean(), labels[mask].std() or 1.0
            machine = SVR(C=1.0, kernel="precomputed").fit(kernel[mask], (labels[mask] - centre) / spread)
            out[i] = machine.predict(kernel) * spread + centre
    return out


def _rbf(x: Floats, train: NDArray[np.bool_]) -> Floats:
    """Return the kernel (N, training rows) of scikit-learn's ``gamma="scale"``: one product, where libsvm loops."""
    variance = x[train].var()
    gamma = 1 / (x.shape[1] * variance) if variance > 0 else 1.0
    size = np.einsum("np,np->n", x, x)
    distance = size[:, None] + size[train] - 2 * (x @ x[train].T)
    return np.asarray(np.exp(-gamma * np.maximum(distance, 0)))
