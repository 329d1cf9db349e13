"""Slice timing: shift each slice's series to one reference time by a Fourier phase, on the native grid.

Axes: X Y Z voxels, T time; S slices along the slice axis; times in s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault

Array = NDArray[Any]
Float = NDArray[np.float64]

AXIS = {"i": 0, "j": 1, "k": 2}
MIN_VOLUMES = 5


@dataclass(frozen=True, slots=True, eq=False)
class SliceTimes:
    """``times`` (S,) s from the start of the volume in stored slice order; ``axis``; ``reference`` time, s."""

    times: Float
    axis: int
    reference: float


def slice_times(
    metadata: Mapping[str, Any], shape: tuple[int, ...], tr: float, *, fraction: float = 0.5, where: str = "BOLD"
) -> SliceTimes | None:
    """Read and check the slice times of a sidecar; ``None`` where there are none or all slices share one time.

    Parameters
    ----------
    metadata : mapping
        BIDS metadata with ``SliceTiming`` (s) and ``SliceEncodingDirection`` (default ``k``; ``-`` reverses the list).
    shape : tuple
        Shape of the image; the slice axis must have one time per slice.
    tr : float
        Repetition time, s.
    fraction : float
        Reference time as a fraction of the range of slice times.
    where : str
        The file, for the message.

    Raises
    ------
    DataFault
        Not a list of numbers, not one per slice, or a time outside [0, TR).
    """
    raw = metadata.get("SliceTiming")
    if raw is None:
        return None
    fix = "correct SliceTiming in the sidecar, or remove it to skip slice timing"
    direction = str(metadata.get("SliceEncodingDirection", "k"))
    if direction.rstrip("-") not in AXIS:
        raise DataFault("invalid SliceEncodingDirection", where, f"it is '{direction}'", "use i, j, k, i-, j- or k-")
    axis = AXIS[direction.rstrip("-")]
    try:
        times = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataFault("invalid SliceTiming", where, "it is not a list of numbers", fix) from error
    if times.ndim != 1 or len(times) != shape[axis]:
        why = f"it has {times.size} times for {shape[axis]} slices along {direction}"
        raise DataFault("invalid SliceTiming", where, why, fix)
    if not np.isfinite(times).all() or times.min() < 0 or times.max() >= tr:
        why = f"times run from {times.min():g} to {times.max():g} s, outside [0, {tr:g}) (one TR)"
        raise DataFault("invalid SliceTiming", where, why, fix)
    if direction.endswith("-"):
        times = times[::-1]
    if float(np.ptp(times)) == 0.0:
        return None
    return SliceTimes(times, axis, float(times.min() + fraction * np.ptp(times)))


def correct(series: Array, timing: SliceTimes, tr: float) -> Array:
    """Return the series (X, Y, Z, T) as if every slice were acquired at the reference time of its volume.

    Parameters
    ----------
    series : array (X, Y, Z, T)
        Raw data.
    timing : SliceTimes
        Slice times.
    tr : float
        Repetition time, s.

    Returns
    -------
    array (X, Y, Z, T)
        float32; the input itself where it has fewer than five volumes.
    """
    if series.shape[3] < MIN_VOLUMES:
        return series
    out = np.empty(series.shape, dtype=np.float32)
    for index, time in enumerate(timing.times):
        at = (slice(None),) * timing.axis + (index,)
        out[at] = shift(series[at], (timing.reference - time) / tr)
    return out


def shift(signals: Array, delay: float) -> Array:
    """Return ``x(t + delay)`` of signals (..., T) sampled at t = 0..T-1.

    The linear trend is removed, shifted exactly and put back; the rest is mirrored at both ends, so that it is
    periodic without a jump, and shifted by a Fourier phase.

    Parameters
    ----------
    signals : array (..., T)
        Series; time is the last axis.
    delay : float
        Shift in samples.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    count = signals.shape[-1]
    time = np.arange(count, dtype=np.float64)
    centred = time - time.mean()
    data = np.asarray(signals, dtype=np.float32)
    mean = data.mean(axis=-1, dtype=np.float64)[..., np.newaxis]
    slope = ((data @ centred) / (centred @ centred))[..., np.newaxis]
    rest = (data - mean - slope * centred).astype(np.float32)
    pad = min(count - 1, 32)
    length = next_fast_len(count + 2 * pad, real=True)
    right = length - count - pad
    widths = [(0, 0)] * (rest.ndim - 1) + [(pad, right)]
    # An odd mirror keeps value and slope at both ends; it fades out, so that the ends meet at zero.
    padded = np.pad(rest, widths, mode="reflect", reflect_type="odd")
    fade = np.ones(length, dtype=np.float32)
    fade[:pad] = 0.5 - 0.5 * np.cos(np.pi * np.arange(pad) / pad)
    fade[length - right :] = 0.5 + 0.5 * np.cos(np.pi * (np.arange(right) + 1) / right)
    padded *= fade
    frequency = np.fft.rfftfreq(length)
    phase = np.exp(2j * np.pi * frequency * delay).astype(np.complex64)
    if length % 2 == 0:
        phase[-1] = np.cos(np.pi * delay)
    moved = irfft(rfft(padded, axis=-1) * phase, n=length, axis=-1)[..., pad : pad + count]
    return np.asarray(moved + mean + slope * (centred + delay), dtype=np.float32)
