"""`boldmill bench brainmass`: operations counted, the published step learns, rows printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from boldmill.atomic import read_json
from boldmill.bench.brainmass_case import Clock, Ours, series, step_flops
from boldmill.bench.brainmass_peer import PublishedStep
from boldmill.cli import main
from boldmill.models.brainmass import encoder
from boldmill.models.brainmass.architecture import design
from boldmill.models.brainmass.losses import Weights, total
from boldmill.models.brainmass.model import BrainMass


def test_operations_of_a_step_are_those_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In plain autograd: the counter does not see products that are added in place."""
    arch = design("tiny", 100)
    views = torch.rand(2, 100, 100), torch.rand(2, 100, 100)
    masks = torch.arange(10).repeat(2, 1), torch.arange(5).repeat(2, 1)
    monkeypatch.setattr(encoder, "run_blocks", lambda x, layers, _: torch.nn.Sequential(*layers)(x))
    model = BrainMass(arch).train()
    with FlopCounterMode(display=False) as counter:
        total(model, views, *masks, Weights(1.0, 0.1, 2.0))["loss"].backward()
    assert counter.get_total_flops() / 2 == pytest.approx(step_flops(arch, (10, 5)), rel=0.001)


def test_operations_of_the_published_sizes() -> None:
    """The published forward pass of a step in GFLOP, S, B, L: 6.09, 21.35, 79.63 (measured with another network)."""
    for size, expected in (("S", 6.09), ("B", 21.35), ("L", 79.63)):
        assert step_flops(design(size, 100, style="paper"), (10, 5)) / 1e9 == pytest.approx(expected, rel=0.02)


def test_published_step_learns_and_its_target_follows() -> None:
    torch.manual_seed(0)
    peer = PublishedStep(design("tiny", 100), "cpu")
    scans = list(series().values())[:4]
    before = [p.clone() for p in peer.target.parameters()]
    pair = peer.views(scans)
    assert pair[0].shape == (4, 100, 100) and not torch.equal(*pair)
    losses = [float(peer.step(*pair)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert not any(torch.equal(a, b) for a, b in zip(before, peer.target.parameters(), strict=True))


def test_our_step_is_the_one_of_the_loop() -> None:
    ours = Ours("tiny", "fp32", 4, "cpu", series())
    before = {name: value.clone() for name, value in ours.task.module.state_dict().items()}
    ours()
    moved = [name for name, value in ours.task.module.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("target.blocks") for name in moved) and "mask_vector" in moved
    assert "unused_norm.weight" not in moved


def test_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "brainmass", "--quick", "--repeats", "1", "--json", str(tmp_path / "x.json")]) == 0
    rows = read_json(tmp_path / "x.json")
    assert len(rows) == 10 and all(row["ours"] > 0 and row["ratio"] > 0 and row["met"] is None for row in rows)
    assert sum("CPU time" in row["name"] for row in rows) == 5
    assert "published step, nilearn views" in capsys.readouterr().out


def test_sizes_belong_to_the_bench_that_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "startup", "--sizes", "S"]) != 0
    assert "--sizes" in capsys.readouterr().err


def test_clock_measures_both_times() -> None:
    clock = Clock([], [])
    assert clock.time(lambda: sum(range(200_000)), int) == sum(range(200_000))
    assert 0 < clock.cpu[0] < 10 and 0 < clock.wall[0] < 10
    clock.clear()
    assert not clock.wall and not clock.cpu
