"""One raw run through the whole workflow on the phantom: what is written, the truth in it, reruns, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess import confounds
from boldmill.preprocess.bold import AnatInputs, process_volume_run, repetition_time
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.derivatives import Derivatives
from boldmill.preprocess.images import Grid, Volume, read_volume, write_volume
from boldmill.preprocess.motion import displacement
from boldmill.preprocess.prepare import image_shape
from boldmill.preprocess.series_io import image_of, write_masked_series
from boldmill.preprocess.subject import Job
from boldmill.preprocess.transforms import dense_field, read_affine, write_field

from .bold_phantom import CENTRE, bold, draw, movements, oblique_las, ras, t1w, tissues

COUNT, TR = 60, 2.0
ANAT, OUT, FUNC = ras(3.0), ras(6.0), oblique_las()
SHIFT = np.array([4.0, -2.0, 3.0])
MAPS: dict[str, Any] = {"maps": ["alff", "falff", "reho"], "maps_smoothing": 8.0, "maps_zscore": True}
CLEAN: dict[str, Any] = {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None}


def wave() -> np.ndarray:
    """Signal of the grey matter's front half."""
    return np.asarray(np.sin(2 * np.pi * 0.045 * np.arange(COUNT) * TR + 0.3))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnatInputs, np.ndarray]:
    root = tmp_path_factory.mktemp("raw")
    positions = movements(COUNT, size=0.3)
    rng = np.random.default_rng(6)
    volumes = []
    for t, matrix in enumerate(positions):

        def scene(points: np.ndarray, t: int = t) -> np.ndarray:
            front = tissues(points)["gm"] * (points[:, 1] > CENTRE[1])
            return bold(points) + 12 * wave()[t] * front

        volumes.append(draw(FUNC, scene, matrix).data)
    series = np.stack(volumes, axis=-1) + rng.normal(0, 6, (*FUNC.shape, COUNT))
    write_volume(root / "bold.nii.gz", np.rint(series), FUNC.affine, dtype="int16", tr=TR)
    paths = {name: root / f"{name}.nii.gz" for name in ("t1w", "t1w_mask", "gm", "wm", "csf", "field")}
    write_volume(paths["t1w"], draw(ANAT, t1w).data, ANAT.affine)
    for name, tissue in (("t1w_mask", "brain"), ("gm", "gm"), ("wm", "wm"), ("csf", "csf")):
        image = draw(ANAT, lambda p, tissue=tissue: tissues(p)[tissue]).data
        write_volume(paths[name], image > 0.5 if name == "t1w_mask" else image, ANAT.affine)
    write_field(paths["field"], dense_field(lambda p: p + SHIFT, ras(4.0, (92, 108, 88))))
    write_volume(root / "template_mask.nii.gz", draw(OUT, lambda p: tissues(p + SHIFT)["brain"] > 0.5).data, OUT.affine)
    return root, AnatInputs(**paths), positions


def call(raw: tuple[Path, AnatInputs, np.ndarray], results: Path, *, keep: bool = False, **metadata: Any) -> Any:
    root, anat, _ = raw
    job = Job(
        derivatives=Derivatives(results=results, root=results / "derivatives" / "d", raw=root, dataset="d"),
        space="Phantom",
        grid=Grid(OUT.shape, OUT.affine),
        template={"brain_mask": root / "template_mask.nii.gz"},
        settings=PreprocessConfig(keep=["preproc", "clean"], **MAPS) if keep else PreprocessConfig(keep=["clean"]),
        clean=CleanConfig(**CLEAN),
        seed=1,
    )
    ticket = {
        "scan_id": "d_sub-1_task-rest",
        "task": "rest",
        "root": str(root),
        "entities": {"sub": "1", "ses": "2", "task": "rest"},
        "bold": [{"path": "bold.nii.gz", "size": (root / "bold.nii.gz").stat().st_size}],
        "metadata": {"RepetitionTime": TR, **metadata},
    }
    return process_volume_run(job, ticket, anat, results / "work")


@pytest.fixture(scope="module")
def done(raw: tuple[Path, AnatInputs, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return call(raw, tmp_path_factory.mktemp("one"), keep=True)


def test_files_and_names(done: Any) -> None:
    maps = {"alff", "falff", "reho"}
    keys = {"clean", "preproc", "mask", "confounds", "boldref", "boldref_native", "coreg", "hmc", "recipe", "figures"}
    assert set(done.files) == keys | maps | {f"{name}_zscored" for name in maps}
    assert all(path.exists() for path in (*done.files.values(), *done.extra))
    assert (
        done.files["clean"]
        .as_posix()
        .endswith("derivatives/d/sub-1/ses-2/func/sub-1_ses-2_task-rest_space-Phantom_desc-clean_bold.nii.gz")
    )
    assert {k: done.facts[k] for k in ("tr", "n_volumes", "space")} == {
        "tr": TR,
        "n_volumes": COUNT,
        "space": "Phantom",
    }
    expected = {"mean_fd", "max_fd", "mean_fd_jenkinson", "mean_dvars", "tsnr", "residual_dof", "n_regressors"}
    expected |= {"bbr_cost", "bbr_moved_mm", "coreg_method", "mask_ml", "coverage", "gcor"}
    assert expected <= set(done.qc)
    assert any("slice timing" in flag for flag in done.flags)


def test_cleaned_series_is_what_the_contract_says(done: Any) -> None:
    image = nibabel.load(done.files["clean"])
    data = np.asarray(image.dataobj)
    assert data.dtype == np.float32 and data.shape == (*OUT.shape, COUNT)
    assert image.header.get_zooms()[3] == TR and np.allclose(image.affine, OUT.affine)
    mask = read_volume(done.files["mask"]).data > 0.5
    assert not data[~mask].any() and (data[mask].std(axis=1) > 0).all()
    assert np.abs(data[mask].mean(axis=1)).max() < 1e-2 * data[mask].std()
    assert done.qc["residual_dof"] == COUNT - 2 - 6
    assert done.qc["coverage"] > 0.95 and done.qc["tsnr"] > 50
    kept = np.asarray(nibabel.load(done.files["preproc"]).dataobj)
    assert np.median(kept[mask].mean(axis=1)) == pytest.approx(10000, rel=1e-3)


def test_maps_show_the_planted_signal(done: Any) -> None:
    """The front half of the grey matter fluctuates in the band, and its neighbours together."""
    names = {"alff": "space-Phantom_alff.nii.gz", "reho_zscored": "space-Phantom_desc-zscored_reho.nii.gz"}
    assert all(done.files[key].name.endswith(name) for key, name in names.items())
    points = OUT.points()
    truth = tissues(points + SHIFT)
    front = points[:, 1] + SHIFT[1] > CENTRE[1] + 8
    mask = read_volume(done.files["mask"]).data.ravel() > 0.5
    planted, rest = (truth["gm"] > 0.97) & front & mask, (truth["gm"] > 0.97) & ~front & mask
    for key in ("alff", "falff", "reho"):
        image = read_volume(done.files[key]).data.ravel()
        assert image[planted].mean() > 1.3 * image[rest].mean() and not image[~mask].any()
        scores = read_volume(done.files[f"{key}_zscored"]).data.ravel()[mask]
        assert abs(scores.mean()) < 0.02 and abs(scores.std() - 1) < 0.05
    kept = COUNT * TR / 60 * (1 - done.qc["censored_share"])
    assert done.qc["minutes_kept"] == pytest.approx(kept, abs=1e-3)


def test_the_table_holds_every_group_of_confounds(done: Any) -> None:
    table = confounds.read(done.files["confounds"])
    for prefix in ("a_comp_cor", "c_comp_cor", "w_comp_cor", "t_comp_cor", "edge_comp"):
        values = table.columns[f"{prefix}_00"]
        assert np.linalg.norm(values) == pytest.approx(1) and table.notes[f"{prefix}_00"]["MaskRule"]
    assert sum(name.startswith("edge_comp") for name in table.columns) == 24


def test_the_signal_lies_where_the_truth_has_it(done: Any) -> None:
    """Motion, coregistration and warp together put the planted signal at its place in the template."""
    data = np.asarray(nibabel.load(done.files["clean"]).dataobj)
    points = OUT.points()
    truth = tissues(points + SHIFT)
    pure = truth["gm"] > 0.97
    front = points[:, 1] + SHIFT[1] > CENTRE[1] + 8
    back = points[:, 1] + SHIFT[1] < CENTRE[1] - 8
    series = data.reshape(-1, COUNT)
    planted = np.corrcoef(series[pure & front].mean(axis=0), wave())[0, 1]
    assert planted > 0.97
    loads = series @ wave() / (wave() @ wave())
    assert abs(loads[pure & back].mean()) < 0.05 * loads[pure & front].mean()


def test_motion_and_pose_are_those_of_the_truth(raw: Any, done: Any) -> None:
    positions = raw[2]
    inside = draw(FUNC, lambda p: tissues(p)["brain"]).data.ravel() > 0.5
    points = FUNC.points()[inside]
    found = np.loadtxt(done.files["hmc"]).reshape(-1, 4, 4)
    still = int(np.argmin([np.abs(m - np.eye(4)).max() for m in found]))
    truth = positions @ np.linalg.inv(positions[still])
    wrong = [displacement((np.linalg.inv(t) @ f)[None], points)[0] for t, f in zip(truth, found, strict=True)]
    assert np.mean(wrong) < 0.1
    pose = read_affine(done.files["coreg"])
    assert displacement((np.linalg.inv(positions[still]) @ pose)[None], points)[0] < 0.5


def test_same_bytes_twice(raw: Any, done: Any, tmp_path: Path) -> None:
    again = call(raw, tmp_path, keep=True)
    for key, path in done.files.items():
        assert path.read_bytes() == again.files[key].read_bytes(), key
    assert again.qc == done.qc


def test_slice_timing_is_used_and_checked(raw: Any, tmp_path: Path) -> None:
    with pytest.raises(DataFault, match="invalid SliceTiming"):
        call(raw, tmp_path, SliceTiming=[0.0] * 5)
    times = np.linspace(0, TR, FUNC.shape[2], endpoint=False).tolist()
    result = call(raw, tmp_path, SliceTiming=times)
    assert not any("slice timing" in flag for flag in result.flags)
    table = confounds.read(result.files["confounds"])
    assert table.n_rows == COUNT


def test_a_fault_inside_a_step_keeps_its_class(raw: Any, tmp_path: Path) -> None:
    root, anat, _ = raw
    short = tmp_path / "raw"
    short.mkdir()
    series = read_volume(root / "bold.nii.gz", ndim=4)
    write_volume(short / "bold.nii.gz", series.data[..., :5], series.affine, dtype="int16", tr=TR)
    (short / "template_mask.nii.gz").write_bytes((root / "template_mask.nii.gz").read_bytes())
    with pytest.raises(DataFault, match="5 volumes, at least 10"):
        call((short, anat, raw[2]), tmp_path)
    write_volume(short / "bold.nii.gz", series.data[..., 0], series.affine, dtype="int16")
    with pytest.raises(DataFault, match="3D"):
        call((short, anat, raw[2]), tmp_path)
    blank = series.data.copy()
    blank[..., 3] = np.nan
    write_volume(short / "bold.nii.gz", blank, series.affine, tr=TR)
    with pytest.raises(DataFault, match="1 of 60 volumes"):
        call((short, anat, raw[2]), tmp_path)


@pytest.mark.parametrize("value", [None, 0, -2.0, "2", True, float("nan")])
def test_repetition_time_is_checked(value: Any) -> None:
    with pytest.raises(DataFault, match="RepetitionTime"):
        repetition_time({"RepetitionTime": value}, "scan")
    assert repetition_time({"RepetitionTime": 2}, "scan") == 2.0


def test_masked_series_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((4, 5, 6)) > 0.5
    series = rng.normal(size=(7, int(mask.sum()))).astype(np.float32)
    path = write_masked_series(tmp_path / "a.nii.gz", series, len(series), mask, FUNC.affine, TR)
    image = nibabel.load(path)
    data = np.asarray(image.dataobj)
    assert np.array_equal(data[mask], series.T) and not data[~mask].any()
    assert np.allclose(image.affine, FUNC.affine, atol=1e-4) and image.header.get_zooms()[3] == TR
    assert np.array_equal(image_of(series[0], mask), data[..., 0])
    again = write_masked_series(tmp_path / "b.nii.gz", iter(series), len(series), mask, FUNC.affine, TR)
    assert path.read_bytes() == again.read_bytes()
    assert image_shape(path) == (4, 5, 6, 7)
    assert Volume(data, image.affine).grid.shape == (4, 5, 6)
