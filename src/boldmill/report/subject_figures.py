"""Figures of the subject page that are drawn with matplotlib, as data URIs; the same data give the same bytes.

Axes: T time (volumes), R carpet rows, K confounds, F frequencies, S slices, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.report.figures import start
from boldmill.report.svg import png_palette, webp

Array = NDArray[Any]

BLUE, RED, GREY = "#1f4e79", "#c0392b", "#8a949e"
SHADES = ("#1f4e79", "#d1862b", "#3c8d5a")
TISSUES = {1: ("GM", "#4c78a8"), 2: ("WM", "#d8a55a"), 3: ("CSF", "#5aa469"), 4: ("CBL", "#a05195")}
"""Carpet labels: short name and colour of the bar beside the rows."""
MAIN = (
    *("framewise_displacement", "rmsd", "std_dvars", "trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"),
    *("global_signal", "csf", "white_matter"),
)
SHORT = {
    "framewise_displacement": "FD",
    "std_dvars": "std. DVARS",
    "global_signal": "global signal",
    "white_matter": "white matter",
    "csf": "CSF",
}
COMPCOR = {"a_comp_cor_": 5, "c_comp_cor_": 2, "w_comp_cor_": 2, "t_comp_cor_": 2}
"""Prefixes of CompCor columns (both tissues together, CSF, WM, most variable voxels), and how many are correlated."""


def rendered(figure: Any, dpi: int, quality: int = 84) -> str:
    """Render and close a figure; return it as a WebP data URI."""
    import matplotlib.pyplot as plt

    figure.set_dpi(dpi)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return webp(pixels, quality)


def impulses(columns: Mapping[str, Array], prefix: str) -> NDArray[np.intp]:
    """Return the volumes that one-hot columns of a prefix mark."""
    found = [int(np.argmax(values)) for name, values in columns.items() if name.startswith(prefix)]
    return np.array(sorted(set(found)), dtype=np.intp)


def traces_and_carpet(
    columns: Mapping[str, Array],
    carpet: Array | None,
    cleaned: Array | None,
    labels: Array | None,
    tr: float,
    censored: Sequence[int],
    dpi: int,
) -> str:
    """Draw motion, FD, DVARS and tissue signals over the carpets, on one time axis.

    Parameters
    ----------
    columns : mapping
        Confounds (T,), NaN where undefined.
    carpet, cleaned : (R, T) arrays or None
        Carpet before and after cleaning, uint8.
    labels : (R,) array or None
        Tissue of every row.
    tr : float
        Repetition time, s.
    censored : sequence of int
        Volumes left out of the fit or modelled as spikes.
    dpi : int
        Resolution.
    """
    plt = start()
    n = len(next(iter(columns.values())))
    seconds = (np.arange(n) + 0.5) * tr
    panels = ["move", "turn", "fd", "dvars", "tissue"]
    heights = [1.0, 1.0, 1.0, 1.0, 1.0]
    if carpet is not None and len(carpet):
        panels, heights = [*panels, "carpet"], [*heights, 3.4]
        if cleaned is not None:
            panels, heights = [*panels, "clean"], [*heights, 3.4]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(10.6, 0.82 * sum(heights)), sharex=True, height_ratios=heights, layout="constrained"
    )
    by = dict(zip(panels, axes, strict=True))
    groups = {
        "move": [(f"trans_{a}", a) for a in "xyz"],
        "turn": [(f"rot_{a}", a) for a in "xyz"],
        "fd": [("framewise_displacement", "")],
        "dvars": [("std_dvars", "")],
        "tissue": [("global_signal", "global"), ("csf", "CSF"), ("white_matter", "WM")],
    }
    units = {
        "move": "shift (mm)",
        "turn": "rotation (deg)",
        "fd": "FD (mm)",
        "dvars": "std. DVARS",
        "tissue": "signal (z)",
    }
    for panel, wanted in groups.items():
        axis = by[panel]
        drawn = 0
        for (name, text), colour in zip(wanted, SHADES, strict=False):
            if name not in columns or not np.isfinite(columns[name]).any():
                continue
            values = np.degrees(columns[name]) if panel == "turn" else columns[name]
            values = standardised(values) if panel == "tissue" else values
            axis.plot(seconds, values, color=colour, linewidth=0.9, label=text or None)
            drawn += 1
        if not drawn:
            axis.text(0.5, 0.5, "not available", transform=axis.transAxes, ha="center", va="center", color=GREY)
        elif len(wanted) > 1:
            axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=7, frameon=False, handlelength=1.2)
        axis.set_ylabel(units[panel], fontsize=8)
        axis.margins(y=0.12)
    mark(by, columns, tr, censored)
    for panel, rows in (("carpet", carpet), ("clean", cleaned)):
        if panel in by and rows is not None:
            _carpet(by[panel], rows, labels, n * tr, "before cleaning" if panel == "carpet" else "after cleaning")
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.set_xlim(0, n * tr)
    axes[-1].set_xlabel("time (s)", fontsize=8)
    figure.align_ylabels(axes)
    return rendered(figure, dpi)


def mark(by: Mapping[str, Any], columns: Mapping[str, Array], tr: float, censored: Sequence[int]) -> None:
    """Mark outlier (red), censored (orange band) and non-steady volumes (grey band) in the traces."""
    for volume in impulses(columns, "motion_outlier"):
        for panel in ("fd", "dvars"):
            by[panel].axvline((volume + 0.5) * tr, color=RED, linewidth=0.7, alpha=0.7, zorder=0)
    bands = [(int(v), GREY, 0.35) for v in impulses(columns, "non_steady_state_outlier")]
    bands += [(int(v), "#e67e22", 0.3) for v in censored]
    for volume, colour, alpha in bands:
        for panel in ("move", "turn", "fd", "dvars", "tissue"):
            by[panel].axvspan(volume * tr, (volume + 1) * tr, color=colour, alpha=alpha, linewidth=0, zorder=0)


def _carpet(axis: Any, rows: Array, labels: Array | None, seconds: float, title: str) -> None:
    axis.imshow(
        rows, aspect="auto", cmap="gray", vmin=0, vmax=255, extent=(0, seconds, len(rows), 0), interpolation="nearest"
    )
    axis.set_yticks([])
    axis.set_ylabel(title, fontsize=8, labelpad=14)
    for code, (name, colour) in TISSUES.items():
        place = np.flatnonzero(labels == code) if labels is not None else np.zeros(0, int)
        if not len(place):
            continue
        top, bottom = 1 - place[0] / len(rows), 1 - (place[-1] + 1) / len(rows)
        bar = {"transform": axis.transAxes, "clip_on": False}
        axis.plot([-0.006, -0.006], [bottom, top], color=colour, linewidth=5, solid_capstyle="butt", **bar)
        axis.text(
            1.006,
            (top + bottom) / 2,
            name,
            fontsize=7.5,
            fontweight="bold",
            color=colour,
            va="center",
            transform=axis.transAxes,
        )
        if bottom > 0:
            axis.axhline(place[-1] + 1, color=colour, linewidth=0.6)


def standardised(values: Array) -> Array:
    """Return values (T,) at mean 0 and standard deviation 1."""
    spread = float(np.nanstd(values))
    return np.asarray((values - np.nanmean(values)) / (spread if spread > 0 else 1.0))


def main_confounds(columns: Mapping[str, Array]) -> list[str]:
    """Return the confounds of the correlation figure that a table has and that vary, in a fixed order."""
    names = [name for name in MAIN if name in columns]
    names += [f"{kind}{index:02d}" for kind, count in COMPCOR.items() for index in range(count)]
    return [n for n in names if n in columns and _varies(columns[n])]


def _varies(values: Array) -> bool:
    """Whether a column (T,) has two different values that are known; one without any does not."""
    known = values[np.isfinite(values)]
    return bool(known.size and known.max() > known.min())


def correlations(columns: Mapping[str, Array], names: Sequence[str]) -> Array:
    """Return the correlations (K, K) of columns over the volumes at which all of them are defined."""
    table = np.stack([columns[name] for name in names])
    return np.atleast_2d(np.corrcoef(table[:, np.isfinite(table).all(axis=0)]))


def correlation_figure(columns: Mapping[str, Array], dpi: int) -> str | None:
    """Draw the correlations of the main confounds, and beside them those with the global signal (None: too few)."""
    names = main_confounds(columns)
    if len(names) < 2:
        return None
    plt = start()
    r = correlations(columns, names)
    size, font = max(3.4, min(0.18 * len(names), 3.15) + 1.2), 7.0 if len(names) < 19 else 6.0
    with_signal = "global_signal" in names
    figure, axes = plt.subplots(
        1, 2 if with_signal else 1, figsize=(size + 1.5, size), layout="constrained", squeeze=False,
        width_ratios=[size, 1.6] if with_signal else None,
    )  # fmt: skip
    left = axes[0][0]
    image = left.imshow(r, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
    shown = [SHORT.get(name, name) for name in names]
    left.set_xticks(range(len(names)), shown, rotation=90, fontsize=font)
    left.set_yticks(range(len(names)), shown, fontsize=font)
    if with_signal:
        right, values = axes[0][1], r[names.index("global_signal")]
        right.barh(range(len(names)), values, color=[RED if v > 0 else BLUE for v in values], height=0.7)
        right.set_ylim(len(names) - 0.5, -0.5)
        right.set_xlim(-1, 1)
        right.set_yticks([])
        right.axvline(0, color="black", linewidth=0.6)
        right.set_xlabel("r with global signal", fontsize=7)
        right.tick_params(labelsize=7)
    figure.colorbar(image, ax=left, shrink=0.6, pad=0.01).ax.tick_params(labelsize=7)
    return rendered(figure, dpi)


def compcor_curves(notes: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the cumulative share of variance of the components, by method and mask, from a confounds JSON."""
    curves: dict[str, list[float]] = {}
    for name, note in sorted(notes.items()):
        if not isinstance(note, Mapping) or "CumulativeVarianceExplained" not in note:
            continue
        method, mask = str(note.get("Method", name)), str(note.get("Mask", ""))
        if "CompCor" not in method:
            continue
        curves.setdefault(f"{method}, {mask}" if mask else method, []).append(
            float(note["CumulativeVarianceExplained"])
        )
    return {label: sorted(values) for label, values in curves.items()}


def compcor_figure(notes: Mapping[str, Any], regressed: Sequence[str], dpi: int) -> str | None:
    """Draw the variance of the noise tissues that CompCor components explain (None: no components)."""
    curves = compcor_curves(notes)
    if not curves:
        return None
    plt = start()
    figure, axis = plt.subplots(figsize=(3.9, 2.8), layout="constrained")
    for (label, values), colour in zip(curves.items(), (*SHADES, GREY, RED) * 4, strict=False):
        axis.plot(range(1, len(values) + 1), np.array(values) * 100, ".-", color=colour, linewidth=1, label=label)
    used = sum(any(name.startswith(kind) for kind in COMPCOR) for name in regressed)
    axis.axhline(50, color=GREY, linewidth=0.6, linestyle=":")
    axis.set_ylim(0, 100)
    axis.set_xlim(0.5, max(len(values) for values in curves.values()) + 0.5)
    axis.set_xlabel("components", fontsize=8)
    axis.set_ylabel("variance explained (%)", fontsize=8)
    axis.set_title(f"{used} components regressed", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=7)
    return rendered(figure, dpi)


def spectrum_figure(arrays: Mapping[str, Array], band: tuple[float | None, float | None], dpi: int) -> str:
    """Draw the mean spectrum of grey matter before and after cleaning; the pass band is shaded."""
    plt = start()
    figure, axis = plt.subplots(figsize=(3.9, 2.8), layout="constrained")
    hz = arrays["spectrum_hz"]
    top = float(max(arrays["spectrum_before"].max(), 1e-12))
    low, high = band
    if low is not None or high is not None:
        axis.axvspan(low or 0.0, min(high or float(hz[-1]), float(hz[-1])), color="#e8eef4", zorder=0)
    for name, colour, text in (("before", GREY, "before cleaning"), ("after", BLUE, "after cleaning")):
        axis.semilogy(hz, np.maximum(arrays[f"spectrum_{name}"] / top, 1e-8), color=colour, linewidth=1, label=text)
    axis.set_ylim(1e-6, 2)
    axis.set_xlim(0, float(hz[-1]))
    axis.set_xlabel("frequency (Hz)", fontsize=8)
    axis.set_ylabel("power (share of the peak)", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7)
    return rendered(figure, dpi)


def tsnr_picture(arrays: Mapping[str, Array]) -> tuple[str, int, int]:
    """Return the tSNR slices side by side as a data URI, with its width and height in pixels; outside is black."""
    from matplotlib import colormaps

    palette = np.zeros((256, 3), np.uint8)
    palette[1:] = np.rint(colormaps["viridis"](np.linspace(0, 1, 255))[:, :3] * 255)
    shown = np.where(arrays["tsnr_inside"], np.maximum(arrays["tsnr"], 1), 0).astype(np.uint8)
    count, high, wide = shown.shape
    return png_palette(shown.transpose(1, 0, 2).reshape(high, count * wide), palette), count * wide, high


def colour_bar() -> str:
    """Return the colour scale of the tSNR map as a data URI, left to right."""
    from matplotlib import colormaps

    row = np.rint(colormaps["viridis"](np.linspace(0, 1, 64))[:, :3] * 255).astype(np.uint8)
    return webp(np.repeat(row[np.newaxis], 4, axis=0), 90)
