"""The flat grid: both hemispheres on one image, and the sparse operator from vertices to its pixels.

Layout as published for cortical flat maps (arXiv 2510.13768): left hemisphere left, 16 mm between the hemispheres,
pixels of 1.2 mm, 224 x 560 of them in the box x -336..336, y -122.8..146 mm, row 0 on top. Weights are barycentric in
the Delaunay triangulation of the flat vertices; the pixel mask is membership in a mesh triangle with all sides under
16 mm. The HCP flat is wider (911 x 365 mm) and has a box of its own, 320 x 768 pixels of the same size.

Vertices that no triangle of the flat mesh uses carry junk coordinates, so a vertex counts only if a kept triangle uses
it. Triangles that the flattening folded over (turned or without area) are dropped.

| name | pixels | 16 x 16 patches | IoU with the published mask (77,763 pixels, 364 patches) |
|---|---|---|---|
| `fsLR-rebuilt-224x560` | 77,653 | 363 | 0.981 |
| `fsaverage5-flat-224x560` | 77,609 | 363 | 0.984 |

Axes: V vertices (left, then right), F triangles, H W pixels, N pixels of the mask in row-major order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.spaces.flats import FlatSurface
from boldmill.spaces.surfaces import Surface

PIXEL = 1.2
"""Size of a pixel, mm."""
GAP = 16.0
LONGEST_SIDE = 16.0
PATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The image a flat surface is drawn on: ``left`` and ``top`` of pixel (0, 0), mm, and its size in pixels."""

    left: float
    top: float
    height: int
    width: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """X from, x to, y from, y to, mm."""
        return (self.left, self.left + PIXEL * self.width, self.top - PIXEL * self.height, self.top)


PUBLISHED = Frame(left=-336.0, top=146.0, height=224, width=560)
HCP = Frame(left=-460.8, top=197.4, height=320, width=768)
NAMES = {
    "published": ("fsLR-published-224x560", PUBLISHED),
    "rebuilt": ("fsLR-rebuilt-224x560", PUBLISHED),
    "fsaverage5": ("fsaverage5-flat-224x560", PUBLISHED),
    "hcp": ("fsLR-hcp-320x768", HCP),
}
"""Flat surface -> name of its grid, and its image."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlatGrid:
    """The grid of one named flat surface.

    Parameters
    ----------
    name : str
        Grid name; two grids with different masks never share one.
    mesh : str
        Mesh its vertices are of.
    frame : Frame
    mask : (H, W) array of bool
        Pixels on the cortex.
    operator : scipy.sparse.csr_array, (N, V) float32
        Barycentric weights, three per pixel, rows sum to 1.
    vertices : (V,) array of bool
        Vertices used by the flat patch.
    """

    name: str
    mesh: str
    frame: Frame
    mask: NDArray[np.bool_]
    operator: Any
    vertices: NDArray[np.bool_]

    @property
    def mask_sha256(self) -> str:
        """Sha256 of the mask, packed to bits row by row."""
        return mask_sha256(self.mask)

    @property
    def n_patches(self) -> int:
        """Number of 16 x 16 patches with at least one pixel of the mask."""
        height, width = self.mask.shape
        blocks = self.mask.reshape(height // PATCH, PATCH, width // PATCH, PATCH)
        return int(blocks.any(axis=(1, 3)).sum())


def mask_sha256(mask: NDArray[np.bool_]) -> str:
    """Return the sha256 of a pixel mask, packed to bits row by row (what shards and checkpoints carry)."""
    return hashlib.sha256(np.packbits(np.ascontiguousarray(mask, bool)).tobytes()).hexdigest()


def sample_points(frame: Frame = PUBLISHED) -> NDArray[np.float64]:
    """Return the pixels' sample points (H, W, 2) in mm: x_j = left + 1.2 j, y_i = top - 1.2 i."""
    x = frame.left + PIXEL * np.arange(frame.width)
    y = frame.top - PIXEL * np.arange(frame.height)
    return np.stack(np.meshgrid(x, y), axis=-1)


def layout(left: Surface, right: Surface) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Place two flat hemispheres side by side; extents are taken over all their vertices, as published.

    Returns
    -------
    points : (V, 2) array
        Flat positions, mm.
    faces : (F, 3) array of int
        Triangles, indices into the stacked vertices.
    """
    first, second = left.coords[:, :2].copy(), right.coords[:, :2].copy()
    first[:, 0] += -first[:, 0].max() - GAP / 2
    second[:, 0] += -second[:, 0].min() + GAP / 2
    return np.vstack([first, second]), np.vstack([left.faces, right.faces + len(first)])


def doubled_area(points: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return twice the signed area of triangles (F,); negative where a triangle is turned over."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    area: NDArray[np.float64] = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    return area


def kept_triangles(
    points: NDArray[np.float64], faces: NDArray[np.int64], usable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the triangles (F', 3) with usable corners, no side of 16 mm or more (those bridge a cut), and not folded.

    Folded: turned against most of the others, or without area.
    """
    corners = points[faces]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    inside = (sides.max(1) < LONGEST_SIDE) & usable[faces].all(1)
    area = doubled_area(points, faces)
    facing = np.sign(np.median(area[inside])) if inside.any() else 1.0
    kept: NDArray[np.int64] = faces[inside & (area * facing > 0)]
    return kept


def covered_pixels(points: NDArray[np.float64], faces: NDArray[np.int64], frame: Frame) -> NDArray[np.bool_]:
    """Return which sample points (H, W) lie in a triangle, edges included; triangles may overlap.

    Where none do, the same as matplotlib's trifinder, which refuses a mesh with overlaps. All triangles are asked at
    once for the n-th pixel of their boxes; a box has at most 14 x 14 pixels.
    """
    edge = 1e-9
    column, row = (points[:, 0] - frame.left) / PIXEL, (frame.top - points[:, 1]) / PIXEL
    x, y = column[faces], row[faces]
    first = [np.ceil(v.min(1) - edge).astype(np.int64) for v in (y, x)]
    last = [np.floor(v.max(1) + edge).astype(np.int64) for v in (y, x)]
    twice = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    mask = np.zeros((frame.height, frame.width), bool)
    extent = [int((b - a).max(initial=-1)) + 1 for a, b in zip(first, last, strict=True)]
    for down, right in np.ndindex(*extent):
        i, j = first[0] + down, first[1] + right
        on = (i <= last[0]) & (j <= last[1]) & (i >= 0) & (j >= 0) & (i < frame.height) & (j < frame.width)
        ask = np.flatnonzero(on & (twice != 0))
        dx, dy = x[ask] - j[ask, None], y[ask] - i[ask, None]
        part = (dx * np.roll(dy, -1, axis=1) - np.roll(dx, -1, axis=1) * dy) / twice[ask, None]
        hit = ask[(part >= -edge).all(1)]
        mask[i[hit], j[hit]] = True
    return mask


def barycentric(points: NDArray[np.float64], targets: NDArray[np.float64]) -> Any:
    """Return the sparse linear interpolator from scattered 2-D points to targets.

    The same weights as scipy's ``LinearNDInterpolator``, as one matrix.

    Parameters
    ----------
    points : (V, 2) array
    targets : (N, 2) array

    Returns
    -------
    scipy.sparse.csr_array, (N, V) float32
        A target outside the convex hull has an empty row.
    """
    from scipy.sparse import csr_array
    from scipy.spatial import Delaunay

    triangulation = Delaunay(points)
    simplex = triangulation.find_simplex(targets)
    inside = np.flatnonzero(simplex >= 0)
    columns = triangulation.simplices[simplex[inside]].astype(np.int64)
    x, y = (points[columns, axis] - targets[inside, axis, None] for axis in (0, 1))
    # twice the areas of the triangles that a target makes with the sides; scipy's `transform` solves a system each
    areas = np.roll(x, -1, axis=1) * np.roll(y, -2, axis=1) - np.roll(x, -2, axis=1) * np.roll(y, -1, axis=1)
    weights = areas / areas.sum(axis=1, keepdims=True)
    rows = np.repeat(inside, 3)
    shape = (len(targets), len(points))
    matrix = csr_array((weights.ravel().astype(np.float32), (rows, columns.ravel())), shape=shape)
    matrix.sort_indices()
    return matrix


def flat_grid(flat: FlatSurface) -> FlatGrid:
    """Build the grid of a flat surface.

    Raises
    ------
    ConfigError
        The surface has no usable triangle or leaves its image: it is not the one its name says.
    """
    from scipy.sparse import csr_array

    name, frame = NAMES[flat.name]
    points, faces = layout(flat.left, flat.right)
    faces = kept_triangles(points, faces, flat.usable)
    used = np.zeros(len(points), bool)
    used[faces] = True
    if not used.any():
        why = "no triangle has usable corners, sides under 16 mm and an area"
        raise ConfigError("no flat surface", flat.left.path, why, f"give the surface `{flat.name}` stands for")
    low, high = points[used].min(0), points[used].max(0)
    x_from, x_to, y_from, y_to = frame.box
    if low[0] < x_from or high[0] > x_to or low[1] < y_from or high[1] > y_to:
        why = f"it spans x {low[0]:.0f}..{high[0]:.0f}, y {low[1]:.0f}..{high[1]:.0f} mm, outside the image {frame.box}"
        raise ConfigError(
            "flat surface does not fit", flat.left.path, why, f"give the surface `{flat.name}` stands for"
        )
    mask = covered_pixels(points, faces, frame)
    small = barycentric(points[used], sample_points(frame)[mask]).tocoo()
    columns = np.flatnonzero(used)[small.col]
    operator = csr_array((small.data, (small.row, columns)), shape=(int(mask.sum()), len(points)))
    operator.sort_indices()
    return FlatGrid(name=name, mesh=flat.mesh, frame=frame, mask=mask, operator=operator, vertices=used)
