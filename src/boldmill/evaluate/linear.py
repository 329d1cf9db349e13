"""Solvers of the linear probes: L2 logistic regression and kernel ridge, many fits at once.

Axes: B fits, M folds, G fits of one fold, N samples (scans), D features, R rotated features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PENALTIES = 10.0 ** np.arange(-3, 4)
"""Ridge penalties tried, in units of the mean diagonal of the kernel."""
NEWTON_STEPS = 50
GRADIENT = 1e-8
"""A logistic fit has converged where no element of its gradient is larger."""
RANK = 1e-12
"""Directions whose variance is below this share of the largest are dropped: the training rows do not hold them."""


def balanced_weights(truth: Floats, train: Mask) -> tuple[Floats, Mask]:
    """Return weights n / (2 n_class) of training samples (B, N), 0 for others, and which fits hold a single class."""
    positive = (train & (truth > 0.5)).sum(axis=-1)
    total = train.sum(axis=-1)
    single = (positive == 0) | (positive == total)
    share = [total / (2 * np.maximum(count, 1)) for count in (positive, total - positive)]
    weight = np.where(truth > 0.5, share[0][..., None], share[1][..., None]) * train
    return np.asarray(weight), np.asarray(single)


def compress(design_matrix: Floats) -> Floats:
    """Rotate D > N features into N without changing any inner product: an L2 fit stays exactly the same."""
    _, n, d = design_matrix.shape
    if d <= n:
        return design_matrix
    values, vectors = np.linalg.eigh(design_matrix @ np.swapaxes(design_matrix, 1, 2))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])


def rotate(x: Floats, train: Mask) -> Floats:
    """Rotate features (N, D) onto the principal axes of the training rows: (N, R), R <= min(D, training rows).

    Inner products with training rows do not change, and the columns are orthogonal over the training rows.
    """
    known = x[train]
    wide = known.shape[1] > known.shape[0]
    values, vectors = np.linalg.eigh(known @ known.T if wide else known.T @ known)
    kept = values > RANK * max(float(values.max(initial=0.0)), RANK)
    if not wide:
        return np.asarray(x @ vectors[:, kept])
    return np.asarray((x @ known.T) @ (vectors[:, kept] / np.sqrt(values[kept])))


def logistic(x: Floats, truth: Floats, train: Mask, c: float) -> Floats:
    """L2 logistic regression, each fit with its own small design (B, N, D): Newton's method with step halving.

    Classes are weighted n / (2 n_class); the intercept is not penalised.
    """
    b, n, d = x.shape
    x = np.concatenate([x, np.ones((b, n, 1))], axis=2)
    sign = np.where(truth > 0.5, 1.0, -1.0)
    weight, single = balanced_weights(truth, train)
    weight = weight * c
    penalty = np.r_[np.ones(d), 0.0]
    beta = np.zeros((b, d + 1))

    def objective(beta: Floats) -> Floats:
        margin = sign * np.einsum("bnd,bd->bn", x, beta)
        return np.asarray((weight * np.logaddexp(0, -margin)).sum(1) + 0.5 * (penalty * beta**2).sum(1))

    value = objective(beta)
    for _ in range(NEWTON_STEPS):
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
        if np.abs(gradient).max(initial=0) < GRADIENT:
            break
    scores = np.einsum("bnd,bd->bn", x, beta)
    scores[single] = np.nan
    return np.asarray(scores)


def logistic_shared(x: Floats, truth: Floats, train: Mask, c: float) -> Floats:
    """Solve :func:`logistic` for many labels of one fold at once, with as many features as there are.

    Newton's method whose systems are solved by conjugate gradients. On the principal axes of the training rows the
    Hessian is nearly diagonal, so that a few products with the shared design solve it for all labels.

    Parameters
    ----------
    x : (N, D) array
        Centred design of the fold.
    truth : (G, N) array
        Labels.
    train : (N,) bool array
        Training rows.
    """
    rotated = rotate(x, train)
    known = np.column_stack([rotated[train], np.ones(int(train.sum()))])
    size = (known**2).sum(axis=0)
    penalty = np.r_[np.ones(rotated.shape[1]), 0.0]
    labels = truth[:, train]
    sign = np.where(labels > 0.5, 1.0, -1.0)
    weight, single = balanced_weights(labels, np.ones(labels.shape, dtype=bool))
    weight = weight * c
    beta = np.zeros((len(truth), known.shape[1]))

    def objective(beta: Floats, margin: Floats) -> Floats:
        return np.asarray((weight * np.logaddexp(0, -sign * margin)).sum(1) + 0.5 * (penalty * beta**2).sum(1))

    margin = beta @ known.T
    value = objective(beta, margin)
    for _ in range(NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(margin, -500, 500)))
        gradient = (weight * (probability - (sign > 0))) @ known + penalty * beta
        if np.abs(gradient).max(initial=0) < GRADIENT:
            break
        curvature = weight * probability * (1 - probability)
        move = _conjugate(known, curvature, penalty, size, gradient)
        along = move @ known.T
        scale = np.ones(len(beta))
        for _ in range(8):
            worse = objective(beta - scale[:, None] * move, margin - scale[:, None] * along) > value + 1e-12
            if not worse.any():
                break
            scale[worse] /= 2
        beta = beta - scale[:, None] * move
        margin = beta @ known.T
        value = objective(beta, margin)
    scores = beta[:, :-1] @ rotated.T + beta[:, -1:]
    scores[single] = np.nan
    return np.asarray(scores)


def _conjugate(known: Floats, curvature: Floats, penalty: Floats, size: Floats, right: Floats) -> Floats:
    """Solve (X' Q_g X + penalty) v_g = right_g for all g at once, (G, R); each to its own tolerance."""
    scaling = 1 / (curvature.mean(axis=1, keepdims=True) * size + penalty + 1e-10)
    norm = np.sqrt((right**2).sum(axis=1))
    goal = np.minimum(0.01, np.sqrt(norm)) * norm
    solved, left = np.zeros_like(right), right.copy()
    step = scaling * left
    direction, power = step.copy(), (left * step).sum(axis=1)
    for _ in range(2 * known.shape[1]):
        busy = np.sqrt((left**2).sum(axis=1)) > goal
        if not busy.any():
            break
        image = (curvature * (direction @ known.T)) @ known + penalty * direction
        bend = (direction * image).sum(axis=1)
        length = np.where(busy & (bend > 0), power / np.where(bend > 0, bend, 1.0), 0.0)[:, None]
        solved += length * direction
        left -= length * image
        step = scaling * left
        after = (left * step).sum(axis=1)
        direction = step + (after / np.where(power > 0, power, 1.0))[:, None] * direction
        power = after
    return solved


def kernel_ridge(kernel: Floats, truth: Floats, train: Mask) -> Floats:
    """Ridge with centred kernels; the penalty with the smallest leave-one-out error in the training rows.

    One eigendecomposition per fold serves all its labels and all penalties.

    Parameters
    ----------
    kernel : (M, N, N) array
        Kernel of each fold, centred with its training rows.
    truth : (M, G, N) array
        Labels of the fits of each fold.
    train : (M, N) bool array
        Training rows of each fold.

    Returns
    -------
    (M, G, N) array
    """
    weight = train.astype(np.float64)
    count = np.maximum(weight.sum(axis=1), 1)[:, None, None]
    inside = kernel * weight[:, :, None] * weight[:, None, :]
    weight = weight[:, None, :]
    mean = (truth * weight).sum(axis=2, keepdims=True) / count
    centred = (truth - mean) * weight
    values, vectors = np.linalg.eigh(inside)
    values = np.maximum(values, 0)[:, None, :]
    size = np.maximum(np.trace(inside, axis1=1, axis2=2)[:, None, None] / count, 1e-12)
    projected = centred @ vectors
    best, best_error = np.zeros(projected.shape[:2]), np.full(projected.shape[:2], np.inf)
    turned = np.swapaxes(vectors, 1, 2)
    for factor in PENALTIES:
        penalty = factor * size
        kept = values / (values + penalty)
        fitted = (kept * projected) @ turned
        leverage = kept @ np.swapaxes(vectors**2, 1, 2) + 1 / count
        left = (centred - fitted) / np.maximum(1 - leverage, 1e-9) * weight
        error = (left**2).sum(axis=2)
        better = error < best_error
        best = np.where(better, penalty[:, :, 0], best)
        best_error = np.where(better, error, best_error)
    dual = (projected / (values + best[:, :, None])) @ turned
    return np.asarray((dual * weight) @ np.swapaxes(kernel, 1, 2) + mean)


def ridge_shared(x: Floats, truth: Floats, train: Mask) -> Floats:
    """Solve :func:`kernel_ridge` for many labels of one fold at once, where there are fewer features than samples.

    The same numbers without a kernel of N x N: in R coordinates on the principal axes of the training rows.

    Parameters
    ----------
    x : (N, D) array
        Centred design of the fold.
    truth : (G, N) array
        Labels.
    train : (N,) bool array
        Training rows.
    """
    rotated = rotate(x, train)
    values = (rotated[train] ** 2).sum(axis=0)
    basis = rotated[train] / np.sqrt(values)
    labels, count = truth[:, train], max(int(train.sum()), 1)
    mean = labels.sum(axis=1, keepdims=True) / count
    centred = labels - mean
    projected = centred @ basis
    size = max(float(values.sum()) / count, 1e-12)
    best, best_error = np.zeros(len(truth)), np.full(len(truth), np.inf)
    for penalty in PENALTIES * size:
        kept = values / (values + penalty)
        leverage = basis**2 @ kept + 1 / count
        error = (((centred - (kept * projected) @ basis.T) / np.maximum(1 - leverage, 1e-9)) ** 2).sum(axis=1)
        better = error < best_error
        best, best_error = np.where(better, penalty, best), np.where(better, error, best_error)
    beta = projected * np.sqrt(values) / (values + best[:, None])
    return np.asarray(beta @ rotated.T + mean)
