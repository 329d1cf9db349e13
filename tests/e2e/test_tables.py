"""Two real sets of ready-made parcel series through the workflow to their shards.

690 people of ABIDE, 12 runs of ds003059. No template, no atlas, no preprocessing; 111 regions here, 100 there.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.data]

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BOLDMILL_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve() / "timeseries"
ABIDE, LSD = DATA / "abide_ho111_cpac_filt_noglobal.npz", DATA / "ds003059_schaefer100.npz"
CONFIG = f"""
datasets:
  - name: abide
    root: {ABIDE}
    kind: tables
    atlas: HO111
    tr: {{NYU: 2.0, PITT: 1.5}}
    phenotypes: abide_phenotypes.csv
    id_column: FILE_ID
    site_column: SITE_ID
    missing: [-9999]
  - name: ds003059
    root: {LSD}
    kind: tables
    atlas: Schaefer2018 100Parcels7Networks
    pattern: sub-{{sub}}-{{ses}}
shards: {{n_buckets: 2}}
snapshot: {{always_train: []}}
"""
LABELS = {"abide": "HO111", "ds003059": "Schaefer2018-100Parcels7Networks"}


@pytest.fixture(scope="module")
def tables(e2e, needs, tmp_path_factory: pytest.TempPathFactory):
    needs(DATA)
    line = e2e.Line(tmp_path_factory.mktemp("tables"))
    (line.folder / "my.yaml").write_text(CONFIG)
    line.done = line.snakemake("shards", "--configfile", "my.yaml", TEMPLATEFLOW_HOME="/nowhere")
    return line


def rows(line, table: str, atlas: str = "", columns: list[str] | None = None) -> list[dict[str, Any]]:
    paths = sorted((line.results / "shards" / table / atlas).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


@pytest.fixture(scope="module")
def fc(tables) -> dict[str, np.ndarray]:
    found = [row for label in LABELS.values() for row in rows(tables, "fc", label, ["scan_id", "values"])]
    return {row["scan_id"]: np.array(row["values"]) for row in found}


def source(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_every_scan_has_its_rows_and_nothing_else_was_made(tables, fc) -> None:
    scans = rows(tables, "scans", columns=["dataset", "scan_id", "atlases", "kind"])
    counts = {name: sum(row["dataset"] == name for row in scans) for name in LABELS}
    assert counts == {"abide": 690, "ds003059": 12}
    assert all(row["atlases"] == [LABELS[row["dataset"]]] and row["kind"] == "table" for row in scans)
    assert {len(values) for scan, values in fc.items() if scan.startswith("abide")} == {6105}
    assert {len(values) for scan, values in fc.items() if scan.startswith("ds003059")} == {4950}
    assert set(fc) == {row["scan_id"] for row in scans}
    for name, label in LABELS.items():
        views = rows(tables, "pfc", label, ["scan_id", "view", "n_edges"])
        assert len(views) == 8 * counts[name] and {row["n_edges"] for row in views} == {
            6105 if name == "abide" else 4950
        }
    assert rows(tables, "flat_clips") == []
    for folder in ("templates", "atlas", "operators", "preprocess", "flatmap"):
        assert not (tables.results / folder).exists(), folder
    assert "No scan is quarantined" in tables.done.stdout + tables.done.stderr


def test_fc_is_that_of_the_source(fc) -> None:
    upper = {size: np.triu_indices(size, 1) for size in (111, 100)}
    for path, prefix in ((ABIDE, "abide_sub-"), (LSD, "ds003059_sub-")):
        members = source(path)
        names = sorted(name for name in members if not name.startswith("__"))
        for name in [*names[::60], *names[-1:]]:
            words = name.removeprefix("sub-").split("-")
            scan = f"{prefix}{words[0].replace('_', '')}" + (f"_ses-{words[1]}" if len(words) > 1 else "")
            with np.errstate(invalid="ignore", divide="ignore"):
                matrix = np.corrcoef(members[name].T.astype(np.float64))
            np.testing.assert_allclose(fc[scan], matrix[upper[len(matrix)]], atol=2e-6, err_msg=scan)


def test_a_region_of_zeros_is_nan_and_flagged(tables, fc) -> None:
    members = source(ABIDE)
    regions = [str(name) for name in members.pop("__roi__")]
    place = regions.index("3455")
    zero = {f"abide_sub-{name.replace('_', '')}" for name, values in members.items() if not values[:, place].any()}
    empties = {f"abide_sub-{n.replace('_', '')}" for n, v in members.items() if not v.any(axis=0).all()}
    assert len(zero) == 160 < len(empties)
    first, second = np.triu_indices(111, 1)
    edges = (first == place) | (second == place)
    flags = {row["scan_id"]: row["flags"] for row in rows(tables, "scans", columns=["scan_id", "flags"])}
    for scan, values in fc.items():
        if scan.startswith("abide"):
            assert np.isnan(values[edges]).all() == (scan in zero), scan
            empty = [flag for flag in flags[scan] if "columns without data: " in flag]
            assert len(empty) == (scan in empties), scan
    path = next((tables.results / "shards" / "fc" / "HO111").glob("*.parquet"))
    assert json.loads(pq.read_schema(path).metadata[b"parcels"]) == regions


def test_phenotypes_sites_and_repetition_times(tables) -> None:
    import pandas as pd

    table = pd.read_csv(DATA / "abide_phenotypes.csv", dtype={"FILE_ID": str}).drop_duplicates("FILE_ID")
    wanted = table.set_index(table.FILE_ID.str.replace("_", ""))
    scans = [row for row in rows(tables, "scans") if row["dataset"] == "abide"]
    assert len({row["site"] for row in scans}) == 17
    missing, absent = 0, 0
    for row in scans:
        person, found = wanted.loc[row["subject"]], json.loads(row["phenotypes"])
        assert (row["site"], found["DX_GROUP"], found["AGE_AT_SCAN"]) == (
            person.SITE_ID,
            person.DX_GROUP,
            pytest.approx(person.AGE_AT_SCAN),
        )
        assert row["tr"] == {"NYU": 2.0, "PITT": 1.5}.get(person.SITE_ID)
        assert -9999 not in found.values()
        missing += found["FIQ"] is None
        absent += person.FIQ == -9999
    assert missing == absent > 0
    assert {row["tr"] for row in rows(tables, "timeseries", "HO111", ["tr"])} == {None, 1.5, 2.0}


def test_nobody_is_in_two_splits(tables) -> None:
    manifest = json.loads((tables.results / "datasets" / "latest" / "manifest.json").read_text())
    assert len(manifest["subjects"]) == 696  # ds003059: six people, two sessions each
    assert manifest["atlases"] == list(LABELS.values())
    assert sum(split["scans"] for split in manifest["counts"].values()) == 702
