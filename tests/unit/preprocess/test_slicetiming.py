"""Slice timing against analytic sinusoids, and what of a sidecar is refused."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess.slicetiming import SliceTimes, correct, shift, slice_times

TR = 2.0


def sinusoids(band: tuple[float, float], count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    return rng.uniform(*band, (count, 60)), rng.uniform(0, 2 * np.pi, (count, 60))


def at(times: np.ndarray, frequency: np.ndarray, phase: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * frequency[..., None] * times + phase[..., None]).sum(axis=1)


@pytest.mark.parametrize("delay", [-0.5, -0.2, 0.3, 0.5])
def test_shift_of_low_frequencies(delay: float) -> None:
    wave = sinusoids((0.01, 0.1))
    times = np.arange(100) * TR
    truth = at(times + delay * TR, *wave)
    error = shift(100 + at(times, *wave), delay) - 100 - truth
    spread = truth.std(axis=1, keepdims=True)
    assert np.sqrt(((error / spread)[:, 3:-3] ** 2).mean()) < 0.01
    assert np.sqrt(((error / spread) ** 2).mean()) < 0.03


def test_shift_keeps_a_trend_exactly() -> None:
    time = np.arange(40.0)
    assert np.allclose(shift(np.array([5 + 2 * time]), 0.37), 5 + 2 * (time + 0.37), atol=1e-4)


def test_each_slice_ends_at_the_reference_time() -> None:
    frequency, phase = sinusoids((0.01, 0.08), 1)
    slices = np.array([1.0, 0.0, 1.5, 0.5])
    timing = SliceTimes(slices, 2, 0.75)
    times = np.arange(80) * TR
    series = np.stack([at(times + s, frequency, phase)[0] for s in slices])[None, None]
    series = np.broadcast_to(series, (3, 2, 4, 80)).astype(np.float32)
    truth = at(times + 0.75, frequency, phase)[0]
    out = correct(series, timing, TR)
    assert out.shape == series.shape
    assert np.abs(out[..., 4:-4] - truth[4:-4]).max() < 0.02 * truth.std()
    # the slice axis is honoured
    turned = correct(series.transpose(2, 0, 1, 3), SliceTimes(slices, 0, 0.75), TR)
    assert np.allclose(turned.transpose(1, 2, 0, 3), out)


def test_reading_a_sidecar() -> None:
    times = [0.0, 1.0, 0.5, 1.5]
    found = slice_times({"SliceTiming": times}, (9, 8, 4, 50), TR)
    assert found is not None and found.axis == 2 and found.times.tolist() == times and found.reference == 0.75
    back = slice_times({"SliceTiming": times, "SliceEncodingDirection": "k-"}, (9, 8, 4, 50), TR)
    assert back is not None and back.times.tolist() == times[::-1]
    sagittal = slice_times({"SliceTiming": times, "SliceEncodingDirection": "i"}, (4, 8, 9, 50), TR, fraction=0.0)
    assert sagittal is not None and sagittal.axis == 0 and sagittal.reference == 0.0
    assert slice_times({}, (9, 8, 4, 50), TR) is None
    assert slice_times({"SliceTiming": [0.3] * 4}, (9, 8, 4, 50), TR) is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"SliceTiming": [0.0, 1.0, 0.5]},
        {"SliceTiming": [0.0, 1.0, 0.5, 2.0]},
        {"SliceTiming": [0.0, 1.0, 0.5, -0.1]},
        {"SliceTiming": [0.0, 1.0, 0.5, float("nan")]},
        {"SliceTiming": [0.0, 1.0, 0.5, "x"]},
        {"SliceTiming": 0.5},
        {"SliceTiming": [0.0, 1.0, 0.5, 1.5], "SliceEncodingDirection": "z"},
    ],
)
def test_a_wrong_sidecar_is_refused(metadata: dict[str, object]) -> None:
    with pytest.raises(DataFault, match="Slice"):
        slice_times(metadata, (9, 8, 4, 50), TR)


def test_short_series_pass_through() -> None:
    series = np.ones((2, 2, 2, 4), dtype=np.float32)
    assert correct(series, SliceTimes(np.array([0.0, 1.0]), 2, 0.5), TR) is series
