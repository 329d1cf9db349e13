"""Despiking: planted spikes go to the published ceiling, the rest keeps its bytes, and the fit is nearly the L1 fit."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from boldmill.preprocess.despike import LIMIT, despike, robust_fit, smooth_basis


def noisy(count: int = 120, voxels: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    drift = 30 * np.sin(np.linspace(0, 5, count))
    return (1000 + drift + rng.normal(0, 10, (voxels, count))).astype(np.float32)


def test_planted_spikes_are_squashed_and_nothing_else_moves() -> None:
    series = noisy()
    spiked = series.copy()
    spiked[:, 50] += 300.0
    spiked[:20, 80] -= 400.0
    out = despike(spiked.reshape(4, 10, 120)).reshape(40, 120)
    assert out.dtype == np.float32
    assert np.abs(out[:, 50] - series[:, 50]).max() < (LIMIT + 3) * 12
    assert np.abs(out[:20, 80] - series[:20, 80]).max() < (LIMIT + 3) * 12
    assert (out[:, 50] > series[:, 50] - 40).all() and (out[:20, 80] < series[:20, 80] + 40).all()
    untouched = np.ones((40, 120), dtype=bool)
    untouched[:, 50] = untouched[:20, 80] = False
    assert (
        out[untouched] == spiked[untouched]
    ).mean() > 0.93  # 2.5 of these deviations are 2.1 SD of normal noise: 3.5 %


def test_the_ceiling_is_four_robust_deviations_from_the_fit() -> None:
    spiked = noisy(90, 3)
    spiked[:, 30] += 1e5
    fit, spread = robust_fit(spiked - 1000, smooth_basis(90).astype(np.float32))
    assert np.allclose(despike(spiked)[:, 30], 1000 + fit[:, 30] + LIMIT * spread, rtol=1e-3)


def test_the_fit_is_close_to_the_l1_fit() -> None:
    series = noisy(90, 3).astype(float)
    series[:, 20:23] += 500.0
    basis = smooth_basis(90)
    fit, _ = robust_fit(series - 1000, basis)
    for row, ours in zip(series - 1000, fit, strict=True):
        k = basis.shape[1]
        cost = np.concatenate([np.zeros(k), np.ones(180)])
        exact = np.concatenate([basis, np.eye(90), -np.eye(90)], axis=1)
        found = linprog(cost, A_eq=exact, b_eq=row, bounds=[(None, None)] * k + [(0, None)] * 180)
        least = basis @ (basis.T @ row)
        l1 = basis @ found.x[:k]
        assert np.abs(ours - l1).mean() < 4  # of noise with an SD of 10; least squares is far off
        assert np.abs(least - l1).mean() > 20


def test_dead_series_and_blocks() -> None:
    series = noisy(60, 9)
    series[2] = 7.0
    series[4, 5] = np.nan
    out = despike(series)
    assert (out[2] == 7.0).all() and np.array_equal(out[4], series[4], equal_nan=True)
    assert np.allclose(np.nan_to_num(out), np.nan_to_num(despike(series, block=2)), atol=1e-3)
    fortran = np.asfortranarray(series.reshape(3, 3, 60))
    assert np.allclose(np.nan_to_num(despike(fortran)), np.nan_to_num(out.reshape(3, 3, 60)), atol=1e-3)
