"""Slow drifts: cosines, and polynomials of degree 0 to 2.

Axes: T time, K basis columns, V voxels.
"""

from __future__ import annotations

import numpy as np

from boldmill.preprocess.motion import Float


def cosines(n_volumes: int, tr: float, cutoff: float = 128.0) -> Float:
    """Return the drift cosines (T, K): ``sqrt(2/T) cos(pi k (t + 1/2) / T)``, k = 1..floor(2 T TR / cutoff).

    Parameters
    ----------
    n_volumes : int
        T.
    tr : float
        Repetition time, s.
    cutoff : float
        Period of the fastest cosine, s.
    """
    count = int(np.floor(2.0 * n_volumes * tr / cutoff))
    time = np.arange(n_volumes) + 0.5
    order = np.arange(1, count + 1)
    return np.asarray(np.sqrt(2.0 / n_volumes) * np.cos(np.pi * np.outer(time, order) / n_volumes))


def polynomials(n_volumes: int, degree: int) -> Float:
    """Return an orthonormal basis (T, degree + 1) of the polynomials, the constant first (Legendre, as AFNI's polort).

    Parameters
    ----------
    n_volumes : int
        T.
    degree : int
        0 is the mean alone.
    """
    basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1.0, 1.0, n_volumes), degree))
    return np.asarray(basis)


def detrend(signals: Float, degree: int) -> Float:
    """Return signals (T, V) without their best-fitting polynomial of ``degree`` (0: without their mean)."""
    basis = polynomials(len(signals), degree)
    return np.asarray(signals - basis @ (basis.T @ signals))
