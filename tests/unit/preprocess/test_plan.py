"""Plans: columns of each strategy and preset, censoring, the arithmetic of both orders, what is proposed instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from boldmill.config.load import parse
from boldmill.errors import DataFault
from boldmill.index.dof import residual_dof
from boldmill.preprocess import clean, design
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.drifts import cosines
from boldmill.preprocess.freedom import band, count_freedom, filter_padding, guard
from boldmill.preprocess.given import chosen_names, completed, is_named
from boldmill.preprocess.motion import AXES, FORMS, expand, lagged

OPEN: dict[str, Any] = {"band_low": None, "band_high": None}


def full(count: int = 240, *, jumps: tuple[int, ...] = (), seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    motion = {name: rng.normal(size=count) for name in AXES}
    columns = expand(motion) | lagged(motion)
    columns |= expand({name: rng.normal(size=count) for name in ("global_signal", "csf", "white_matter")})
    columns |= {f"{c}_comp_cor_{k:02d}": rng.normal(size=count) for c in "acwt" for k in range(7)}
    columns |= {f"cosine_{k:02d}": column for k, column in enumerate(cosines(count, 2.0).T)}
    columns |= {f"motion_outlier{k:02d}": np.eye(count)[t] for k, t in enumerate(jumps)}
    fd = np.full(count, 0.1)
    fd[list(jumps)] = 1.0
    columns |= {"framewise_displacement": fd, "std_dvars": np.ones(count)}
    return Table(columns, {})


@pytest.mark.parametrize(
    ("strategy", "count"),
    [
        ("none", 0),
        ("24P", 24),
        ("24P+gsr", 25),
        ("36P", 36),
        ("acompcor", 29),
        ("acompcor+gsr", 30),
        ("abide_pcp", 29),  # and a parabola, outside the columns
    ],
)
def test_number_of_columns_by_name(strategy: str, count: int) -> None:
    config = CleanConfig(strategy=strategy)
    names = design.wanted_columns(config, full().columns)
    assert len(names) == len(set(names)) == count
    made = design.plan(config, full(), 2.0, where="scan")
    assert made.facts["n_regressors"] == count
    if count:
        assert made.facts["residual_dof"] == residual_dof(240, 2.0, config)


def test_columns_of_36p_and_of_the_lagged_model() -> None:
    names = set(design.wanted_columns(CleanConfig(strategy="36P"), full().columns))
    bases = (*AXES, "csf", "white_matter", "global_signal")
    assert names == {f"{base}{form}" for base in bases for form in FORMS}
    abide = set(design.wanted_columns(CleanConfig(strategy="abide_pcp"), full().columns))
    forms = ("", "_lag1", "_power2", "_lag1_power2")
    assert abide == {f"{a}{f}" for a in AXES for f in forms} | {f"a_comp_cor_{k:02d}" for k in range(5)}


def test_components_of_separate_masks_also_by_their_description() -> None:
    config = CleanConfig(motion="none", compcor=2, compcor_masks="separate")
    names = [f"{c}_comp_cor_0{k}" for c in "cw" for k in range(2)]
    assert design.component_columns(config, full().columns, {}) == names
    old = [f"a_comp_cor_{k:02d}" for k in range(9)]  # fMRIPrep 20: one prefix, the mask in the description
    notes = {name: {"Mask": ("combined", "CSF", "WM")[k // 3]} for k, name in enumerate(old)}
    assert design.component_columns(config, old, notes) == [old[3], old[4], old[6], old[7]]
    combined = CleanConfig(motion="none", compcor=2)
    assert design.component_columns(combined, old, notes) == old[:2]


def test_cosines_are_regressed_where_no_filter_removes_them_from_the_regressors_too() -> None:
    def slow(**values: Any) -> int:
        return sum(n.startswith("cosine") for n in design.wanted_columns(CleanConfig(**values), full().columns))

    assert slow() == 0 and slow(order="after") == slow(**OPEN) == 7
    assert slow(drift="quadratic", order="after") == 0


PRESETS: dict[str, dict[str, Any]] = {
    "boldmill": {
        "despike": False, "before": True, "reference": "median", "maps_mm": 0.0, "z": False, "grid": 2.0,
        "motion": "24", "compcor": 5, "tissue": "none", "gs": False, "expand": False, "drift": "cosine",
        "band": (0.01, 0.1), "order": "both", "filter": "butterworth", "filter_order": 5, "smoothing": 0.0,
    },
    "abide_pcp": {
        "despike": False, "before": False, "reference": "mean", "maps_mm": 6.0, "z": False, "grid": 3.0,
        "motion": "24lag", "compcor": 5, "tissue": "none", "gs": False, "expand": False, "drift": "quadratic",
        "band": (0.01, 0.1), "order": "after", "filter": "fft", "filter_order": 5, "smoothing": 0.0,
    },
    "cpac_default": {
        "despike": False, "before": False, "reference": "mean", "maps_mm": 4.0, "z": True, "grid": 3.0,
        "motion": "24lag", "compcor": 5, "tissue": "csf", "gs": False, "expand": False, "drift": "quadratic",
        "band": (0.01, 0.1), "order": "after", "filter": "fft", "filter_order": 5, "smoothing": 0.0,
    },
    "fmriprep_36p": {
        "despike": False, "before": True, "reference": "median", "maps_mm": 0.0, "z": False, "grid": 2.0,
        "motion": "24", "compcor": 0, "tissue": "wm_csf", "gs": True, "expand": True, "drift": "cosine",
        "band": (0.01, 0.08), "order": "both", "filter": "butterworth", "filter_order": 5, "smoothing": 0.0,
    },
    "xcpd_linc": {
        "despike": True, "before": True, "reference": "median", "maps_mm": 0.0, "z": False, "grid": 2.0,
        "motion": "24", "compcor": 0, "tissue": "wm_csf", "gs": True, "expand": True, "drift": "linear",
        "band": (0.01, 0.08), "order": "both", "filter": "butterworth", "filter_order": 2, "smoothing": 6.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_the_values_of_its_table(preset: str) -> None:
    data = {"name": "d", "root": "/d"}
    settings = parse({"preset": preset, "datasets": [data]})
    first, last = settings.preprocess, settings.clean
    assert PRESETS[preset] == {
        "despike": first.despike,
        "before": first.motion_before_slice_timing,
        "reference": first.motion_reference,
        "maps_mm": first.maps_smoothing,
        "z": first.maps_zscore,
        "grid": settings.spaces.resolution,
        "motion": last.motion,
        "compcor": last.compcor,
        "tissue": last.tissue,
        "gs": last.global_signal,
        "expand": last.expand,
        "drift": last.drift,
        "band": (last.band_low, last.band_high),
        "order": last.order,
        "filter": last.filter,
        "filter_order": last.filter_order,
        "smoothing": last.smoothing,
    }
    assert last.censor == "none" and last.intensity == 10000.0


def test_censored_volumes_are_counted_and_named() -> None:
    table = full(jumps=(30, 90, 91))
    for censor in ("interpolate", "spike"):
        made = design.plan(CleanConfig(motion="6", compcor=0, censor=censor, censor_after=1), table, 2.0, where="s")
        assert made.facts["censored"] == [30, 31, 90, 91, 92]
        assert made.facts["residual_dof"] == residual_dof(240, 2.0, CleanConfig(motion="6", compcor=0)) - 5
        assert "5 censored volumes and 6 regressors leave" in made.facts["dof_words"]
    assert design.plan(CleanConfig(), table, 2.0, where="s").facts["censored"] == []


def test_a_spike_is_a_column_and_the_volume_carries_no_weight() -> None:
    config = CleanConfig(motion="none", compcor=0, censor="spike", drift="linear", **OPEN)
    made = design.plan(config, full(jumps=(30, 31)), 2.0, where="s")
    assert made.names == made.facts["regressors"] == ["spike_0030", "spike_0031"]
    series = np.random.default_rng(0).normal(size=(240, 3))
    out = made.operator @ series
    assert np.abs(out[[30, 31]]).max() < 1e-9
    series[30] = 1e3
    assert np.allclose(made.operator @ series, out, atol=1e-9)


def test_scrubbing_too_much_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(DataFault, match="237 of 240 volumes are over the censoring limits, 3 are kept"):
        design.plan(CleanConfig(censor="interpolate"), full(jumps=tuple(range(237))), 2.0, where="s")
    table = full(jumps=tuple(range(0, 240, 4)))  # 60 of 240, of 88 dimensions in the band
    with pytest.raises(DataFault, match="60 censored volumes and 29 regressors leave -1") as caught:
        design.plan(CleanConfig(censor="interpolate"), table, 2.0, where="s")
    assert "motion: '" in caught.value.fix
    smaller = CleanConfig(censor="interpolate", motion="6", compcor=0)
    assert design.plan(smaller, table, 2.0, where="s").facts["residual_dof"] == 88 - 60 - 6


def test_unknown_motion_is_flagged_where_it_was_to_be_censored() -> None:
    table = full()
    table.columns["framewise_displacement"][:] = np.nan
    made = design.plan(CleanConfig(censor="interpolate"), table, 2.0, where="s")
    assert made.facts["censored"] == [] and "no volume is censored for motion" in made.facts["flags"][0]


def test_freedom_after_the_filter_is_the_rank_of_what_is_left() -> None:
    """The published example: 100 volumes keep 38 in-band dimensions, and 31 columns take none of them here."""
    freedom = count_freedom(100, 2.0, 0.01, 0.1, "quadratic", 29, order="after")
    assert freedom.residual == 38 and "leave 68" in freedom.words and freedom.words.endswith(": 38")
    assert count_freedom(100, 2.0, 0.01, 0.1, "quadratic", 80, order="after").residual == 17
    for regressors in (29, 80):  # the rank of an ideal, periodic box after the regression
        noise = np.random.default_rng(0).normal(size=(100, regressors))
        time = np.linspace(-1, 1, 100)
        model = np.stack([np.ones(100), time, time**2, *noise.T], axis=1)
        basis, _ = np.linalg.qr(model)
        left = np.fft.rfft(np.eye(100) - basis @ basis.T, axis=0)
        frequency = np.fft.rfftfreq(100, 2.0)
        left[(frequency < 0.01 - 1e-9) | (frequency > 0.1 + 1e-9)] = 0
        rank = np.linalg.matrix_rank(np.fft.irfft(left, n=100, axis=0))
        assert rank == count_freedom(100, 2.0, 0.01, 0.1, "quadratic", regressors, order="after").residual


def test_padding_is_what_the_filter_asks_for() -> None:
    for order in (1, 2, 5):
        for low, high in ((0.01, 0.1), (0.01, None), (None, 0.1)):
            config = CleanConfig(filter_order=order, band_low=low, band_high=high)
            needed = filter_padding(config, *band(config, 2.0))
            clean.butterworth(np.ones((needed + 1, 1)), 2.0, low, high, order)
            with pytest.raises(DataFault, match="too few"):
                clean.butterworth(np.ones((needed, 1)), 2.0, low, high, order)
    assert filter_padding(CleanConfig(filter="fft"), 0.01, 0.1) == 0


def test_given_tables_are_completed_and_unnamed_ones_taken_whole() -> None:
    motion = {name: np.random.default_rng(0).normal(size=60) for name in AXES}
    given = Table(dict(motion), {})
    table = completed(given, 60, 2.0, CleanConfig())
    assert is_named(given) and {"rot_z_lag1_power2", "trans_x_derivative1_power2", "cosine_00"} <= set(table.columns)
    step = np.abs(np.diff(np.stack(list(motion.values())), axis=1))
    assert np.allclose(table.columns["framewise_displacement"][1:], step[:3].sum(0) + 50 * step[3:].sum(0))
    assert chosen_names(given, table, CleanConfig(compcor=0), where="s") is None
    unnamed = Table({"confound_00": np.arange(60.0)}, {})
    whole = completed(unnamed, 60, 2.0, CleanConfig())
    assert not is_named(unnamed) and np.isnan(whole.columns["framewise_displacement"]).all()
    assert chosen_names(unnamed, whole, CleanConfig(), where="s") == ["confound_00"]
    slow = chosen_names(unnamed, whole, CleanConfig(**OPEN), where="s")
    assert slow == ["confound_00", "cosine_00"]
    drifting = Table({"confound_00": np.arange(60.0), "cosine00": np.cos(np.arange(60.0))}, {})  # fMRIPrep's spelling
    whole = completed(drifting, 60, 2.0, CleanConfig())
    assert chosen_names(drifting, whole, CleanConfig(**OPEN), where="s") == ["confound_00", "cosine_00"]
    assert np.array_equal(whole.columns["cosine_00"], drifting.columns["cosine00"]) and "cosine00" not in whole.columns


def test_a_flag_never_proposes_a_model_that_leaves_less() -> None:
    """20 volumes leave 10 degrees of freedom with 8 regressors; no model reaches 20, so none is proposed."""
    config = CleanConfig(motion="6", compcor=0, tissue="wm_csf", drift="linear", band_low=None, band_high=None)
    freedom = count_freedom(20, 2.52, None, None, "linear", 8)
    (flag,) = guard(config, freedom, 2.52, where="scan")
    assert flag.endswith("the run is short") and "overrides" not in flag
