"""ALFF, fALFF and ReHo: closed forms, scipy's Friedman test, C-PAC's relations, and the maps of a run."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from boldmill.preprocess import clean, design
from boldmill.preprocess.alff import fluctuation
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.images import Volume
from boldmill.preprocess.maps import band_of, native_maps, to_template, zscored
from boldmill.preprocess.reho import ranks, reho

from .test_plan import full

COUNT, TR = 256, 2.0


def waves() -> np.ndarray:
    time = TR * np.arange(COUNT)
    slow, fast = np.cos(2 * np.pi * 20 / 512 * time), np.cos(2 * np.pi * 90 / 512 * time)
    return np.stack([3 * slow, 3 * slow + 4 * fast, 4 * fast, np.zeros(COUNT)], axis=1).astype(np.float32) + 100


def test_alff_of_waves_in_and_outside_the_band() -> None:
    identity = np.eye(COUNT) - 1 / COUNT
    band = clean.fourier_box(np.eye(COUNT), TR, 0.01, 0.1)
    alff, falff = fluctuation(waves(), identity, band, block=3)
    unit = np.sqrt(COUNT / (COUNT - 1) / 2)
    assert np.allclose(alff, [3 * unit, 3 * unit, 0, 0], atol=1e-4)
    assert np.allclose(falff, [1, 3 / 5, 0, 0], atol=1e-4)


def test_alff_is_the_spread_of_the_cleaned_series_where_the_filter_comes_last() -> None:
    """C-PAC regresses, then filters: its ALFF is the standard deviation of exactly that."""
    config = CleanConfig(strategy="abide_pcp")
    series = (1000 + np.random.default_rng(0).normal(size=(240, 8)).cumsum(axis=0)).astype(np.float32)
    mask = np.ones((2, 2, 2), dtype=bool)
    made = native_maps(series, mask, config, full(), TR, ["alff"], where="s")
    cleaned = clean.apply(design.plan(config, full(), TR, where="s").operator, series.copy())
    assert np.allclose(made["alff"], cleaned.std(axis=0, ddof=1), rtol=1e-4)
    assert list(made) == ["alff"]


def test_the_band_of_alff_without_a_filter() -> None:
    assert band_of(CleanConfig(band_low=None, band_high=None), 2.0) == (0.01, 0.1)
    assert band_of(CleanConfig(band_high=0.08), 2.0) == (0.01, 0.08)
    assert band_of(CleanConfig(band_low=None, band_high=0.08), 2.0) == (None, 0.08)


def friedman(columns: np.ndarray) -> float:
    """Kendall's W by Friedman's statistic, ties included."""
    count, voxels = columns.shape
    return float(friedmanchisquare(*columns).statistic / (voxels * (count - 1)))


@pytest.mark.parametrize("tied", [False, True])
def test_reho_is_the_concordance_of_the_neighbourhood(tied: bool) -> None:
    rng = np.random.default_rng(1)
    mask = np.ones((5, 5, 5), dtype=bool)
    mask[0, :, :] = mask[2, 2, 3] = False
    shared = rng.normal(size=(40, 1))
    series = (shared + rng.normal(size=(40, int(mask.sum())))).astype(np.float32)
    if tied:
        series = np.rint(series)
    found = np.zeros(mask.shape)
    found[mask] = reho(series, mask)
    image = np.full((*mask.shape, 40), np.nan)
    image[mask] = series.T
    for x, y, z in ((2, 2, 2), (3, 3, 3), (1, 0, 0), (4, 4, 4)):
        block = image[max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2, max(z - 1, 0) : z + 2].reshape(-1, 40)
        columns = block[np.isfinite(block[:, 0])]
        assert found[x, y, z] == pytest.approx(friedman(columns.T), rel=1e-5)


def test_reho_of_equal_series_is_one_and_of_a_lonely_voxel_zero() -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    one = np.random.default_rng(2).normal(size=(30, 1))
    assert np.allclose(reho(np.repeat(one, 27, axis=1), mask), 1.0, atol=1e-6)
    lonely = np.zeros((3, 3, 3), dtype=bool)
    lonely[1, 1, 1] = True
    assert reho(one, lonely) == 0.0


def test_ranks_and_ties() -> None:
    values, ties = ranks(np.array([[3.0, 1.0], [1.0, 1.0], [2.0, 1.0], [4.0, 2.0]]), block=1)
    assert values[:, 0].tolist() == [3, 1, 2, 4] and values[:, 1].tolist() == [2, 2, 2, 4]
    assert ties.tolist() == pytest.approx([0.0, 24.0])


def test_maps_are_read_without_the_zeros_outside_the_mask() -> None:
    data = np.zeros((6, 6, 6))
    data[1:5, 1:5, 1:5] = 1
    native = Volume(data, np.diag([2.0, 2, 2, 1]))
    maps = np.stack([np.full(64, 7.0), np.arange(64.0)])
    points = np.array([[4.0, 4, 4], [2.5, 4, 4], [1.5, 4, 4], [0.5, 4, 4]])  # inside; towards the edge; beyond it
    values, covered = to_template(maps, native, points)
    assert covered.tolist() == [True, True, True, False]
    assert np.allclose(values[0], [7, 7, 7, 0]) and values[1, 0] == pytest.approx(21.0)


def test_z_scores() -> None:
    out = zscored(np.array([1.0, 2.0, 6.0], dtype=np.float32))
    assert out.mean() == pytest.approx(0, abs=1e-6) and out.std() == pytest.approx(1, abs=1e-6)
    assert not zscored(np.ones(4)).any()
