"""Ready-made volumes: from the pipeline's tree over ingest and preprocess to the output grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.preprocess.derivatives import sidecar_of

from . import pipelines as made
from .mill import CLEAN, Mill, residual, table


@pytest.fixture(scope="module")
def volume_run(tmp_path_factory: pytest.TempPathFactory) -> Mill:
    mill = Mill(tmp_path_factory.mktemp("fmriprep"))
    made.describe(mill.root, "fMRIPrep")
    made.fmriprep_volume(mill.root, "01")
    # the same run stored left-handed, and in another space
    flip = np.diag([-1.0, 1, 1, 1])
    affine = made.AFFINE @ flip
    affine[:3, 3] = made.AFFINE[:3, 3] + made.AFFINE[:3, :3] @ [made.SHAPE[0] - 1, 0, 0]
    made.fmriprep_volume(mill.root, "02")
    stem = "sub-02/func/sub-02_task-rest_space-MNI152NLin6Asym_res-2_desc"
    series = made.volume(made.motion(1), 1)[::-1]
    made.write(mill.root, f"{stem}-preproc_bold.nii.gz", made.image(series, affine))
    made.write(mill.root, f"{stem}-brain_mask.nii.gz", made.image(made.brain()[::-1], affine))
    made.fmriprep_volume(mill.root, "03", space="MNI152NLin2009cAsym")
    mill.ingest()
    return mill


def test_fmriprep_volume_is_cleaned_with_its_own_confounds(volume_run: Mill) -> None:
    ticket = volume_run.ticket("sub-01_task-rest")
    assert (ticket["kind"], ticket["layout"], ticket["stage"]) == ("volume_ready", "fmriprep", "clean")
    assert set(ticket["files"]) == {"bold", "mask", "confounds"} and ticket["t1w"] == []
    (entry,) = volume_run.preprocess("01").values()
    assert (entry["status"], entry["kind"], entry["source_kind"]) == ("ok", "volume", "volume_ready")
    assert (entry["tr"], entry["n_volumes"], entry["space"]) == (made.TR, made.T, made.SPACE)
    assert set(entry["files"]) == {"clean", "mask", "boldref", "confounds"}
    moves = made.motion(1)
    assert entry["qc"]["mean_fd"] == pytest.approx(np.nanmean(made.confounds(moves)["framewise_displacement"]))
    mask = made.brain() > 0
    cleaned = volume_run.image(entry, "clean")
    assert np.allclose(cleaned.affine, made.AFFINE) and cleaned.header.get_zooms()[3] == made.TR
    found = np.asarray(cleaned.dataobj)
    assert not found[~mask].any()
    raw = made.volume(moves, 1)[mask].T.astype(float)
    truth = residual(raw, moves) * 10000.0 / np.median(raw.mean(axis=0))
    assert np.abs(found[mask].T - truth).max() < 2e-2 * truth.std()
    side = json.loads(sidecar_of(volume_run.results / entry["files"]["clean"]).read_text())
    assert side["Resampling"] == "none: its grid is the output grid" and side["Regressors"] == list(made.AXES)


def test_storage_order_changes_nothing(volume_run: Mill) -> None:
    (first,), (second,) = volume_run.preprocess("01").values(), volume_run.preprocess("02").values()
    for key in ("clean", "mask"):
        assert np.array_equal(volume_run.image(first, key).dataobj, volume_run.image(second, key).dataobj)


def test_another_space_is_refused_with_both_names(volume_run: Mill) -> None:
    (entry,) = volume_run.preprocess("03").values()
    assert entry["status"] == "quarantined"
    assert "the series is in MNI152NLin2009cAsym, the configured template is MNI152NLin6Asym" in entry["reason"]
    assert entry["fix"].startswith("set spaces.template: MNI152NLin2009cAsym")


def test_another_grid_takes_one_interpolation(tmp_path: Path) -> None:
    """A series linear in space is read exactly between its voxels."""
    mill = Mill(tmp_path, spaces={"resolution": 4.0})
    made.describe(mill.root, "fMRIPrep")
    made.fmriprep_volume(mill.root, "01")
    grid = np.stack(np.meshgrid(*map(np.arange, made.SHAPE), indexing="ij"))
    world = np.einsum("ij,jxyz->ixyz", made.AFFINE[:3, :3], grid) + made.AFFINE[:3, 3, None, None, None]
    wave = np.sin(np.arange(made.T))
    data = 2000 + world[0][..., None] * wave
    whole = np.ones(made.SHAPE)
    whole[0, 0, 0] = 0
    made.write(mill.root, next(iter_paths(mill.root, "preproc_bold.nii.gz")), made.image(data))
    made.write(mill.root, next(iter_paths(mill.root, "brain_mask.nii.gz")), made.image(whole))
    affine = made.AFFINE.copy()
    affine[:3, :3] = np.eye(3) * 4.0
    affine[:3, 3] += 13.0
    shape = (9, 9, 8)
    entry = mill.one(template=mill.template(shape, affine))
    assert entry["status"] == "ok", entry
    cleaned = mill.image(entry, "clean")
    assert cleaned.shape == (*shape, made.T) and np.allclose(cleaned.affine, affine)
    x = affine[0, 3] + 4.0 * np.arange(9)
    truth = residual(wave[:, None] * x, made.motion(1))
    found = np.asarray(cleaned.dataobj)[:, 4, 4].T
    scale = float((found * truth).sum() / (truth**2).sum())
    assert np.abs(found / scale - truth).max() < 0.01 * truth.std()
    assert any(flag.startswith("resampled from 12x11x10") for flag in entry["flags"])


def iter_paths(root: Path, end: str) -> Any:
    return (path.relative_to(root).as_posix() for path in sorted(root.rglob(f"*{end}")))


def test_a_column_the_strategy_needs_and_the_table_lacks_is_named(tmp_path: Path) -> None:
    mill = Mill(tmp_path, clean={**CLEAN, "compcor": 5, "tissue": "wm_csf"})
    made.describe(mill.root, "fMRIPrep")
    made.fmriprep_volume(mill.root, "01")
    entry = mill.one()
    assert entry["status"] == "quarantined"
    assert "aCompCor components (combined masks), white_matter, csf" in entry["reason"]
    assert "{strategy: 24P}" in entry["fix"]


def test_components_are_those_of_the_combined_mask(tmp_path: Path) -> None:
    mill = Mill(tmp_path, clean={**CLEAN, "compcor": 1})
    made.describe(mill.root, "fMRIPrep")
    made.fmriprep_volume(mill.root, "01")
    noise = np.random.default_rng(3).normal(size=(2, made.T))
    columns = {**made.confounds(made.motion(1)), "a_comp_cor_00": noise[0], "a_comp_cor_01": noise[1]}
    stem = "sub-01/func/sub-01_task-rest_desc-confounds_timeseries"
    made.write(mill.root, f"{stem}.tsv", made.tsv(columns))
    masks = {"a_comp_cor_00": {"Mask": "CSF"}, "a_comp_cor_01": {"Mask": "combined"}}
    made.write(mill.root, f"{stem}.json", masks)
    entry = mill.one()
    side = json.loads(sidecar_of(mill.results / entry["files"]["clean"]).read_text())
    assert [name for name in side["Regressors"] if "comp" in name] == ["a_comp_cor_01"]


def cpac(root: Path, *, cleaned: bool) -> None:
    folder = "output/pipeline_cpac-default-pipeline/sub-01_ses-1/func"
    stem = f"{folder}/sub-01_ses-1_task-rest_run-1"
    moves = made.motion(8)
    made.write(root, f"{stem}_space-MNI152NLin6ASym_desc-preproc_bold.nii.gz", made.image(made.volume(moves, 8)))
    made.write(root, f"{stem}_desc-preproc_bold.nii.gz", b"x")
    made.write(root, f"{stem}_space-MNI152NLin6ASym_desc-bold_mask.nii.gz", made.image(made.brain()))
    if cleaned:
        name = f"{stem}_space-MNI152NLin6ASym_reg-default_desc-cleaned_bold.nii.gz"
        made.write(root, name, made.image(made.volume(moves, 8)))
    x, y, z, a, b, c = moves.T
    deg = 180 / np.pi
    afni = np.column_stack([c * deg, a * deg, b * deg, z, -x, -y])
    made.write(root, f"{stem}_desc-movementParameters_motion.1D", "\n".join(" ".join(map(str, r)) for r in afni))
    names = ["RotY", "RotYBack", "X", "aCompCorDetrendPC0", "CerebrospinalFluidMean"]
    noise = np.random.default_rng(4).normal(size=(made.T, 5))
    lines = ["# C-PAC 1.8.7", "# Nuisance regressors:", "# " + "\t".join(names)]
    lines += ["\t".join(map(str, row)) for row in noise]
    made.write(root, f"{stem}_reg-default_desc-confounds_timeseries.1D", "\n".join(lines))


def test_cpac_movement_and_regressors_take_our_names(tmp_path: Path) -> None:
    mill = Mill(tmp_path, clean={**CLEAN, "compcor": 1, "tissue": "csf", "motion": "none"})
    cpac(mill.root, cleaned=False)
    row = mill.ingest()["sub-01_ses-1_task-rest_run-1"]
    assert (row.kind, row.tr) == ("volume_ready", made.TR) and "from the header" in row.flags
    assert mill.ticket("sub-01_ses-1_task-rest_run-1")["space"] == made.SPACE
    (entry,) = mill.preprocess("01").values()
    assert entry["status"] == "ok", entry
    names, values = table(mill.results / entry["files"]["confounds"])
    side = json.loads(sidecar_of(mill.results / entry["files"]["clean"]).read_text())
    assert side["Regressors"] == ["a_comp_cor_00", "csf"]
    moves = made.motion(8)
    for name, truth in zip(made.AXES, moves.T, strict=True):
        if name not in ("rot_y", "trans_x"):  # those come from the regressor file
            assert np.allclose(values[:, names.index(name)], truth, atol=1e-9)


def test_a_cleaned_cpac_series_enters_at_parcellate(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    cpac(mill.root, cleaned=True)
    entry = mill.one()
    assert entry["status"] == "ok" and "residual_dof" not in entry["qc"], entry
    moves = made.motion(8)
    fd = made.confounds(moves)["framewise_displacement"]
    assert entry["qc"]["mean_fd"] == pytest.approx(np.nanmean(fd), rel=1e-9)
    raw = made.volume(moves, 8)[made.brain() > 0].T.astype(float)
    found = np.asarray(mill.image(entry, "clean").dataobj)[made.brain() > 0].T
    assert np.abs(found - (raw - raw.mean(axis=0))).max() < 1e-2


def test_a_censored_xcpd_series_has_the_motion_of_what_is_left(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    made.describe(mill.root, "XCP-D")
    moves, gone = made.motion(9), [3, 4, 20]
    kept = np.setdiff1d(np.arange(made.T), gone)
    stem = "sub-01/func/sub-01_task-rest"
    name = f"{stem}_space-{made.SPACE}_res-2_desc-denoised_bold"
    data = made.volume(moves, 9)[..., kept] * made.brain()[..., None]
    made.write(mill.root, f"{name}.nii.gz", made.image(data))
    made.write(mill.root, f"{name.replace('denoised', 'denoisedSmoothed')}.nii.gz", b"x")
    made.write(mill.root, f"{name}.json", {"RepetitionTime": made.TR})
    columns = made.confounds(moves)
    made.write(mill.root, f"{stem}_motion.tsv", made.tsv(columns))
    marks = np.isin(np.arange(made.T), gone).astype(float)
    made.write(mill.root, f"{stem}_outliers.tsv", made.tsv({"framewise_displacement": marks}))
    entry = mill.one()
    assert entry["status"] == "ok" and entry["n_volumes"] == made.T - 3, entry
    assert entry["qc"]["mean_fd"] == pytest.approx(np.nanmean(columns["framewise_displacement"][kept]))
    assert any(flag.startswith("censored elsewhere: 3 of 40 volumes") for flag in entry["flags"])
    assert np.array_equal(np.asarray(mill.image(entry, "mask").dataobj) > 0, made.brain() > 0)
    made.write(mill.root, f"{stem}_outliers.tsv", made.tsv({"framewise_displacement": 0 * marks}))
    entry = mill.one()
    assert entry["status"] == "quarantined" and "the outlier table leaves 40" in entry["reason"]
