"""Functional connectivity: correlation of parcel time series, and its storage as an upper triangle.

Three estimators. ``pearson``. ``ledoit_wolf``: the covariance of the z-scored series shrunk towards the identity,
``(1 - s) r`` off the diagonal; the shrinkage ``s`` falls with the number of time points, so scan length leaks into the
amplitude. ``partial``: the correlation of two parcels once all others are regressed out, ``-q_ij / sqrt(q_ii q_jj)`` of
the inverse ``q`` of the Ledoit-Wolf estimate, which has an inverse even with fewer time points than parcels.

Axes: B batch, T time, P parcels, E = P (P - 1) / 2 edges (upper triangle without diagonal, row by row).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from boldmill.errors import DataFault

Floats = npt.NDArray[np.floating[Any]]
Estimator = Literal["pearson", "ledoit_wolf", "partial"]

FISHER_CLIP = 0.999
"""Correlations are clipped here before Fisher's transform, so that a perfect one stays finite."""

UNITS = {"pearson": "correlation", "ledoit_wolf": "shrunk correlation", "partial": "partial correlation"}
"""Unit of FC by estimator; with Fisher z, ``Fisher z of ...``."""


def correlation(
    series: npt.ArrayLike, *, estimator: Estimator = "pearson", where: str = "series"
) -> npt.NDArray[np.float64]:
    """Return the correlation of parcel series, computed in float64.

    Parameters
    ----------
    series : array (..., T, P)
        Parcel series. A parcel with a NaN anywhere is NaN in the result.
    estimator : {"pearson", "ledoit_wolf", "partial"}
        See the head of this module.
    where : str
        What the message of an error names.

    Returns
    -------
    array (..., P, P), float64
        Correlation with a diagonal of exactly 1; rows and columns of NaN or constant parcels are NaN throughout.

    Raises
    ------
    DataFault
        Fewer than 3 time points.
    """
    x = np.asarray(series, dtype=np.float64)
    if x.ndim < 2 or x.shape[-2] < 3:
        raise DataFault("cannot correlate", where, f"shape {x.shape} has fewer than 3 time points", "use a longer scan")
    z = standardise(x)
    r: npt.NDArray[np.float64] = (z.mT @ z) / x.shape[-2]
    if estimator != "pearson":
        shrinkage = np.array([_shrinkage(one) for one in z.reshape(-1, *z.shape[-2:])])
        r *= 1.0 - shrinkage.reshape(*z.shape[:-2], 1, 1)
    if estimator == "partial":
        for one in r.reshape(-1, *r.shape[-2:]):
            _make_partial(one, where)
    np.clip(r, -1.0, 1.0, out=r)
    diagonal = np.einsum("...ii->...i", r)
    diagonal[np.isfinite(diagonal)] = 1.0
    return r


def standardise(series: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (..., T, P) series with mean 0 and population SD 1 over T; constant parcels become NaN.

    Constant is ``max == min``: the variance of a constant that has no exact binary form is not exactly zero.
    """
    centred = series - series.mean(axis=-2, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=-2, keepdims=True))
    constant = series.max(axis=-2, keepdims=True) == series.min(axis=-2, keepdims=True)
    z: npt.NDArray[np.float64] = centred / np.where(constant | (deviation == 0), np.nan, deviation)
    return z


def _shrinkage(z: npt.NDArray[np.float64]) -> float:
    from sklearn.covariance import ledoit_wolf_shrinkage

    covered = z[:, np.isfinite(z).all(axis=0)]
    return float(ledoit_wolf_shrinkage(covered)) if covered.shape[1] > 1 else 0.0


def _make_partial(r: npt.NDArray[np.float64], where: str) -> None:
    """Replace a shrunk correlation (P, P) by the partial correlation of its covered parcels, in place."""
    from scipy import linalg

    covered = np.flatnonzero(np.isfinite(np.diagonal(r)))
    inner = r[np.ix_(covered, covered)]
    np.fill_diagonal(inner, 1.0)  # shrinkage leaves the variance of a z-scored parcel at 1
    try:
        precision = linalg.inv(inner, check_finite=False)
    except linalg.LinAlgError as error:
        why = "parcels are copies of each other, so that the precision does not exist"
        raise DataFault("no partial correlation", where, why, "set parcellate.fc_estimator to pearson") from error
    scale = 1.0 / np.sqrt(np.diagonal(precision))
    r[np.ix_(covered, covered)] = -precision * scale[:, None] * scale


def fisher_z(correlation: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return arctanh of correlations clipped to +-:data:`FISHER_CLIP`; NaN stays NaN."""
    return np.arctanh(np.clip(np.asarray(correlation, dtype=np.float64), -FISHER_CLIP, FISHER_CLIP))


def n_edges(n_parcels: int) -> int:
    """Return the number of edges of ``n_parcels`` parcels.

    >>> n_edges(100)
    4950
    """
    return n_parcels * (n_parcels - 1) // 2


def n_parcels(edges: int) -> int:
    """Return the number of parcels of an upper triangle; a length that is no triangle is a ``ValueError``."""
    parcels = (1 + math.isqrt(1 + 8 * edges)) // 2
    if n_edges(parcels) != edges:
        raise ValueError(f"{edges} values are not the upper triangle of a square matrix")
    return parcels


def vectorise(matrix: Floats) -> Floats:
    """Return the upper triangle without diagonal, row by row: (..., P, P) -> (..., E), same dtype."""
    rows, cols = np.triu_indices(matrix.shape[-1], k=1)
    return matrix[..., rows, cols]


def unvectorise(edges: Floats, *, diagonal: float = 1.0) -> Floats:
    """Return the symmetric matrix of an upper triangle: (..., E) -> (..., P, P), same dtype.

    The diagonal is ``diagonal``, but NaN for a parcel all of whose edges are NaN.
    """
    parcels = n_parcels(edges.shape[-1])
    rows, cols = np.triu_indices(parcels, k=1)
    matrix = np.full((*edges.shape[:-1], parcels, parcels), np.nan, dtype=edges.dtype)
    matrix[..., rows, cols] = edges
    matrix[..., cols, rows] = edges
    missing = np.isnan(matrix).all(axis=-1) if parcels > 1 else np.zeros((*edges.shape[:-1], parcels), dtype=bool)
    index = np.arange(parcels)
    matrix[..., index, index] = np.where(missing, np.nan, diagonal)
    return matrix
