"""From phase images to a field in Hz that is defined everywhere: scaling, difference, unwrapping, smoothing.

Axes: X Y Z voxels. Phase in rad, field in Hz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess.foreground import largest_component, otsu
from boldmill.preprocess.images import Array, Float, Volume
from boldmill.preprocess.n4 import n4
from boldmill.rng import generator

SIEMENS = 4096.0
SIEMENS_TOP = (4000.0, 4096.0)
"""Where the largest value of a Siemens phase image lies: noise fills the whole range."""
N4 = (30, 30, 20)
DEEP = 15.0
"""Depth below the scalp (mm) at which a head is brain."""
SMALLEST_CORE, SMALLEST_BRAIN = 50.0, 300.0
"""Least volumes that count as the inside of a head and as a brain, ml."""
OPENING = 6.0
SMOOTHING = 5.0
"""FWHM of the smoothing of a measured field, mm."""
OUTLIER = 3.0
"""Voxels further than this many robust SD from the median of their neighbours carry no weight."""
REACH = (8.0, 16.0, 32.0, 64.0)
"""FWHM (mm) of the kernels that carry the field out of the head, each where the finer one saw nothing."""
PROTON = 42.577478518e6
"""Gyromagnetic ratio over 2 pi, Hz per tesla."""
TO_HERTZ = {"Hz": 1.0, "rad/s": 1.0 / (2.0 * np.pi), "T": PROTON}


def radians(data: Array, where: str = "phase image") -> Float:
    """Return phase in rad, the unit being read from the range of the values.

    Noise outside the head fills the whole range of a phase image: -pi..pi or 0..2 pi (already rad), Siemens 0..4095 or
    -4096..4095, or -A..A in another unit (as -3142..3142, mrad).

    Parameters
    ----------
    data : array (X, Y, Z)
        Phase in any unit.
    where : str
        The file, for the message.

    Raises
    ------
    DataFault
        The range fits no known unit.
    """
    values = np.asarray(data, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    turn = 2.0 * np.pi
    if -np.pi - 0.01 <= low and high <= turn + 0.01 and high - low <= turn + 0.02 and high - low > 3.0:
        return np.asarray(values)
    if low >= 0 and SIEMENS_TOP[0] <= high <= SIEMENS_TOP[1]:
        return np.asarray(values * (turn / SIEMENS) - np.pi)
    if low < 0 < high and SIEMENS_TOP[0] <= max(high, -low) <= SIEMENS_TOP[1]:
        return np.asarray(values * (np.pi / SIEMENS))
    if low < 0 < high and 0.9 < -low / high < 1.1 and high > 10:
        return np.asarray(values * (np.pi / max(high, -low)))
    why = f"its values run from {low:g} to {high:g}: no unit of phase that is known"
    raise DataFault("cannot read phase", where, why, "convert the phase to rad, or leave the field map out")


def difference(first: Array, second: Array) -> Float:
    """Return the phase of the second image against the first (X, Y, Z), rad, wrapped to -pi..pi."""
    turned = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return np.asarray(np.angle(np.exp(1j * turned)), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """``magnitude`` of a gradient echo without its receive field, masks ``head`` and ``brain`` (X, Y, Z)."""

    magnitude: Volume
    head: Array
    brain: Array


def find_head(magnitude: Volume) -> Head:
    """Find head and brain in a gradient-echo magnitude, whose skull is a dark ring and whose scalp is bright.

    The brain is what an opening of 6 mm leaves of the voxels with its middle's intensity.

    Raises
    ------
    DataFault
        No head or no brain stands out.
    """
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter

    zooms = magnitude.grid.zooms
    flat, _ = n4(magnitude, iterations=N4, grid=6.0)
    smooth = gaussian_filter(flat.data, 3.0 / 2.3548 / zooms)
    head = binary_fill_holes(largest_component(smooth > 0.5 * otsu(smooth)))
    inner = distance_transform_edt(head, sampling=zooms) > DEEP
    if inner.sum() * magnitude.grid.voxel_ml < SMALLEST_CORE:
        why = f"the head is {head.sum() * magnitude.grid.voxel_ml:.0f} ml"
        raise DataFault("cannot mask field map", "magnitude", why, "look at the magnitude image")
    alike = head & _near(flat.data, inner, 0.6, 1.4)
    flat, _ = n4(magnitude, iterations=N4, grid=6.0, mask=inner | alike)  # the scalp no longer bends the field
    alike = head & _near(flat.data, inner, 0.65, 1.35)
    core = largest_component(distance_transform_edt(alike, sampling=zooms) >= OPENING)
    brain = alike & (distance_transform_edt(~core, sampling=zooms) <= OPENING) if core.any() else core
    brain = binary_fill_holes(largest_component(brain))
    size = float(brain.sum()) * magnitude.grid.voxel_ml
    if size < SMALLEST_BRAIN:
        raise DataFault("cannot mask field map", "magnitude", f"the brain is {size:.0f} ml", "look at the magnitude")
    return Head(magnitude=flat, head=np.asarray(head), brain=np.asarray(brain))


def _near(data: Array, inner: Array, low: float, high: float) -> Array:
    middle = float(np.median(data[inner]))
    return np.asarray((data > low * middle) & (data < high * middle))


def unwrap(phase: Array, mask: Array, *, key: tuple[str, ...] = ()) -> Float:
    """Return the phase without its jumps of 2 pi inside a mask (0 outside), whole turns removed from its median.

    Source: Herraez et al. 2002 (doi 10.1364/AO.41.007437), as implemented in scikit-image.

    Parameters
    ----------
    phase : array (X, Y, Z)
        Wrapped phase, rad.
    mask : bool array (X, Y, Z)
        Where it is unwrapped.
    key : tuple of str
        Key of the random order in which equally reliable voxels are joined.
    """
    from skimage.restoration import unwrap_phase

    call: Any = unwrap_phase
    masked = np.ma.MaskedArray(np.asarray(phase, dtype=np.float64), mask=~np.asarray(mask, dtype=bool))
    # An integer seed is what scikit-image's C code draws from.
    seed = int(generator("unwrap", *key).integers(2**31 - 1))
    found = np.where(mask, np.asarray(call(masked, rng=seed)), 0.0)
    turns = np.round(float(np.median(found[mask])) / (2.0 * np.pi))
    return np.asarray(np.where(mask, found - 2.0 * np.pi * turns, 0.0))


def extend(field: Array, weight: Array, zooms: Float) -> Array:
    """Smooth a field inside the head and carry it outside (normalised convolution), float32 (X, Y, Z).

    Parameters
    ----------
    field : array (X, Y, Z)
        Hz; read where ``weight`` is positive.
    weight : array (X, Y, Z)
        Trust in each voxel; phase noise falls with the magnitude, so its square is the natural choice.
    zooms : array (3,)
        Voxel sizes, mm.

    Raises
    ------
    DataFault
        No voxel has weight.
    """
    from scipy.ndimage import gaussian_filter, median_filter

    trust = np.asarray(weight, dtype=np.float64)
    inside = trust > 0
    if not inside.any():
        raise DataFault("cannot use field map", "field", "no voxel of the head has a value", "look at the field map")
    values = np.where(inside, np.asarray(field, dtype=np.float64), 0.0)
    filled = np.where(inside, values, float(np.median(values[inside])))
    away = np.abs(filled - median_filter(filled, 3))
    spread = 1.4826 * float(np.median(away[inside]))
    trust = np.where(away > OUTLIER * max(spread, 1.0) + OUTLIER, 0.0, trust)
    top = float(np.percentile(trust[inside], 75)) or 1.0
    trust = np.minimum(trust / top, 1.0)
    out = np.zeros_like(values)
    left = np.ones_like(values)
    for fwhm in (SMOOTHING, *REACH):
        sigma = fwhm / 2.3548 / np.asarray(zooms)
        seen = gaussian_filter(trust, sigma, mode="constant", truncate=3.0)
        mean = gaussian_filter(trust * values, sigma, mode="constant", truncate=3.0)
        share = np.clip(seen / 0.2, 0.0, 1.0) * left
        out += share * mean / np.maximum(seen, 1e-9)
        left -= share
    far = float(np.average(values, weights=trust)) if trust.sum() > 0 else 0.0
    return np.asarray(out + left * far, dtype=np.float32)


def hertz(phase: Array, delta: float) -> Float:
    """Return the field (Hz) of a phase difference (rad) between echoes ``delta`` seconds apart."""
    return np.asarray(np.asarray(phase, dtype=np.float64) / (2.0 * np.pi * delta))
