"""The cleaning operator: nilearn's scrubbing, C-PAC's order, the Fourier box, polynomials, censored volumes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from nilearn.signal import clean as nilearn_clean

from boldmill.preprocess import clean
from boldmill.preprocess.censor import interpolation, over_limits


def temporal(**values: Any) -> clean.Temporal:
    return clean.Temporal(**{"low": 0.01, "high": 0.1, "degree": 1, **values})


def walk(count: int = 200, *, seed: int = 3, columns: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confounds = rng.normal(size=(count, columns)).cumsum(axis=0)
    series = 500 + rng.normal(size=(count, 20)).cumsum(axis=0) + confounds @ rng.normal(size=(columns, 20))
    return series, confounds


@pytest.mark.parametrize("order", [2, 5])
def test_scrubbing_is_that_of_nilearn(order: int) -> None:
    """Interpolation, detrending, filter, and a fit on the kept volumes alone."""
    series, confounds = walk()
    gone = np.zeros(200, dtype=bool)
    gone[[20, 21, 60, 61, 62, 130]] = True  # the edges are kept: beyond them nilearn extrapolates
    matrix, _ = clean.operator(200, 2.0, confounds, temporal(filter_order=order), censored=gone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = nilearn_clean(
            series,
            confounds=confounds,
            detrend=True,
            standardize=False,
            filter="butterworth",
            low_pass=0.1,
            high_pass=0.01,
            t_r=2.0,
            sample_mask=np.flatnonzero(~gone),
            butterworth__order=order,
        )
    ours = (matrix @ series)[~gone]
    difference = (ours - ours.mean(axis=0)) - (peer - peer.mean(axis=0))
    assert np.abs(difference).max() <= 1e-6 * np.abs(peer).max()


def test_what_was_measured_in_censored_volumes_has_no_influence() -> None:
    series, confounds = walk()
    gone = np.zeros(200, dtype=bool)
    gone[[0, 1, 50, 51, 199]] = True
    for order in ("both", "after"):
        for kind in ("butterworth", "fft"):
            settings = temporal(order=order, kind=kind)
            matrix, _ = clean.operator(200, 2.0, confounds, settings, censored=gone)
            wild = confounds.copy()
            wild[gone] = 1e4
            other, _ = clean.operator(200, 2.0, wild, settings, censored=gone)
            assert np.allclose(matrix, other, atol=1e-9) and not matrix[:, gone].any()
            out = matrix @ series
            assert out.shape == series.shape and (np.abs(out[gone]).max() < 5 * np.abs(out[~gone]).max())


def test_interpolation_is_a_spline_with_the_nearest_volume_beyond_the_ends() -> None:
    gone = np.zeros(30, dtype=bool)
    gone[[0, 1, 12, 13, 29]] = True
    time = np.arange(30.0)
    parabola = 0.1 * time**2 - time
    out = interpolation(gone) @ parabola
    assert np.allclose(out[2:29], parabola[2:29])
    assert np.allclose(out[[0, 1, 29]], parabola[[2, 2, 28]])
    assert np.array_equal(interpolation(np.zeros(5, dtype=bool)), np.eye(5))


def test_limits_and_their_reach() -> None:
    fd = np.array([np.nan, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1])
    std = np.array([np.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    assert np.flatnonzero(over_limits(fd, std, limit_fd=0.5)).tolist() == [2]
    assert np.flatnonzero(over_limits(fd, std, limit_fd=0.5, limit_dvars=1.5)).tolist() == [2, 6]
    reach = over_limits(fd, std, limit_fd=0.5, limit_dvars=1.5, before=1, after=2)
    assert np.flatnonzero(reach).tolist() == [1, 2, 3, 4, 5, 6]


def test_after_is_regression_then_filter() -> None:
    """An independent reference: least squares with a parabola, then the C-PAC box written out with a full FFT."""
    series, confounds = walk(columns=4)
    matrix, rank = clean.operator(200, 2.0, confounds, temporal(degree=2, kind="fft", order="after"))
    time = np.arange(200.0)
    model = np.stack([np.ones(200), time, time**2, *confounds.T], axis=1)
    left = series - model @ np.linalg.lstsq(model, series, rcond=None)[0]
    padded = np.zeros((256, series.shape[1]))
    padded[:200] = left - left.mean(axis=0)
    frequency = np.abs(np.fft.fftfreq(256, 2.0))
    spectrum = np.fft.fft(padded, axis=0) * ((frequency >= 0.01) & (frequency <= 0.1))[:, np.newaxis]
    reference = np.fft.ifft(spectrum, axis=0).real[:200]
    reference -= reference.mean(axis=0)
    assert rank == 4
    assert np.abs(matrix @ series - reference).max() < 1e-7 * np.abs(reference).max()


def test_the_box_keeps_what_is_inside_and_removes_what_is_outside() -> None:
    time = 2.0 * np.arange(256)
    waves = np.stack([np.cos(2 * np.pi * k / 512 * time) for k in (5, 6, 51, 52)], axis=1)
    out = clean.fourier_box(waves, 2.0, 6 / 512, 51 / 512)
    assert np.allclose(out[:, 1:3], waves[:, 1:3], atol=1e-9)
    assert np.abs(out[:, [0, 3]]).max() < 1e-9
    assert np.allclose(clean.fourier_box(waves, 2.0, None, 51 / 512)[:, :3], waves[:, :3], atol=1e-9)


def test_a_quadratic_drift_is_removed_without_a_filter() -> None:
    time = np.linspace(-1, 1, 90)
    rng = np.random.default_rng(1)
    noise, confounds = rng.normal(size=(90, 12)), rng.normal(size=(90, 3))
    matrix, _ = clean.operator(90, 2.0, confounds, clean.Temporal(degree=2))
    model = np.stack([np.ones(90), time, time**2, *confounds.T], axis=1)
    reference = noise - model @ np.linalg.lstsq(model, noise, rcond=None)[0]
    drifting = noise + 40 * time[:, None] + 70 * time[:, None] ** 2
    assert np.allclose(matrix @ drifting, reference, atol=1e-9)


def test_the_box_leaves_no_regressor_made_of_rounding() -> None:
    """A drift cosine below the band has nothing left after an ideal filter: scaling that up would regress noise."""
    slow = np.cos(np.pi * (np.arange(256) + 0.5) / 256)[:, np.newaxis]
    slow = clean.fourier_box(slow - slow.mean(), 2.0, None, 2 / 512)  # inside the stop band of what follows
    matrix, rank = clean.operator(256, 2.0, slow, temporal(degree=0, kind="fft"))
    assert rank == 0 and clean.effective_freedom(matrix) > 80
