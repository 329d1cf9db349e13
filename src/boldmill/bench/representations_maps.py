"""Parcellation beside nilearn, flat maps beside scipy's interpolator, and both beside reading the bytes once.

Axes: X voxels, T volumes, P parcels, V vertices, N pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.bench.representations_case import Case, read_once
from boldmill.bench.table import Row, side_by_side

PARCEL_GOAL, PARCEL_ERROR = 20.0, 1e-5
FLAT_GOAL, FLAT_ERROR = 10.0, 1e-4
PATH_GOAL = 3.0


def series_in_memory(case: Case) -> Any:
    """Return the run as the stages see it: a Series that reads blocks of volumes from memory."""
    from boldmill.represent.project import gather
    from boldmill.represent.series import BLOCK, Series

    def read(columns: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        for first in range(0, len(case.frames), BLOCK):
            yield gather(case.frames[first : first + BLOCK], columns)

    return Series(where=Path("bench"), n_volumes=len(case.frames), mask=case.mask, read=read)


def parcel_rows(case: Case, repeats: int) -> list[Row]:
    """The parcellate stage on data in memory (coverage and the check for finite values included), and its peer."""
    from nilearn.maskers import NiftiLabelsMasker

    from boldmill.represent.operators import membership
    from boldmill.represent.parcellate import parcel_series

    ids = [int(i) for i in np.unique(case.labels[case.mask]) if i]
    operator = membership(case.labels, ids)
    kept = np.where(np.isin(case.labels, ids), case.labels, np.int16(0))
    masker = NiftiLabelsMasker(
        case.image(kept), mask_img=case.image(case.mask.astype(np.uint8)), standardize=False, keep_masked_labels=False
    )
    run = case.image(case.frames)

    def ours() -> NDArray[np.float32]:
        return parcel_series(operator, series_in_memory(case), 0.0).values

    def peer() -> NDArray[np.float32]:
        return np.asarray(masker.fit_transform(run))

    error = float((np.abs(ours() - peer()) / ours().std(0)).max())
    ours_s, peer_s = side_by_side(ours, peer, repeats=min(repeats, 3))
    shape = "x".join(str(n) for n in (*case.size.shape, len(case.frames)))
    name = f"parcellation, {shape}, {len(ids)} parcels (peer: nilearn NiftiLabelsMasker; max difference"
    rows = [
        Row(
            name=f"{name} {error:.0e} of the SD)",
            ours=1e3 * ours_s,
            peer=1e3 * peer_s,
            unit="ms",
            ratio=peer_s / ours_s,
            goal=f"ratio >= {PARCEL_GOAL:g}, difference <= {PARCEL_ERROR:g}",
            met=peer_s / ours_s >= PARCEL_GOAL and error <= PARCEL_ERROR,
        )
    ]
    floor, name = [case.frames], f"parcellation, {shape} (floor: all frames read once)"
    return [*rows, floor_row(name, ours, floor, repeats)]


def floor_row(name: str, ours: Any, arrays: list[NDArray[Any]], repeats: int, goal: float | None = None) -> Row:
    """Return a row that has the reading of some arrays as its peer; ``ratio`` is the floor's share of our time."""
    ours_s, floor_s = side_by_side(ours, lambda: read_once(arrays), repeats=repeats)
    return Row(
        name=name,
        ours=1e3 * ours_s,
        peer=1e3 * floor_s,
        unit="ms",
        ratio=floor_s / ours_s,
        goal=f"within {goal:g}x of the floor" if goal else "",
        met=ours_s <= goal * floor_s if goal else None,
    )


def flat_rows(case: Case, repeats: int) -> list[Row]:
    """Vertices to pixels beside scipy, and volumes to pixels beside reading frames and operators once."""
    from boldmill.represent.project import Projector, columns_of

    columns = columns_of(case.ribbon, case.mask)
    to_mesh, to_pixels = Projector(case.ribbon, columns), Projector(case.grid.operator)
    series = series_in_memory(case)
    vertices = np.empty((case.ribbon.shape[0], len(case.frames)), np.float32)
    pixels = np.empty((case.grid.operator.shape[0], len(case.frames)), np.float32)

    def path() -> NDArray[np.float32]:
        first = 0
        for block in series.blocks(columns):
            to_pixels(to_mesh(block), pixels[:, first : first + block.shape[1]])
            first += block.shape[1]
        return pixels

    operators = [a for m in (case.ribbon, case.grid.operator) for a in (m.data, m.indices, m.indptr)]
    read, shape = [case.frames, *operators], "x".join(str(n) for n in (*case.size.shape, len(case.frames)))
    first = 0
    for block in series.blocks(columns):
        to_mesh(block, vertices[:, first : first + block.shape[1]])
        first += block.shape[1]
    vertices -= vertices.mean(1, keepdims=True)
    vertices /= np.maximum(vertices.std(1, keepdims=True), 1e-6)  # SD 1: the difference is in its unit
    rows = [_interpolation(case, vertices, to_pixels, pixels, repeats)]
    del vertices
    name = f"volume to flat map, {shape} to {len(pixels)} pixels of {case.surface}"
    floor = "frames and operators read once"
    rows.append(floor_row(f"{name} (floor: {floor})", path, read, repeats, PATH_GOAL))
    stage = f"{name}, as the stage does it: gaps filled, z-scored, float16 (floor: {floor})"
    rows.append(floor_row(stage, lambda: flat_stage(case), read, repeats))
    return rows


def flat_stage(case: Case) -> Any:
    """Return the flat maps (FlatRun) that the stage makes of the run, in memory, at the TR the run has."""
    from boldmill.represent.flatmap import fill_vertices, flat_run, vertex_series
    from boldmill.spaces.meshes import surface
    from boldmill.spaces.surfaces import HEMISPHERES

    values, covered = vertex_series(series_in_memory(case), case.ribbon)
    spheres = [surface("fsLR", "sphere", hemisphere).coords for hemisphere in HEMISPHERES]
    return flat_run(fill_vertices(values, covered, spheres), covered, case.grid.operator, 1.0, 1.0)


def _interpolation(case: Case, vertices: Any, project: Any, out: Any, repeats: int) -> Row:
    """Vertices to pixels; the peer interpolates frame by frame over a triangulation that is made once, outside."""
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import Delaunay

    from boldmill.represent.flatgrid import layout, sample_points
    from boldmill.spaces.flats import flat_surface

    flat = flat_surface(case.surface)
    used, targets = case.grid.vertices, sample_points(case.grid.frame)[case.grid.mask]
    triangulation = Delaunay(layout(flat.left, flat.right)[0][used])
    few = np.linspace(0, vertices.shape[1] - 1, case.size.peer_frames).astype(int)

    def ours() -> Any:
        return project(vertices, out)

    def peer() -> NDArray[np.float64]:
        return np.stack([LinearNDInterpolator(triangulation, vertices[used, t])(targets) for t in few], axis=1)

    error = float(np.abs(ours()[:, few] - peer()).max())
    ours_s, peer_s = side_by_side(ours, peer, repeats=min(repeats, 3))
    ours_rate, peer_rate = vertices.shape[1] / ours_s, len(few) / peer_s
    size = f"{vertices.shape[0]} vertices x {vertices.shape[1]} frames to {len(targets)} pixels"
    return Row(
        name=f"flat map, {size} (peer: scipy LinearNDInterpolator, {len(few)} frames; max difference {error:.0e})",
        ours=ours_rate,
        peer=peer_rate,
        unit="frames/s",
        ratio=ours_rate / peer_rate,
        goal=f"ratio >= {FLAT_GOAL:g}, difference <= {FLAT_ERROR:g}",
        met=ours_rate / peer_rate >= FLAT_GOAL and error <= FLAT_ERROR,
    )
