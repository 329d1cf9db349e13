"""Nuisance courses of a BOLD run: breathing and heartbeat, aliased by the slow sampling, and slow fluctuations.

Axis legend: N times of any shape (...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

BREATHS_HZ = (0.22, 0.32)
BEATS_HZ = (0.95, 1.25)
STEP_S = 0.05
SLOW_SINUSOIDS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Physiology:
    """Phases (rad) of breathing and heartbeat on a fine time grid (one value per ``STEP_S``), and a slow course.

    ``slow`` holds frequency (Hz), amplitude and phase of the sinusoids of a band-limited course of unit variance.
    """

    breath: Floats
    beat: Floats
    slow: Floats

    def respiration(self, times: Floats) -> Floats:
        """Return the breathing course at times in s, unit variance."""
        return np.asarray(np.sqrt(2) * np.sin(self._phase(self.breath, times)))

    def heart(self, times: Floats) -> Floats:
        """Return the pulse course at times in s, unit variance: a fundamental and its first harmonic."""
        phase = self._phase(self.beat, times)
        return np.asarray(np.sqrt(1.6) * np.sin(phase) + np.sqrt(0.4) * np.sin(2 * phase + 0.8))

    def slow_course(self, times: Floats) -> Floats:
        """Return the slow course (breathing depth, vasomotion) at times in s, unit variance."""
        frequency, amplitude, phase = self.slow
        return np.asarray(np.sin(2 * np.pi * np.asarray(times)[..., None] * frequency + phase) @ amplitude)

    @staticmethod
    def _phase(track: Floats, times: Floats) -> Floats:
        return np.interp(times, np.arange(len(track)) * STEP_S, track)


def draw_physiology(draw: np.random.Generator, duration: float) -> Physiology:
    """Return the physiology of one run of ``duration`` s: rates drift slowly by a few per cent."""
    from scipy import ndimage

    steps = int(duration / STEP_S) + 2

    def track(bounds: tuple[float, float]) -> Floats:
        wander = ndimage.gaussian_filter1d(draw.standard_normal(steps), 8.0 / STEP_S, mode="wrap")
        rate = draw.uniform(*bounds) * (1 + 0.06 * wander / wander.std())
        return np.asarray(draw.uniform(0, 2 * np.pi) + 2 * np.pi * np.cumsum(rate) * STEP_S)

    amplitude = draw.standard_normal(SLOW_SINUSOIDS)
    amplitude *= np.sqrt(2 / (amplitude**2).sum())
    phase = draw.uniform(0, 2 * np.pi, SLOW_SINUSOIDS)
    slow = np.stack([draw.uniform(0.01, 0.09, SLOW_SINUSOIDS), amplitude, phase])
    return Physiology(breath=track(BREATHS_HZ), beat=track(BEATS_HZ), slow=slow)
