"""Ready-made derivatives: from the pipeline's tree over ingest and preprocess to what later stages read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.config.load import parse
from boldmill.index.command import ingest
from boldmill.preprocess import command, ready_cifti
from boldmill.preprocess.derivatives import sidecar_of
from boldmill.represent import parcellate_command
from boldmill.stages import Settings, stage_json

from . import pipelines as made

CLEAN = {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None, "min_dof_flag": 1}


class Mill:
    """A data set of derivatives, and the stages run on it."""

    def __init__(self, base: Path, root: Path | None = None, **config: Any) -> None:
        self.base, self.root, self.results = base, root or base / "ds", base / "results"
        entry = {"name": "ds", "root": str(self.root), "kind": "derivative", **config.pop("dataset", {})}
        given = {"datasets": [entry], "spaces": {"resolution": 6.0}, "clean": CLEAN, **config}
        self.config = parse(given)

    def ingest(self) -> dict[str, Any]:
        rows = ingest(Settings(stage_json(self.config, "ingest")), self.results)
        return {row.scan_id.removeprefix("ds_"): row for row in rows}

    def ignored(self) -> dict[str, str]:
        lines = (self.results / "index" / "ignored.tsv").read_text().splitlines()[1:]
        return {line.split("\t")[1]: line.split("\t")[2] for line in lines}

    def ticket(self, scan: str) -> dict[str, Any]:
        return dict(read_json(self.results / "index" / "tickets" / f"ds_{scan}.json"))

    def template(self, shape: tuple[int, ...] = made.SHAPE, affine: np.ndarray = made.AFFINE) -> Path:
        folder = self.results / "templates"
        files = {key: f"{key}.nii.gz" for key in ("head", "brain_mask", "gm", "wm", "csf")}
        for name in files.values():
            made.write(folder, name, made.image(made.brain(shape), affine))
        content = {"space": made.SPACE, "source": "test", "files": files, "moves": []}
        return write_json(folder / "template.json", content)

    def preprocess(self, subject: str, template: Path | None = None) -> dict[str, Any]:
        """Run the command on one subject and return the manifest's scans, without the data set's name."""
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        tickets = sorted((self.results / "index" / "tickets").glob(f"ds_sub-{subject}_*.json"))
        out = self.results / "preprocess" / "ds" / f"sub-{subject}.json"
        words = ["--tickets", *map(str, tickets), "--template", str(template or self.template())]
        words += ["--results", str(self.results), "--out", str(out)]
        words += ["--config-json", stage_json(self.config, "preprocess", "ds")]
        assert command.run(parser.parse_args(words)) == 0
        manifest = read_json(out)
        assert manifest["anat"]["status"] == "absent"
        return {name.removeprefix("ds_"): entry for name, entry in manifest["scans"].items()}

    def one(self, subject: str = "01", **more: Any) -> dict[str, Any]:
        """Ingest, preprocess one subject, and return its only scan."""
        self.ingest()
        (entry,) = self.preprocess(subject, **more).values()
        return dict(entry)

    def parcellate(self, subject: str, names: list[str], atlas: str) -> dict[str, Any]:
        parser = argparse.ArgumentParser()
        parcellate_command.add_arguments(parser)
        operators = made.operators(self.results / "operators", names, atlas)
        out = self.results / "parcellate" / "bucket-000.json"
        words = ["--subjects", str(self.results / "preprocess" / "ds" / f"sub-{subject}.json")]
        words += ["--operators", str(operators), "--atlas", str(operators), "--results", str(self.results)]
        words += ["--out", str(out), "--config-json", stage_json(self.config, "parcellate")]
        assert parcellate_command.run(parser.parse_args(words)) == 0
        (entry,) = read_json(out)["scans"].values()
        return dict(entry)

    def image(self, entry: dict[str, Any], key: str) -> Any:
        return nib.load(self.results / entry["files"][key])  # type: ignore[attr-defined]


def residual(series: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """Least squares, the independent reference: mean, trend and regressors out."""
    x = np.column_stack([np.ones(len(series)), np.linspace(-1, 1, len(series)), regressors])
    return series - x @ np.linalg.lstsq(x, series, rcond=None)[0]


def table(path: Path) -> tuple[list[str], np.ndarray]:
    lines = path.read_text().splitlines()
    values = [[np.nan if v == "n/a" else float(v) for v in line.split("\t")] for line in lines[1:]]
    return lines[0].split("\t"), np.array(values)


# --- fMRIPrep ---------------------------------------------------------------------------------------------------------


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


# --- surfaces and grayordinates ---------------------------------------------------------------------------------------


@pytest.fixture
def spheres(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    folder = data / "templateflow" / "tpl-fsLR"
    paths = [folder / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii" for side in "LR"]
    monkeypatch.setattr(ready_cifti, "sphere_files", lambda: paths)
    return paths


def test_hcp_grayordinates_reach_fsaverage5(tmp_path: Path, spheres: list[Path]) -> None:
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
    assert (entry["status"], entry["kind"], entry["space"]) == ("ok", "surface", "fsaverage5"), entry
    fd = made.confounds(moves)["framewise_displacement"]
    assert entry["qc"]["mean_fd"] == pytest.approx(np.nanmean(fd), rel=1e-9)
    left, right = (mill.image(entry, f"clean_{side}h") for side in "lr")
    found = np.stack([array.data for array in left.darrays])
    assert found.shape == (24, 10242) and len(right.darrays) == 24
    # cleaning and carrying are linear in time and space: they commute
    operator = ready_cifti._operator("L", _used(0).tobytes())
    truth = residual((operator @ np.where(_used(0), parts[0], 0).T).T.astype(float), moves)
    live = np.asarray(operator.sum(axis=1)).ravel() > 0
    assert np.abs(found - truth)[:, live].max() < 1e-2 * truth[:, live].std()
    assert not found[:, ~live].any() and 0.9 < live.mean() < 1.0
    side = json.loads(sidecar_of(mill.results / entry["files"]["clean_lh"]).read_text())
    assert side["ResamplingFiles"] == [path.name for path in spheres]


def _used(side: int) -> np.ndarray:
    mask = np.zeros(made.VERTICES, bool)
    mask[made.used_vertices(side)] = True
    return mask


def test_an_ica_fix_series_is_preferred_and_enters_at_parcellate(tmp_path: Path, spheres: list[Path]) -> None:
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
def test_surface_pairs_of_fmriprep(tmp_path: Path, spheres: list[Path], space: str) -> None:
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
    assert len(mill.image(entry, "clean_lh").darrays[0].data) == 10242


def test_without_the_spheres_the_file_to_fetch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from templateflow import api

    from boldmill.errors import MachineFault

    monkeypatch.setattr(api, "ls", lambda *a, **k: [])
    with pytest.raises(MachineFault, match="no file matches") as caught:
        ready_cifti.sphere_files()
    assert "api.get('fsLR'" in caught.value.fix and "sphere" in caught.value.fix


# --- C-PAC ------------------------------------------------------------------------------------------------------------


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


# --- XCP-D ------------------------------------------------------------------------------------------------------------


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


def xcpd_parcels(root: Path, names: list[str], seg: str) -> np.ndarray:
    made.describe(root, "XCP-D")
    values = np.random.default_rng(11).normal(size=(made.T, len(names)))
    stem = "sub-01/func/sub-01_task-rest"
    columns = dict(zip(names, values.T, strict=True))
    columns[names[1]] = np.full(made.T, np.nan)
    made.write(root, f"{stem}_space-fsLR_seg-{seg}_stat-mean_timeseries.tsv", made.tsv(columns))
    made.write(root, f"{stem}_space-fsLR_seg-{seg}_stat-mean_timeseries.json", {"RepetitionTime": made.TR})
    made.write(root, f"{stem}_space-fsLR_seg-{seg}_stat-coverage_bold.tsv", "a\n1\n")
    return values


def test_xcpd_parcels_are_joined_by_name_in_any_order(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    wanted = made.schaefer(20)
    given = ["LH-Thalamus", *reversed([name.removeprefix("7Networks_") for name in wanted])]
    values = xcpd_parcels(mill.root, given, "4S156Parcels")
    assert mill.one()["status"] == "ok"
    entry = mill.parcellate("01", wanted, "Schaefer2018 20Parcels7Networks")
    assert entry["status"] == "ok", entry
    names, found = table(mill.results / entry["files"]["timeseries"])
    assert names == wanted
    assert np.isnan(found[:, -1]).all() and entry["qc"]["n_parcels_missing"] == 1
    truth = values[:, :0:-1] - values[:, :0:-1].mean(axis=0)
    assert np.allclose(found[:, :-1], truth[:, :-1], atol=1e-6)
    assert "1 given columns are no parcels of the atlas: dropped" in entry["flags"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (made.schaefer(40), "the series are of toy (40 columns, 40 of them cortical), the configured atlas is A20"),
        (
            made.schaefer(20, ("VisCent", "SomMotA", "DefaultC")),
            "20 of 20 parcels lie in another network or hemisphere",
        ),
        ([f"ROI_{i}" for i in range(20)], "0 of them cortical"),
        ([str(i) for i in range(1, 21)], "the series are of toy (20 columns, 0 of them cortical)"),
    ],
)
def test_another_atlas_is_refused_with_both_names(tmp_path: Path, names: list[str], reason: str) -> None:
    mill = Mill(tmp_path)
    xcpd_parcels(mill.root, names, "toy")
    assert mill.one()["status"] == "ok"
    entry = mill.parcellate("01", made.schaefer(20), "A20")
    assert entry["status"] == "quarantined" and entry["stage"] == "parcellate"
    assert reason in entry["reason"] and "toy" in entry["reason"] and "A20" in entry["reason"] and entry["fix"]


# --- HALFpipe ---------------------------------------------------------------------------------------------------------


def test_real_halfpipe_series_reach_the_published_correlations(tmp_path: Path, data: Path) -> None:
    root = data / "derivatives" / "ds000030_halfpipe"
    mill = Mill(tmp_path, root, spaces={"resolution": 6.0, "atlas_desc": "400Parcels17Networks"})
    rows = mill.ingest()
    assert len(rows) == 7 and {(row.status, row.kind, row.n_volumes) for row in rows.values()} == {
        ("ok", "parcels", 152)
    }
    (entry,) = mill.preprocess("10159").values()
    assert entry["status"] == "ok" and entry["atlas"] == "schaefer400", entry
    side = next(root.rglob("sub-10159*_atlas-schaefer400_timeseries.json"))
    published = read_json(side)
    # HALFpipe counts the undefined first volume as 0
    assert entry["qc"]["mean_fd"] * 151 / 152 == pytest.approx(published["FDMean"], rel=1e-12)
    labels = [
        line.split("\t")[1]
        for line in (root / "atlas" / "atlas-Schaefer2018Combined_dseg.tsv").read_text().splitlines()
    ]
    wanted = [name.removeprefix("Schaefer2018_17Networks_") for name in labels[:400]]
    found = mill.parcellate("10159", wanted, "Schaefer2018 400Parcels17Networks")
    assert found["status"] == "ok" and "34 given columns are no parcels of the atlas: dropped" in found["flags"]
    _, values = table(mill.results / found["files"]["timeseries"])
    raw = np.loadtxt(next(root.rglob("sub-10159*_atlas-schaefer400_timeseries.tsv")))
    empty = np.isnan(raw[:, :400]).all(axis=0)
    assert 0 < empty.sum() < 40 and np.array_equal(np.isnan(values).all(axis=0), empty)
    matrix = np.loadtxt(next(root.rglob("sub-10159*-correlation_matrix.tsv")))[:400, :400]
    assert np.abs(np.corrcoef(values[:, ~empty].T) - matrix[np.ix_(~empty, ~empty)]).max() < 1e-5
    other = [f"7Networks_{'LH' if i < 200 else 'RH'}_Vis_{i + 1}" for i in range(400)]
    refused = mill.parcellate("10159", other, "Schaefer2018 400Parcels7Networks")
    assert refused["status"] == "quarantined"
    assert "schaefer400" in refused["reason"] and "400Parcels7Networks" in refused["reason"]


@pytest.mark.parametrize(("atlas", "status"), [("Schaefer2018p20n7", "ok"), ("Schaefer2018p20n17", "quarantined")])
def test_cpac_parcels_are_joined_by_id_where_the_label_names_the_atlas(tmp_path: Path, atlas: str, status: str) -> None:
    mill = Mill(tmp_path)
    values = np.random.default_rng(12).normal(size=(made.T, 20))
    stem = "output/pipeline_x/sub-01/func/sub-01_task-rest"
    order = np.random.default_rng(13).permutation(20)
    lines = ["#" + "\t".join(f"Mean_{i + 1}" for i in order), *("\t".join(map(str, row)) for row in values[:, order])]
    made.write(mill.root, f"{stem}_atlas-{atlas}_desc-Mean-1_timeseries.1D", "\n".join(lines))
    made.write(mill.root, f"{stem}_atlas-{atlas}_desc-Mean-1_timeseries.json", {"RepetitionTime": made.TR})
    assert mill.one()["status"] == "ok"
    entry = mill.parcellate("01", made.schaefer(20), "Schaefer2018 20Parcels7Networks")
    assert entry["status"] == status
    if status == "ok":
        _, found = table(mill.results / entry["files"]["timeseries"])
        assert np.allclose(found, values - values.mean(axis=0), atol=1e-6)


def test_series_without_names_are_refused(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    values = np.random.default_rng(1).normal(size=(made.T, 20))
    stem = "sub-01/func/task-rest/sub-01_task-rest_feature-f1_atlas-schaefer20_timeseries"
    made.write(mill.root, f"{stem}.tsv", "\n".join("\t".join(map(str, row)) for row in values))
    made.write(mill.root, f"{stem}.json", {"RepetitionTime": made.TR, "FDMean": 0.21})
    entry = mill.one()
    assert entry["status"] == "ok" and entry["qc"]["mean_fd"] == pytest.approx(0.21 * 40 / 39)
    refused = mill.parcellate("01", made.schaefer(20), "A20")
    assert "the series of schaefer20 have 20 columns without names" in refused["reason"]
    labels = "\n".join(f"{i}\t{name}" for i, name in enumerate(made.schaefer(20), start=1))
    made.write(mill.root, "atlas/atlas-schaefer20_dseg.tsv", labels + "\n")
    mill.one()
    assert mill.parcellate("01", made.schaefer(20), "A20")["status"] == "ok"


# --- bad derivatives --------------------------------------------------------------------------------------------------

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


def test_parcel_series_have_no_flat_map_and_shards_ask_for_none(tmp_path: Path) -> None:
    from boldmill.errors import BoldmillError
    from boldmill.represent.bucket import series_of
    from boldmill.shards.build import Bucket

    mill = Mill(tmp_path)
    xcpd_parcels(mill.root, made.schaefer(20), "toy")
    mill.one()
    subject = read_json(mill.results / "preprocess" / "ds" / "sub-01.json")
    name = "ds_sub-01_task-rest"
    assert series_of(subject) == [] and [scan for scan, _ in series_of(subject, parcels=True)] == [name]
    tickets, subjects = {name: mill.ticket("sub-01_task-rest")}, {"ds/01": subject}
    known = {"participants": {}, "flat": {"scans": {}}}
    whole = Bucket(0, mill.results, tickets, subjects, parcellated={"scans": {name: {}}}, **known)
    whole.check_complete()
    with pytest.raises(BoldmillError, match="parcellate"):
        Bucket(0, mill.results, tickets, subjects, parcellated={"scans": {}}, **known).check_complete()
