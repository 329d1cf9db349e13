"""Ready-made surfaces and grayordinates: cleaned on the mesh they come on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess.derivatives import sidecar_of
from boldmill.preprocess.ready_cifti import read_cifti

from . import pipelines as made
from .mill import Mill, residual


def test_hcp_grayordinates_stay_on_fslr(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    run = "rfMRI_REST1_LR"
    folder = f"100307/MNINonLinear/Results/{run}"
    moves = made.motion(5, 24)
    parts = made.cortex(moves, 5)
    made.write_dtseries(mill.root, f"{folder}/{run}_Atlas_MSMAll.dtseries.nii", parts, tr=0.72)
    degrees = moves * np.array([1, 1, 1, *[180 / np.pi] * 3])
    rows = np.column_stack([degrees, np.vstack([np.zeros(6), np.diff(degrees, axis=0)])])
    made.write(mill.root, f"{folder}/Movement_Regressors.txt", "\n".join("  ".join(map(str, r)) for r in rows))
    rows_ = mill.ingest()
    row = rows_["sub-100307_task-REST1_dir-LR"]
    assert (row.status, row.kind, row.tr, row.n_volumes) == ("ok", "cifti", 0.72, 24)
    assert "repetition time 0.72 s from the header" in row.flags
    (entry,) = mill.preprocess("100307").values()
    assert (entry["status"], entry["kind"], entry["space"]) == ("ok", "surface", "fsLR"), entry
    fd = made.confounds(moves)["framewise_displacement"]
    assert entry["qc"]["mean_fd"] == pytest.approx(np.nanmean(fd), rel=1e-9)
    left, right = (mill.image(entry, f"clean_{side}h") for side in "lr")
    found = np.stack([array.data for array in left.darrays])
    assert found.shape == (24, 32492) and len(right.darrays) == 24
    live = _used(0)
    truth = residual(np.asarray(parts[0], float), moves)
    assert np.abs(found - truth)[:, live].max() < 1e-2 * truth[:, live].std()
    assert not found[:, ~live].any() and 0.9 < live.mean() < 1.0
    assert "_space-fsLR_den-32k_" in entry["files"]["clean_lh"]
    side = json.loads(sidecar_of(mill.results / entry["files"]["clean_lh"]).read_text())
    assert side["Density"].startswith("32k")


def _used(side: int) -> np.ndarray:
    mask = np.zeros(made.VERTICES, bool)
    mask[made.used_vertices(side)] = True
    return mask


def test_an_ica_fix_series_is_preferred_and_enters_at_parcellate(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    folder = "100307/MNINonLinear/Results/rfMRI_REST2_7T_PA"
    stem = f"{folder}/rfMRI_REST2_7T_PA"
    parts = made.cortex(made.motion(6, 24), 6)
    for name in ("_Atlas", "_Atlas_MSMAll_hp2000_clean", "_Atlas_hp2000_clean"):
        made.write_dtseries(mill.root, f"{stem}{name}.dtseries.nii", parts, tr=1.0)
    made.write(mill.root, f"{stem}_hp2000_clean.nii.gz", b"x")
    mill.ingest()
    ticket = mill.ticket("sub-100307_task-REST2_acq-7T_dir-PA")
    assert ticket["stage"] == "parcellate"
    assert ticket["files"]["dtseries"]["path"].endswith("_Atlas_MSMAll_hp2000_clean.dtseries.nii")
    assert mill.ignored()[f"{stem}_hp2000_clean.nii.gz"] == "HCP volumes are not read; the grayordinates of the run are"
    assert mill.ignored()[f"{stem}_Atlas.dtseries.nii"].startswith("the run is read from")
    (entry,) = mill.preprocess("100307").values()
    assert entry["status"] == "ok" and entry["qc"]["mean_fd"] is None and "confounds" not in entry["files"]
    found = np.stack([array.data for array in mill.image(entry, "clean_rh").darrays])
    assert np.abs(found.mean(axis=0)).max() < 1e-3 and found.std(axis=0).max() > 1


@pytest.mark.parametrize("space", ["fsLR_den-32k", "fsaverage5"])
def test_surface_pairs_of_fmriprep(tmp_path: Path, space: str) -> None:
    mill = Mill(tmp_path)
    made.describe(mill.root, "fMRIPrep")
    moves = made.motion(7, 22)
    vertices = 10242 if space == "fsaverage5" else made.VERTICES
    stem = "sub-01/func/sub-01_task-rest"
    for side, half in zip("LR", made.cortex(moves, 7, vertices), strict=True):
        name = f"{stem}_hemi-{side}_space-{space}_bold"
        made.write(mill.root, f"{name}.func.gii", made.gifti(half))
        made.write(mill.root, f"{name}.json", {"RepetitionTime": 2.0})
    made.write(mill.root, f"{stem}_desc-confounds_timeseries.tsv", made.tsv(made.confounds(moves)))
    entry = mill.one()
    assert (entry["status"], entry["kind"], entry["layout"]) == ("ok", "surface", "fmriprep"), entry
    assert entry["qc"]["n_regressors"] == 6 and entry["qc"]["mean_fd"] > 0
    assert entry["space"] == space.partition("_")[0]
    assert len(mill.image(entry, "clean_lh").darrays[0].data) == vertices


def test_truncated_grayordinates_are_a_fault_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "x.dtseries.nii"
    whole = made.dtseries(made.cortex(made.motion(6, 12), 6))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataFault, match=r"x\.dtseries\.nii"):
        read_cifti(path)
