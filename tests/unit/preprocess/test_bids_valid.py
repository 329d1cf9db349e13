"""The official BIDS validator on the derivatives of a run with every kind of output: no errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.atomic import canonical_json, read_json, write_json
from boldmill.preprocess.derivatives import NOT_IN_BIDS, Derivatives
from boldmill.preprocess.series_io import write_surface

from .one_subject import call, make_ticket, settings

Issues = Callable[..., list[str]]


@pytest.fixture(scope="module")
def tree(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Derivatives of one subject with 4D images in several spaces, after slice timing, and a pair of surfaces."""
    base = tmp_path_factory.mktemp("valid") / "copy"
    shutil.copytree(finished, base)  # its anatomy is reused
    write_json(base / "raw" / "dataset_description.json", {"Name": "ph", "License": "CC0", "Authors": ["A B", "C D"]})
    path = make_ticket(base, 1)
    ticket = read_json(path)
    times = [0.07 * (k % 13) for k in range(26)]
    write_json(path, {**ticket, "metadata": {**ticket["metadata"], "SliceTiming": times}})
    text = settings()
    keep = {"keep": ["clean", "preproc"], "output_spaces": ["T1w:res-8", "PHANTOM:res-8", "boldref"]}
    assert call(base, with_settings(text, keep)) == 0
    scan = read_json(base / "results" / "preprocess" / "ph" / "sub-01.json")["scans"]["ph_sub-01_task-rest_run-1"]
    assert scan["status"] == "ok", scan
    root = base / "results" / "derivatives" / "ph"
    d = Derivatives(results=base / "results", root=root, raw=base / "raw", dataset="ph")
    for side in "LR":
        path = d.path(
            {"sub": "01", "task": "rest"}, "func", "bold", ".func.gii", hemi=side, space="fsaverage5", desc="clean"
        )
        write_surface(path, np.zeros((3, 10242), np.float32), side, 2.0, {})
        d.sidecar(path, sources=["bids:raw:a"], RepetitionTime=2.0, TaskName="rest")
    return root


def with_settings(text: str, preprocess: dict[str, Any]) -> str:
    value = json.loads(text)
    value["config"]["preprocess"].update(preprocess)
    return canonical_json(value)


def test_the_validator_finds_no_error_and_no_warning(tree: Path, bids_issues: Issues) -> None:
    names = {path.name for path in tree.rglob("*.nii.gz")}
    for part in ("space-PHANTOM_desc-clean_bold", "space-PHANTOM_res-8_desc-preproc_bold", "space-T1w_res-8"):
        assert any(part in name for name in names), sorted(names)
    assert bids_issues(tree) == []
    assert bids_issues(tree, "warning") == []


def test_the_validator_would_find_one(tree: Path, tmp_path: Path, bids_issues: Issues) -> None:
    """Without this the test above could not fail."""
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    (side,) = copy.rglob("*space-PHANTOM_desc-clean_bold.json")
    fields = read_json(side)
    del fields["SkullStripped"], fields["SpatialReference"]
    write_json(side, fields)
    shutil.copy(side, copy / "sub-01" / "anat" / "sub-01_nonsense.json")
    (copy / ".bidsignore").unlink()
    found = " ".join(bids_issues(copy))
    for word in ("SkullStripped", "SpatialReference", "NOT_INCLUDED", "sub-01_nonsense.json"):
        assert word in found


def test_slice_timing_is_in_the_sidecar_of_every_series(tree: Path) -> None:
    sides = [path for path in tree.rglob("*_bold.json") if "_hemi-" not in path.name]
    assert len(sides) == 5
    for side in sides:
        fields = read_json(side)
        assert fields["SliceTimingCorrected"] is True
        assert 0.3 < fields["StartTime"] < 0.5
        assert fields["RepetitionTime"] == 2.0
        assert fields["Sources"] and fields["Sources"][0].startswith("bids:raw:sub-01/func/")


def test_every_ignored_name_is_needed(tree: Path, bids_issues: Issues, tmp_path: Path) -> None:
    """A pattern that matched a name BIDS knows would hide its errors."""
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    (copy / ".bidsignore").unlink()
    refused = {Path(line.split(" ")[-1]).name for line in bids_issues(copy)}
    matched = {path.name for pattern in NOT_IN_BIDS for path in copy.rglob(pattern.removeprefix("**/"))}
    assert matched and matched <= refused
