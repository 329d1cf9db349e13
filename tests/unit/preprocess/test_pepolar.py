"""Opposite phase encodings against a known field: sizes, unequal readouts, a head that moved, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.preprocess import pepolar
from boldmill.preprocess.distortion import Encoding, opposite, undistort
from boldmill.preprocess.images import Volume
from boldmill.preprocess.motion import matrix_of

from . import sdc_phantom as phantom
from .bold_phantom import CENTRE, bold, draw, oblique_las

GRID = oblique_las((40, 52, 38), 4.0)
RUN, AGAINST = Encoding(1, -1, 0.05), Encoding(1, 1, 0.05)
BRAIN = phantom.brain_of(GRID)
TRUTH = phantom.shift(GRID, RUN)


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    return phantom.epi(GRID, RUN), phantom.epi(GRID, AGAINST, seed=1)


def test_a_known_field_is_found_within_a_tenth_of_a_voxel(pair: tuple[Volume, Volume]) -> None:
    (one, two), truth = pair, TRUTH
    assert np.abs(truth[BRAIN]).max() > 4.5  # voxels of 4 mm
    found = pepolar.estimate(one.data, two.data, 1, GRID.zooms)
    wrong = np.abs(found - truth)[BRAIN]
    assert wrong.mean() < 0.1 and np.percentile(wrong, 95) < 0.3
    assert wrong.mean() < 0.15 * np.abs(truth[BRAIN]).mean()
    assert (1 + np.gradient(found, axis=1)).min() > 0


def test_readout_times_may_differ_and_the_axis_is_any(pair: tuple[Volume, Volume]) -> None:
    one, two, truth = pair[0], phantom.epi(GRID, Encoding(1, 1, 0.03), seed=1), TRUTH
    turned = [np.moveaxis(image.data, 1, 0) for image in (one, two)]
    zooms = np.array([GRID.zooms[1], GRID.zooms[0], GRID.zooms[2]])
    found = np.moveaxis(pepolar.estimate(*turned, 0, zooms, ratio=0.6), 0, 1)
    wrong = np.abs(found - truth)[BRAIN].mean()
    assert wrong < 0.1
    equal = np.moveaxis(pepolar.estimate(*turned, 0, zooms), 0, 1)
    assert np.abs(equal - truth)[BRAIN].mean() > 2 * wrong  # the ratio was needed


def test_a_head_that_moved_between_the_two_is_aligned(pair: tuple[Volume, Volume]) -> None:
    move = matrix_of(np.array([2.0, 0.0, -1.5, 0.03, -0.02, 0.02]), CENTRE)
    one, two, truth = pair[0], phantom.epi(GRID, AGAINST, seed=1, matrix=move), TRUTH
    found, moved = opposite(one, RUN, two, AGAINST, BRAIN)
    wrong = np.abs(np.asarray(found.shift.data) - truth)[BRAIN]
    still = np.abs(pepolar.estimate(one.data, two.data, 1, GRID.zooms) - truth)[BRAIN]
    assert wrong.mean() < 0.12 and wrong.mean() < 0.75 * still.mean()
    assert 1.0 < moved < 5.0
    flat = draw(GRID, bold).data
    before = np.abs(one.data - flat)[BRAIN].mean()
    assert np.abs(undistort(one, found).data - flat)[BRAIN].mean() < 0.6 * before


def test_without_distortion_nothing_is_shifted() -> None:
    rng = np.random.default_rng(2)
    flat = draw(GRID, bold).data
    one, two = (flat + rng.normal(0, 8, GRID.shape) for _ in range(2))
    assert np.abs(pepolar.estimate(one, two, 1, GRID.zooms))[BRAIN].max() < 0.15


def test_the_slope_and_its_transpose_agree() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 5, 7))
    assert (pepolar._slope(x) * y).sum() == pytest.approx((x * pepolar._slope_t(y)).sum())
    rough = pepolar._laplacian(np.array([1.0, 2.0, 0.5]))
    assert (rough(x) * y).sum() == pytest.approx((x * rough(y)).sum()) and (rough(x) * x).sum() > 0
