"""Two classifiers for very few training rows: nearest centroid, and the L2 logistic probe in the span of those rows.

Axes: B fits, N samples (scans), P features, n training rows of a fit.

Both z-score every feature with the training rows of the fit; a missing feature is the training mean. Both are a ``Fit``
(:mod:`boldmill.evaluate.crossval`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.probes import Probe, probe_scores

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FLOOR = 1e-10
"""Share of the largest eigenvalue below which a direction of the training rows is rounding only."""


def nearest_centroid(features: Floats, truth: Floats, train: Mask) -> Floats:
    """Score with the nearer of two class centroids in z-scored features (Euclidean, as ``NearestCentroid``).

    Parameters
    ----------
    features : (N, P) float array
        NaN where missing.
    truth : (B, N) float array
        0/1 labels; only training rows are looked at.
    train : (B, N) bool array
        Training rows of each fit.

    Returns
    -------
    (B, N) float array
        Squared distance to the negative centroid minus that to the positive one: above 0 means positive. NaN for a
        fit whose training rows hold a single class.
    """
    seen = np.isfinite(features)
    filled = np.where(seen, features, 0.0)
    known = seen.astype(np.float64)
    mean, inverse = _scale(filled, known, train)
    centroids = []
    for label in (train & (truth <= 0.5), train & (truth > 0.5)):
        count = label.sum(axis=1, keepdims=True)
        weight = np.divide(label, count, out=np.zeros(label.shape), where=count > 0)
        centroids.append((weight @ filled - (weight @ known) * mean) * inverse)
    negative, positive = centroids
    direction = (positive - negative) * inverse
    # ||z - c0||^2 - ||z - c1||^2 = 2 z . (c1 - c0) + ||c0||^2 - ||c1||^2
    projected = direction @ filled.T - (direction * mean) @ known.T
    scores = 2 * projected + ((negative**2).sum(axis=1) - (positive**2).sum(axis=1))[:, None]
    return np.where(_both(truth, train)[:, None], scores, np.nan)


def span_logistic(features: Floats, truth: Floats, train: Mask) -> Floats:
    """Score with the balanced L2 logistic probe on z-scored features.

    Parameters and result as :func:`nearest_centroid`; a score is the log-odds. The weights of an L2 fit lie in the span
    of its n training rows, so the fit is exact in n coordinates; :func:`boldmill.evaluate.probes.probe_scores`, which
    does the fits with more rows than features, gives the same numbers but scales all N rows for every fit.
    """
    seen = np.isfinite(features)
    filled = np.where(seen, features, 0.0)
    known = seen.astype(np.float64)
    out = np.full(train.shape, np.nan)
    probe = Probe(kind="logistic", scale=False)
    means, inverses = _scale(filled, known, train)
    for fit in np.flatnonzero(_both(truth, train)):
        rows, mean, inverse = train[fit], means[fit], inverses[fit]
        if rows.sum() > features.shape[1]:
            out[fit] = probe_scores(Probe(kind="logistic"), features, truth[fit : fit + 1], rows[None])[0]
            continue
        own = (filled[rows] - known[rows] * mean) * inverse
        values, vectors = np.linalg.eigh(own @ own.T)
        kept = values > FLOOR * max(values[-1], FLOOR)
        axes = (own.T @ (vectors[:, kept] / np.sqrt(values[kept]))) * inverse[:, None]
        middle = mean @ axes if seen.all() else known @ (mean[:, None] * axes)
        out[fit] = probe_scores(probe, filled @ axes - middle, truth[fit : fit + 1], train[fit : fit + 1])[0]
    return out


def _scale(filled: Floats, known: Floats, train: Mask) -> tuple[Floats, Floats]:
    """Return mean and 1/SD (B, P) of the training rows; 0 for a feature that does not vary there."""
    weight = train.astype(np.float64)
    count = np.maximum(weight @ known, 1)
    mean = (weight @ filled) / count
    sd = np.sqrt(np.maximum((weight @ filled**2) / count - mean**2, 0))
    usable = sd > 1e-7 * (1 + np.abs(mean))
    return mean, np.where(usable, 1 / np.where(usable, sd, 1.0), 0.0)


def _both(truth: Floats, train: Mask) -> Mask:
    positive = (train & (truth > 0.5)).sum(axis=1)
    return np.asarray((positive > 0) & (positive < train.sum(axis=1)))
