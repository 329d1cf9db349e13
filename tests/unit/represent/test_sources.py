"""The same planted signals from a volume, from fsLR and from fsaverage5: the same parcels and the same flat map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.errors import EXIT_FAILURE
from boldmill.paths import Layout
from boldmill.represent.operators import load_operator
from boldmill.spaces import meshes
from boldmill.stages import stage_json

pytestmark = pytest.mark.data
ATLAS, VOLUMES, TREE = "Schaefer2018embedded", 40, "derivatives/demo"
SOURCES = ("volume", "fsLR", "fsaverage5")


def _config(stage: str, flat: str = "rebuilt") -> str:
    spaces = {"atlas_source": "embedded", "resolution": 4.0, "flat": flat}
    return stage_json(parse({"spaces": spaces, "flatmap": {"movie_frames": 0}}), stage)


def _call(*words: str) -> None:
    assert main(list(words)) == 0, words


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    root = tmp_path_factory.mktemp("sources")
    layout = Layout.at(root)
    folder = data / "templateflow" / "tpl-fsLR"
    paths = [folder / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii" for side in "LR"]
    patch = pytest.MonkeyPatch()
    patch.setattr(meshes, "sphere_files", lambda: paths)
    template = root / "templates/template.json"
    template.parent.mkdir()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-92, -128, -72]
    nib.save(nib.Nifti1Image(np.ones((47, 56, 48), np.uint8), affine), template.with_name("mask.nii.gz"))
    template.write_text(json.dumps({"space": "MNI152NLin6Asym", "files": {"brain_mask": "mask.nii.gz"}}))
    atlas = str(layout.atlas(ATLAS))
    _call("atlas", "--template", str(template), "--out", atlas, "--config-json", _config("atlas"))
    for what, name in (("parcels", f"parcels-{ATLAS}"), ("ribbon", "ribbon"), ("flat", "flat"), ("meshes", "meshes")):
        words = ["operators", what, "--atlas", atlas, "--template", str(template), "--out", str(layout.operator(name))]
        _call(*words, "--config-json", _config(f"operator_{what}"))
    patch.undo()
    subject = _subject(root)
    words = ["--subjects", str(subject), "--results", str(root), "--operators"]
    for stage, names in (("parcellate", [f"parcels-{ATLAS}"]), ("flatmap", ["ribbon", "flat", "meshes"])):
        more = [*(str(layout.operator(name)) for name in names), "--out", str(root / stage / "bucket-000.json")]
        _call(stage, *words, *more, "--config-json", _config(stage))
    return root


def _subject(root: Path) -> Path:
    (root / TREE).mkdir(parents=True)
    signals = 10 * np.random.default_rng(0).standard_normal((101, VOLUMES)).astype(np.float32)
    signals[0] = 0
    np.save(root / "truth.npy", signals[1:])
    load: Any = nib.load
    image = load(root / f"atlas/{ATLAS}/dseg.nii.gz")
    labels = np.asarray(image.dataobj)
    entries: dict[str, Any] = {}
    files = {"clean": f"{TREE}/clean.nii.gz", "mask": f"{TREE}/mask.nii.gz"}
    nib.save(nib.Nifti1Image(signals[labels], image.affine), root / files["clean"])
    nib.save(nib.Nifti1Image((labels > 0).astype(np.uint8), image.affine), root / files["mask"])
    entries["demo_sub-01_task-volume"] = {"kind": "volume", "space": "MNI152NLin6Asym", "files": files}
    for mesh in ("fsLR", "fsaverage5"):
        files = {}
        for side in "lr":
            series = signals[load(root / f"atlas/{ATLAS}/{mesh}.{side}h.label.gii").agg_data()]
            arrays = [
                nib.gifti.GiftiDataArray(v, datatype="NIFTI_TYPE_FLOAT32") for v in np.ascontiguousarray(series.T)
            ]
            files[f"clean_{side}h"] = f"{TREE}/{mesh}_{side}h.func.gii"
            nib.save(nib.gifti.GiftiImage(darrays=arrays), root / files[f"clean_{side}h"])
        entries[f"demo_sub-01_task-{mesh}"] = {"kind": "surface", "space": mesh, "files": files}
    scans = {scan_id: {"status": "ok", "tr": 1.0, **entry} for scan_id, entry in entries.items()}
    anat = {"status": "absent"}
    path = root / "preprocess/demo/sub-01.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema": 1, "dataset": "demo", "subject": "01", "anat": anat, "scans": scans}))
    return path


def _scan(results: Path, stage: str, source: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((results / stage / "bucket-000.json").read_text())
    found: dict[str, Any] = manifest["scans"][f"demo_sub-01_task-{source}"]
    assert found["status"] == "ok", found
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_parcel_series_are_the_planted_ones(results: Path, source: str) -> None:
    entry = _scan(results, "parcellate", source)["atlases"][ATLAS]
    lines = (results / entry["files"]["timeseries"]).read_text().splitlines()[1:]
    values = np.array([[float(word) for word in line.split("\t")] for line in lines])
    assert np.abs(values - np.load(results / "truth.npy").T).max() < 1e-4
    assert entry["qc"]["coverage_min"] == 1


def _frames(results: Path, source: str) -> np.ndarray:
    entry = _scan(results, "flatmap", source)
    with np.load(results / entry["files"]["frames"], allow_pickle=False) as stored:
        frames: np.ndarray = stored["frames"].astype(np.float32)
    assert entry["qc"]["pixels_covered"] > 0.98
    return frames


@pytest.mark.parametrize("source", SOURCES)
def test_flat_maps_of_every_source_carry_them(results: Path, source: str) -> None:
    """Pixels well inside a parcel of fsLR's labels follow its signal."""
    load: Any = nib.load
    labels = np.concatenate([load(results / f"atlas/{ATLAS}/fsLR.{side}h.label.gii").agg_data() for side in "lr"])
    flat = load_operator(results / "operators/flat.npz")
    share = flat @ np.eye(101, dtype=np.float32)[labels]
    frames, truth = _frames(results, source), np.load(results / "truth.npy")
    assert frames.shape[1] == 77_653
    found = [np.corrcoef(frames[:, share[:, k + 1] > 0.99].mean(1), truth[k])[0, 1] for k in range(100)]
    assert min(found) > 0.8 and np.mean(found) > 0.97


def test_a_run_on_the_other_mesh_needs_the_spheres(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without them the operators say what is missing, and the job stops with that when a run asks for them."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TEMPLATEFLOW_HOME", "/nowhere")
    out = results / "other/meshes.json"
    _call("operators", "meshes", "--out", str(out), "--config-json", _config("operator_meshes", "fsaverage5"))
    patch.undo()
    manifest = json.loads(out.read_text())
    assert manifest["operators"] == {} and "sphere" in manifest["missing"]
    flat = results / "other/flat.json"
    _call("operators", "flat", "--out", str(flat), "--config-json", _config("operator_flat", "fsaverage5"))
    words = ["flatmap", "--subjects", str(results / "preprocess/demo/sub-01.json"), "--results", str(results)]
    words += ["--operators", str(results / "operators/ribbon.json"), str(flat), str(out)]
    words += ["--out", str(results / "other/bucket-000.json"), "--config-json", _config("flatmap", "fsaverage5")]
    capsys.readouterr()
    assert main(words) == EXIT_FAILURE
    said = capsys.readouterr().err
    assert "cannot carry fsLR to fsaverage5" in said and "snakemake fetch" in said


def test_operators_of_two_flat_surfaces_are_refused_together(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = results / "other/flat.json"
    _call("operators", "flat", "--out", str(flat), "--config-json", _config("operator_flat", "fsaverage5"))
    words = ["flatmap", "--subjects", str(results / "preprocess/demo/sub-01.json"), "--results", str(results)]
    words += ["--out", str(results / "other/bucket-000.json"), "--config-json", _config("flatmap", "fsaverage5")]
    for more in ([str(flat)], []):
        capsys.readouterr()
        assert main([*words, "--operators", str(results / "operators/ribbon.json"), *more]) == EXIT_FAILURE
        said = capsys.readouterr().err
        assert "missing operator" in said and "Traceback" not in said
