"""Ranks, micro-batches and interruptions change nothing: what holds for every model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from boldmill.paths import MODELS
from boldmill.train.checkpoint import read_tensors

Train = Callable[..., list[int]]
Whole = Callable[..., Path]


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def assert_equal(out: Path, expected: Path) -> None:
    """To 1e-9 in float64; rows of history to 1e-6, because some monitors are differences of near equals."""
    weights = read_tensors(expected / "model.safetensors")[0]
    found = read_tensors(out / "model.safetensors")[0]
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, atol=1e-9, rtol=0, msg=name)
    assert sum(value.dtype == torch.float64 and bool(value.any()) for value in weights.values()) > 10
    rows = history(out), history(expected)
    assert len(rows[0]) == len(rows[1]) >= 3
    for one, two in zip(*rows, strict=True):
        assert one == pytest.approx(two, abs=1e-6)
    assert any("validation_loss" in row for row in rows[0])
    assert {path.name for path in out.iterdir()} == {path.name for path in expected.iterdir()}


@pytest.mark.parametrize("model", MODELS)
def test_ranks_and_micro_batches_equal_the_whole_batch(model: str, whole: Whole, train: Train, tmp_path: Path) -> None:
    """Slices of 3 and 2, pieces of 2 and 1: batch statistics, missing labels, valid pixels, clipping, schedule."""
    assert train(model, tmp_path / "pieces", 1, "--micro-batch", "2", exact=True) == [0]
    assert train(model, tmp_path / "both", 2, "--micro-batch", "2", exact=True) == [0, 0]
    for out in (whole(model, 2, exact=True), tmp_path / "pieces", tmp_path / "both"):
        assert_equal(out, whole(model, exact=True))


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("model", "step"), [("brainmass", 2), ("fmri_mae", 4), ("fm_app", 2), ("fm_app", 5)])
def test_a_signal_to_one_rank_stops_all_and_they_resume_bit_for_bit(
    model: str, step: int, ranks: int, whole: Whole, train: Train, tmp_path: Path
) -> None:
    """With dropout. FM-APP is stopped in its first stage and in its second; then the first is not trained again."""
    cut, out = tmp_path / "cut.log", tmp_path / "cut"
    assert train(model, out, ranks, stop=[ranks - 1, step]) == [143] * ranks, cut.read_text()
    assert cut.read_text().count("training stopped on request") == 1
    assert not (out / "model.safetensors").exists()
    states = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.safetensors"))
    assert [name.rpartition("resume-")[2][:8] for name in states] == (
        ["00000003", "00000002"] if (model, step) == ("fm_app", 5) else [f"{step:08d}"]
    )
    assert train(model, out, ranks) == [0] * ranks
    for name in ("model.safetensors", "history.jsonl", "config.json", "subjects.json"):
        assert (out / name).read_bytes() == (whole(model, ranks) / name).read_bytes(), name
    assert not list(out.rglob("resume*")) and not list(out.glob("stage-*"))


@pytest.mark.parametrize("model", MODELS)
def test_a_run_goes_on_with_another_number_of_ranks(model: str, whole: Whole, train: Train, tmp_path: Path) -> None:
    assert train(model, tmp_path / "cut", 2, exact=True, stop=[0, 2]) == [143, 143]
    assert train(model, tmp_path / "cut", 1, exact=True) == [0], (tmp_path / "cut.log").read_text()
    assert_equal(tmp_path / "cut", whole(model, exact=True))


@pytest.mark.parametrize("model", MODELS)
def test_bf16_is_near_fp32_and_leaves_weights_in_fp32(model: str, whole: Whole, train: Train, tmp_path: Path) -> None:
    """Also in micro-batches, whose dropout is another: the first loss of fMRI-MAE, which has none, is as near."""
    for name, options in (("bf16", []), ("pieces", ["--micro-batch", "2"])):
        assert train(model, tmp_path / name, 1, *options, section={"precision": "bf16"}) == [0]
    low, full = (read_tensors(out / "model.safetensors")[0] for out in (tmp_path / "bf16", whole(model)))
    assert not any(value.dtype == torch.bfloat16 for value in low.values())
    assert any(not torch.equal(low[name], full[name]) for name in full)
    expected = history(whole(model))[0]["loss"]
    assert history(tmp_path / "bf16")[0]["loss"] == pytest.approx(expected, rel=0.02)
    near = 0.02 if model == "fmri_mae" else 0.2
    assert history(tmp_path / "pieces")[0]["loss"] == pytest.approx(expected, rel=near)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_leaves_the_last_state_and_one_line(ranks: int, whole: Whole, train: Train, tmp_path: Path) -> None:
    out, log = tmp_path / "full", tmp_path / "full.log"
    assert train("brainmass", out, ranks, seconds=-1.0, full=2) == [1] * ranks, log.read_text()
    lines = [line for line in log.read_text().splitlines() if line.startswith("boldmill")]
    assert len(lines) == 1 and "cannot write" in lines[0] and "File too large" in lines[0] and "free space" in lines[0]
    assert [path.name for path in out.iterdir()] == ["resume-00000001.safetensors"]
    assert train("brainmass", out, ranks) == [0] * ranks
    assert (out / "model.safetensors").read_bytes() == (whole("brainmass", ranks) / "model.safetensors").read_bytes()


def test_more_ranks_than_samples_in_a_step_are_refused_at_the_start(train: Train, tmp_path: Path) -> None:
    assert train("fm_app", tmp_path / "out", 3, section={"batch": 2}) == [2, 2, 2]
    told = (tmp_path / "out.log").read_text()
    assert "smallest step of an epoch has 2 of 5 samples, torchrun started 3 ranks" in told
