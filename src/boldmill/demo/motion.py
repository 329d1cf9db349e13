"""Rigid head motion with a stated convention: slow drift, jumps, and brief spikes.

Volume t shows the head moved by ``x(t) = R(t) (x - c) + c + d(t)``, with x a point of the head at its rest position in
the run's world (RAS, mm), c the stated centre, ``R = Rx Ry Rz`` (rad).

Axis legend: T volumes; 6 = trans_x, trans_y, trans_z (mm), rot_x, rot_y, rot_z (rad).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.demo.geometry import about_centre, rotation

Floats = NDArray[np.floating[Any]]

COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
BRAIN_RADIUS_MM = 55.0
MEAN_MM = 0.36
LARGEST_MM = 1.9
SPIKES_PER_100 = 2.7


def displacement(motion: Floats, radius: float = BRAIN_RADIUS_MM) -> Floats:
    """Return the displacement of each volume from the rest position, root mean square over a ball about the centre.

    For a ball of radius r, ``|d|^2 + r^2 / 5 * |R - I|_F^2`` (Jenkinson 1999).

    Parameters
    ----------
    motion : array (T, 6)

    Returns
    -------
    array (T,), mm
    """
    matrices = np.stack([rotation(row[3:]) for row in motion]) - np.eye(3)
    return np.asarray(np.sqrt((motion[:, :3] ** 2).sum(1) + radius**2 / 5 * (matrices**2).sum((1, 2))))


def simulate(draw: np.random.Generator, volumes: int, tr: float, level: float = 1.0) -> Floats:
    """Return motion parameters, shape (T, 6).

    Slow drift (a smoothed random walk), respiration-like wobble, and brief spikes of one to two volumes; scaled so that
    the mean displacement is ``level * MEAN_MM`` and no volume moves by more than ``LARGEST_MM``.
    """
    from scipy import ndimage

    units = np.array([0.5, 0.7, 1.0, 0.018, 0.010, 0.009])  # mm and rad: pitch and head-foot shift dominate
    walk = draw.standard_normal((volumes, 6)).cumsum(axis=0)
    walk = ndimage.gaussian_filter1d(walk, sigma=6.0 / tr, axis=0)
    walk = (walk - walk.mean(axis=0)) / (walk.std(axis=0) + 1e-12)
    wobble = np.sin(2 * np.pi * 0.27 * tr * np.arange(volumes) + draw.uniform(0, 2 * np.pi))[:, None]
    motion = units * (walk + 0.08 * wobble * draw.uniform(0.3, 1.0, 6) + 0.02 * draw.standard_normal((volumes, 6)))
    spikes = np.zeros_like(motion)
    count = max(2, round(SPIKES_PER_100 * volumes / 100))
    margin = 4
    onsets = margin + draw.choice((volumes - 2 * margin) // 3, size=count, replace=False) * 3
    for onset in onsets:
        kick = units * draw.standard_normal(6)
        size = draw.uniform(0.7, 1.4)
        length = int(draw.integers(1, 3))
        shape = np.array([1.0, 0.5])[:length, None]
        spikes[onset : onset + length] += shape * kick * size / displacement(kick[None])[0]
    goal = level * MEAN_MM
    scale = 1.0
    for _ in range(12):  # the mean is nearly linear in the scale of the slow part
        scale *= goal / displacement(scale * motion + level * spikes).mean()
    moved = scale * motion + level * spikes
    too_far = np.maximum(displacement(moved) / LARGEST_MM, 1.0)
    return np.asarray(moved / too_far[:, None])


def matrices(motion: Floats, centre: Floats) -> Floats:
    """Return the 4x4 world matrices (head at rest -> head at volume t), shape (T, 4, 4)."""
    return np.stack([about_centre(rotation(row[3:]), centre, row[:3]) for row in motion])
