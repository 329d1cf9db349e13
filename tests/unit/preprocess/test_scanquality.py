"""Figures of a T1w and of a run: masked backgrounds, overlaps after a known shift, censoring limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldmill.preprocess import scanquality as sq
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.images import Volume

from . import phantom

NOISE = 1.5


@pytest.fixture(scope="module")
def head() -> tuple[Volume, dict[str, np.ndarray], np.ndarray]:
    """The phantom's T1w with Rayleigh noise, its tissue maps, and its brain mask."""
    clean = phantom.volume("t1w")
    rng = np.random.default_rng(0)
    shape = clean.data.shape
    noisy = np.abs(clean.data + rng.normal(0, NOISE, shape) + 1j * rng.normal(0, NOISE, shape))
    maps = {name: phantom.volume(name).data for name in ("gm", "wm", "csf")}
    return clean.like(noisy.astype(np.float32)), maps, phantom.volume("brain").data > 0.5


def test_figures_of_a_head(head: tuple[Volume, dict[str, np.ndarray], np.ndarray]) -> None:
    found = sq.t1w_quality(*head)
    assert all(isinstance(value, float) and np.isfinite(value) for value in found.values()), found
    t1w, maps, brain = head
    white = t1w.data[brain & (maps["wm"] > 0.9)].mean()
    assert found["snrd_wm"] == pytest.approx(white / NOISE, rel=0.3)  # the soft rim of the scalp adds to the noise


def test_noise_lowers_contrast_and_raises_entropy(head: tuple[Volume, dict[str, np.ndarray], np.ndarray]) -> None:
    t1w, maps, brain = head
    rng = np.random.default_rng(1)
    worse = t1w.like(np.abs(t1w.data + rng.normal(0, 8, t1w.data.shape)).astype(np.float32))
    good, bad = sq.t1w_quality(t1w, maps, brain), sq.t1w_quality(worse, maps, brain)
    for name in ("cnr", "snr_wm", "snrd_wm", "fber"):
        assert bad[name] < good[name], name
    for name in ("cjv", "efc"):
        assert bad[name] > good[name], name


def test_without_air_there_is_no_noise_figure(head: tuple[Volume, dict[str, np.ndarray], np.ndarray]) -> None:
    t1w, maps, brain = head
    extracted = t1w.like(np.where(brain, t1w.data, 0).astype(np.float32))
    found = sq.t1w_quality(extracted, maps, brain)
    assert [name for name, value in found.items() if value is None] == [
        "cnr", "efc", "fber", "snrd_csf", "snrd_gm", "snrd_wm",
    ]  # fmt: skip
    assert found["cjv"] == sq.t1w_quality(*head)["cjv"]


def bold() -> Volume:
    """A run's reference: bright brain, dim scalp."""
    part = phantom.parts(phantom.GRID.points())
    data = 100 * part["brain"] + 20 * part["scalp"] + 1
    rng = np.random.default_rng(2)
    return Volume(
        (data + rng.normal(0, 0.5, data.shape)).reshape(phantom.GRID.shape).astype(np.float32), phantom.GRID.affine
    )


def test_overlap_falls_with_a_wrong_registration() -> None:
    mask = phantom.volume("brain")
    mask = mask.like((mask.data > 0.5).astype(np.float32))
    found = []
    for shift in (0.0, 8.0, 30.0):
        wrong = np.eye(4)
        wrong[1, 3] = shift
        found.append(sq.bold_quality(bold(), mask, wrong, 1)["coreg_dice"])
    assert found[0] > 0.93
    assert found[0] > found[1] + 0.03 > found[2] + 0.1


def test_without_a_phase_encoding_axis_there_is_no_ghost_figure() -> None:
    mask = phantom.volume("brain")
    found = sq.bold_quality(bold(), mask, np.eye(4), None)
    assert found["gsr"] is None
    assert all(value is not None for name, value in found.items() if name != "gsr")


def test_the_limits_count_whether_or_not_the_strategy_censors() -> None:
    fd = np.array([np.nan, 0.1, 0.9, 0.1, 0.1, 0.25, 0.1, 0.1, 0.1, 0.1])
    dvars = np.array([np.nan, 1, 1, 1, 1, 1, 1, 1, 3, 1])
    columns = {"framewise_displacement": fd, "std_dvars": dvars}
    one = sq.run_summary(columns, CleanConfig(), 3.0)
    assert one == {"censored_share": 0.1, "minutes_kept": 0.45, "fd_over_02": 0.2}
    both = sq.run_summary(columns, CleanConfig(censor_dvars=2.0, censor_after=1), 3.0)
    assert (both["censored_share"], both["minutes_kept"]) == (0.4, 0.3)
    assert set(sq.run_summary({}, CleanConfig(), 3.0).values()) == {None}
    assert set(sq.run_summary({"framewise_displacement": fd * np.nan}, CleanConfig(), 3.0).values()) == {None}


def test_the_rows_of_a_scratch_series_are_sampled_evenly(tmp_path: Path) -> None:
    series = np.arange(3 * 25_000, dtype=np.float32).reshape(3, -1)
    np.save(tmp_path / "x.npy", series)
    np.testing.assert_array_equal(sq._spaced_rows(tmp_path / "x.npy"), series[:, ::3])
