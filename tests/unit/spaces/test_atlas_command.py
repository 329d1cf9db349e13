from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldmill.config.load import parse
from boldmill.stages import stage_json


def _template(folder: Path, space: str) -> Path:
    folder.mkdir(parents=True)
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = [-90, -126, -72]
    nib.save(nib.Nifti1Image(np.ones((31, 37, 31), np.uint8), affine), folder / "mask.nii.gz")
    path = folder / "template.json"
    path.write_text(json.dumps({"space": space, "files": {"brain_mask": "mask.nii.gz"}}))
    return path


def _atlas(folder: Path, spaces: dict[str, Any], space: str, home: str = "") -> tuple[int, str, Path]:
    out = folder / "atlas" / "atlas.json"
    command = [sys.executable, "-m", "boldmill", "atlas", "--out", str(out)]
    if not (folder / "templates").exists():
        _template(folder / "templates", space)
    command += ["--template", str(folder / "templates" / "template.json")]
    command += ["--config-json", stage_json(parse({"spaces": {"resolution": 6.0, **spaces}}), "atlas")]
    env = {**os.environ, **({"TEMPLATEFLOW_HOME": home} if home else {})}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, out


EMBEDDED = {"atlas_source": "embedded"}


def test_the_embedded_atlas_bears_its_own_name_and_lists_its_moves(tmp_path: Path) -> None:
    code, error, out = _atlas(tmp_path, EMBEDDED, "MNI152NLin2009aSym")
    assert code == 0, error
    manifest = json.loads(out.read_text())
    assert manifest["atlas"] == "Schaefer2018embedded" and manifest["n_parcels"] == 100
    assert [(m["from"], m["to"]) for m in manifest["moves"]] == [
        ("MNI152NLin6Asym", "MNI152NLin2009aSym"),
        ("MNI305", "MNI152NLin6Asym"),
    ]
    for mesh in ("fsaverage5", "fsLR"):
        assert manifest["agreement"]["volume_on_surface"][mesh]["agreement"] > 0.85
    assert manifest["smallest_parcel"]["voxels"] > 0
    volume: Any = nib.load(out.parent / manifest["files"]["volume"])
    assert len(np.unique(np.asarray(volume.dataobj))) == 101
    labels: Any = nib.load(out.parent / manifest["files"]["fsaverage5_rh"])
    assert set(np.unique(labels.agg_data())) == {0, *range(51, 101)}
    assert labels.labeltable.get_labels_as_dict()[100] == "RH_Default_pCunPCC_2"
    assert (out.parent / "atlas.json.prov.json").is_file()


def test_the_bytes_do_not_depend_on_when_or_where(tmp_path: Path) -> None:
    first, second = (_atlas(tmp_path / name, EMBEDDED, "MNI152NLin6Asym")[2] for name in "ab")
    for path in first.parent.iterdir():
        if not path.name.endswith(".prov.json"):
            assert path.read_bytes() == (second.parent / path.name).read_bytes(), path.name


@pytest.mark.data
def test_templateflow_volume_with_labels_along_the_sphere(tmp_path: Path, data: Path) -> None:
    home = str(data / "templateflow")
    code, error, out = _atlas(tmp_path, {"surface_source": "templateflow"}, "MNI152NLin6Asym", home)
    assert code == 0, error
    manifest = json.loads(out.read_text())
    assert manifest["atlas"] == "Schaefer2018 100Parcels7Networks"
    assert "sphere" in manifest["surfaces"]["fsaverage5"]["how"] and "res-02" in manifest["source"]
    for mesh in ("fsaverage5", "fsLR"):
        assert manifest["agreement"]["volume_on_surface"][mesh]["agreement"] > 0.8  # 6 mm voxels
    # the volume on the coarse grid is the published one at the nearest voxel
    published: Any = nib.load(next((data / "templateflow/tpl-MNI152NLin6Asym").glob("*dseg.nii.gz")))
    ours: Any = nib.load(out.parent / manifest["files"]["volume"])
    rng = np.random.default_rng(0)
    index = np.argwhere(np.asarray(ours.dataobj) >= 0)
    for voxel in index[rng.integers(0, len(index), 200)]:
        there = np.rint(np.linalg.inv(published.affine) @ ours.affine @ [*voxel, 1])[:3].astype(int)
        inside = all(0 <= a < n for a, n in zip(there, published.shape, strict=True))
        assert ours.dataobj[tuple(voxel)] == (published.dataobj[tuple(there)] if inside else 0)


def test_no_fall_back_a_missing_source_stops_by_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "tpl-MNI152NLin6Asym").mkdir(parents=True)
    code, error, out = _atlas(tmp_path, {}, "MNI152NLin6Asym", str(home))
    assert code == 1 and "Schaefer2018" in error and "snakemake fetch" in error and not out.exists()


def test_an_embedded_variant_that_is_not_there_is_refused(tmp_path: Path) -> None:
    code, error, _ = _atlas(tmp_path, {**EMBEDDED, "atlas_desc": "400Parcels7Networks"}, "MNI152NLin6Asym")
    assert code == 2 and "400Parcels7Networks" in error and "templateflow" in error


ROWS = "index\tname\n1\tLeft-One\n2\tRight-Two\n"


def _flow(home: Path, stem: str, table: str, values: Any, suffix: str = "dseg") -> str:
    """Write an atlas of boxes into a TemplateFlow folder: its volume under ``stem``, its labels under ``table``."""
    folder = home / "tpl-MNI152NLin6Asym"
    folder.mkdir(parents=True)
    (folder / "template_description.json").write_text('{"Name": "x", "Identifier": "MNI152NLin6Asym"}')
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = [-90, -126, -72]
    nib.save(nib.Nifti1Image(values, affine), folder / f"tpl-MNI152NLin6Asym_res-02_{stem}_{suffix}.nii.gz")
    (folder / f"tpl-MNI152NLin6Asym_{table}.tsv").write_text(ROWS)
    return str(home)


def _boxes(*more: int) -> Any:
    values = np.random.default_rng(0).integers(0, 2, (31, 37, 31, *more)).astype(np.int16)  # no file under 400 bytes
    values[16:] = 2
    return values


def test_thresholds_of_one_atlas_share_a_table_without_desc(tmp_path: Path) -> None:
    home = _flow(tmp_path / "home", "atlas-HOCPA_desc-th25", "atlas-HOCPA_dseg", _boxes())
    code, error, out = _atlas(tmp_path, {"atlas": "HOCPA", "atlas_desc": "th25"}, "MNI152NLin6Asym", home)
    assert code == 0, error
    assert json.loads(out.read_text())["n_parcels"] == 2


@pytest.mark.parametrize(
    ("suffix", "values", "said"), [("probseg", _boxes(), "probabilities"), ("dseg", _boxes(2), "label volume")]
)
def test_an_atlas_without_a_label_volume_is_refused_in_one_line(
    tmp_path: Path, suffix: str, values: Any, said: str
) -> None:
    home = _flow(tmp_path / "home", "atlas-X", "atlas-X_dseg", values, suffix)
    code, error, out = _atlas(tmp_path, {"atlas": "X", "atlas_desc": ""}, "MNI152NLin6Asym", home)
    assert code == 2 and said in error and len(error.strip().splitlines()) == 1 and not out.exists()
