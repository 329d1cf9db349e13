"""Two ranks give the training of one rank with the same global batch; a stop on one rank stops and resumes both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from boldmill.errors import ConfigError
from boldmill.stages import stage_json
from boldmill.train import distributed
from boldmill.train.batch_norm import BatchNorm
from boldmill.train.checkpoint import read_tensors

SCRIPT = """
import os, signal, sys
from dataclasses import replace

mode, *words = sys.argv[1:]
if "exact" in mode:  # float64 without dropout: Adam cannot amplify rounding of gradients that are 0
    import torch
    from boldmill.models.brainmass import start, train, views
    design = start.design
    start.design = lambda *given, **how: replace(design(*given, **how), dropout=0.0)
    module = train.start_module
    def double(*given):
        found = module(*given)
        found.module.double()
        return found
    train.start_module = double
    pair = views.FlyViews.pair
    views.FlyViews.pair = lambda *given: tuple(view.double() for view in pair(*given))
if "stop" in mode and os.environ["RANK"] == "1":
    from boldmill.models.brainmass.train import BrainMassTask
    after = BrainMassTask.after_step
    def stop(task, step):
        after(task, step)
        if step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
    BrainMassTask.after_step = stop
from boldmill.cli import main
sys.exit(main(words))
"""


def train(mode: str, ranks: int, manifest: Path, out: Path, settings: str) -> subprocess.CompletedProcess[str]:
    script = out.parent / "script.py"
    script.write_text(SCRIPT)
    words = ["train", "--model", "brainmass", "--snapshot", str(manifest), "--out", str(out / "model.safetensors")]
    words += ["--config-json", settings, "--device", "cpu"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    return subprocess.run(
        [sys.executable, *launch, str(script), mode, *words], check=False, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip


def history(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def test_two_ranks_equal_one(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    """Slices of 3 and 2 scans, batch statistics, clipping, EMA, schedule, monitors and validation."""
    settings = stage_json(synth.config(models={"brainmass": {"epochs": 3, "batch": 5}}), "train_brainmass")
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        done = train("exact", ranks, manifest, tmp_path / str(ranks), settings)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = tmp_path / "1", tmp_path / "2"
    weights = [read_tensors(out / "model.safetensors")[0] for out in (one, two)]
    moved = 0
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, atol=1e-9, rtol=0, msg=name)
        moved += not torch.equal(expected, torch.zeros_like(expected))
    assert moved > 50 and weights[0]["online.blocks.0.up.weight"].dtype == torch.float64
    rows = history(one), history(two)
    assert len(rows[0]) == len(rows[1]) >= 3
    for a, b in zip(*rows, strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    assert "validation_loss" in rows[1][-1] and "effective_rank" in rows[1][-1]
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}


def test_a_stop_on_one_rank_stops_both_and_they_resume_bit_for_bit(
    manifest: Path, synth: ModuleType, tmp_path: Path
) -> None:
    settings = stage_json(synth.config(models={"brainmass": {"epochs": 4, "batch": 4}}), "train_brainmass")
    (tmp_path / "whole").mkdir(), (tmp_path / "cut").mkdir()
    assert train("plain", 2, manifest, tmp_path / "whole", settings).returncode == 0
    cut = train("stop", 2, manifest, tmp_path / "cut", settings)
    assert cut.returncode != 0 and "saved at step 3" in cut.stderr, cut.stderr[-2000:]
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["resume-00000003.safetensors"]
    assert train("plain", 2, manifest, tmp_path / "cut", settings).returncode == 0
    for name in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_slices_cover_the_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 3)
    found = []
    for number in range(3):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        found.append(distributed.own(range(8)))
    assert [list(one) for one in found] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    with pytest.raises(ConfigError, match="2 scans, 3 ranks"):
        distributed.own([1, 2])


def test_other_models_are_refused_on_several_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from boldmill.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = '{"stage":"train_fmri_mae","version":1,"seed":1,"config":{"models":{"fmri_mae":{}}},"overrides":{}}'
    words = ["train", "--model", "fmri_mae", "--snapshot", "x", "--out", "model.safetensors", "--config-json", settings]
    assert main(words) == 2
    assert "torchrun started 2" in capsys.readouterr().err


def test_one_rank_is_plain_batch_norm_bit_for_bit() -> None:
    torch.manual_seed(0)
    x, (ours, plain) = torch.randn(6, 4, requires_grad=True), (BatchNorm(4), nn.BatchNorm1d(4))
    for training in (True, False):
        found, expected = ours.train(training)(x), plain.train(training)(x)
        assert torch.equal(found, expected)
        assert torch.equal(*(torch.autograd.grad((y**3).sum(), x)[0] for y in (found, expected)))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), plain.buffers(), strict=True))
    assert ours.state_dict().keys() == plain.state_dict().keys()
