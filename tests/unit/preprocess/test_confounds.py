"""The confounds table: names, undefined rows, reading what others wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldmill.atomic import read_json
from boldmill.errors import DataFault
from boldmill.preprocess import compcor, confounds
from boldmill.preprocess.motion import AXES, fd_power, matrix_of

CENTRE = np.array([1.0, 2.0, 3.0])


def built(non_steady: int = 1) -> confounds.Table:
    rng = np.random.default_rng(0)
    parameters = np.concatenate([rng.normal(0, 0.02, (80, 3)), rng.normal(0, 0.0003, (80, 3))], axis=1)
    parameters[40:, 0] += 2.0
    brain = (10000 + rng.normal(0, 50, (80, 120))).astype(np.float32)
    found = compcor.components(brain[:, :40], 2.0, 5, skip=non_steady)
    return confounds.build(
        matrices=np.stack([matrix_of(row, CENTRE) for row in parameters]),
        centre=CENTRE,
        brain=brain,
        white=brain[:, :20].mean(axis=1).astype(float),
        csf=np.full(80, np.nan),
        compcor=found,
        rules={"wm": "a", "csf": "b"},
        tr=2.0,
        non_steady=non_steady,
    )


def test_names_and_undefined_rows(tmp_path: Path) -> None:
    table = built()
    for name in AXES:
        for suffix in ("", "_derivative1", "_power2", "_derivative1_power2"):
            assert f"{name}{suffix}" in table.columns
    expected = {"global_signal", "white_matter", "csf", "dvars", "std_dvars", "framewise_displacement", "rmsd"}
    expected |= {"framewise_displacement_jenkinson", "cosine_00", "cosine_01", "non_steady_state_outlier00"}
    expected |= {f"a_comp_cor_{k:02d}" for k in range(5)} | {"motion_outlier00"}
    assert expected <= set(table.columns)
    confounds.write(table, tmp_path / "c.tsv", tmp_path / "c.json")
    text = (tmp_path / "c.tsv").read_text().splitlines()
    first = dict(zip(text[0].split("\t"), text[1].split("\t"), strict=True))
    for name in ("dvars", "std_dvars", "framewise_displacement", "rmsd", "trans_x_derivative1", "csf"):
        assert first[name] == "n/a"
    assert first["trans_x"] != "n/a"
    notes = read_json(tmp_path / "c.json")
    assert notes["a_comp_cor_00"]["Method"] == "aCompCor" and 0 < notes["a_comp_cor_00"]["VarianceExplained"] < 1
    back = confounds.read(tmp_path / "c.tsv")
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
