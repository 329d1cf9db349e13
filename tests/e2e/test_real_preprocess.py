"""One real subject through the commands, against the figures of the design trial (under a minute on one core).

The subject (pumi 001) has a strongly oblique BOLD run of 20 volumes, 26 mm away from its T1w in the headers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from boldmill.config.load import parse
from boldmill.stages import stage_json

pytestmark = [pytest.mark.e2e, pytest.mark.data]

SCAN = "pumi_sub-001_task-rest"
SHORT = {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ingest, templates, atlas and preprocess ran on the real subject."""
    project = Path(__file__).resolve().parents[2]
    data = Path(os.environ.get("BOLDMILL_TEST_DATA") or project.parent / "shared" / "data")
    if not (data / "bids" / "pumi").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"real test data are missing at {data} (set BOLDMILL_TEST_DATA)")
        pytest.skip(f"no real test data at {data} (set BOLDMILL_TEST_DATA)")
    folder = tmp_path_factory.mktemp("real")
    root = str((data / "bids" / "pumi").resolve())
    config = parse({
        "datasets": [{"name": "pumi", "root": root, "overrides": {"clean": SHORT}}], "spaces": {"resolution": 3.0}
    })  # fmt: skip
    environment = {**os.environ, "TEMPLATEFLOW_HOME": str((data / "templateflow").resolve()), "OMP_NUM_THREADS": "1"}

    def call(stage: str, *words: str, dataset: str | None = None) -> None:
        command = [sys.executable, "-m", "boldmill", stage, *words, "--config-json", stage_json(config, stage, dataset)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]

    template, results = "results/templates/template.json", ("--results", "results")
    call("ingest", *results)
    call("templates", "--out", template)
    call("atlas", "--template", template, "--out", "results/atlas/schaefer/atlas.json")
    ticket = f"results/index/tickets/{SCAN}.json"
    out = "results/preprocess/pumi/sub-001.json"
    call("preprocess", "--tickets", ticket, "--template", template, *results, "--out", out, dataset="pumi")
    return folder


@pytest.fixture(scope="module")
def manifest(real: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((real / "results/preprocess/pumi/sub-001.json").read_text())
    assert found["scans"][SCAN]["status"] == "ok", found["scans"][SCAN]
    return found


def test_anatomy(manifest: dict[str, Any]) -> None:
    """Mask and folds as in the trial; the correlation after the warp is .849, the trial's .816 +- .02.

    Ours is measured inside the closed and filled template mask; inside TemplateFlow's own mask it is .840 (measured).
    The other .024 are not explained: the trial's figure is a floor here, ours is what must not move.
    """
    qc = manifest["anat"]["qc"]
    assert qc["mask_ml"] == pytest.approx(1375, rel=0.03)
    assert qc["template_correlation"] > 0.816
    assert qc["template_correlation"] == pytest.approx(0.849, abs=0.01)
    assert qc["template_correlation"] - qc["template_correlation_affine"] > 0.08
    assert qc["template_mask_dice"] > 0.985
    assert qc["folded_voxels"] == 0
    assert 0.1 < qc["jacobian_min"] < 0.5 and 2 < qc["jacobian_max"] < 6
    assert 100 < qc["csf_ml"] < 350 and 600 < qc["gm_ml"] < 850 and 380 < qc["wm_ml"] < 560
    assert manifest["anat"]["flags"] == [] and manifest["anat"]["engines"]["normalise"].startswith("boldmill: ")


def test_coregistration(manifest: dict[str, Any]) -> None:
    qc = manifest["scans"][SCAN]["qc"]
    assert qc["coreg_method"] == "boundary"
    assert qc["bbr_cost"] == pytest.approx(0.777, abs=0.03)
    assert qc["coreg_from_header_mm"] == pytest.approx(25.9, abs=1.0)


def test_motion(manifest: dict[str, Any]) -> None:
    assert manifest["scans"][SCAN]["qc"]["mean_fd"] == pytest.approx(0.159, abs=0.02)


def test_every_parcel_is_covered_by_half(real: Path, manifest: dict[str, Any]) -> None:
    mask = np.asarray(nibabel.load(real / "results" / manifest["scans"][SCAN]["files"]["mask"]).dataobj) > 0
    labels = np.asarray(nibabel.load(real / "results/atlas/schaefer/dseg.nii.gz").dataobj).astype(int)
    assert labels.shape == mask.shape
    share = np.bincount(labels[mask], minlength=101)[1:] / np.bincount(labels.ravel(), minlength=101)[1:]
    assert len(share) == 100
    assert (share >= 0.5).sum() >= 99


def test_nothing_is_left_in_the_working_directory(real: Path) -> None:
    """nipype's crash files, logs and scratch folders."""
    assert [path.name for path in real.iterdir()] == ["results"]
    assert not (real / "results" / "work").exists()
