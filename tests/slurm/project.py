"""A training project without its upstream stages: a synthetic snapshot and the workflow's own training rules."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from boldmill.stages import stage_json

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TARGET = "results/models/brainmass/model.safetensors"


def load(path: Path) -> ModuleType:
    """Import a test helper by its path."""
    spec = importlib.util.spec_from_file_location(f"slurm_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project(folder: Path, steps: int) -> Path:
    """Write a snapshot, its settings, and the configuration of ``train.smk`` into a folder."""
    synth = load(ROOT / "tests" / "unit" / "models" / "synth.py")
    config = synth.config(
        snapshot={"name": "latest"}, models={"brainmass": {"epochs": steps, "batch": 4, "warmup_epochs": 1}}
    )
    synth.snapshot(folder / "results", config, n_subjects=9)
    content = {"source": str(ROOT / "src"), "project": config.model_dump(mode="json")}
    (folder / "project.json").write_text(json.dumps(content))
    (folder / "settings.json").write_text(stage_json(config, "train_brainmass"))
    return folder


def training(*words: str) -> list[str]:
    """Return the Snakemake command that trains the project's model as a SLURM job."""
    return ["snakemake", TARGET, "-s", str(HERE / "train.smk"), "--configfile", "project.json", *words]
