from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldmill.errors import ConfigError
from boldmill.spaces.images import resample_labels
from boldmill.spaces.parcels import read_table, schaefer100, table_tsv


def test_names_are_of_the_current_release_in_id_order() -> None:
    table = schaefer100()
    by_id = {p.id: p.name for p in table}
    assert list(by_id) == list(range(1, 101))
    # ids 22, 23, 72 and 87..89 are where the releases differ
    assert [by_id[k] for k in (22, 23, 72, 87, 88)] == [
        "LH_DorsAttn_PrCv_1",
        "LH_DorsAttn_FEF_1",
        "RH_DorsAttn_PrCv_1",
        "RH_Cont_Cing_1",
        "RH_Cont_PFCmp_1",
    ]
    assert {p.hemisphere for p in table[:50]} == {"L"} and {p.hemisphere for p in table[50:]} == {"R"}
    assert {p.network for p in table} == {"Vis", "SomMot", "DorsAttn", "SalVentAttn", "Limbic", "Cont", "Default"}


@pytest.mark.data
def test_templateflow_names_are_of_the_old_release_but_join_on_ids(data: Path) -> None:
    folder = data / "templateflow" / "tpl-MNI152NLin6Asym"
    path = folder / "tpl-MNI152NLin6Asym_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.tsv"
    old, new = read_table(path.read_text()), schaefer100()
    assert [p.id for p in old] == [p.id for p in new]
    assert [p.network for p in old] == [p.network for p in new]
    assert sum(a.name != b.name for a, b in zip(old, new, strict=True)) == 19


def test_the_table_is_written_in_columns() -> None:
    lines = table_tsv(schaefer100()).splitlines()
    assert lines[0].split("\t") == ["id", "name", "network", "hemisphere"] and len(lines) == 101


def test_names_of_parcels_are_all_different() -> None:
    table = read_table("index\tname\n1\tA\n2\tA\n3\tA_2\n4.0\t7Networks_LH_Vis_1\n5\tLH_Vis_1\n")
    assert [p.id for p in table] == [1, 2, 3, 4, 5] and len({p.name for p in table}) == 5


@pytest.mark.parametrize(
    "text", ["id\tlabel\n1\tA\n", "index\tname\none\tA\n", "index\tname\n1.5\tA\n", "index\tname\n1\tA\n1\tB\n"]
)
def test_a_table_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x_dseg\.tsv"):
        read_table(text, "x_dseg.tsv")


def test_labels_keep_their_value_whatever_the_type_of_the_file() -> None:
    grid = np.eye(4), (2, 1, 1)
    large = resample_labels(np.array([[[40001]], [[0]]], np.int32), np.eye(4), *grid)
    assert large.ravel().tolist() == [40001, 0]
    near = resample_labels(np.array([[[6.9999995]], [[0]]]), np.eye(4), *grid)
    assert near.ravel().tolist() == [7, 0] and near.dtype == np.int16
