"""Points in the cortical ribbon of fsaverage5, in any named space.

Axes: D depths (white to pial), V vertices (left, then right), coordinates in mm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.spaces.moves import move_points
from boldmill.spaces.surfaces import HEMISPHERES, fsaverage5


def depths_between(n: int) -> NDArray[np.float64]:
    """Return ``n`` fractions from white to pial: the middles of ``n`` equal layers (one depth: the middle).

    >>> depths_between(2).tolist()
    [0.25, 0.75]
    """
    return (np.arange(n) + 0.5) / n


def ribbon_points(space: str, n_depths: int) -> NDArray[np.float64]:
    """Return positions (D, V, 3) between the white and pial surface of fsaverage5, moved from MNI305 to ``space``."""
    layers = []
    for fraction in depths_between(n_depths):
        halves = []
        for hemisphere in HEMISPHERES:
            white, pial = fsaverage5("white", hemisphere), fsaverage5("pial", hemisphere)
            halves.append(move_points((1 - fraction) * white.coords + fraction * pial.coords, white.space, space))
        layers.append(np.vstack(halves))
    return np.stack(layers)


def ribbon_files() -> list[Path]:
    """Return the files :func:`ribbon_points` reads."""
    return [fsaverage5(kind, hemisphere).path for kind in ("white", "pial") for hemisphere in HEMISPHERES]


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
