"""The three stages on a small results tree: 6 mm voxels, one volume run, the real surface run, one broken run."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.paths import Layout
from boldmill.spaces.packages import package_file
from boldmill.stages import Settings, stage_json

VOLUMES = 40
ATLAS = "Schaefer2018embedded"
DATA = (".gii", ".gii.gz", ".csv", ".mgz", ".nii.gz", ".npz", "-skel.zip", ".tsv", "-000.json", "sub-01.json")
OPENED: list[set[str]] = []
READ: dict[str, set[str]] = {}
TREE = "derivatives/demo"


def _config(stage: str) -> str:
    spaces = {"atlas_source": "embedded", "resolution": 6.0, "flat": "fsaverage5"}
    return stage_json(parse({"spaces": spaces, "flatmap": {"movie_frames": 3}}), stage)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED and event == "open" and isinstance(arguments[0], str | os.PathLike) and arguments[1] in ("r", "rb"):
        OPENED[-1].add(os.fspath(arguments[0]))


sys.addaudithook(_hook)


@contextmanager
def _watched(command: str) -> Iterator[None]:
    """Note which data files a command opens, until the block ends; a setting its stage does not track is not there."""
    patch = pytest.MonkeyPatch()
    section = Settings.section

    def tracked(self: Settings, key: str, kind: Any, dataset: str | None = None) -> Any:
        found = section(self, key, kind, dataset)
        for name in set(kind.model_fields) - set(self.raw(key)):
            del found.__dict__[name]
        return found

    patch.setattr(Settings, "section", tracked)
    OPENED.append(set())
    yield
    patch.undo()
    READ[command] = {str(Path(p).resolve()) for p in OPENED.pop() if p.endswith(DATA) and "/.tmp-" not in p}


def _save(path: Path, data: np.ndarray, affine: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), path)
    return f"{TREE}/{path.name}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    (root / "templates").mkdir()
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = [-90, -126, -72]
    nib.save(nib.Nifti1Image(np.ones((31, 37, 31), np.uint8), affine), root / "templates/mask.nii.gz")
    template = root / "templates/template.json"
    template.write_text(json.dumps({"space": "MNI152NLin6Asym", "files": {"brain_mask": "mask.nii.gz"}}))
    layout = Layout.at(root)
    atlas = layout.atlas(ATLAS)
    with _watched("atlas"):
        words = ["--template", str(template), "--out", str(atlas), "--config-json", _config("atlas")]
        assert main(["atlas", *words]) == 0
    operators = {"parcels": f"parcels-{ATLAS}", "ribbon": "ribbon", "flat": "flat", "meshes": "meshes"}
    for what, name in operators.items():
        with _watched(f"operators {what}"):
            words = ["operators", what, "--template", str(template), "--atlas", str(atlas)]
            words += ["--out", str(layout.operator(name)), "--config-json", _config(f"operator_{what}")]
            assert main(words) == 0
    subject = _subject(root, affine)
    words = ["--subjects", str(subject), "--results", str(root)]
    for stage, names in (("parcellate", [operators["parcels"]]), ("flatmap", ["ribbon", "flat", "meshes"])):
        more = ["--operators", *(str(layout.operator(name)) for name in names)]
        more += ["--out", str(root / stage / "bucket-000.json"), "--config-json", _config(stage)]
        with _watched(stage):
            assert main([stage, *words, *more]) == 0
    return root


def _subject(root: Path, affine: np.ndarray) -> Path:
    image: Any = nib.load(root / f"atlas/{ATLAS}/dseg.nii.gz")
    labels = np.asarray(image.dataobj)
    folder = root / TREE
    folder.mkdir(parents=True)
    signals = np.random.default_rng(0).standard_normal((101, VOLUMES))
    np.save(root / "truth.npy", signals)
    data = signals[labels] * 10
    mask = np.ones(labels.shape)
    mask[labels == 7] = 0  # outside the field of view
    broken = data.copy()
    broken[labels == 3, 5] = np.inf
    files = {"clean": _save(folder / "clean.nii.gz", data, affine), "mask": _save(folder / "mask.nii.gz", mask, affine)}
    bad = {**files, "clean": _save(folder / "broken.nii.gz", broken, affine)}
    surface = {}
    for side in "lr":
        name = f"sub-010188_ses-02_task-rest_acq-AP_run-01.fsa5.{side}h.mgz"
        run: Any = nib.load(package_file("brainspace", f"datasets/preprocessing/{name}"))
        series = np.asarray(run.dataobj, np.float32).reshape(10242, -1)[:, :60]
        arrays = [nib.gifti.GiftiDataArray(np.ascontiguousarray(v), datatype="NIFTI_TYPE_FLOAT32") for v in series.T]
        nib.save(nib.gifti.GiftiImage(darrays=arrays), folder / f"clean_{side}h.func.gii")
        surface[f"clean_{side}h"] = f"{TREE}/clean_{side}h.func.gii"
    tissue = {
        "gm": 0.7 * (labels > 0),
        "wm": np.where(labels > 0, 0.2, 1.0),
        "csf": 0.1 * (labels > 0),
        "jacobian": np.full(labels.shape, 1.2),
        "t1w_template": np.where(labels > 0, 80.0, 100.0),
    }
    anat = {"status": "ok", "files": {k: _save(folder / f"{k}.nii.gz", v, affine) for k, v in tissue.items()}}
    scans = {
        "demo_sub-01_task-rest": {"status": "ok", "kind": "volume", "tr": 2.0, "files": files},
        "demo_sub-01_task-bad": {"status": "ok", "kind": "volume", "tr": 2.0, "files": bad},
        "demo_sub-01_task-surface": {"status": "ok", "kind": "surface", "tr": 1.4, "files": surface},
        "demo_sub-01_T1w": {"status": "ok", "kind": "anat", "files": {}},
        "demo_sub-01_task-refused": {"status": "quarantined", "kind": "volume", "reason": "r", "fix": "f"},
    }
    path = root / "preprocess/demo/sub-01.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schema": 1, "dataset": "demo", "subject": "01", "anat": anat, "scans": scans}))
    return path


def _bucket(results: Path, stage: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((results / stage / "bucket-000.json").read_text())
    return manifest


def test_operators_carry_their_grid_and_hashes(results: Path) -> None:
    found = {p.stem: json.loads(p.read_text()) for p in (results / "operators").glob("*.json") if ".prov" not in p.name}
    assert set(found) == {f"parcels-{ATLAS}", "ribbon", "flat", "meshes"}
    assert found["flat"]["flat"]["name"] == "fsaverage5-flat-224x560"
    with np.load(results / "operators/flat_mask.npz", allow_pickle=False) as stored:
        packed = np.packbits(stored["mask"]).tobytes()
    assert hashlib.sha256(packed).hexdigest() == found["flat"]["flat"]["mask_sha256"]
    assert set(found[f"parcels-{ATLAS}"]["operators"]) == {"volume", "fsaverage5", "fsLR"}
    for manifest in found.values():
        for entry in manifest["operators"].values():
            content = (results / "operators" / entry["file"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert [(m["from"], m["to"]) for m in found["ribbon"]["moves"]] == [("MNI305", "MNI152NLin6Asym")]
    assert found["ribbon"]["grid"] == found[f"parcels-{ATLAS}"]["grid"]


def test_parcel_series_are_the_planted_signals(results: Path) -> None:
    manifest = _bucket(results, "parcellate")
    scan = manifest["scans"]["demo_sub-01_task-rest"]["atlases"]["Schaefer2018embedded"]
    assert scan["files"]["timeseries"].endswith("task-rest_atlas-Schaefer2018embedded_timeseries.tsv")
    lines = (results / scan["files"]["timeseries"]).read_text().splitlines()
    assert len(lines) == VOLUMES + 1 and lines[0].split("\t") == manifest["atlases"]["Schaefer2018embedded"]["parcels"]
    assert manifest["configured"] == ["Schaefer2018embedded"] and lines[0].startswith("LH_Vis_1\t")
    values = np.array([[np.nan if v == "n/a" else float(v) for v in line.split("\t")] for line in lines[1:]])
    truth = np.load(results / "truth.npy")[1:].T * 10
    assert np.isnan(values[:, 6]).all() and scan["qc"]["n_parcels_missing"] == 1
    keep = np.arange(100) != 6
    assert np.abs(values[:, keep] - truth[:, keep]).max() < 1e-4


def test_manifests_say_what_the_files_they_name_are(results: Path) -> None:
    """Snakemake takes a manifest of the same bytes for unchanged, however new it is."""

    def sha(path: str | Path) -> str:
        return hashlib.sha256((results / path).read_bytes()).hexdigest()

    parcels, flat = _bucket(results, "parcellate"), _bucket(results, "flatmap")
    good = [scan for scan in parcels["scans"].values() if scan["status"] == "ok"]
    for entry in (one for scan in good for one in scan["atlases"].values()):
        assert entry["sha256"] == {key: sha(path) for key, path in entry["files"].items()} and len(entry["files"]) == 2
    for person in parcels["subjects"].values():
        assert person["sha256"] == sha(person["morphometry"])
    for scan in flat["scans"].values():
        if scan["status"] == "ok":
            assert scan["sha256"] == {key: sha(scan["files"][key]) for key in ("still", "movie")}
    atlas = results / "atlas" / ATLAS
    manifest = json.loads((atlas / "atlas.json").read_text())
    assert manifest["sha256"] == {key: sha(atlas / name) for key, name in manifest["files"].items()}


def test_only_the_broken_scan_is_quarantined_and_the_job_succeeds(results: Path) -> None:
    for stage in ("parcellate", "flatmap"):
        scans = _bucket(results, stage)["scans"]
        status = {name.split("task-")[1]: scan["status"] for name, scan in scans.items()}
        assert status == {"rest": "ok", "surface": "ok", "bad": "quarantined"}
        assert scans["demo_sub-01_task-bad"]["stage"] == stage
        assert "volume 5" in scans["demo_sub-01_task-bad"]["reason"] and scans["demo_sub-01_task-bad"]["fix"]


def test_flat_maps_are_finite_vary_everywhere_and_follow_the_parcels(results: Path) -> None:
    manifest = _bucket(results, "flatmap")
    for name, n_frames in (("rest", 79), ("surface", 83)):
        scan = manifest["scans"][f"demo_sub-01_task-{name}"]
        assert scan["n_frames"] == n_frames and scan["tr"] == 1.0 and scan["qc"]["pixels_constant"] == 0
        with np.load(results / scan["files"]["frames"], allow_pickle=False) as stored:
            frames, mask = stored["frames"].astype(np.float32), stored["mask"]
            assert stored["frames"].dtype == np.float16 and float(stored["tr"]) == 1.0
        assert frames.shape == (n_frames, manifest["grid"]["n_pixels"]) and int(mask.sum()) == frames.shape[1]
        assert np.isfinite(frames).all() and frames.std(0).min() > 0.1
        for key in ("still", "movie"):
            assert (results / scan["files"][key]).stat().st_size > 1000
    # the pixels of one parcel carry its planted signal
    labels: Any = nib.load(results / f"atlas/{ATLAS}/fsaverage5.rh.label.gii")
    vertices = np.concatenate([np.zeros(10242, int), labels.agg_data()])
    with np.load(results / "operators/flat.npz", allow_pickle=False) as stored:
        from scipy.sparse import csr_array

        flat = csr_array((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
    scan = manifest["scans"]["demo_sub-01_task-rest"]
    with np.load(results / scan["files"]["frames"], allow_pickle=False) as stored:
        frames = stored["frames"].astype(np.float32)
    truth = np.load(results / "truth.npy")
    found = [np.corrcoef(frames[::2][:, flat @ (vertices == k) > 0.99].mean(1), truth[k])[0, 1] for k in (55, 70, 95)]
    assert min(found) > 0.8


def test_morphometry_is_written_per_subject(results: Path) -> None:
    entry = _bucket(results, "parcellate")["subjects"]["demo/01"]
    lines = (results / entry["morphometry"]).read_text().splitlines()
    assert len(lines) == 101 and len(lines[0].split("\t")) == 10
    row = dict(zip(lines[0].split("\t"), lines[1].split("\t"), strict=True))
    assert float(row["gm_mean"]) == pytest.approx(0.7) and float(row["t1w_mean"]) == pytest.approx(0.8)


def test_everything_written_is_in_the_provenance_record(results: Path) -> None:
    for stage in ("atlas", "operators", "parcellate", "flatmap"):
        records = [json.loads(path.read_text()) for path in sorted((results / stage).rglob("*.json.prov.json"))]
        recorded = {Path(o["path"]).name for record in records for o in record["outputs"]}
        written = {p.name for p in (results / stage).rglob("*") if p.is_file() and not p.name.endswith(".prov.json")}
        assert recorded == written
        record = records[0]
        if stage in ("parcellate", "flatmap"):
            assert {"clean.nii.gz", "clean_lh.func.gii"} <= {Path(i["path"]).name for i in record["inputs"]}


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("atlas", f"atlas/{ATLAS}/atlas.json"),
        ("operators parcels", f"operators/parcels-{ATLAS}.json"),
        ("operators ribbon", "operators/ribbon.json"),
        ("operators flat", "operators/flat.json"),
        ("operators meshes", "operators/meshes.json"),
        ("parcellate", "parcellate/bucket-000.json"),
        ("flatmap", "flatmap/bucket-000.json"),
    ],
)
def test_every_data_file_a_command_opens_is_in_its_record(results: Path, command: str, out: str) -> None:
    record = json.loads((results / f"{out}.prov.json").read_text())
    known = {str(Path(item["path"]).resolve()) for item in [*record["inputs"], *record["outputs"]]}
    assert READ[command] or command == "operators meshes", command
    assert READ[command] - known == set()
