"""Real T1w against the figures of the design trial (one thread)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from boldmill.preprocess.anat import process_anat
from boldmill.preprocess.brainmask import mask_from_nonzero
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.derivatives import Derivatives
from boldmill.preprocess.foreground import crop_to_head, is_brain_extracted, zero_share
from boldmill.preprocess.images import read_volume, write_volume
from boldmill.preprocess.n4 import one_thread
from boldmill.preprocess.subject import Job
from boldmill.preprocess.transforms import map_points, read_affine, read_field
from boldmill.spaces import templates
from boldmill.spaces.config import SpacesConfig

pytestmark = pytest.mark.data


def data_root() -> Path:
    root = Path(os.environ.get("BOLDMILL_TEST_DATA", "../shared/data"))
    if not root.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"real test data are missing at {root}")
        pytest.skip(f"no real test data at {root} (BOLDMILL_TEST_DATA)")
    return root.resolve()


@pytest.mark.parametrize(("subject", "ml"), [("01", 1539), ("02", 1565), ("03", 1324), ("04", 1293), ("52", 1329)])
def test_extracted_brains_are_recognised_and_measured(subject: str, ml: float) -> None:
    path = data_root() / "bids" / "ds002748" / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz"
    raw = read_volume(path, canonical=True)
    crop, size = crop_to_head(raw)
    assert is_brain_extracted(zero_share(raw), size)
    mask = mask_from_nonzero(crop)
    assert float(mask.sum()) * crop.grid.voxel_ml == pytest.approx(ml, rel=0.01)


@pytest.mark.parametrize(("dataset", "subject"), [("pumi", "001"), ("studyforrest", "02")])
def test_heads_are_not_taken_for_extracted_brains(dataset: str, subject: str) -> None:
    path = data_root() / "bids" / dataset / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz"
    raw = read_volume(path, canonical=True)
    _, size = crop_to_head(raw)
    assert 3000 <= size <= 3400
    assert not is_brain_extracted(zero_share(raw), size)


@pytest.mark.e2e
def test_whole_anatomy_of_an_extracted_brain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole heads (pumi, studyforrest) go through the commands in tests/e2e/test_real_preprocess.py."""
    one_thread()
    root = data_root()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(root / "templateflow"))
    template = templates.load_template(SpacesConfig())
    files = {
        key: write_volume(tmp_path / "template" / f"{key}.nii.gz", volume.data, volume.affine)
        for key, volume in template.volumes().items()
    }
    raw = root / "bids" / "ds002748"
    job = Job(
        derivatives=Derivatives(results=tmp_path, root=tmp_path / "derivatives", raw=raw, dataset="ds002748"),
        space=template.space, grid=template.head.grid, template=files, settings=PreprocessConfig(),
        clean=CleanConfig(), seed=1,
    )  # fmt: skip
    source = "sub-03/anat/sub-03_T1w.nii.gz"
    result = process_anat(job, raw / source, {"sub": "03"}, source, tmp_path / "work")
    qc = result.qc
    assert [flag.split(":")[0] for flag in result.flags] == ["brain_extracted_input"]
    assert qc["mask_ml"] == pytest.approx(1324, rel=0.01)
    assert result.facts["engines"]["normalise"].startswith("boldmill: ")
    assert qc["template_correlation"] > 0.8
    assert qc["template_correlation"] - qc["template_correlation_affine"] > 0.08
    assert qc["template_mask_dice"] > 0.985
    assert qc["folded_voxels"] == 0
    assert 0.1 < qc["jacobian_min"] < 0.5 and 2 < qc["jacobian_max"] < 6
    assert 100 < qc["csf_ml"] < 350 and 600 < qc["gm_ml"] < 850 and 380 < qc["wm_ml"] < 560
    # the files say the same as the figures: forward and inverse field agree, and stay near the affine
    points = template.mask.grid.points()[(template.mask.data > 0).ravel()][::97]
    there = map_points(read_field(result.files["to_subject"]), points)
    back = map_points(read_field(result.files["to_template"]), there)
    assert np.linalg.norm(back - points, axis=1).mean() < 0.3
    matrix = read_affine(result.files["affine"])
    linear = points @ matrix[:3, :3].T + matrix[:3, 3]
    assert 1 < np.linalg.norm(there - linear, axis=1).mean() < 6
