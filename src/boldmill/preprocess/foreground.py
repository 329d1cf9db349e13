"""Head and background of a T1w: field-of-view crop, and whether the brain was already extracted.

Axes: X Y Z voxels (RAS).
"""

from __future__ import annotations

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess.images import Array, Grid, Volume, crop_volume

COARSE = 4.0
"""Voxel size at which foreground and crop are found, mm."""
BELOW_VERTEX = 180.0
ABOVE_VERTEX = 10.0
MARGIN = 12.0
STRIPPED_ZEROS = 0.7
STRIPPED_ML = 2000.0
SMALLEST_ML = 400.0
"""A foreground below this is no human head or brain (a newborn's brain is near 400 ml)."""


def block_mean(volume: Volume, zoom: float) -> Volume:
    """Average whole blocks of voxels so that no axis is finer than needed for ``zoom`` mm (no interpolation).

    A factor of ``round(zoom / voxel)`` per axis, at least 1; voxels beyond the last whole block are dropped.
    """
    factor = np.maximum(1, np.rint(zoom / volume.grid.zooms)).astype(int)
    shape = np.array(volume.data.shape) // factor
    part = volume.data[tuple(slice(0, int(n * f)) for n, f in zip(shape, factor, strict=True))]
    split = part.reshape(shape[0], factor[0], shape[1], factor[1], shape[2], factor[2])
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((factor - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * factor
    return Volume(split.mean(axis=(1, 3, 5), dtype=np.float32), affine)


def otsu(values: Array, bins: int = 256) -> float:
    """Return the threshold that maximises the variance between two classes (Otsu 1979)."""
    top = float(np.percentile(values, 99.5))
    count, edges = np.histogram(np.clip(values, None, top), bins=bins)
    centre = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(count)
    above = below[-1] - below
    sums = np.cumsum(count * centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centre[int(np.nanargmax(between[:-1]))])


def foreground(volume: Volume) -> tuple[Array, Grid]:
    """Return the head (or brain) at about 4 mm, and the grid of that mask.

    Gaussian of 4 mm FWHM, 0.6 x Otsu, specks removed, holes filled.

    Raises
    ------
    DataFault
        The foreground is smaller than any human brain.
    """
    from scipy.ndimage import binary_fill_holes, gaussian_filter

    coarse = block_mean(volume, COARSE)
    smooth = gaussian_filter(coarse.data, COARSE / 2.355 / coarse.grid.zooms)
    mask = binary_fill_holes(without_specks(smooth > 0.6 * otsu(smooth)))
    size = float(mask.sum()) * coarse.grid.voxel_ml
    if size < SMALLEST_ML:
        why = f"the foreground has {size:.0f} ml, less than any human brain"
        raise DataFault("cannot use T1w image", "foreground", why, "look at the image; exclude it if it shows no head")
    return np.asarray(mask), coarse.grid


def without_specks(mask: Array) -> Array:
    """Drop components (faces) under a tenth of the largest: noise goes, a scalp that the skull cuts off stays."""
    from scipy.ndimage import label

    parts, n = label(mask)
    if n <= 1:
        return np.asarray(mask, dtype=bool)
    size = np.bincount(parts.ravel())
    keep = size >= 0.1 * size[1:].max()
    keep[0] = False
    return np.asarray(keep[parts])


def largest_component(mask: Array) -> Array:
    """Return the largest connected part (faces) of a mask."""
    from scipy.ndimage import label

    parts, n = label(mask)
    if n <= 1:
        return np.asarray(mask, dtype=bool)
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))


def crop_to_head(volume: Volume) -> tuple[Volume, float]:
    """Crop a T1w to the head: 180 mm below and 10 mm above the vertex, 12 mm around it in the plane.

    Returns
    -------
    volume : Volume
        The crop, on the same voxels.
    size : float
        Volume of the foreground inside the crop, ml.
    """
    mask, grid = foreground(volume)
    where = np.argwhere(mask)
    ratio = grid.zooms / volume.grid.zooms
    vertex = (where[:, 2].max() + 1) * grid.zooms[2]
    keep = where[(where[:, 2] + 0.5) * grid.zooms[2] > vertex - BELOW_VERTEX]
    low = keep.min(axis=0) * grid.zooms - MARGIN
    high = (keep.max(axis=0) + 1) * grid.zooms + MARGIN
    low[2] = max(vertex - BELOW_VERTEX, low[2])
    high[2] = vertex + ABOVE_VERTEX
    first = np.floor(low / grid.zooms * ratio).astype(int)
    last = np.ceil(high / grid.zooms * ratio).astype(int)
    return crop_volume(volume, first, last), len(keep) * grid.voxel_ml


def zero_share(volume: Volume) -> float:
    """Share of voxels that are exactly 0."""
    return float((volume.data == 0).mean())


def is_brain_extracted(zeros: float, foreground_ml: float) -> bool:
    """Whether the skull was removed before: many exact zeros around a brain-sized foreground.

    Separated all seven real T1w of the design trial: extracted .86-.89 and 1.25-1.50 l, heads .17-.57 and 3.0-3.4 l.
    """
    return zeros > STRIPPED_ZEROS and foreground_ml < STRIPPED_ML
