"""The confounds table: names, undefined rows, reading what others wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldmill.atomic import read_json
from boldmill.errors import DataFault
from boldmill.preprocess import compcor, confounds
from boldmill.preprocess import noise_regions as regions
from boldmill.preprocess.confounds_table import GROUPS, Limits, build
from boldmill.preprocess.motion import AXES, FORMS, fd_power, matrix_of

CENTRE = np.array([1.0, 2.0, 3.0])


def built(non_steady: int = 1, limits: Limits | None = None) -> confounds.Table:
    rng = np.random.default_rng(0)
    parameters = np.concatenate([rng.normal(0, 0.02, (80, 3)), rng.normal(0, 0.0003, (80, 3))], axis=1)
    parameters[40:, 0] += 2.0
    brain = (10000 + rng.normal(0, 50, (80, 120))).astype(np.float32)
    groups = {
        prefix: compcor.components(brain[:, :40], 2.0, 24 if prefix == "edge_comp" else 5, skip=non_steady)
        for prefix in GROUPS
    }
    signals = {name: brain[:, :20].mean(axis=1).astype(float) for name in ("white_matter", "csf_wm")}
    return build(
        matrices=np.stack([matrix_of(row, CENTRE) for row in parameters]),
        centre=CENTRE,
        brain=brain,
        signals={**signals, "csf": np.full(80, np.nan)},
        groups=groups,
        rules={"WM": "a", "CSF": "b", "combined": "c", "brain": "d", "Edge": "e"},
        tr=2.0,
        non_steady=non_steady,
        limits=limits,
    )


def test_names_and_undefined_rows(tmp_path: Path) -> None:
    table = built()
    for name in AXES:
        for suffix in ("", "_derivative1", "_power2", "_derivative1_power2", "_lag1", "_lag1_power2"):
            assert f"{name}{suffix}" in table.columns
    expected = {"global_signal", "white_matter", "csf", "dvars", "std_dvars", "framewise_displacement", "rmsd"}
    expected |= {"framewise_displacement_jenkinson", "cosine_00", "cosine_01", "non_steady_state_outlier00"}
    expected |= {f"{c}_comp_cor_{k:02d}" for c in "acwt" for k in range(5)} | {"motion_outlier00", "csf_wm"}
    expected |= {f"edge_comp_{k:02d}" for k in range(24)}
    expected |= {f"{s}{form}" for s in ("global_signal", "csf", "white_matter") for form in FORMS}
    assert expected <= set(table.columns)
    confounds.write(table, tmp_path / "c.tsv", tmp_path / "c.json")
    text = (tmp_path / "c.tsv").read_text().splitlines()
    first = dict(zip(text[0].split("\t"), text[1].split("\t"), strict=True))
    for name in ("dvars", "std_dvars", "framewise_displacement", "rmsd", "trans_x_derivative1", "csf"):
        assert first[name] == "n/a"
    assert first["trans_x"] != "n/a"
    notes = read_json(tmp_path / "c.json")
    assert notes["a_comp_cor_00"]["Method"] == "aCompCor" and 0 < notes["a_comp_cor_00"]["VarianceExplained"] < 1
    masks = {"a": "combined", "c": "CSF", "w": "WM", "t": "brain"}
    assert {c: notes[f"{c}_comp_cor_00"]["Mask"] for c in masks} == masks
    assert set(notes["t_comp_cor_01"]) >= {"Method", "SingularValue", "CumulativeVarianceExplained", "Retained"}
    back = confounds.read(tmp_path / "c.tsv")
    assert back.notes == notes
    for name, values in table.columns.items():
        assert np.allclose(back.columns[name], values, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_values_are_those_of_the_parameters() -> None:
    table = built()
    parameters = np.stack([table.columns[name] for name in AXES], axis=1)
    assert np.allclose(table.columns["framewise_displacement"], fd_power(parameters), equal_nan=True)
    assert table.columns["motion_outlier00"].argmax() == 40  # the planted jump
    assert table.columns["non_steady_state_outlier00"].tolist() == [1.0] + [0.0] * 79
    assert table.columns["a_comp_cor_00"][0] == 0.0
    assert table.columns["dvars"][1] == pytest.approx(1000 / 10000 * 50 * np.sqrt(2), rel=0.2)


def test_tables_without_names(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("0.5 1 -2e-3\n1 n/a 3\n")
    table = confounds.read(path)
    assert list(table.columns) == ["confound_00", "confound_01", "confound_02"]
    assert table.n_rows == 2 and np.isnan(table.columns["confound_01"][1])


@pytest.mark.parametrize("text", ["", "a\tb\n", "a\tb\n1\n", "a\tb\n1\tx\n"])
def test_what_is_not_a_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.tsv"
    path.write_text(text)
    with pytest.raises(DataFault, match="confounds"):
        confounds.read(path)


def test_outlier_columns_follow_their_limits() -> None:
    count = [sum(name.startswith("motion_outlier") for name in built(limits=Limits(fd=fd)).columns) for fd in (0.5, 5)]
    assert count == [1, 0]
    every = built(limits=Limits(std_dvars=0.01)).columns
    assert sum(name.startswith("motion_outlier") for name in every) == 79


def test_lagged_motion_is_the_volume_before() -> None:
    columns = built().columns
    assert np.isnan(columns["rot_z_lag1"][0]) and np.isnan(columns["rot_z_lag1_power2"][0])
    assert np.array_equal(columns["rot_z_lag1"][1:], columns["rot_z"][:-1])
    assert np.array_equal(columns["rot_z_lag1_power2"][1:], columns["rot_z"][:-1] ** 2)


def test_components_up_to_half_of_the_variance() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(60, 400)).astype(np.float32)
    few = compcor.components(noise, 2.0, 5)
    half = compcor.components(noise, 2.0, 5, share=0.5)
    assert few.values.shape[1] == 5 < half.values.shape[1] < compcor.MOST
    assert half.explained[:-1].sum() < 0.5 <= half.explained.sum() + 1e-12
    assert np.allclose(half.values[:, :5], few.values)
    signal = (rng.normal(size=(60, 1)) * 20 + noise).astype(np.float32)
    assert compcor.components(signal, 2.0, 1, share=0.5).values.shape[1] == 1
    long = rng.normal(size=(300, 400)).astype(np.float32)
    assert compcor.components(long, 2.0, 5, share=0.5).values.shape[1] == compcor.MOST


def test_the_most_variable_voxels_are_found() -> None:
    rng = np.random.default_rng(3)
    series = rng.normal(1000, 1, (100, 1000)).astype(np.float32)
    loud = rng.choice(1000, 20, replace=False)
    series[:, loud] += rng.normal(0, 5, (100, 20))
    series += 50 * np.linspace(-1, 1, 100)[:, np.newaxis] * (np.arange(1000) < 300)  # a drift is no reason
    found = regions.variable_voxels(series, 2.0, cutoff=60.0, block=256)
    assert found.sum() == 20 and found[loud].mean() > 0.85
    assert np.array_equal(found, regions.variable_voxels(series, 2.0, cutoff=60.0))


def test_the_crown_surrounds_the_brain() -> None:
    distance = np.linalg.norm(np.indices((25, 25, 25)) - 12, axis=0)
    ring = regions.crown(distance < 7)
    assert not ring[distance < 7].any() and ring.any()
    assert distance[ring].max() <= 9 + 1e-9 and ring[12, 12, 20] and not ring[12, 12, 21]
