"""Parcellation of one small volume run by three atlases at once, and tables of parcel series by their tickets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldmill.atomic import canonical_json, read_json, write_json
from boldmill.cli import main
from boldmill.represent.operators import membership, save_operator
from boldmill.represent.parcellate import all_parcel_series, parcel_series
from boldmill.represent.series import Series

SHAPE, VOLUMES = (6, 5, 4), 40
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
SETTINGS = canonical_json(
    {"stage": "parcellate", "version": 1, "config": {"parcellate": {"min_coverage": 0.5}}, "overrides": {}}
)
LABELS = np.random.default_rng(0).integers(0, 9, SHAPE)
ATLASES = {
    "Fine-8": membership(LABELS.ravel(order="F"), list(range(1, 9))),
    "Halves": membership(np.where(LABELS > 0, 1 + LABELS % 2, 0).ravel(order="F"), [1, 2]),
    "Outside": membership((LABELS == 8).ravel(order="F").astype(int), [1]),
}
NAMES = {label: [f"{label}_{i}" for i in range(matrix.shape[0])] for label, matrix in ATLASES.items()}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with one run; parcel 8 lies outside its mask."""
    grid = {"affine": AFFINE.tolist(), "shape": list(SHAPE)}
    for label, matrix in ATLASES.items():
        save_operator(tmp_path / "operators" / f"{label}.npz", matrix)
        parcels = [{"name": name} for name in NAMES[label]]
        manifest = {"what": "parcels", "label": label, "atlas": label, "space": "toy", "grid": grid, "parcels": parcels}
        manifest["operators"] = {"volume": {"file": f"{label}.npz"}}
        write_json(tmp_path / "operators" / f"parcels-{label}.json", manifest)
    rng = np.random.default_rng(1)
    data = rng.standard_normal((*SHAPE, VOLUMES)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "clean.nii.gz")
    nib.save(nib.Nifti1Image((LABELS != 8).astype(np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    scan = {"status": "ok", "kind": "volume", "tr": 2.0, "files": {"clean": "clean.nii.gz", "mask": "mask.nii.gz"}}
    manifest = {"dataset": "ds", "subject": "01", "anat": {"status": "absent"}, "scans": {"ds_sub-01_task-rest": scan}}
    write_json(tmp_path / "sub-01.json", manifest)
    return tmp_path


def parcellate(results: Path, *more: str) -> dict[str, Any]:
    out = results / "parcellate" / "bucket-000.json"
    words = ["--operators", *(str(results / "operators" / f"parcels-{label}.json") for label in ATLASES)]
    words += ["--results", str(results), "--out", str(out), "--config-json", SETTINGS]
    assert main(["parcellate", *words, *more]) == 0
    return dict(read_json(out))


def table(path: Path) -> tuple[list[str], np.ndarray]:
    head, *lines = path.read_text().splitlines()
    return head.split("\t"), np.array([[np.nan if w == "n/a" else float(w) for w in s.split("\t")] for s in lines])


def test_every_atlas_has_its_series_and_one_that_is_not_covered_stops_no_other(results: Path) -> None:
    manifest = parcellate(results, "--subjects", str(results / "sub-01.json"))
    assert manifest["schema"] == 2 and manifest["configured"] == list(ATLASES)
    assert {label: atlas["parcels"] for label, atlas in manifest["atlases"].items()} == NAMES
    scan = manifest["scans"]["ds_sub-01_task-rest"]
    assert (scan["status"], scan["kind"], scan["tr"], scan["n_volumes"]) == ("ok", "volume", 2.0, VOLUMES)
    assert {label: atlas["status"] for label, atlas in scan["atlases"].items()} == {
        "Fine-8": "ok",
        "Halves": "ok",
        "Outside": "quarantined",
    }
    assert "no parcel is covered" in scan["atlases"]["Outside"]["reason"]
    image: Any = nib.load(results / "clean.nii.gz")
    data = np.asarray(image.dataobj)
    names, values = table(results / scan["atlases"]["Fine-8"]["files"]["timeseries"])
    assert names == NAMES["Fine-8"]
    expected = np.stack([data[label == LABELS].mean(0) for label in range(1, 9)], axis=1)
    assert np.abs(values[:, :7] - expected[:, :7]).max() < 1e-6
    assert np.isnan(values[:, 7]).all() and scan["atlases"]["Fine-8"]["qc"]["n_parcels_missing"] == 1
    _, values = table(results / scan["atlases"]["Halves"]["files"]["timeseries"])
    inside = (LABELS > 0) & (LABELS != 8)  # what is covered of each half
    expected = np.stack([data[inside & (half == LABELS % 2)].mean(0) for half in (0, 1)], axis=1)
    assert np.abs(values - expected).max() < 1e-6
    assert scan["qc"] == scan["atlases"]["Fine-8"]["qc"]


def test_a_scan_that_suits_no_atlas_is_quarantined(results: Path) -> None:
    nib.save(nib.Nifti1Image((LABELS == 0).astype(np.uint8), AFFINE), results / "mask.nii.gz")
    scan = parcellate(results, "--subjects", str(results / "sub-01.json"))["scans"]["ds_sub-01_task-rest"]
    assert scan["status"] == "quarantined" and scan["stage"] == "parcellate" and scan["fix"]
    assert all(f"{label}: no parcel is covered" in scan["reason"] for label in ATLASES)


def test_the_series_is_opened_and_read_once_and_only_where_needed() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((LABELS.size, VOLUMES)).astype(np.float32)
    values[LABELS.ravel(order="F") == 0] = np.nan  # nobody's voxels: never looked at
    reads: list[np.ndarray] = []

    def read(columns: np.ndarray) -> Iterator[np.ndarray]:
        reads.append(columns)
        for first in range(0, VOLUMES, 16):
            yield values[columns, first : first + 16]

    series = Series(where=Path("x"), n_volumes=VOLUMES, mask=np.ones(LABELS.size, bool), read=read)
    together = all_parcel_series(ATLASES, series, 0.5)
    assert len(reads) == 1
    for label, operator in ATLASES.items():
        alone, one = parcel_series(operator, series, 0.5), together[label]
        assert np.array_equal(alone.values, one.values) and np.array_equal(alone.coverage, one.coverage)


def ticket(results: Path, name: str, atlas: str = "") -> str:
    series = {"path": "all.npz", "member": name, "size": 1, "sha256": "ab"}
    words = {"scan_id": f"tab_sub-{name}", "dataset": "tab", "subject": name, "kind": "table", "root": str(results)}
    path = results / "index" / f"{name}.json"
    about = {"atlas": atlas, "atlas_name": atlas, "columns": {"named": True}, "flags": [], "tr": 1.5}
    write_json(path, {**words, **about, "series": [series]})
    return str(path)


@pytest.fixture
def tables(results: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[list[str], np.ndarray]]:
    """What the tables hold, by subject."""
    (results / "all.npz").write_bytes(b"x")
    held: dict[str, tuple[list[str], np.ndarray]] = {}
    reader = SimpleNamespace(table_series=lambda ticket: held[ticket["subject"]])
    monkeypatch.setitem(sys.modules, "boldmill.represent.table_series", reader)
    return held


def test_a_table_of_a_configured_atlas_is_matched_to_it(results: Path, tables: Any) -> None:
    names = NAMES["Fine-8"]
    values = np.random.default_rng(3).standard_normal((30, 10)).astype(np.float32)
    values[:, 2] = np.nan
    tables["a"] = (["extra", *reversed(names), "more"], values)
    manifest = parcellate(results, "--tables", ticket(results, "a"))
    scan = manifest["scans"]["tab_sub-a"]
    assert (scan["status"], scan["kind"], scan["tr"], scan["n_volumes"]) == ("ok", "table", 1.5, 30)
    assert scan["atlases"]["Halves"]["status"] == "quarantined"  # two of its columns have no such names
    _, found = table(results / scan["atlases"]["Fine-8"]["files"]["timeseries"])
    np.testing.assert_allclose(found, values[:, 8:0:-1], rtol=1e-6)
    assert np.isnan(found[:, 6]).all() and scan["qc"]["n_parcels_missing"] == 1
    assert any("2 given columns" in flag for flag in scan["flags"])


def test_tables_with_an_atlas_of_their_own_bring_its_parcels(results: Path, tables: Any) -> None:
    rng = np.random.default_rng(4)
    for name, columns in (("a", ["r1", "r2", "r3"]), ("b", ["r1", "r2", "r3"]), ("c", ["r1", "r3", "r2"])):
        tables[name] = (columns, rng.standard_normal((25, 3)).astype(np.float32))
    tables["d"] = (["r1", "r2", "r3"], np.full((25, 3), np.nan, np.float32))
    manifest = parcellate(results, "--tables", *(ticket(results, name, "Own-3") for name in "abcd"))
    assert manifest["atlases"]["Own-3"] == {"name": "Own-3", "parcels": ["r1", "r2", "r3"]}
    assert manifest["configured"] == list(ATLASES) and manifest["subjects"] == {}
    status = {scan_id[-1]: scan["status"] for scan_id, scan in manifest["scans"].items()}
    assert status == {"a": "ok", "b": "ok", "c": "quarantined", "d": "quarantined"}
    assert "not the 3 of the first table" in manifest["scans"]["tab_sub-c"]["reason"]
    entry = manifest["scans"]["tab_sub-b"]["atlases"]
    assert list(entry) == ["Own-3"] and entry["Own-3"]["files"]["timeseries"].endswith("_atlas-Own3_timeseries.tsv")
    record = json.loads((results / "parcellate" / "bucket-000.json.prov.json").read_text())
    known = {Path(item["path"]).name for item in record["inputs"]}
    assert {"a.json", "d.json"} <= known and sum("all.npz" in name for name in known) == 4  # by member
