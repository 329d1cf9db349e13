"""Tangent-space FC: the logarithm of each matrix whitened by the geometric mean of the training fold.

Varoquaux et al. 2010, MICCAI 6361:200-208; the numbers are those of nilearn's ``ConnectivityMeasure(kind="tangent")``.

Axes: N scans, P parcels, E = P (P - 1) / 2 edges, V = E + P values of a symmetric matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boldmill.represent.fc import unvectorise

if TYPE_CHECKING:
    from boldmill.shards.reader import Snapshot

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_ITERATIONS, TOLERANCE = 10, 1e-7
"""Of the geometric mean, as in nilearn."""
FLOOR = 1e-6
"""Smallest eigenvalue of a matrix that is taken as it is; Ledoit-Wolf estimates lie well above."""
CHUNK = 256
"""Matrices whose logarithms are taken at once."""


def tangent_vectors(edges: Floats, train: Mask) -> Floats:
    """Return tangent vectors (N, V), lower triangle with diagonal, the diagonal divided by sqrt 2.

    Parameters
    ----------
    edges : (N, E) array
        Correlations of an estimate that is positive definite (Ledoit-Wolf). An edge without data is 0: a parcel
        without signal is independent of all others, with variance 1.
    train : (N,) bool array
        Scans whose geometric mean is the reference.
    """
    matrices = positive(edges)
    whitening = _of_symmetric(geometric_mean(matrices[train]), lambda v: 1 / np.sqrt(v))
    rows, cols = np.tril_indices(matrices.shape[-1])
    scale = np.where(rows == cols, np.sqrt(0.5), 1.0)
    return np.concatenate([logs[:, rows, cols] * scale for logs in _logs(matrices, whitening)])


def positive(edges: Floats) -> Floats:
    """Return positive definite matrices (N, P, P) with diagonal 1 before the floor on eigenvalues."""
    matrices = unvectorise(np.nan_to_num(edges, nan=0.0))
    lowest = np.linalg.eigvalsh(matrices)[:, 0]
    for i in np.flatnonzero(lowest < FLOOR):
        matrices[i] = _of_symmetric(matrices[i], lambda v: np.maximum(v, FLOOR))
    return np.asarray(matrices)


def geometric_mean(matrices: Floats) -> Floats:
    """Return the geometric mean (P, P) of positive definite matrices (N, P, P) (Fletcher and Joshi 2007, alg. 2)."""
    mean = matrices.mean(axis=0)
    smallest, step = np.inf, 1.0
    for _ in range(MAX_ITERATIONS):
        values, vectors = np.linalg.eigh(mean)
        whitening = (vectors / np.sqrt(values)) @ vectors.T
        root = (vectors * np.sqrt(values)) @ vectors.T
        gradient = sum(logs.sum(axis=0) for logs in _logs(matrices, whitening)) / len(matrices)
        norm = float(np.linalg.norm(gradient))
        mean = root @ _of_symmetric(step * gradient, np.exp) @ root
        if norm < smallest:
            smallest = norm
        elif norm > smallest:
            step, norm = step / 2, smallest
        if norm / mean.size < TOLERANCE:
            break
    return np.asarray(mean)


def _logs(matrices: Floats, whitening: Floats) -> Iterator[Floats]:
    """Yield the logarithms of whitened matrices (N, P, P), some at a time: each step holds several copies of them."""
    for start in range(0, len(matrices), CHUNK):
        yield _of_symmetric(whitening @ matrices[start : start + CHUNK] @ whitening, np.log)


def _of_symmetric(matrix: Floats, function: Callable[[Floats], Floats]) -> Floats:
    """Return a function of symmetric matrices (..., P, P) through their eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * function(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def shrunk_edges(snapshot: Snapshot, scan_ids: Sequence[str]) -> Floats:
    """Return Ledoit-Wolf correlations (N, E) of scans, which are positive definite whatever their length."""
    return np.asarray(snapshot.fc_by("ledoit_wolf", scan_ids), dtype=np.float64)
