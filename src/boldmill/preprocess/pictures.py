"""Small arrays for the subject page: slices, carpet rows, spectra. Nothing is drawn here.

Axes: X Y Z voxels, T time, N voxels of a mask, R carpet rows, S slices, H W rows and columns of a slice as displayed
(top row first; left of the picture is left of the head, sagittal slices look to the right), F frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess.images import Volume, bounding_box
from boldmill.preprocess.motion import Float
from boldmill.preprocess.transforms import apply_affine, map_points, sample

Array = NDArray[Any]

PLANES: dict[str, tuple[int, tuple[float, ...]]] = {
    # plane: (axis it is cut across, positions as shares of the mask's box)
    "axial": (2, (0.12, 0.27, 0.42, 0.57, 0.72, 0.87)),
    "coronal": (1, (0.15, 0.29, 0.43, 0.57, 0.71, 0.85)),
    "sagittal": (0, (0.2, 0.35, 0.5, 0.65, 0.8)),
}
MARGIN_MM = 14.0
TSNR_SLICES = 7
TISSUES = ("gm", "wm", "csf", "cerebellum")
"""Names of the carpet's labels 1, 2, 3, 4."""
ROWS = {"gm": 150, "wm": 60, "csf": 40, "cerebellum": 50}
"""Most carpet rows of each label."""
PURE = {"gm": 0.5, "wm": 0.9, "csf": 0.7}
"""Probability above which a voxel is drawn as a tissue."""
CEREBELLUM_MM = (-40.0, -30.0)
"""In MNI space grey matter behind the first (y) and below the second (z) is cerebellum: no cortex reaches there."""
LEVELS = 17
CARPET_SD = 2.0
"""Carpet values are cut at this many standard deviations."""
MAX_SPECTRUM_VOXELS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """Slices of one plane: ``shape`` (S, H, W) and where their pixels lie, ``points`` (S*H*W, 3), mm."""

    shape: tuple[int, int, int]
    points: Float


def panels(mask: Volume, zoom: float) -> dict[str, Panels]:
    """Place the slices of a picture along the axes of a RAS image, around its mask.

    Parameters
    ----------
    mask : Volume (X, Y, Z)
        Mask on a grid whose axes point right, front and up (oblique ones are kept).
    zoom : float
        Size of a pixel, mm.

    Returns
    -------
    dict
        Plane name -> its slices.
    """
    zooms = mask.grid.zooms
    low, high = bounding_box(mask.data > 0.5)
    centre = ((low - 0.5) * zooms, (high - 0.5) * zooms)  # edges of the box, mm along the voxel axes
    first, last = centre[0] - MARGIN_MM, centre[1] + MARGIN_MM
    ranges = [np.arange(a, b, zoom) for a, b in zip(first, last, strict=True)]
    found = {}
    for plane, (across, shares) in PLANES.items():
        column, row = [axis for axis in range(3) if axis != across]
        cuts = centre[0][across] + np.array(shares) * (centre[1][across] - centre[0][across])
        shape = (len(cuts), len(ranges[row]), len(ranges[column]))
        along = np.empty((*shape, 3))
        along[..., across] = cuts[:, np.newaxis, np.newaxis]
        along[..., row] = ranges[row][::-1][:, np.newaxis]
        along[..., column] = ranges[column]
        found[plane] = Panels(shape, apply_affine(mask.affine, along.reshape(-1, 3) / zooms))
    return found


def to_bytes(values: Array, top: float) -> NDArray[np.uint8]:
    """Scale values from 0 to ``top`` into 0..255."""
    scaled = np.asarray(values, dtype=np.float64) * (255.0 / top if top > 0 else 0.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def brightness(brain: Array) -> float:
    """Return the value drawn as white: a fifth above the 99th percentile of the brain (fat may be brighter)."""
    above = brain[brain > 0]
    return 1.2 * float(np.percentile(above, 99)) if len(above) else 1.0


def slices(
    name: str, volume: Volume, where: Mapping[str, Array], shapes: Mapping[str, Panels], mask: Volume
) -> dict[str, Array]:
    """Read a volume at the pixels of every plane: ``{"<name>_<plane>": (S, H, W) uint8}`` on one scale.

    ``where`` holds the pixels' places in the volume's world; ``mask`` is the brain in the world of ``shapes``.
    """
    values = {plane: sample(volume, points) for plane, points in where.items()}
    top = brightness(np.concatenate([values[p][sample(mask, one.points) > 0.5] for p, one in shapes.items()]))
    return {f"{name}_{plane}": to_bytes(v, top).reshape(shapes[plane].shape) for plane, v in values.items()}


def maps(name: str, volume: Volume, shapes: Mapping[str, Panels]) -> dict[str, Array]:
    """Read a mask or a probability map at the pixels of every plane; 255 is 1, in steps of 1/17 (small files)."""
    found = {}
    for plane, one in shapes.items():
        values = np.rint(np.clip(sample(volume, one.points), 0, 1) * LEVELS) * (255 // LEVELS)
        found[f"{name}_{plane}"] = values.astype(np.uint8).reshape(one.shape)
    return found


def anat_arrays(
    t1w: Volume,
    mask: Volume,
    grey: Volume,
    white: Volume,
    head: Volume,
    template_mask: Volume,
    field: Volume,
    *,
    zoom: float = 1.0,
    template_zoom: float = 1.5,
) -> dict[str, Array]:
    """Return the arrays of the T1w's pictures.

    Parameters
    ----------
    t1w, mask : Volume (X, Y, Z)
        T1w and brain mask on one RAS grid.
    grey, white : Volume (X, Y, Z)
        Tissue probabilities on that grid.
    head, template_mask : Volume (X, Y, Z)
        Template.
    field : Volume (X, Y, Z, 3)
        Displacements from template to T1w world, mm.
    zoom, template_zoom : float
        Size of a pixel of the T1w slices and of the template slices, mm.

    Returns
    -------
    dict
        ``t1w_<plane>``, ``mask_<plane>``, ``wm_<plane>``, ``pial_<plane>`` (grey or white matter) in T1w space;
        ``template_<plane>``, ``warped_<plane>`` (the T1w, at the same pixels) in template space; all uint8.
    """
    own = panels(mask, zoom)
    out = slices("t1w", t1w, {p: one.points for p, one in own.items()}, own, mask)
    for name, volume in (("mask", mask), ("wm", white), ("pial", grey.like(grey.data + white.data))):
        out |= maps(name, volume, own)
    there = panels(template_mask, template_zoom)
    out |= slices("template", head, {p: one.points for p, one in there.items()}, there, template_mask)
    carried = {plane: map_points(field, one.points) for plane, one in there.items()}
    out |= slices("warped", t1w, carried, there, template_mask)
    return out


def edge_arrays(
    reference: Volume, mask: Volume, coregistration: Float, *, name: str = "bold", zoom: float = 1.0
) -> dict[str, Array]:
    """Return a BOLD reference at the pixels of the T1w slices: ``<name>_<plane>`` (S, H, W) uint8.

    Parameters
    ----------
    reference : Volume (X, Y, Z)
        BOLD reference, undistorted or not.
    mask : Volume (X, Y, Z)
        T1w brain mask, as given to :func:`anat_arrays`.
    coregistration : array (4, 4)
        T1w world to BOLD-reference world.
    name : str
        First part of the arrays' names.
    zoom : float
        As given to :func:`anat_arrays`.
    """
    own = panels(mask, zoom)
    moved = {plane: apply_affine(coregistration, one.points) for plane, one in own.items()}
    return slices(name, reference, moved, own, mask)


def tissue_labels(shares: Mapping[str, Array], points: Array, space: str) -> NDArray[np.uint8]:
    """Return the label (N,) of every voxel: 0 none, else one more than its place in :data:`TISSUES`.

    Parameters
    ----------
    shares : mapping
        ``gm``, ``wm``, ``csf``: probabilities (N,).
    points : array (N, 3)
        Where the voxels lie in template space, mm.
    space : str
        Name of the template space; the cerebellum is told apart in MNI152 spaces only.
    """
    labels = np.zeros(len(points), dtype=np.uint8)
    for code, name in enumerate(TISSUES[:3], start=1):
        labels[shares[name] > PURE[name]] = code
    if space.startswith("MNI152"):
        low = (points[:, 1] < CEREBELLUM_MM[0]) & (points[:, 2] < CEREBELLUM_MM[1])
        labels[low & (labels == 1)] = 1 + TISSUES.index("cerebellum")
    return labels


def carpet_rows(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Choose the voxels (R,) drawn in the carpet: evenly over each tissue, sorted by label, at most :data:`ROWS`."""
    chosen = []
    for code, name in enumerate(TISSUES, start=1):
        found = np.flatnonzero(labels == code)
        count = min(ROWS[name], len(found))
        chosen.append(found[np.unique(np.linspace(0, len(found) - 1, count).astype(int))] if count else found)
    return np.concatenate(chosen)


def carpet(series: Array, labels: Array) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return a carpet (R, T) of uint8 and the order of its rows.

    Each series loses its quadratic trend and is divided by its standard deviation; 0 and 255 are minus and plus
    :data:`CARPET_SD`. Within a tissue, rows are sorted by their correlation with the mean of the tissue, best first
    (Aquino 2020), so that what is shared by all stands out from what is not.

    Parameters
    ----------
    series : array (T, R)
        Voxel series, their labels ascending.
    labels : array (R,)
        Tissue of every row.
    """
    z = standard(series)
    order = []
    for code in np.unique(labels):
        rows = np.flatnonzero(labels == code)
        likeness = z[:, rows].T @ z[:, rows].mean(axis=1)
        order.append(rows[np.argsort(-likeness, kind="stable")])
    place = np.concatenate(order) if order else np.zeros(0, dtype=np.intp)
    return carpet_bytes(z[:, place]), place


def standard(series: Array) -> Float:
    """Return series (T, R) without their quadratic trend, at unit standard deviation (0 where constant)."""
    time = np.linspace(-1.0, 1.0, len(series))
    basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(time, 2))
    values = np.asarray(series, dtype=np.float64)
    values = values - basis @ (basis.T @ values)
    spread = values.std(axis=0)
    floor = 1e-6 * np.abs(series).max(axis=0, initial=0.0)
    return np.asarray(np.divide(values, spread, out=np.zeros_like(values), where=spread > floor))


def carpet_bytes(z: Float) -> NDArray[np.uint8]:
    """Return standardised series (T, R) as the rows (R, T) of a carpet."""
    return np.clip(np.rint(127.5 * (1.0 + z.T / CARPET_SD)), 0, 255).astype(np.uint8)


def spectrum(series: Array, tr: float) -> tuple[Float, Float]:
    """Return frequencies (F,), Hz, and the mean periodogram (F,) of series (T, N): their linear trend removed, Hann.

    The unit is that of the series squared per Hz (one-sided), so that spectra of one run compare.
    """
    from scipy.signal import periodogram

    hz, power = periodogram(
        np.asarray(series, dtype=np.float64), fs=1.0 / tr, window="hann", detrend="linear", axis=0, scaling="density"
    )
    return np.asarray(hz[1:]), np.asarray(power[1:].mean(axis=1))


def tsnr_slices(values: Array, mask: Volume) -> dict[str, Array]:
    """Return seven axial slices of a tSNR map, evenly over the mask.

    Parameters
    ----------
    values : array (N,)
        tSNR of the mask's voxels, in C order.
    mask : Volume (X, Y, Z)
        BOLD mask on the output grid (RAS).

    Returns
    -------
    dict
        ``tsnr`` (S, H, W) uint8 with 255 = ``tsnr_top`` (98th percentile); ``tsnr_inside`` bool; ``tsnr_mm`` (S,), the
        height of each slice in template space.
    """
    inside = mask.data > 0.5
    image = np.zeros(inside.shape, dtype=np.float32)
    image[inside] = values
    low, high = bounding_box(inside, margin=1)
    low, high = np.maximum(low, 0), np.minimum(high, inside.shape)
    cuts = np.rint(np.linspace(low[2], high[2] - 1, TSNR_SLICES + 2)[1:-1]).astype(int)
    box = np.s_[low[0] : high[0], low[1] : high[1]]
    top = float(np.percentile(values, 98)) if len(values) else 1.0
    shown = np.stack([image[..., cut][box].T[::-1] for cut in cuts])
    return {
        "tsnr": to_bytes(shown, top),
        "tsnr_inside": np.stack([inside[..., cut][box].T[::-1] for cut in cuts]),
        "tsnr_top": np.array(top, np.float32),
        "tsnr_mm": np.array([apply_affine(mask.affine, np.array([[0, 0, cut]]))[0, 2] for cut in cuts], np.float32),
    }


def run_arrays(
    series: Array, labels: NDArray[np.uint8], tsnr: Array, mask: Volume, operator: Float, tr: float
) -> dict[str, Array]:
    """Return the arrays of a run's series.

    Parameters
    ----------
    series : array (T, N)
        Template series of the BOLD mask before cleaning.
    labels : array (N,)
        Tissue of every voxel, see :func:`tissue_labels`.
    tsnr : array (N,)
        tSNR of every voxel.
    mask : Volume (X, Y, Z)
        BOLD mask on the output grid.
    operator : array (T, T)
        The run's cleaning.
    tr : float
        Repetition time, s.

    Returns
    -------
    dict
        ``carpet``, ``carpet_clean`` (R, T) uint8 with ``carpet_labels`` (R,), rows of both in the order of the first;
        ``spectrum_hz``, ``spectrum_before``, ``spectrum_after`` (F,) of grey matter; what :func:`tsnr_slices` returns.
    """
    rows = carpet_rows(labels)
    raw = np.asarray(series[:, rows], dtype=np.float64)
    drawn, order = carpet(raw, labels[rows])
    grey = np.flatnonzero((labels == 1) | (labels == 1 + TISSUES.index("cerebellum")))
    if not len(grey):
        grey = np.arange(series.shape[1])
    grey = grey[np.unique(np.linspace(0, len(grey) - 1, min(MAX_SPECTRUM_VOXELS, len(grey))).astype(int))]
    before = np.asarray(series[:, grey], dtype=np.float64)
    hz, power = spectrum(before, tr)
    _, left = spectrum(operator @ (before - before.mean(axis=0)), tr)
    cleaned = operator @ (raw - raw.mean(axis=0))
    return {
        "carpet": drawn,
        "carpet_clean": carpet_bytes(standard(cleaned)[:, order]),
        "carpet_labels": labels[rows][order],
        "spectrum_hz": hz.astype(np.float32),
        "spectrum_before": power.astype(np.float32),
        "spectrum_after": left.astype(np.float32),
        **tsnr_slices(tsnr, mask),
    }
