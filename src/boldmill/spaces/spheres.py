"""Carry series from one registered sphere to another: adaptive barycentric weights, as connectome workbench's.

Axes: S vertices of the source mesh, V vertices of the target mesh, F triangles, K candidate triangles.

Barycentric weights of each target vertex in the source triangle it lies in; where the target mesh is coarser, the
source vertices that lie in the target's own triangles are averaged instead, so that none is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
NEAREST = 4
"""Source vertices whose triangles are searched for each point."""


def unit(points: Float) -> Float:
    """Return points (n, 3) on the unit sphere."""
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def barycentric(points: Float, vertices: Float, faces: NDArray[np.int64]) -> Any:
    """Return the weights (n, S) of points on a sphere in the triangles of a mesh on the same sphere.

    Parameters
    ----------
    points : (n, 3) array
        On the unit sphere.
    vertices : (S, 3) array
        On the unit sphere.
    faces : (F, 3) array of int
        Triangles.

    Returns
    -------
    scipy.sparse.csr_array
        Rows sum to 1; all weights are in [0, 1].
    """
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    order = np.argsort(faces.ravel(), kind="stable")
    counts = np.bincount(faces.ravel(), minlength=len(vertices))
    first = np.concatenate([[0], np.cumsum(counts)])
    widest = int(counts.max())
    # triangles of each vertex (S, widest), the last one repeated where there are fewer
    slots = np.minimum(np.arange(widest), np.maximum(counts, 1)[:, None] - 1)
    around = (order // 3)[np.minimum(first[:-1, None] + slots, len(order) - 1)]
    near = cKDTree(vertices).query(points, k=NEAREST)[1]
    candidates = around[near].reshape(len(points), -1)
    best = np.full(len(points), -np.inf)
    chosen = np.zeros((len(points), 3))
    corners = np.zeros((len(points), 3), np.int64)
    for column in candidates.T:
        triangle = vertices[faces[column]]
        a, b, c = triangle[:, 0], triangle[:, 1], triangle[:, 2]
        # signed volumes of the tetrahedra the point's ray makes with the edges
        weights = np.stack([_triple(points, b, c), _triple(points, c, a), _triple(points, a, b)], axis=1)
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(np.abs(total) < 1e-15, 1.0, total)
        least = weights.min(axis=1)
        better = least > best
        best[better], chosen[better], corners[better] = least[better], weights[better], faces[column[better]]
    chosen = np.clip(chosen, 0.0, 1.0)
    chosen /= chosen.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), 3)
    return csr_array((chosen.ravel(), (rows, corners.ravel())), shape=(len(points), len(vertices)))


def _triple(a: Float, b: Float, c: Float) -> Float:
    return np.asarray(np.einsum("ij,ij->i", a, np.cross(b, c)))


def adaptive(
    source: Float,
    source_faces: NDArray[np.int64],
    target: Float,
    target_faces: NDArray[np.int64],
    used: NDArray[np.bool_],
) -> Any:
    """Return the operator (V, S) that carries values from one sphere to another.

    Parameters
    ----------
    source, target : (S, 3) and (V, 3) arrays
        Spheres registered to each other, any radius.
    source_faces, target_faces : (F, 3) arrays of int
    used : (S,) array of bool
        Source vertices with data; others get no weight, and a target vertex with less than half of its weight on used
        ones has an empty row.

    Returns
    -------
    scipy.sparse.csr_array
        Rows sum to 1, or are empty.
    """
    from scipy.sparse import csr_array, diags_array

    there, here = unit(source), unit(target)
    forward = barycentric(here, there, source_faces)
    reverse = barycentric(there, here, target_faces).T.tocsr()
    forward.eliminate_zeros()
    reverse.eliminate_zeros()
    needed = forward.copy()
    needed.data = np.ones_like(needed.data)
    have = reverse.copy()
    have.data = np.ones_like(have.data)
    shared = np.asarray(needed.multiply(have).sum(axis=1)).ravel()
    wide = shared == np.asarray(needed.sum(axis=1)).ravel()
    weights = diags_array(wide.astype(float)) @ reverse + diags_array((~wide).astype(float)) @ forward
    total = np.asarray(weights.sum(axis=1)).ravel()
    kept = weights @ diags_array(used.astype(float))
    left = np.asarray(kept.sum(axis=1)).ravel()
    enough = left >= 0.5 * total
    scale = np.where(enough & (left > 0), 1.0 / np.maximum(left, 1e-30), 0.0)
    out = csr_array(diags_array(scale) @ kept)
    out.eliminate_zeros()
    return out
