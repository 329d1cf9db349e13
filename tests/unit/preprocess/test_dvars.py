"""DVARS, tSNR and the global correlation against published series and closed forms."""

from __future__ import annotations

from pathlib import Path

import nibabel
import nipype
import numpy as np
import pytest

from boldmill.preprocess.dvars import dvars, gcor, std_dvars, tsnr

NIPYPE = Path(nipype.__file__).parent / "testing" / "data"


def fixture() -> np.ndarray:
    mask = np.asarray(nibabel.load(NIPYPE / "ds003_sub-01_mc_brainmask.nii.gz").dataobj) > 0
    data = np.asarray(nibabel.load(NIPYPE / "ds003_sub-01_mc.nii.gz").dataobj, dtype=np.float32)
    return data[mask].T


def test_raw_dvars_matches_the_published_series() -> None:
    published = np.loadtxt(NIPYPE / "ds003_sub-01_mc.DVARS")[:, 1]
    ours = dvars(fixture())
    assert np.isnan(ours[0])
    assert np.abs(ours[1:] / published - 1).max() < 5e-6


def test_standardised_dvars_is_near_the_published_series() -> None:
    """The published script estimates the autocorrelation differently."""
    published = np.loadtxt(NIPYPE / "ds003_sub-01_mc.DVARS")[:, 0]
    assert np.abs(std_dvars(fixture())[1:] / published - 1).max() < 3e-3


def test_standardised_dvars_matches_the_closed_form() -> None:
    rng = np.random.default_rng(5)
    series = rng.normal(100, 3, (120, 40)).astype(np.float32)
    series[:, 7] = 100.0  # does not vary: left out
    kept = np.delete(series, 7, axis=1).astype(np.float64)
    predicted = []
    for voxel in kept.T:
        low, high = np.percentile(voxel, [25, 75], method="lower")
        centred = voxel - voxel.mean()
        rho = (centred[1:] * centred[:-1]).sum() / (centred**2).sum()
        predicted.append(np.sqrt(2 * (1 - rho)) * (high - low) / 1.349)
    raw = np.sqrt((np.diff(kept, axis=0) ** 2).mean(axis=1))
    assert np.allclose(std_dvars(series)[1:], raw / np.mean(predicted), rtol=1e-5)


def test_standardised_dvars_of_white_noise_is_one() -> None:
    series = np.random.default_rng(1).normal(size=(400, 500)).astype(np.float32)
    assert np.nanmean(std_dvars(series)) == pytest.approx(1.0, abs=0.03)


def test_tsnr_ignores_drift() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 2.0, (500, 30))
    time = np.linspace(-1, 1, 500)[:, None]
    flat = tsnr((100 + noise).astype(np.float32))
    drifting = tsnr((100 + 30 * time + 20 * (time**2 - 1 / 3) + noise).astype(np.float32))
    assert np.median(flat) == pytest.approx(50, rel=0.05)
    assert np.allclose(flat, drifting, rtol=1e-2)


def test_gcor_is_the_mean_of_the_correlation_matrix() -> None:
    rng = np.random.default_rng(4)
    series = rng.normal(size=(60, 25)) + rng.normal(size=(60, 1))
    with_dead = np.concatenate([series, np.full((60, 2), 3.0)], axis=1)
    assert gcor(with_dead) == pytest.approx(np.corrcoef(series.T).mean(), rel=1e-9)
    assert gcor(np.zeros((5, 3))) == 0.0
