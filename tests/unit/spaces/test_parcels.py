from __future__ import annotations

from pathlib import Path

import pytest

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
