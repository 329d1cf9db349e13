"""k nearest neighbours on features z-scored in the training fold.

Axes: B fits, G fits of one fold, N samples (scans), P features, K neighbours.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.bymask import by_mask
from boldmill.evaluate.methods_config import KnnConfig
from boldmill.evaluate.probes import CHUNK_NUMBERS, design

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Fit

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def knn_probe(kind: str, config: KnnConfig) -> Fit:
    """Return the fit; its neighbours are those of scikit-learn's ``KNeighborsClassifier`` and ``...Regressor``."""
    return partial(knn_scores, kind, config)


def knn_scores(kind: str, config: KnnConfig, features: Floats, truth: Floats, train: Mask) -> Floats:
    """Score every sample by its k nearest training samples, all with the same weight.

    Parameters and result as :func:`boldmill.evaluate.probes.probe_scores`. The score of a class is the log-odds of the
    neighbours, half a count added to both classes, so that a tie is 0 and no score is infinite.
    """
    out = np.full(truth.shape, np.nan)
    for mask, fits in by_mask(train):
        if not mask.any():
            continue
        x = design(features, truth[fits[:1]], mask[None], keep=features.shape[1], scale=True)[0]
        labels = truth[fits][:, mask]
        near = neighbours(x, mask, min(config.k, int(mask.sum())), config.metric)
        if kind == "classification":
            labels = (labels > 0.5).astype(np.float64)
        total = np.zeros(out[fits].shape)
        for column in near.T:  # one neighbour at a time: all at once would be K times the memory
            total += labels[:, column]
        if kind == "classification":
            scores = np.log((total + 0.5) / (near.shape[1] - total + 0.5))
            scores[np.ptp(labels, axis=1) == 0] = np.nan
            out[fits] = scores
        else:
            out[fits] = total / near.shape[1]
    return out


def neighbours(x: Floats, train: Mask, k: int, metric: str) -> NDArray[np.int64]:
    """Return the k nearest training samples (N, K) of all samples, as indices into the training samples.

    ``cosine`` is 1 - the cosine of two feature vectors; a vector of zeros is equally far from all.
    """
    if metric == "cosine":
        norm = np.sqrt(np.einsum("np,np->n", x, x))[:, None]
        x = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    known = x[train]
    # Squared distances less a constant of each sample; for the cosine, twice its negative.
    size = np.einsum("np,np->n", known, known) if metric == "euclidean" else 0.0
    out = np.empty((len(x), k), dtype=np.int64)
    step = max(1, CHUNK_NUMBERS // max(1, len(known)))
    for start in range(0, len(x), step):
        distance = size - 2 * (x[start : start + step] @ known.T)
        out[start : start + step] = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return out
