"""Rigid motion: parameters, matrices, framewise displacement, the 24 motion regressors.

Axes: T time, P = 6 parameters (three translations in mm, three rotations in rad), 4x4 world matrices in RAS mm.

A motion matrix ``W[t]`` maps a reference world point to where that tissue lies in volume ``t``, so its parameters are
how the head moved: ``trans_x > 0`` is a move to the right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

AXES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
FORMS = ("", "_derivative1", "_power2", "_derivative1_power2")
"""Endings of a column's forms: itself, backward difference, square, squared difference (Satterthwaite 2013)."""
LAGGED = ("", "_lag1", "_power2", "_lag1_power2")
"""The same for the autoregressive form: itself, the volume before, and the squares of both (Friston 1996)."""
SPHERE = 80.0
"""Radius of the head sphere of Jenkinson's displacement, mm."""


def rotation(angles: Float) -> Float:
    """Return ``Rx(a) @ Ry(b) @ Rz(c)`` (3, 3) for angles (3,) in rad."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return np.asarray(x @ y @ z, dtype=np.float64)


def matrix_of(parameters: Float, centre: Float) -> Float:
    """Return the 4x4 rigid matrix of parameters (6,) that rotates about ``centre`` (3,), mm."""
    out = np.eye(4)
    out[:3, :3] = rotation(parameters[3:])
    out[:3, 3] = parameters[:3] + centre - out[:3, :3] @ centre
    return out


def parameters_of(matrices: Float, centre: Float) -> Float:
    """Return the parameters (T, 6) of rigid matrices (T, 4, 4) that rotate about ``centre`` (3,), mm.

    The inverse of :func:`matrix_of` for ``abs(b) < pi / 2``.
    """
    r = matrices[:, :3, :3]
    out = np.empty((len(matrices), 6))
    out[:, :3] = matrices[:, :3, 3] - centre + r @ centre
    out[:, 3] = np.arctan2(-r[:, 1, 2], r[:, 2, 2])
    out[:, 4] = np.arcsin(np.clip(r[:, 0, 2], -1.0, 1.0))
    out[:, 5] = np.arctan2(-r[:, 0, 1], r[:, 0, 0])
    return out


def fd_power(parameters: Float, radius: float = 50.0) -> Float:
    """Return Power's framewise displacement (T,), mm; the first value is NaN.

    ``FD_t = sum |d trans| + radius * sum |d rot|`` (Power 2012, doi 10.1016/j.neuroimage.2011.10.018).

    Parameters
    ----------
    parameters : array (T, 6)
        Translations in mm, then rotations in rad.
    radius : float
        Radius of the head, mm.
    """
    step = np.abs(np.diff(parameters, axis=0))
    step[:, 3:] *= radius
    return np.concatenate([[np.nan], step.sum(axis=1)])


def fd_jenkinson(matrices: Float, centre: Float | None = None, radius: float = SPHERE) -> Float:
    """Return Jenkinson's displacement between successive volumes (T,), mm; the first value is NaN.

    ``M = W_t inv(W_t-1) - I = [A b]``; ``FD = sqrt(radius^2 / 5 * tr(A'A) + |b + A c|^2)`` (Jenkinson 2002, doi
    10.1006/nimg.2002.1132).

    Parameters
    ----------
    matrices : array (T, 4, 4)
        Motion matrices.
    centre : array (3,), optional
        Centre ``c`` of the sphere, mm: the world origin (as C-PAC) by default.
    radius : float
        Radius of the sphere, mm.
    """
    relative = matrices[1:] @ np.linalg.inv(matrices[:-1]) - np.eye(4)
    a, b = relative[:, :3, :3], relative[:, :3, 3]
    at = b if centre is None else b + a @ centre
    return np.concatenate([[np.nan], np.sqrt(radius**2 / 5.0 * (a**2).sum(axis=(1, 2)) + (at**2).sum(axis=1))])


def displacement(matrices: Float, points: Float) -> Float:
    """Return the mean displacement (T,) of world points (N, 3) by matrices (T, 4, 4), mm."""
    moved = np.einsum("tij,nj->tni", matrices[:, :3, :3], points) + matrices[:, None, :3, 3]
    return np.asarray(np.linalg.norm(moved - points, axis=2).mean(axis=1))


def expand(columns: dict[str, Float]) -> dict[str, Float]:
    """Return each column (T,) with its ``_derivative1``, ``_power2`` and ``_derivative1_power2``.

    Derivatives are backward differences; their first value is NaN (Satterthwaite 2013, fMRIPrep's names).
    """
    out: dict[str, Float] = {}
    for name, values in columns.items():
        slope = np.concatenate([[np.nan], np.diff(values)])
        out[name], out[f"{name}_derivative1"] = values, slope
        out[f"{name}_power2"], out[f"{name}_derivative1_power2"] = values**2, slope**2
    return out


def lagged(columns: dict[str, Float]) -> dict[str, Float]:
    """Return the values of the volume before and their squares, ``_lag1`` and ``_lag1_power2`` (Friston 1996).

    The first value is NaN; a regression takes it as 0, as C-PAC does.
    """
    out: dict[str, Float] = {}
    for name, values in columns.items():
        before = np.concatenate([[np.nan], values[:-1]])
        out[f"{name}_lag1"], out[f"{name}_lag1_power2"] = before, before**2
    return out


def summary(values: Any) -> tuple[float, float]:
    """Return mean and maximum of a displacement series, without its undefined first value."""
    defined = np.asarray(values)[np.isfinite(values)]
    return (float(defined.mean()), float(defined.max())) if len(defined) else (0.0, 0.0)


HUGE_FD = 0.5
"""Mean FD (Power) above which a run is flagged, mm."""


def motion_flags(mean_fd: float | None) -> list[str]:
    """Return a flag where the mean FD (mm) is large; none where it is not known."""
    return [f"large motion: mean FD {mean_fd:.2f} mm"] if mean_fd is not None and mean_fd > HUGE_FD else []
