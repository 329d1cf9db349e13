"""Names, sidecars, description."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from boldmill.atomic import read_json
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
    assert read_json(sidecar_of(path)) == {"Type": "Brain", "Sources": ["bids:raw:a", "bids:raw:b"]}
    np.testing.assert_array_equal(read_volume(path).data, data)
    assert d.uri(path) == "bids::sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    assert d.relative(path) == "derivatives/ds/sub-01/anat/sub-01_desc-brain_mask.nii.gz"


def test_concurrent_jobs_write_one_description(tmp_path: Path) -> None:
    d = make(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: d.describe(), range(40)))
    (path,) = paths
    found = read_json(path)
    assert found["DatasetType"] == "derivative"
    assert found["DatasetLinks"]["raw"].startswith("file:///")
    assert [p.name for p in path.parent.iterdir()] == ["dataset_description.json"]
