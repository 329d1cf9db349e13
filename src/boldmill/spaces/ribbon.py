"""Points in the cortical ribbon of a standard mesh, in any named space.

Between the white and pial surfaces of fsaverage5 (MNI305, moved) or of the S1200 group average (fsLR-32k,
MNI152NLin6Asym), or the registration-fusion coordinates (Wu 2018) of every vertex that the user supplies.

Axes: D depths (white to pial), V vertices (left, then right), coordinates in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.spaces.meshes import N_VERTICES, surface
from boldmill.spaces.moves import NLIN6, move_points
from boldmill.spaces.surfaces import HEMISPHERES


def depths_between(n: int) -> NDArray[np.float64]:
    """Return ``n`` fractions from white to pial: the middles of ``n`` equal layers (one depth: the middle).

    >>> depths_between(2).tolist()
    [0.25, 0.75]
    """
    return (np.arange(n) + 0.5) / n


def ribbon_points(space: str, n_depths: int, mesh: str = "fsaverage5") -> NDArray[np.float64]:
    """Return positions (D, V, 3) between the white and pial surface of a mesh, moved to ``space``."""
    layers = []
    for fraction in depths_between(n_depths):
        halves = []
        for hemisphere in HEMISPHERES:
            white, pial = surface(mesh, "white", hemisphere), surface(mesh, "pial", hemisphere)
            halves.append(move_points((1 - fraction) * white.coords + fraction * pial.coords, white.space, space))
        layers.append(np.vstack(halves))
    return np.stack(layers)


def ribbon_files(mesh: str = "fsaverage5") -> list[Path]:
    """Return the files :func:`ribbon_points` reads."""
    return [surface(mesh, kind, hemisphere).path for kind in ("white", "pial") for hemisphere in HEMISPHERES]


def ribbon_space(mesh: str) -> str:
    """Return the space of a mesh's white and pial surfaces."""
    return surface(mesh, "white", "L").space


def fusion_points(paths: Sequence[Path], space: str, mesh: str) -> NDArray[np.float64]:
    """Return registration-fusion positions (1, V, 3) in ``space``; vertices of the medial wall are NaN.

    Parameters
    ----------
    paths : sequence of two Path
        Text files, left and right: three columns of MNI152 coordinates (FSL, mm) per vertex, ``0 0 0`` on the medial
        wall, as published.
    space : str
    mesh : str
        Mesh whose vertices they are of.

    Raises
    ------
    ConfigError
        A file cannot be read, or has another number of rows than the mesh has vertices.
    """
    halves = []
    for path in paths:
        fix = f"give the registration-fusion coordinates of {mesh}, left and right"
        try:
            rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
        except (OSError, ValueError) as error:
            raise ConfigError("cannot read coordinates", path, str(error), fix) from error
        if rows.shape != (N_VERTICES[mesh], 3):
            why = f"it has {rows.shape[0]} rows of {rows.shape[1]}, {mesh} has {N_VERTICES[mesh]} vertices"
            raise ConfigError("coordinates do not fit", path, why, fix)
        wall = ~rows.any(axis=1)
        rows = move_points(rows, NLIN6, space)
        rows[wall] = np.nan
        halves.append(rows)
    return np.vstack(halves)[None]


def vote(volume: NDArray[Any], affine: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return each vertex's most frequent label over the depths (nearest voxel; 0 counts only if it is alone).

    Parameters
    ----------
    volume : (I, J, K) array of int
    affine : (4, 4) array
    points : (D, V, 3) array
        In the volume's space.

    Returns
    -------
    (V,) array of int
        Ties go to the smaller label.
    """
    inverse = np.linalg.inv(affine)
    index = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < np.array(volume.shape))).all(-1)
    i, j, k = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
    labels = np.where(inside, volume[i, j, k], 0).astype(np.int64)
    counts = np.stack([(labels == label[None]).sum(0) * (label > 0) for label in labels])
    best = counts.max(0)
    candidate = np.where((counts == best) & (best > 0), labels, np.iinfo(np.int64).max).min(0)
    return np.where(best > 0, candidate, 0)
