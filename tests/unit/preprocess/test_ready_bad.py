"""Bad derivatives: each with its stage and reason, its neighbours untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.atomic import sha256_file

from . import pipelines as made
from .mill import Mill

FUNC = f"func/sub-{{}}_task-rest_space-{made.SPACE}_res-2_desc"


def _spoil(root: Path, sub: str) -> None:
    stem = f"sub-{sub}/{FUNC.format(sub)}"
    table_ = f"sub-{sub}/func/sub-{sub}_task-rest_desc-confounds_timeseries.tsv"
    if sub == "rows":
        made.write(root, table_, made.tsv(made.confounds(made.motion(1, made.T + 1))))
    elif sub == "nomask":
        (root / f"{stem}-brain_mask.nii.gz").unlink()
    elif sub == "notable":
        (root / table_).unlink()
    elif sub == "maskgrid":
        made.write(root, f"{stem}-brain_mask.nii.gz", made.image(made.brain((12, 11, 9))))
    elif sub == "notr":
        (root / f"{stem}-preproc_bold.json").unlink()
        made.write(root, f"{stem}-preproc_bold.nii.gz", made.image(made.volume(made.motion(1), 1), tr=0.0))
    elif sub == "cut":
        path = root / f"{stem}-preproc_bold.nii.gz"
        path.write_bytes(path.read_bytes()[:-2000])
    elif sub == "words":
        made.write(root, table_, "trans_x\n" + "soft\n" * made.T)
    elif sub == "shifted":
        far = made.AFFINE.copy()
        far[0, 3] += 3.0
        made.write(root, f"{stem}-brain_mask.nii.gz", made.image(made.brain(), far))
    elif sub == "outside":
        far = made.AFFINE.copy()
        far[2, 3] += 500.0
        made.write(root, f"{stem}-brain_mask.nii.gz", made.image(made.brain(), far))
        made.write(root, f"{stem}-preproc_bold.nii.gz", made.image(made.volume(made.motion(1), 1), far))
    elif sub == "flat":
        made.write(root, f"{stem}-preproc_bold.nii.gz", made.image(np.ones((*made.SHAPE, made.T))))


BAD = {
    "rows": ("ingest", "41 rows for 40 volumes"),
    "nomask": ("ingest", "its brain mask is missing"),
    "notable": ("ingest", "no confounds table: nothing can be regressed"),
    "maskgrid": ("ingest", "the mask has (12, 11, 9) voxels, the series (12, 11, 10)"),
    "notr": ("ingest", "RepetitionTime is missing from its sidecars"),
    "cut": ("ingest", "the gzip stream ends early"),
    "words": ("preprocess", "could not convert string to float"),
    "shifted": ("preprocess", "the brain mask is on another grid than the series"),
    "outside": ("preprocess", "its mask covers 0 voxels of the output grid"),
    "flat": ("preprocess", "no element of it varies over time"),
}


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mill, dict[str, Any], dict[str, str]]:
    """One good subject alone, then the same among all the bad ones."""
    mill = Mill(tmp_path_factory.mktemp("bad"))
    made.describe(mill.root, "fMRIPrep")
    made.fmriprep_volume(mill.root, "good")
    mill.one("good")
    before = _files(mill)
    for sub in BAD:
        made.fmriprep_volume(mill.root, sub)
        _spoil(mill.root, sub)
    return mill, mill.ingest(), before


def _files(mill: Mill) -> dict[str, str]:
    folder = mill.results / "derivatives" / "ds" / "sub-good"
    return {path.name: sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("sub", sorted(BAD))
def test_bad_derivatives_are_quarantined_by_name(
    neighbours: tuple[Mill, dict[str, Any], dict[str, str]], sub: str
) -> None:
    mill, rows, before = neighbours
    stage, reason = BAD[sub]
    row = rows[f"sub-{sub}_task-rest"]
    assert row.status == ("quarantined" if stage == "ingest" else "ok")
    found = {"reason": row.reason, "fix": row.fix, "status": row.status}
    if stage == "preprocess":
        (found,) = mill.preprocess(sub).values()
    assert found["status"] == "quarantined" and reason in found["reason"] and found["fix"], found
    assert mill.preprocess("good")["sub-good_task-rest"]["status"] == "ok" and _files(mill) == before


def test_wrong_grayordinates_are_refused(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    parts = made.cortex(made.motion(6, 22), 6)
    for run, more in (("rfMRI_A_LR", {}), ("rfMRI_B_LR", {})):
        path = f"100307/MNINonLinear/Results/{run}/{run}_Atlas_hp2000_clean.dtseries.nii"
        made.write_dtseries(mill.root, path, parts, **more)
        blob = (mill.root / path).read_bytes()
        if run == "rfMRI_A_LR":  # another mesh
            (mill.root / path).write_bytes(
                blob.replace(b'SurfaceNumberOfVertices="32492"', b'SurfaceNumberOfVertices="32491"')
            )
        else:  # the header names more than the data hold
            (mill.root / path).write_bytes(blob.replace(b'IndexCount="31870"', b'IndexCount="31871"'))
    rows = mill.ingest()
    assert rows["sub-100307_task-A_dir-LR"].reason.startswith("91282 grayordinates with 29696 and 29716 of 32491")
    assert "names 91283 grayordinates, its data have 91282" in rows["sub-100307_task-B_dir-LR"].reason
