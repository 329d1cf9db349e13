"""Names, sidecars, description."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boldmill.atomic import read_json, write_json
from boldmill.preprocess.derivatives import Derivatives, sidecar_of
from boldmill.preprocess.images import read_volume


def make(results: Path) -> Derivatives:
    return Derivatives(results=results, root=results / "derivatives" / "ds", raw=results / "raw", dataset="ds")


@pytest.mark.parametrize(
    ("entities", "more", "expected"),
    [
        ({"sub": "01"}, {"desc": "preproc"}, "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"),
        ({"sub": "01", "ses": "b"}, {"space": "S"}, "sub-01/ses-b/anat/sub-01_ses-b_space-S_T1w.nii.gz"),
        ({"sub": "01", "ses": ""}, {}, "sub-01/anat/sub-01_T1w.nii.gz"),
        (
            {"run": "1", "task": "rest", "sub": "01", "acq": "x"},
            {"desc": "d", "from_": "a", "to": "b", "mode": "image"},
            "sub-01/anat/sub-01_task-rest_acq-x_run-1_from-a_to-b_mode-image_desc-d_T1w.nii.gz",
        ),
    ],
)
def test_names(tmp_path: Path, entities: dict[str, str], more: dict[str, str], expected: str) -> None:
    d = make(tmp_path)
    assert d.path(entities, "anat", "T1w", **more).relative_to(d.root).as_posix() == expected


def test_unknown_entity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="colour"):
        make(tmp_path).path({"sub": "1"}, "anat", "T1w", colour="red")


def test_image_and_sidecar(tmp_path: Path) -> None:
    d = make(tmp_path)
    path = d.path({"sub": "01"}, "anat", "mask", desc="brain")
    data = np.zeros((3, 3, 3))
    data[1] = 1
    d.image(path, data, np.eye(4), sources=["bids:raw:b", "bids:raw:a"], dtype="uint8", Type="Brain", StartTime=None)
    found = read_json(sidecar_of(path))
    assert (found["Type"], found["Sources"]) == ("Brain", ["bids:raw:a", "bids:raw:b"])
    assert "StartTime" not in found
    np.testing.assert_array_equal(read_volume(path).data, data)
    assert d.uri(path) == "bids::sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    assert d.relative(path) == "derivatives/ds/sub-01/anat/sub-01_desc-brain_mask.nii.gz"


def test_concurrent_jobs_write_one_description(tmp_path: Path) -> None:
    d = make(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        (paths,) = {tuple(paths) for paths in pool.map(lambda _: d.describe(), range(40))}
    found = read_json(paths[0])
    assert found["DatasetType"] == "derivative"
    assert found["DatasetLinks"]["raw"].startswith("file:///")
    assert sorted(p.name for p in d.root.iterdir()) == [".bidsignore", "README.md", "dataset_description.json"]


def test_licence_and_doi_are_those_of_the_raw_data_set(tmp_path: Path) -> None:
    d = make(tmp_path)
    write_json(d.raw / "dataset_description.json", {"Name": "x", "License": "CC0", "DatasetDOI": "doi:10.0/x"})
    found = read_json(d.describe()[0])
    assert (found["License"], found["SourceDatasets"][0]["DOI"]) == ("CC0", "doi:10.0/x")
    (d.raw / "dataset_description.json").write_text("no json")
    assert "License" not in read_json(d.describe()[0])


NAMES: dict[str, dict[str, object]] = {
    "anat/sub-01_space-S_desc-preproc_T1w.nii.gz": {"SpatialReference": "bids:template:h", "SkullStripped": False},
    "anat/sub-01_ses-a_label-GM_probseg.nii.gz": {
        "SpatialReference": "bids::sub-01/ses-a/anat/sub-01_ses-a_desc-preproc_T1w.nii.gz"
    },
    "func/sub-01_task-r_desc-brain_mask.nii.gz": {
        "SpatialReference": "bids::sub-01/func/sub-01_task-r_desc-coreg_boldref.nii.gz"
    },
    "func/sub-01_space-Q_res-2_desc-brain_mask.nii.gz": {"SpatialReference": "Q", "Resolution": "res-2 of Q"},
    "func/sub-01_hemi-L_space-Q_den-10k_bold.func.gii": {
        "SpatialReference": "Q",
        "Density": "10k vertices per hemisphere",
    },
    "func/sub-01_from-a_to-b_mode-image_xfm.txt": {},
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_what_a_name_says_is_in_the_sidecar(tmp_path: Path, name: str, expected: dict[str, object]) -> None:
    d = replace(make(tmp_path), references={"S": "bids:template:h"})
    found = read_json(d.sidecar(d.root / "sub-01" / name, sources=["bids:raw:a"]))
    found.pop("Description", None)
    assert found == {**expected, "Sources": ["bids:raw:a"]}


def test_given_fields_win_over_those_of_the_name(tmp_path: Path) -> None:
    d = make(tmp_path)
    path = d.path({"sub": "01"}, "anat", "T1w", space="S", res="2", desc="preproc")
    found = read_json(d.sidecar(path, sources=[], SkullStripped=True, SpatialReference="x", Resolution="2 mm"))
    assert (found["SkullStripped"], found["SpatialReference"], found["Resolution"]) == (True, "x", "2 mm")
