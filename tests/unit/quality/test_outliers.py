"""Modified z against closed forms; direction; sites; few scans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from boldmill.quality.measures import MEASURES
from boldmill.quality.outliers import MIN_SCANS, modified_z, outliers

FD = next(m for m in MEASURES if m.name == "mean_fd")
TSNR = next(m for m in MEASURES if m.name == "tsnr")


def test_the_textbook_example() -> None:
    """Median 2.0, MAD 0.5 by hand: 10 lies at 0.6745 * 8 / 0.5."""
    values = np.array([1.0, 1.5, 2.0, 2.5, 10.0, np.nan])
    z = modified_z(values)
    np.testing.assert_allclose(z[[2, 3, 4]], [0, 0.6745, 10.792])
    assert np.isnan(z[5])


def test_equal_values_have_no_outlier_and_half_equal_values_use_the_mean_deviation() -> None:
    assert not modified_z(np.full(9, 3.0)).any()
    values = np.array([1.0, 1, 1, 1, 1, 1, 7])
    np.testing.assert_allclose(modified_z(values)[-1], 6 / (1.2533 * 6 / 7))


@given(arrays(float, 9, elements=st.floats(-50, 50).map(lambda v: round(v, 3))), st.floats(0.5, 20), st.floats(-9, 9))
def test_scale_and_shift_do_not_matter(values: np.ndarray, scale: float, shift: float) -> None:
    np.testing.assert_allclose(modified_z(scale * values + shift), modified_z(values), atol=1e-4, rtol=1e-4)


def test_a_normal_sample_has_unit_spread() -> None:
    z = modified_z(np.random.default_rng(1).normal(5, 3, 20_000))
    assert abs(z.std() - 1) < 0.02


def figures(name: str, values: list[float]) -> list[dict[str, float]]:
    return [{name: value} if np.isfinite(value) else {} for value in values]


def test_only_the_bad_direction_is_flagged() -> None:
    base = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02]
    for name, bad in (("mean_fd", 9.0), ("tsnr", -9.0)):
        for value in (9.0, -9.0):
            found = outliers(figures(name, [*base, value]), ["a"] * 7, 3.5)
            assert [bool(one) for one in found] == [False] * 6 + [value == bad]


def test_a_site_is_compared_within_itself_from_eight_scans_on() -> None:
    """0.30 is nothing special between two sites, but far outside the quiet one."""
    quiet = [0.10, 0.11, 0.09, 0.10, 0.12, 0.08, 0.10, 0.30]
    loud = [0.5, 0.3, 0.7, 0.6, 0.4, 0.5, 0.2, 0.8]
    found = outliers(figures("mean_fd", quiet + loud), ["q"] * 8 + ["l"] * 8, 3.5)
    assert [i for i, one in enumerate(found) if one] == [7]
    assert found[7][0].against == "site"
    assert found[7][0].words == f"mean_fd: z {found[7][0].z:+.1f} in the site"
    few = outliers(figures("mean_fd", quiet[1:] + loud), ["q"] * 7 + ["l"] * 8, 3.5)
    assert not any(few)


def test_too_few_scans_or_values_are_not_judged() -> None:
    values = [1.0, 1.1, 0.9, 50.0]
    assert not any(outliers(figures("mean_fd", values), ["a"] * 4, 3.5))
    assert any(outliers(figures("mean_fd", [*values, 1.0]), ["a"] * MIN_SCANS, 3.5))
    assert not any(outliers(figures("mean_fd", [*values, np.nan]), ["a"] * 5, 3.5))


@pytest.mark.parametrize("limit", [2.0, 30.0])
def test_the_limit_is_that_of_the_settings(limit: float) -> None:
    found = outliers(figures("mean_fd", [1, 1.5, 2, 2.5, 10.0]), ["a"] * 5, limit, measures=[FD, TSNR])
    assert bool(found[4]) is (limit < 10.792)
