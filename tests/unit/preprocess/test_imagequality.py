"""Image quality figures against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from boldmill.preprocess import imagequality as iq


def test_efc_is_one_for_energy_everywhere_and_zero_in_one_voxel() -> None:
    assert iq.efc(np.ones((6, 7, 8))) == pytest.approx(1.0)
    spike = np.zeros((6, 7, 8))
    spike[2, 3, 4] = -5
    assert iq.efc(spike) == pytest.approx(0.0)
    assert iq.efc(np.zeros((4, 4, 4))) == 0.0


@given(st.integers(1, 200))
def test_efc_of_k_equal_voxels_among_n(k: int) -> None:
    """K voxels of size a: each is 1 / sqrt(K), the sum of x ln x is sqrt(K) ln sqrt(K)."""
    image = np.zeros(400)
    image[:k] = 3.0
    expected = np.sqrt(k) * np.log(np.sqrt(k)) / (20 * np.log(20))
    assert iq.efc(image) == pytest.approx(expected, abs=1e-12)


def two_valued(mean: float, sd: float, n: int = 500) -> np.ndarray:
    """Values with exactly this mean and population SD."""
    return mean + sd * np.tile([1.0, -1.0], n // 2)


def test_contrast_and_noise() -> None:
    white, grey, air = two_valued(100, 3), two_valued(70, 4), two_valued(2, 12)
    assert iq.cnr(white, grey, air) == pytest.approx(30 / 13)
    assert iq.cjv(white, grey) == pytest.approx(7 / 30)
    assert iq.snr(white) == pytest.approx(100 / (3 * np.sqrt(500 / 499)))
    assert iq.snr_dietrich(white, air) == pytest.approx(100 / (12 * np.sqrt(2 / (4 - np.pi))))
    assert iq.fber(two_valued(10, 0), two_valued(0, 2)) == pytest.approx(25)


def test_dietrich_noise_is_that_of_rayleigh_air() -> None:
    """Magnitude air of complex noise s has SD s sqrt(2 - pi / 2): the figure returns mean / s."""
    rng = np.random.default_rng(0)
    air = np.abs(rng.normal(0, 5, 200_000) + 1j * rng.normal(0, 5, 200_000))
    assert iq.snr_dietrich(np.full(10, 100.0), air) == pytest.approx(100 / 5, rel=0.01)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_planted_ghost_is_measured_along_its_axis(axis: int) -> None:
    image = np.full((32, 32, 6), 2.0)
    head = np.zeros(image.shape, dtype=bool)
    head[12:20, 12:20] = True
    image[head] = 100
    image[np.roll(head, 16, axis=axis)] = 12
    found = [iq.ghost_to_signal(image, head, a) for a in (0, 1)]
    assert found[axis] == pytest.approx(0.1)
    assert found[1 - axis] < 0.0


@pytest.mark.parametrize("zooms", [(2.0, 2.0, 2.0), (3.0, 2.0, 4.0)])
def test_smoothness_is_the_fwhm_of_the_filter(zooms: tuple[float, ...]) -> None:
    size, sigma = 7.0, 7.0 / np.sqrt(8 * np.log(2))
    noise = np.random.default_rng(1).normal(size=(48, 48, 48))
    smooth = gaussian_filter(noise, [sigma / zoom for zoom in zooms])
    mask = np.zeros(noise.shape, dtype=bool)
    mask[8:-8, 8:-8, 8:-8] = True
    assert iq.fwhm(smooth, mask, np.array(zooms)) == pytest.approx(size, rel=0.06)


def test_smoothness_of_nothing_is_zero() -> None:
    assert iq.fwhm(np.ones((5, 5, 5)), np.ones((5, 5, 5), bool), np.ones(3)) == 0.0
    assert iq.fwhm(np.ones((5, 5, 5)), np.zeros((5, 5, 5), bool), np.ones(3)) == 0.0


def test_dice() -> None:
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    assert iq.dice(a, b) == 0.0
    a[:6], b[4:8] = True, True
    assert iq.dice(a, b) == pytest.approx(2 * 2 / 10)


def test_planted_outliers_are_the_share_at_their_volume() -> None:
    rng = np.random.default_rng(2)
    series = 1000 + rng.normal(0, 5, (120, 400))
    series += 30 * np.linspace(-1, 1, 120)[:, None]  # a drift is no outlier
    series[40, :100] += 80
    share = iq.outlying_share(series, 2.0)
    assert share[40] == pytest.approx(0.25, abs=0.01)
    assert np.delete(share, 40).mean() < 1e-3


def test_constant_voxels_are_no_outliers() -> None:
    assert not iq.outlying_share(np.full((30, 50), 7.0), 2.0).any()


def test_one_shuffled_volume_has_the_worst_quality_index() -> None:
    rng = np.random.default_rng(3)
    image = rng.uniform(100, 200, 2000)
    series = image + rng.normal(0, 1e-9, (30, 2000))
    series[11] = rng.permutation(image)
    index = iq.quality_index(series)
    assert index[11] == pytest.approx(1, abs=0.08)
    assert np.delete(index, 11).max() < 1e-6
    series[12] = 400 - 2 * image  # reversed ranks
    assert iq.quality_index(series)[12] == pytest.approx(2)


def test_many_voxels_are_sampled_evenly() -> None:
    """The share of a large series is that of every third voxel."""
    series = np.random.default_rng(4).normal(size=(20, 25_000))
    np.testing.assert_array_equal(iq.quality_index(series), iq.quality_index(series[:, ::3]))
