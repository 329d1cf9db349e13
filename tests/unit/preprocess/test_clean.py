"""Cleaning against nilearn, the arithmetic of the degrees of freedom, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from nilearn.signal import clean as nilearn_clean

from boldmill.errors import DataFault
from boldmill.preprocess import clean, design
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.motion import AXES, expand


def table_of(count: int, *, components: int = 5, cosines: int = 2, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    columns = expand({name: rng.normal(size=count) for name in AXES})
    columns |= {"white_matter": rng.normal(size=count), "csf": rng.normal(size=count)}
    columns |= {"global_signal": rng.normal(size=count)}
    columns |= {f"a_comp_cor_{k:02d}": rng.normal(size=count) for k in range(components)}
    columns |= {f"cosine_{k:02d}": rng.normal(size=count) for k in range(cosines)}
    return Table(columns, {})


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.1), (0.008, None), (None, 0.12), (None, None)])
@pytest.mark.parametrize("linear", [True, False])
def test_same_as_nilearn(low: float | None, high: float | None, linear: bool) -> None:
    rng = np.random.default_rng(7)
    series = (rng.normal(size=(160, 30)).cumsum(axis=0) + 500).astype(np.float32)
    confounds = rng.normal(size=(160, 9)).cumsum(axis=0)
    temporal = clean.Temporal(low=low, high=high, degree=int(linear))
    matrix, rank = clean.operator(160, 2.0, confounds, temporal)
    assert rank == 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = nilearn_clean(
            series.astype(np.float64) - (0 if linear else series.mean(axis=0)),
            confounds=confounds,
            detrend=linear,
            standardize=False,
            filter="butterworth" if low or high else False,
            low_pass=high,
            high_pass=low,
            t_r=2.0,
        )
    peer -= peer.mean(axis=0)
    ours = clean.apply(matrix, series.copy())
    assert np.abs(ours - peer).max() <= 1e-5 * np.abs(peer).max()


def test_nothing_of_the_filtered_confounds_is_left() -> None:
    rng = np.random.default_rng(8)
    confounds = rng.normal(size=(200, 12))
    matrix, _ = clean.operator(200, 2.0, confounds, clean.Temporal(low=0.01, high=0.1))
    out = clean.apply(matrix, (rng.normal(size=(200, 50)) + confounds @ rng.normal(size=(12, 50))).astype(np.float32))
    filtered = clean.butterworth(confounds - confounds.mean(axis=0), 2.0, 0.01, 0.1)
    filtered -= filtered.mean(axis=0)
    unit = filtered / np.linalg.norm(filtered, axis=0)
    assert np.abs(unit.T @ (out / np.linalg.norm(out, axis=0))).max() < 1e-5
    assert np.abs(out.mean(axis=0)).max() < 1e-5
    power = np.abs(np.fft.rfft(out, axis=0)) ** 2
    frequency = np.fft.rfftfreq(200, 2.0)
    assert power[(frequency > 0.15)].sum() / power.sum() < 1e-3


def test_dead_voxels_become_zero_and_blocks_do_not_matter() -> None:
    rng = np.random.default_rng(9)
    series = rng.normal(size=(60, 11)).astype(np.float32)
    series[:, 3] = 42.0
    series[10, 5] = np.nan
    matrix, _ = clean.operator(60, 2.0, np.zeros((60, 0)), clean.Temporal(degree=1))
    out = clean.apply(matrix, series.copy())
    assert not out[:, 3].any() and not out[:, 5].any() and np.isfinite(out).all()
    assert np.allclose(out, clean.apply(matrix, series.copy(), block=4), atol=1e-6)


def test_effective_freedom_of_a_projection_is_its_rank() -> None:
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 8)))
    assert clean.effective_freedom(np.eye(50) - basis @ basis.T) == pytest.approx(42)


@pytest.mark.parametrize(
    ("count", "tr", "low", "high", "drift", "rank", "kept"),
    [
        (100, 2.0, 0.01, 0.1, "cosine", 26, 38),  # the published example: 12 are left
        (78, 2.0, 0.01, 0.1, "cosine", 29, 28),
        (200, 2.0, 0.01, 0.1, "cosine", 26, 74),
        (20, 2.52, None, None, "linear", 8, 18),  # 6 motion, two tissues: 10 are left
        (20, 2.52, None, None, "none", 8, 19),
        (100, 2.0, 0.01, None, "cosine", 0, 97),
        (652, 1.4, 0.01, 0.1, "cosine", 29, 164),
    ],
)
def test_dimensions_the_filter_keeps(
    count: int, tr: float, low: float | None, high: float | None, drift: str, rank: int, kept: int
) -> None:
    freedom = design.count_freedom(count, tr, low, high, drift, rank)
    assert freedom.kept == kept
    assert freedom.residual == kept - rank
    assert f"{rank} regressors leave {kept - rank}" in freedom.words


def test_a_short_run_is_refused_with_arithmetic_and_a_model_that_fits() -> None:
    with pytest.raises(DataFault) as caught:
        design.plan(CleanConfig(), table_of(78), 2.0, where="scan")
    assert "78 volumes at TR 2 s keep 28 dimensions" in caught.value.why
    assert "29 regressors leave -1" in caught.value.why
    assert "motion: '" in caught.value.fix
    proposed = CleanConfig(motion="6", compcor=0, tissue="wm_csf")
    assert "motion: '6', compcor: 0, tissue: wm_csf" in caught.value.fix
    plan = design.plan(proposed, table_of(78), 2.0, where="scan")
    assert plan.facts["residual_dof"] == 20 and plan.facts["flags"] == []


def test_few_degrees_are_flagged_and_twenty_volumes_need_no_filter() -> None:
    plan = design.plan(CleanConfig(motion="12"), table_of(78), 2.0, where="scan")
    assert plan.facts["residual_dof"] == 11
    assert len(plan.facts["flags"]) == 1 and "leave 11" in plan.facts["flags"][0]
    small = CleanConfig(motion="6", compcor=0, tissue="wm_csf", drift="linear", band_low=None, band_high=None)
    assert design.plan(small, table_of(20), 2.52, where="scan").facts["residual_dof"] == 10
    with pytest.raises(DataFault, match="drift: linear"):
        design.plan(CleanConfig(), table_of(20), 2.52, where="scan")


def test_columns_of_a_strategy() -> None:
    table = table_of(150)
    assert len(design.motion_columns("24")) == 24 and len(design.motion_columns("none")) == 0
    assert set(design.motion_columns("12")) == {a + s for a in AXES for s in ("", "_derivative1")}
    chosen = design.wanted_columns(CleanConfig(), table.columns)
    assert len(chosen) == 29 and not any(name.startswith("cosine") for name in chosen)  # the band removes them
    slow = design.wanted_columns(CleanConfig(band_low=None), table.columns)
    assert {"cosine_00", "cosine_01"} <= set(slow)
    marked = Table({**table.columns, "non_steady_state_outlier00": np.eye(150)[0]}, {})
    assert "non_steady_state_outlier00" in design.wanted_columns(CleanConfig(), marked.columns)
    every = CleanConfig(motion="none", compcor=0, tissue="wm_csf", global_signal=True)
    assert set(design.wanted_columns(every, table.columns)) == {"white_matter", "csf", "global_signal"}


def test_an_upper_edge_beyond_nyquist_is_no_edge() -> None:
    assert design.band(CleanConfig(), 6.0) == (0.01, None)
    assert design.band(CleanConfig(), 2.0) == (0.01, 0.1)


def test_a_collinear_regressor_costs_nothing() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(120, 2))
    both = np.concatenate([values, values[:, :1] - values[:, 1:]], axis=1)
    assert clean.orthonormal(both).shape[1] == 2
    assert clean.orthonormal(np.zeros((120, 0))).shape == (120, 0)
    assert clean.orthonormal(np.ones((120, 1))).shape == (120, 0)
