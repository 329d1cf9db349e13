"""Head templates: contrast, closed mask, priors, sources that stop by name."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.config.load import parse
from boldmill.errors import ConfigError, MachineFault
from boldmill.preprocess.images import Grid, Volume, read_volume, write_volume
from boldmill.spaces import templates, templates_command
from boldmill.spaces.config import SpacesConfig
from boldmill.spaces.templates import Template, _tissue, check_contrast, from_demo, load_template
from boldmill.stages import stage_json

GRID = Grid((20, 20, 20), np.diag([4.0, 4, 4, 1]))


def ball(radius: float) -> np.ndarray:
    x = np.indices(GRID.shape) - 9.5
    return np.asarray((x**2).sum(axis=0) < radius**2)


def template(wm: float = 100, gm: float = 60, csf: float = 20) -> dict[str, Volume]:
    white, brain, all_ = ball(4), ball(6), ball(8)
    head = np.where(white, wm, np.where(brain, gm, np.where(all_, csf, 5.0)))
    parts = {"head": head, "brain_mask": all_, "gm": brain & ~white, "wm": white, "csf": all_ & ~brain}
    return {key: Volume(data.astype(np.float32), GRID.affine) for key, data in parts.items()}


def demo_folder(folder: Path, volumes: dict[str, Volume], space: str = "MNI152NLin2009aSym") -> SpacesConfig:
    files = {key: f"{key}.nii.gz" for key in volumes}
    for key, volume in volumes.items():
        write_volume(folder / files[key], volume.data, volume.affine)
    write_json(folder / "template.json", {"space": space, "files": files})
    return SpacesConfig(template_source="demo", template="MNI152NLin2009aSym", demo_template=str(folder))


def test_demo_source(tmp_path: Path) -> None:
    found = load_template(demo_folder(tmp_path, template()))
    assert (found.space, found.source) == ("MNI152NLin2009aSym", "demo")
    np.testing.assert_array_equal(found.mask.data > 0, ball(8))


def test_t2_contrast_is_refused(tmp_path: Path) -> None:
    config = demo_folder(tmp_path, template(wm=30, gm=60, csf=120))
    with pytest.raises(ConfigError, match=r"WM 30.*GM 60.*CSF 120.*T1-weighted"):
        load_template(config)


def test_demo_source_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"spaces\.template: MNI152NLin6Asym"):
        from_demo(demo_folder(tmp_path, template(), space="MNI152NLin6Asym"))
    config = demo_folder(tmp_path, template())
    (tmp_path / "gm.nii.gz").unlink()
    with pytest.raises(ConfigError, match=r"gm\.nii\.gz.*boldmill demo-data"):
        from_demo(config)


def test_demo_images_must_share_a_grid(tmp_path: Path) -> None:
    config = demo_folder(tmp_path, template())
    write_volume(tmp_path / "wm.nii.gz", template()["wm"].data[1:], GRID.affine)
    with pytest.raises(ConfigError, match="grid"):
        from_demo(config)


def test_tissue_sums_to_one_in_the_mask_and_zero_outside() -> None:
    rng = np.random.default_rng(0)
    gm, wm = (Volume(rng.random(GRID.shape).astype(np.float32), GRID.affine) for _ in range(2))
    mask = Volume(ball(8).astype(np.float32), GRID.affine)
    found = _tissue(mask, gm, wm)
    total = sum(found[key].data for key in ("gm", "wm", "csf"))
    np.testing.assert_allclose(total[ball(8)], 1, atol=1e-6)
    assert (np.asarray(total)[~ball(8)] == 0).all()
    assert min(float(found[key].data.min()) for key in found) >= 0


def test_contrast_needs_every_tissue() -> None:
    volumes = template()
    volumes["csf"] = volumes["csf"].like(np.zeros(GRID.shape, np.float32))
    made = Template(
        space="X", source="demo", head=volumes["head"], mask=volumes["brain_mask"], gm=volumes["gm"],
        wm=volumes["wm"], csf=volumes["csf"], inputs=[],
    )  # fmt: skip
    with pytest.raises(ConfigError):
        check_contrast(made)


def call(out: Path, **spaces: Any) -> int:
    parser = argparse.ArgumentParser()
    templates_command.add_arguments(parser)
    text = stage_json(parse({"spaces": spaces}), "templates")
    return templates_command.run(parser.parse_args(["--out", str(out), "--config-json", text]))


def test_command_writes_manifest_and_provenance(tmp_path: Path) -> None:
    config = demo_folder(tmp_path / "demo", template())
    values = config.model_dump()
    out = tmp_path / "templates" / "template.json"
    assert call(out, **values) == 0
    manifest = read_json(out)
    assert set(manifest["files"]) == {"head", "brain_mask", "gm", "wm", "csf"}
    for key, name in manifest["files"].items():
        assert sha256_file(out.parent / name) == manifest["sha256"][key]
    record = read_json(Path(f"{out}.prov.json"))
    assert len(record["inputs"]) == 6
    assert len(record["outputs"]) == 6
    first = {name: (out.parent / name).read_bytes() for name in manifest["files"].values()}
    assert call(out, **values) == 0
    assert {name: (out.parent / name).read_bytes() for name in first} == first


def data_root() -> Path:
    root = Path(os.environ.get("BOLDMILL_TEST_DATA", "../shared/data"))
    if not root.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"real test data are missing at {root}")
        pytest.skip(f"no real test data at {root} (BOLDMILL_TEST_DATA)")
    return root.resolve()


@pytest.mark.data
def test_templateflow_mask_has_its_ventricles_and_priors_follow_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(data_root() / "templateflow"))
    monkeypatch.setattr(templates, "PRIOR_ITERATIONS", (40, 15, 0))  # a quarter of the cost
    out = tmp_path / "template.json"
    assert call(out) == 0
    manifest = read_json(out)
    assert manifest["brain_mask_ml"] == pytest.approx(1854, rel=0.005)
    mask = read_volume(out.parent / manifest["files"]["brain_mask"])
    index = np.rint(np.linalg.inv(mask.affine) @ [8, 10, 14, 1]).astype(int)  # in the right lateral ventricle
    assert mask.data[tuple(index[:3])] == 1
    move = manifest["moves"][0]
    assert (move["from"], move["to"]) == ("MNI152NLin2009aSym", "MNI152NLin6Asym")
    read = {Path(item["path"]).name for item in read_json(Path(f"{out}.prov.json"))["inputs"]}
    assert {f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz" for kind in ("t1", "gm", "wm")} < read
    assert move["correlation"] > 0.88 > move["correlation_before"]
    assert 1.5 < move["mean_shift_mm"] < 3.5


def test_a_missing_templateflow_file_stops_with_the_command_that_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tf" / "tpl-MNI152NLin6Asym" / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "tf"))
    with pytest.raises(MachineFault, match=r"T1w.*snakemake fetch"):
        call(tmp_path / "template.json")
    assert path.stat().st_size == 0  # nothing was downloaded


@pytest.mark.data
def test_a_further_template_is_listed_with_its_brain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(data_root() / "templateflow"))
    config = demo_folder(tmp_path / "demo", template())
    parser = argparse.ArgumentParser()
    templates_command.add_arguments(parser)
    values = {"spaces": config.model_dump(), "preprocess": {"output_spaces": ["MNI152NLin2009cAsym:res-2", "boldref"]}}
    out = tmp_path / "templates" / "template.json"
    text = stage_json(parse(values), "templates")
    assert templates_command.run(parser.parse_args(["--out", str(out), "--config-json", text])) == 0
    entry = read_json(out)["others"]["MNI152NLin2009cAsym"]
    brain, mask = (read_volume(out.parent / entry["files"][key]) for key in ("brain", "brain_mask"))
    assert brain.grid.same_as(mask.grid)
    np.testing.assert_allclose(brain.grid.zooms, 2.0, atol=1e-3)
    assert 1800 < mask.data.sum() * mask.grid.voxel_ml < 2100
    assert not brain.data[mask.data == 0].any()
    assert sha256_file(out.parent / entry["files"]["brain"]) == entry["sha256"]["brain"]
