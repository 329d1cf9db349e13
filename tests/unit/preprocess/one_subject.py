"""A phantom subject with one T1w and two runs, and the command on it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import sha256_file, write_json
from boldmill.config.load import parse
from boldmill.preprocess import command
from boldmill.preprocess.images import Grid, write_volume
from boldmill.stages import stage_json

from . import phantom

COARSE = Grid((26, 31, 26), np.array([[7.0, 0, 0, -88], [0, 7, 0, -105], [0, 0, 7, -88], [0, 0, 0, 1]]))
N_VOLUMES = 24
FAST = {
    "spaces": {"resolution": 4.0, "template": "PHANTOM"},
    "preprocess": {"n4_iterations": [5], "head_syn_iterations": [6], "brain_syn_iterations": [6]},
    "clean": {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None, "min_dof_flag": 1},
    "datasets": [{"name": "ph", "root": "raw"}],
}


def settings(**clean: Any) -> str:
    given = json.loads(json.dumps(FAST))
    given["clean"].update(clean)
    return stage_json(parse(given), "preprocess", {"ph"})


def bold(path: Path, seed: int) -> None:
    part = phantom.parts(COARSE.points())
    still = 90 * part["csf"] + 70 * part["gm"] + 50 * part["wm"] + 15 * part["scalp"]
    rng = np.random.default_rng(seed)
    data = still[:, None] * (1 + 0.01 * rng.standard_normal((1, N_VOLUMES))) + rng.normal(0, 1, (len(still), N_VOLUMES))
    write_volume(path, data.reshape(*COARSE.shape, N_VOLUMES), COARSE.affine, tr=2.0)


def entry(root: Path, path: Path, **more: Any) -> dict[str, Any]:
    return {"path": path.relative_to(root).as_posix(), "size": path.stat().st_size, "sha256": sha256_file(path), **more}


def prepare(base: Path) -> Path:
    """Write the raw images, the template, and the ticket of the first run."""
    truth = phantom.rigid((4, 2, -3), (5, -8, 6), 1.03)
    folder = base / "raw" / "sub-01"
    head = phantom.moved(truth)
    write_volume(folder / "anat" / "sub-01_T1w.nii.gz", head.data, head.affine)
    for run in (1, 2):
        bold(folder / "func" / f"sub-01_task-rest_run-{run}_bold.nii.gz", run)
    files = {}
    for key, name in (("head", "t1w"), ("brain_mask", "brain"), ("gm", "gm"), ("wm", "wm"), ("csf", "csf")):
        volume = phantom.volume(name)
        data = volume.data > 0.5 if key == "brain_mask" else volume.data
        files[key] = f"{key}.nii.gz"
        write_volume(base / "results" / "templates" / files[key], data, volume.affine, template=True)
    write_json(
        base / "results" / "templates" / "template.json",
        {"space": "PHANTOM", "source": "demo", "files": files, "moves": []},
    )
    make_ticket(base, 1)
    return base


def make_ticket(base: Path, run: int) -> Path:
    root = base / "raw"
    image = root / "sub-01" / "func" / f"sub-01_task-rest_run-{run}_bold.nii.gz"
    t1w = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    scan = f"ph_sub-01_task-rest_run-{run}"
    ticket = {
        "schema": 1, "scan_id": scan, "dataset": "ph", "subject": "01", "session": "", "task": "rest", "run": str(run),
        "kind": "volume", "bucket": 0, "root": str(root),
        "entities": {"sub": "01", "task": "rest", "run": str(run)},
        "bold": [entry(root, image)], "t1w": [entry(root, t1w, session="")], "confounds": None,
        "metadata": {"RepetitionTime": 2.0}, "sidecars": [],
    }  # fmt: skip
    return write_json(base / "results" / "index" / "tickets" / f"{scan}.json", ticket)


def call(base: Path, text: str) -> int:
    results = base / "results"
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--tickets", *(str(p) for p in sorted((results / "index" / "tickets").glob("*.json")))]
    words += ["--template", str(results / "templates" / "template.json"), "--results", str(results)]
    words += ["--out", str(results / "preprocess" / "ph" / "sub-01.json"), "--config-json", text]
    return command.run(parser.parse_args(words))
