"""A map on the cortex: four views of the inflated fsaverage5 surface, and the flat map.

Axes: V vertices of fsaverage5 (left, then right), N pixels of the flat mask, H W grid.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.interpret import canvas
from boldmill.interpret.regions import on_vertices

Floats = NDArray[np.float64]
VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
EDGE_SHADE = 0.55


def draw_cortex(path: Path, values: Floats, labels: NDArray[np.int64], title: str, unit: str, *, signed: bool) -> Path:
    """Draw region values (N,) on the inflated surface, four views, sulci shaded.

    Parameters
    ----------
    labels : (V,) array
        Column of each vertex, from 1; 0 is none.
    unit : str
        What a colour stands for.
    signed : bool
        Colours around 0, else from the smallest value up.
    """
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    from nilearn.plotting import plot_surf_stat_map

    from boldmill.spaces.surfaces import fsaverage5_scalar

    low, high, cmap = canvas.scale(values, signed=signed)
    halves = dict(zip(("left", "right"), np.split(on_vertices(values, labels), 2), strict=True))
    figure = canvas.new(10, 3.2)
    panels = figure.subplots(1, 4, subplot_kw={"projection": "3d"})
    for panel, (side, view) in zip(panels, VIEWS, strict=True):
        plot_surf_stat_map(
            inflated(side), halves[side], hemi=side, view=view, bg_map=fsaverage5_scalar("sulc", side[0].upper()),
            bg_on_data=True, cmap=cmap, vmin=low, vmax=high, colorbar=False, engine="matplotlib", axes=panel,
            figure=figure,
        )  # fmt: skip
        panel.set_title(f"{side}, {view}", fontsize=8, y=-0.02)
    figure.suptitle(title, fontsize=10)
    canvas.bar(figure, low, high, cmap, unit, list(panels))
    return canvas.save(figure, path)


def inflated(side: str) -> Any:
    """Return the inflated mesh of nilearn's fsaverage5: coordinates and triangles."""
    import nibabel as nib

    from boldmill.spaces.packages import package_file

    image: Any = nib.load(package_file("nilearn", f"datasets/data/fsaverage5/infl_{side}.gii.gz"))
    return [image.agg_data("pointset"), image.agg_data("triangle")]


@lru_cache(maxsize=1)
def _grid() -> Any:
    from boldmill.represent.flatgrid import flat_grid
    from boldmill.spaces.flats import flat_surface

    return flat_grid(flat_surface("fsaverage5"))


def flat_labels(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the column of each flat pixel (N,) and the mask (H, W): the label of the vertex that weighs most."""
    grid = _grid()
    weights = grid.operator
    per_pixel = np.diff(weights.indptr)
    heaviest = np.maximum.reduceat(weights.data, weights.indptr[:-1])
    best = weights.data == np.repeat(heaviest, per_pixel)
    row = np.repeat(np.arange(len(per_pixel)), per_pixel)[best]
    first = np.unique(row, return_index=True)[1]
    return labels[weights.indices[best][first]], grid.mask


def draw_flat(path: Path, values: Floats, labels: NDArray[np.int64], title: str, unit: str, *, signed: bool) -> Path:
    """Draw region values (N,) on the flat map of both hemispheres, borders of regions darkened."""
    from boldmill.represent.pictures import colour

    low, high, cmap = canvas.scale(values, signed=signed)
    pixels, mask = flat_labels(labels)
    shown = np.append(np.nan, values)[pixels]
    image = colour(np.nan_to_num(shown, nan=low), mask, None, low, high, cmap)
    plane = np.zeros(mask.shape, np.int64)
    plane[mask] = pixels
    known = np.zeros(mask.shape, bool)
    known[mask] = np.isfinite(shown)
    image[mask & ~known] = 217  # the medial wall and what no region covers
    border = np.zeros(mask.shape, bool)
    border[:, :-1] |= plane[:, :-1] != plane[:, 1:]
    border[:-1] |= plane[:-1] != plane[1:]
    image[border & mask] = (image[border & mask] * EDGE_SHADE).astype(np.uint8)
    figure = canvas.new(8, 4.3)
    axes = figure.add_subplot()
    axes.imshow(image, interpolation="antialiased")
    axes.axis("off")
    for name, x in (("L", 0.02), ("R", 0.98)):
        axes.text(x, 0.96, name, transform=axes.transAxes, fontsize=11, ha="center", va="top")
    axes.set_title(title, fontsize=10)
    canvas.bar(figure, low, high, cmap, unit, axes)
    return canvas.save(figure, path)
