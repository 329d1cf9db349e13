"""What holds for every model: config in, finite weights out, same bytes twice, features fixed, nobody held out read."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from boldmill.errors import BoldmillError
from boldmill.models.brainmass.model import BrainMass
from boldmill.paths import MODELS
from boldmill.shards.reader import Snapshot
from boldmill.stages import stage_json
from boldmill.train import command
from boldmill.train.checkpoint import load_weights
from boldmill.train.protocol import load


def run(model: str, manifest: Path, out: Path, settings: str, *, status: int = 0) -> Path:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    words = ["--model", model, "--snapshot", str(manifest), "--out", str(out / "model.safetensors")]
    words += ["--config-json", settings, "--threads", "1", "--device", "cpu"]
    assert command.run(parser.parse_args(words)) == status
    return out / "model.safetensors"


def features(model: str, checkpoint: Path, snapshot: Snapshot) -> torch.Tensor:
    module = load(model, checkpoint)
    scans = snapshot.scans(split="heldout")["scan_id"].tolist()
    with torch.no_grad():
        if model != "fmri_mae":
            return module.features(torch.from_numpy(np.nan_to_num(np.stack([snapshot.fc_matrix(s) for s in scans]))))
        rows = snapshot.rows("flat_clips")
        return module.features(torch.from_numpy(np.stack([rows.array(rows.at(scan), "values") for scan in scans])))


@pytest.mark.parametrize("model", MODELS)
def test_trains_loads_and_repeats(model: str, manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    settings = stage_json(synth.config(), f"train_{model}")
    first = run(model, manifest, tmp_path / "a", settings)
    again = run(model, manifest, tmp_path / "b", settings)
    assert first.read_bytes() == again.read_bytes()
    snapshot = Snapshot.load(manifest)
    one, two = features(model, first, snapshot), features(model, first, snapshot)
    assert torch.equal(one, two) and torch.isfinite(one).all() and float(one.std()) > 0
    weights = load_weights(first, model=model)[0]
    assert weights and all(torch.isfinite(value).all() for value in weights.values())

    rows = [json.loads(line) for line in (tmp_path / "a" / "history.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] >= 2 and all(np.isfinite(row["loss"]) for row in rows)
    assert any(np.isfinite(row.get("validation_loss", np.nan)) for row in rows)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["snapshot"] == snapshot.id and config["model"] == model and config["architecture"]
    record = json.loads((tmp_path / "a" / "model.safetensors.prov.json").read_text())
    assert {Path(out["path"]).name for out in record["outputs"]} == {
        "model.safetensors", "config.json", "history.jsonl", "subjects.json"}  # fmt: skip
    assert not list((tmp_path / "a").glob("resume*"))


def test_interrupted_and_resumed_command_gives_the_same_bytes(
    manifest: Path, synth: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in step 3 of 6: status 143, no weights, no record; the same command then ends with the same bytes."""
    settings = stage_json(synth.config(models={"brainmass": {"epochs": 6, "batch": 8}}), "train_brainmass")
    whole = run("brainmass", manifest, tmp_path / "whole", settings)
    calls, update = [], BrainMass.update_target

    def stop_at_third(self: BrainMass, momentum: float) -> None:
        calls.append(momentum)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, momentum)

    with monkeypatch.context() as patch:
        patch.setattr(BrainMass, "update_target", stop_at_third)
        run("brainmass", manifest, tmp_path / "cut", settings, status=143)
    assert len(calls) == 3
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["resume-00000003.safetensors"]
    resumed = run("brainmass", manifest, tmp_path / "cut", settings)
    for name in ("model.safetensors", "history.jsonl", "config.json", "subjects.json"):
        assert resumed.with_name(name).read_bytes() == whole.with_name(name).read_bytes(), name


def test_a_fault_after_the_last_step_costs_no_training(
    manifest: Path, synth: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States stay until weights, side files and record are written: FM-APP does not do its first stage again."""
    settings = stage_json(synth.config(), "train_fm_app")
    whole = run("fm_app", manifest, tmp_path / "whole", settings)

    def full(*_: object) -> None:
        raise BoldmillError("cannot write", "history.jsonl", "no space left", "free some")

    with monkeypatch.context() as patch:
        patch.setattr("boldmill.train.command.write_side_files", full)
        with pytest.raises(BoldmillError, match="no space left"):
            run("fm_app", manifest, tmp_path / "cut", settings)
    assert {path.parent.name for path in (tmp_path / "cut").rglob("resume-*")} == {"stage-fmri", "stage-t1w"}
    with monkeypatch.context() as patch:
        patch.setattr("boldmill.train.loop.train_step", lambda *_: pytest.fail("trained again"))
        again = run("fm_app", manifest, tmp_path / "cut", settings)
    assert again.read_bytes() == whole.read_bytes()
    assert not list((tmp_path / "cut").glob("stage-*"))


@pytest.mark.parametrize("model", MODELS)
def test_subjects_are_everyone_seen_and_nobody_held_out(
    model: str, manifest: Path, synth: ModuleType, tmp_path: Path
) -> None:
    run(model, manifest, tmp_path, stage_json(synth.config(), f"train_{model}"))
    seen = json.loads((tmp_path / "subjects.json").read_text())["subjects"]
    split = Snapshot.load(manifest).subjects
    assert seen == sorted(subject for subject, name in split.items() if name != "heldout")
    assert "heldout" in split.values()


@pytest.mark.parametrize("model", MODELS)
def test_heldout_data_moves_no_weight(model: str, manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    """Other data for the held-out subjects give the same weights; other data for a training subject do not."""
    split = {key.split("/")[1]: name for key, name in Snapshot.load(manifest).subjects.items()}
    assert sorted(set(split.values())) == ["heldout", "train", "validation"]
    settings = stage_json(synth.config(), f"train_{model}")
    plain = run(model, manifest, tmp_path / "plain", settings).read_bytes()
    trained = min(subject for subject, name in split.items() if name == "train")
    for name, who in (("heldout", {s for s, of in split.items() if of == "heldout"}), ("train", {trained})):
        other = synth.snapshot(
            tmp_path / name, synth.config(), alter=lambda s, a, who=who: a[::-1] * 2 + a if s in who else a
        )
        assert Snapshot.load(other).id != Snapshot.load(manifest).id
        same = run(model, other, tmp_path / f"with-{name}", settings).read_bytes() == plain
        assert same == (name == "heldout")
