"""Fit and apply: what `keep` writes, what `boldmill apply` writes and what readers see are the same bytes."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.cli import main
from boldmill.errors import MachineFault
from boldmill.preprocess import apply, prepare
from boldmill.preprocess.bold import AnatInputs, process_volume_run
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.derivatives import Derivatives, sidecar_of
from boldmill.preprocess.frames import Frames
from boldmill.preprocess.images import Grid, write_volume
from boldmill.preprocess.recipe import Recipe
from boldmill.preprocess.subject import Job
from boldmill.preprocess.transforms import dense_field, write_field
from boldmill.represent.operators import membership
from boldmill.represent.parcellate import parcel_series
from boldmill.represent.series import files_of, open_series
from boldmill.spaces.moves import NLIN6

from .bold_phantom import bold, draw, movements, oblique_las, ras, t1w, tissues

COUNT, TR = 40, 2.0
ANAT, OUT, FUNC = ras(4.0), ras(7.0), oblique_las((30, 34, 24), 6.0)
SHIFT = np.array([4.0, -2.0, 3.0])
SCAN = "d_sub-1_task-rest"
CLEAN: dict[str, Any] = {"motion": "6", "compcor": 2, "drift": "linear", "band_low": None, "band_high": 0.2}
SPACES = [f"{NLIN6}:res-9", "T1w:res-8", "boldref", "PhantomB:res-8", "fsaverage5"]


def make_raw(root: Path) -> AnatInputs:
    rng = np.random.default_rng(3)
    volumes = [draw(FUNC, bold, matrix).data for matrix in movements(COUNT, size=0.4)]
    series = np.stack(volumes, axis=-1) + rng.normal(0, 6, (*FUNC.shape, COUNT))
    series[10, 12, 9, 17] *= 4  # a spike
    write_volume(root / "bold.nii.gz", np.rint(series), FUNC.affine, dtype="int16", tr=TR)
    paths = {name: root / f"{name}.nii.gz" for name in ("t1w", "t1w_mask", "gm", "wm", "csf", "field")}
    write_volume(paths["t1w"], draw(ANAT, t1w).data, ANAT.affine)
    for name, tissue in (("t1w_mask", "brain"), ("gm", "gm"), ("wm", "wm"), ("csf", "csf")):
        image = draw(ANAT, lambda p, tissue=tissue: tissues(p)[tissue]).data
        write_volume(paths[name], image > 0.5 if name == "t1w_mask" else image, ANAT.affine)
    write_field(paths["field"], dense_field(lambda p: p + SHIFT, ras(6.0, (62, 72, 60))))
    other = write_field(root / "other.nii.gz", dense_field(lambda p: p - SHIFT, ras(6.0, (62, 72, 60))))
    write_volume(root / "template_mask.nii.gz", draw(OUT, lambda p: tissues(p + SHIFT)["brain"] > 0.5).data, OUT.affine)
    write_volume(root / "other_mask.nii.gz", draw(OUT, lambda p: tissues(p - SHIFT)["brain"] > 0.5).data, OUT.affine)
    return AnatInputs(**paths, other_fields={"PhantomB": other})


def call(root: Path, anat: AnatInputs, results: Path, **settings: Any) -> Any:
    job = Job(
        derivatives=Derivatives(results=results, root=results / "derivatives" / "d", raw=root, dataset="d"),
        space=NLIN6,
        grid=Grid(OUT.shape, OUT.affine),
        template={"brain_mask": root / "template_mask.nii.gz"},
        settings=PreprocessConfig(**settings),
        clean=CleanConfig(**CLEAN),
        seed=1,
        others={"PhantomB": {"brain_mask": root / "other_mask.nii.gz"}},
    )
    run = root / "bold.nii.gz"
    t1w_image = results / "derivatives" / "d" / "sub-1" / "anat" / "sub-1_T1w.nii.gz"
    t1w_image.parent.mkdir(parents=True)
    shutil.copy(anat.t1w, t1w_image)
    anat = replace(anat, t1w=t1w_image)
    times = np.linspace(0, TR, FUNC.shape[2], endpoint=False).tolist()
    ticket = {
        "scan_id": SCAN,
        "task": "rest",
        "root": str(root),
        "entities": {"sub": "1", "task": "rest"},
        "bold": [{"path": run.name, "size": run.stat().st_size, "sha256": sha256_file(run)}],
        "metadata": {"RepetitionTime": TR, "SliceTiming": times},
    }
    return process_volume_run(job, ticket, anat, results / "work" / "run")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AnatInputs]:
    root = tmp_path_factory.mktemp("raw")
    return root, make_raw(root)


@pytest.fixture(scope="module")
def kept(raw: tuple[Path, AnatInputs], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    results = tmp_path_factory.mktemp("kept")
    return results, call(*raw, results, keep=["clean", "preproc"], output_spaces=SPACES, despike=True)


@pytest.fixture(scope="module")
def lean(raw: tuple[Path, AnatInputs], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The same run without 4D images."""
    results = tmp_path_factory.mktemp("lean")
    return results, call(*raw, results, despike=True)


def test_nothing_4d_is_left_unless_it_is_kept(kept: Any, lean: Any) -> None:
    assert {"clean", "preproc"} <= set(kept[1].files)
    assert not {"clean", "preproc"} & set(lean[1].files) and "recipe" in lean[1].files
    for path in (lean[0] / "derivatives").rglob("*.nii.gz"):
        assert len(nibabel.load(path).shape) == 3, path
    shared = set(lean[1].files) - {"recipe"}
    assert all(sha256_file(kept[1].files[key]) == sha256_file(lean[1].files[key]) for key in shared)
    assert kept[1].qc == lean[1].qc


@pytest.mark.parametrize("what", ["clean", "preproc"])
def test_apply_writes_the_bytes_that_keep_writes(what: str, kept: Any, lean: Any, tmp_path: Path) -> None:
    results = lean[0]
    words = ["apply", "--results", str(results), "--scan", SCAN, "--what", what, "--out", str(tmp_path)]
    assert main(words) == 0
    image = kept[1].files[what]
    again = tmp_path / image.relative_to(kept[0] / "derivatives" / "d")
    assert again.read_bytes() == image.read_bytes()
    assert sidecar_of(again).read_bytes() == sidecar_of(image).read_bytes()
    record = read_json(Path(f"{again}.prov.json"))
    assert {"bold.nii.gz", f"{SCAN}.json"} <= {Path(item["path"]).name for item in record["inputs"]}
    assert not (results / "work" / "apply").exists()


def test_parcel_series_are_the_same_with_and_without_keep(kept: Any, lean: Any) -> None:
    labels = np.random.default_rng(0).integers(0, 6, int(np.prod(OUT.shape)))
    operator = membership(labels, [1, 2, 3, 4, 5])
    found = []
    for results, run in (kept, lean):
        files = {key: path.relative_to(results).as_posix() for key, path in run.files.items()}
        scan = {"kind": "volume", "files": files}
        found.append(parcel_series(operator, open_series(scan, results, OUT.affine, OUT.shape), 0.0))
    assert np.array_equal(found[0].values, found[1].values) and np.array_equal(found[0].coverage, found[1].coverage)
    assert np.ptp(found[0].values, axis=0).min() > 0
    freed = {**scan, "files": {**files, "clean": "deleted_since.nii.gz"}}
    assert files_of(freed, lean[0]) == ["recipe"]


def test_a_reader_refuses_another_grid(lean: Any) -> None:
    results, run = lean
    files = {"recipe": run.files["recipe"].relative_to(results).as_posix()}
    with pytest.raises(MachineFault, match="operators differ"):
        open_series({"kind": "volume", "files": files}, results, OUT.affine, (5, 5, 5))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def vanish(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(("key", "damage", "why"), [
    ("raw", cut, "raw file changed.*bold.nii.gz"), ("raw", flip, "raw file changed.*bold.nii.gz"),
    ("raw", vanish, "raw file vanished.*bold.nii.gz"), ("field", flip, "file of the fit changed.*field.nii.gz"),
    ("confounds", vanish, "file of the fit vanished.*timeseries.tsv"),
    ("confounds_json", vanish, "file of the fit vanished.*timeseries.json"),
])  # fmt: skip
def test_what_changed_since_the_fit_is_named(key: str, damage: Callable[[Path], None], why: str, lean: Any) -> None:
    recipe = Recipe.read(lean[1].files["recipe"], lean[0])
    path = recipe.raw if key == "raw" else recipe.file(key)
    good = path.read_bytes()
    damage(path)
    try:
        with pytest.raises(MachineFault, match=why):
            apply.cleaned(recipe)
    finally:
        path.write_bytes(good)


def test_an_unknown_scan_names_the_nearest(lean: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["apply", "--results", str(lean[0]), "--scan", "d_sub-1_task-rset", "--out", str(tmp_path)]
    assert main(words) == 2
    assert f"did you mean '{SCAN}'?" in capsys.readouterr().err


def test_a_recipe_of_another_schema_is_refused(lean: Any, tmp_path: Path) -> None:
    path = write_json(tmp_path / "r.json", {**read_json(lean[1].files["recipe"]), "schema": 99})
    with pytest.raises(MachineFault, match="schema is 99"):
        Recipe.read(path, lean[0])


def test_the_parts_of_a_series_in_a_file_are_those_of_the_array(tmp_path: Path, monkeypatch: Any) -> None:
    from boldmill.preprocess import frames

    data = np.random.default_rng(1).normal(size=(4, 5, 7, 6)).astype(np.float32)
    made = Frames.create(tmp_path / "a.npy", data.shape)
    with made.open() as handle:
        for t in (3, 0, 5, 1, 2, 4):
            made.write(handle, t, data[..., t])
    assert np.array_equal(made[..., 2], data[..., 2]) and np.array_equal(made[..., [5, 1]], data[..., [5, 1]])
    assert np.array_equal(np.load(tmp_path / "a.npy"), data)
    monkeypatch.setattr(frames, "SLAB_BYTES", 4 * 4 * 5 * 6 * 3)  # slabs of three, three and one
    lows = []

    def step(slab: np.ndarray, low: int) -> np.ndarray:
        lows.append((low, slab.shape[2]))
        return slab[..., ::-1] + np.float32(low)

    out = made.by_voxel(tmp_path / "b.npy", step)
    truth = data[..., ::-1] + np.repeat(np.float32([0, 3, 6]), [3, 3, 1])[None, None, :, None]
    assert lows == [(0, 3), (3, 3), (6, 1)] and np.array_equal(np.load(out.path), truth)
    with pytest.raises(IndexError):
        made[..., 6]


def test_loading_scales_and_clears_as_the_whole_image_would(tmp_path: Path) -> None:
    data = np.random.default_rng(2).normal(500, 100, (5, 6, 4, 12))
    data[1, 2, 3, 4] = np.nan
    image = nibabel.Nifti1Image(data, FUNC.affine)
    image.header.set_data_dtype("float64")
    nibabel.save(image, tmp_path / "a.nii.gz")
    frames, grid = prepare.load(tmp_path / "a.nii.gz", tmp_path / "a.npy")
    assert np.array_equal(np.load(frames.path), np.nan_to_num(data).astype(np.float32))
    assert grid.shape == (5, 6, 4) and np.allclose(grid.affine, FUNC.affine, atol=1e-4)
    plain = tmp_path / "short.nii"
    plain.write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[:-100])
    from boldmill.errors import DataFault

    with pytest.raises(DataFault, match="broken"):
        prepare.load(plain, tmp_path / "b.npy")
