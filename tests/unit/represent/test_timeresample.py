from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.interpolate import PchipInterpolator
from scipy.signal import cheby1, sosfiltfilt

from boldmill.errors import DataFault
from boldmill.represent.timeresample import n_resampled, pchip, resample


def _reference(values: np.ndarray, tr: float, target: float) -> np.ndarray:
    """The published chain in float64, with scipy."""
    values = values.astype(np.float64)
    if target > tr:
        sections = cheby1(8, 0.05, 0.8 / (target / tr), output="sos")
        values = sosfiltfilt(sections, values, axis=0, padtype="even")
    after = int(tr * len(values) / target)
    return PchipInterpolator(tr * np.arange(len(values)), values, axis=0)(target * np.arange(after))


@pytest.mark.parametrize(("tr", "target"), [(0.72, 1.0), (0.735, 1.0), (2.0, 1.0), (1.4, 1.0), (2.52, 1.0), (0.5, 1.0)])
def test_same_as_scipy_in_float64(tr: float, target: float) -> None:
    rng = np.random.default_rng(5)
    values = np.cumsum(rng.standard_normal((200, 40)), axis=0)
    values = ((values - values.mean(0)) / values.std(0)).astype(np.float32)
    ours, expected = resample(values, tr, target), _reference(values, tr, target)
    assert ours.dtype == np.float32 and ours.shape == expected.shape
    assert np.abs(ours - expected).max() < 2e-5


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, st.tuples(st.integers(2, 12), st.just(3)), elements=st.integers(-5, 5)))
def test_pchip_on_flat_and_turning_stretches(values: np.ndarray) -> None:
    position = np.linspace(0, len(values) - 0.5, 31)
    expected = PchipInterpolator(np.arange(len(values)), values.astype(float), axis=0)(position)
    assert np.abs(pchip(values, position) - expected).max() < 1e-4


def test_the_same_tr_is_left_alone() -> None:
    values = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    assert resample(values, 1.0, 1.0) is values
    assert n_resampled(30, 1.0, 1.0) == 30 and n_resampled(100, 0.7, 0.35) == 200


def test_downsampling_removes_what_would_alias() -> None:
    t = np.arange(400) * 0.5
    fast = np.sin(2 * np.pi * 0.9 * t)[:, None].astype(np.float32)  # above the new Nyquist frequency, 0.5 Hz
    slow = np.sin(2 * np.pi * 0.05 * t)[:, None].astype(np.float32)
    assert np.abs(resample(fast, 0.5, 1.0)[10:-10]).max() < 0.02
    assert np.abs(resample(slow, 0.5, 1.0)[10:-10]).max() > 0.9


def test_a_run_too_short_is_refused() -> None:
    with pytest.raises(DataFault, match="1 of 3 s"):
        resample(np.zeros((2, 3), np.float32), 2.0, 3.0)


def test_short_runs_are_filtered_with_a_shorter_padding() -> None:
    assert resample(np.random.default_rng(0).standard_normal((12, 2)).astype(np.float32), 0.7, 1.4).shape == (6, 2)
