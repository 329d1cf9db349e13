"""Pictures of the report as PNG bytes, the same bytes for the same data.

Axes: T time (volumes), P parcels, V voxels, X Y Z image grid.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CARPET_ROWS = 300
MONITORS = ("effective_rank", "embedding_variance", "alignment", "uniformity", "grad_norm")
"""Numbers of a history, beside its losses, that show a collapse or a divergence."""
LABEL = 12
"""Longest label under an axis, characters."""


def png(figure: Any, dpi: int) -> bytes:
    """Render and close a figure; no software name or date goes into the file."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()


def start() -> Any:
    """Return pyplot on the file backend."""
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    import matplotlib.pyplot as plt

    return plt


def overlay(background: Array, contours: Sequence[tuple[Array, str]], dpi: int, title: str) -> bytes:
    """Draw three slices per axis of a volume with contours of masks or probability maps at one half.

    Parameters
    ----------
    background : (X, Y, Z) array
        Image in RAS orientation.
    contours : sequence of ((X, Y, Z) array, colour)
        Maps on the same grid.
    """
    plt = start()
    inside = np.argwhere(contours[0][0] > 0.5) if contours else np.argwhere(background > 0)
    low, high = (inside.min(0), inside.max(0)) if len(inside) else (np.zeros(3, int), np.array(background.shape) - 1)
    figure, axes = plt.subplots(1, 9, figsize=(13.5, 1.9), facecolor="black")
    top = float(np.percentile(background[background > 0], 99)) if (background > 0).any() else 1.0
    for column, axis_image in enumerate(axes):
        axis = column // 3
        where = int(low[axis] + (high[axis] - low[axis]) * (0.3, 0.5, 0.7)[column % 3])
        axis_image.imshow(np.take(background, where, axis).T, origin="lower", cmap="gray", vmin=0, vmax=top)
        for volume, colour in contours:
            plane = np.take(volume, where, axis).T
            if plane.min() < 0.5 < plane.max():
                axis_image.contour(plane, levels=[0.5], colors=[colour], linewidths=0.7)
        axis_image.axis("off")
    figure.suptitle(title, color="white", fontsize=9, y=1.03)
    figure.subplots_adjust(wspace=0.02)
    return png(figure, dpi)


def motion_and_carpet(fd: Array, dvars: Array, series: Array, tr: float, dpi: int) -> bytes:
    """Draw FD, DVARS and the carpet of one run on one time axis.

    Parameters
    ----------
    fd, dvars : (T,) arrays
        Framewise displacement (mm) and DVARS; NaN where undefined.
    series : (T, V) array
        Cleaned series of voxels or parcels, NaN where there are no data; V is thinned to at most 300 rows.
    """
    plt = start()
    seconds = np.arange(len(series)) * tr
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(9, 3.6), sharex=True, height_ratios=[1, 1, 2.2], layout="constrained"
    )
    for axis, values, name in ((top, fd, "FD (mm)"), (middle, dvars, "DVARS")):
        if np.isfinite(values).any():
            axis.plot(seconds, values, color="#1f4e79", linewidth=0.9)
        else:
            axis.text(0.5, 0.5, "not available", transform=axis.transAxes, ha="center", va="center", color="#777777")
        axis.set_ylabel(name, fontsize=8)
    rows = np.unique(np.linspace(0, series.shape[1] - 1, min(CARPET_ROWS, series.shape[1])).astype(int))
    kept = np.nan_to_num(series[:, rows])
    scaled = kept / np.maximum(kept.std(axis=0), 1e-9)
    bottom.imshow(scaled.T, aspect="auto", cmap="gray", vmin=-2, vmax=2, extent=(0, seconds[-1] + tr, len(rows), 0))
    bottom.set_ylabel("carpet", fontsize=8)
    bottom.set_xlabel("time (s)", fontsize=8)
    for axis in (top, middle, bottom):
        axis.tick_params(labelsize=7)
    bottom.set_yticks([])
    return png(figure, dpi)


def fc_matrix(fc: Array, networks: Sequence[str], dpi: int) -> bytes:
    """Draw an FC matrix (P, P) in id order, with the borders of networks where the name changes."""
    plt = start()
    figure, axis = plt.subplots(figsize=(3.4, 3.0), layout="constrained")
    image = axis.imshow(fc, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    borders = [i for i in range(1, len(networks)) if networks[i] != networks[i - 1]]
    for border in borders:
        axis.axhline(border - 0.5, color="black", linewidth=0.3)
        axis.axvline(border - 0.5, color="black", linewidth=0.3)
    axis.set_xticks([])
    axis.set_yticks([])
    figure.colorbar(image, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
    return png(figure, dpi)


def losses(history: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Return ``{label: [(step, value), ...]}`` of every loss of a history.

    Steps are counted anew in every stage of a run, so each stage has curves of its own; rows without a value are left
    out.
    """
    return _curves_of(history, lambda name: "loss" in name)


def monitors(history: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return ``{monitor: {label: [(step, value), ...]}}`` of the numbers of a history that show a collapse."""
    found = {name: _curves_of(history, name.__eq__) for name in MONITORS}
    return {name: drawn for name, drawn in found.items() if drawn}


def _curves_of(
    history: Sequence[dict[str, Any]], wanted: Callable[[str], bool]
) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for place, row in enumerate(history):
        for name in sorted(row):
            if wanted(name) and isinstance(row[name], int | float):
                label = f"{row['stage']}: {name}" if "stage" in row else name
                found.setdefault(label, []).append((float(row.get("step", place)), float(row[name])))
    return found


def curves(history: Sequence[dict[str, Any]], dpi: int, title: str) -> bytes:
    """Draw every loss of a training history against the step, and beside them each monitor on a scale of its own."""
    plt = start()
    watched = monitors(history)
    columns = -(-len(watched) // 2)
    figure = plt.figure(figsize=(5.2 + 1.9 * columns, 2.8), layout="constrained")
    grid = figure.add_gridspec(2, 1 + columns, width_ratios=[5.2, *[1.9] * columns])
    axis = figure.add_subplot(grid[:, 0])
    found = losses(history)
    for label, points in sorted(found.items()):
        _draw(axis, points, label)
    axis.set_xlabel("step", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    if found:
        axis.legend(fontsize=7)
    for place, (name, lines) in enumerate(watched.items()):
        small = figure.add_subplot(grid[place % 2, 1 + place // 2])
        for label, points in sorted(lines.items()):
            _draw(small, points, label)
        small.set_title(name.replace("_", " "), fontsize=7)
        small.tick_params(labelsize=6)
        small.grid(alpha=0.3)
        if len(lines) > 1:
            small.legend([label.split(":")[0] for label in sorted(lines)], fontsize=5)
    return png(figure, dpi)


def _draw(axis: Any, points: list[tuple[float, float]], label: str) -> None:
    style = {"marker": "o", "markersize": 2.5} if len(points) < 40 else {}
    axis.plot(*zip(*points, strict=True), label=label, linewidth=1, **style)


def cohort(values: dict[str, dict[str, list[float]]], dpi: int) -> bytes:
    """Draw the distribution of each quality number by site: ``{number: {site: values}}``, at least one number."""
    plt = start()
    figure, axes = plt.subplots(1, len(values), figsize=(2.6 * len(values), 2.4), layout="constrained", squeeze=False)
    for axis, (name, sites) in zip(axes[0], values.items(), strict=True):
        shown = {site: numbers for site, numbers in sorted(sites.items()) if numbers}
        axis.boxplot(list(shown.values()), tick_labels=[label(site) for site in shown], widths=0.5)
        for position, numbers in enumerate(shown.values(), start=1):
            axis.plot([position] * len(numbers), numbers, ".", color="#1f4e79", alpha=0.6, markersize=4)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    return png(figure, dpi)


def label(name: str) -> str:
    """Return a name that fits under an axis; a dollar sign is no formula."""
    short = name if len(name) <= LABEL else f"{name[: LABEL - 2]}.."
    return short.replace("$", r"\$")


def load_volume(path: Path) -> Array:
    """Return a 3D image as float32 in RAS orientation; a 4D image gives its mean over time."""
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))
    data = np.asarray(image.dataobj, dtype=np.float32)
    return data.mean(-1) if data.ndim == 4 else data
