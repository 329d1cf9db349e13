"""The loop: exact resume, stop signals, schedules, groups, divergence."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boldmill.errors import ConfigError, LeakageError, MachineFault
from boldmill.train import loop as loop_module
from boldmill.train.checkpoint import load_weights, save_weights, write_tensors
from boldmill.train.device import environment, pick_device, seed_step
from boldmill.train.loop import Interrupted, discard_resume, fit
from boldmill.train.monitor import alignment, effective_rank, sphere, spread, uniformity
from boldmill.train.optim import Recipe, adamw, clip_gradients
from boldmill.train.order import Sampler, batches_per_epoch, epoch_batches, require

IDENTITY = {"model": "toy", "seed": 7}


class Toy:
    """A regression with dropout and batch statistics: everything a resume could get wrong."""

    def __init__(self) -> None:
        seed_step("toy")
        self.module: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.x = torch.randn(32, 4)
        self.sampler = Sampler(samples=32, batch=8, key=("toy", 7))
        self.signal_at = -1
        self.scale = 1.0

    def shares(self, step: int) -> Iterator[dict[str, Tensor]]:
        x = self.x[self.sampler.picked(step)]
        loss = (self.module(x)[:, 0] - x.sum(1)).square().mean() * self.scale
        yield {"loss": loss, "half": loss / 2}

    def after_step(self, step: int) -> None:
        if step == self.signal_at:
            os.kill(os.getpid(), signal.SIGUSR1)

    def monitors(self) -> dict[str, float]:
        return {}

    def validate(self) -> dict[str, float]:
        assert not self.module.training
        with torch.no_grad():
            return {"validation_loss": float((self.module(self.x)[:, 0] - self.x.sum(1)).square().mean())}


def recipe(steps: int = 20, **changes: object) -> Recipe:
    values = {"steps": steps, "lr": 1e-2, "betas": (0.9, 0.999), "weight_decay": 0.01, "warmup": 4, "decay": "cosine"}
    return Recipe(**{**values, "validate_every": 5, **changes})  # type: ignore[arg-type]


def state(task: Toy) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.module.state_dict().items()}


@pytest.mark.parametrize("rows", [400, 7])  # 7: the stop falls between two rows of history
@pytest.mark.parametrize("stop", [1, 7, 13])
def test_resume_is_bitwise(stop: int, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "ROWS", rows)
    whole = Toy()
    history = fit(whole, recipe(), tmp_path / "whole", IDENTITY)
    with pytest.raises(Interrupted, match=f"step {stop} of 20"):
        fit(Toy(), recipe(), tmp_path / "cut", IDENTITY, stop_at=stop)
    torch.manual_seed(999)  # whatever state the new process starts in
    resumed = Toy()
    again = fit(resumed, recipe(), tmp_path / "cut", IDENTITY)
    assert again == history
    for name, value in state(whole).items():
        assert torch.equal(value, state(resumed)[name]), name


def test_signal_saves_and_stops_and_handlers_are_restored(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    task = Toy()
    task.signal_at = 5
    with pytest.raises(Interrupted, match="step 6"):
        fit(task, recipe(), tmp_path, IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["resume-00000006.safetensors"]
    assert signal.getsignal(signal.SIGUSR1) == before
    plain, resumed = Toy(), Toy()
    fit(plain, recipe(), tmp_path / "plain", IDENTITY)
    fit(resumed, recipe(), tmp_path, IDENTITY)
    assert all(torch.equal(value, state(resumed)[name]) for name, value in state(plain).items())
    discard_resume(tmp_path)
    assert not list(tmp_path.glob("resume*"))


def test_state_of_another_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(Toy(), recipe(), tmp_path, IDENTITY, stop_at=5)
    other, plain = Toy(), Toy()
    history = fit(other, recipe(), tmp_path, {**IDENTITY, "seed": 8})
    assert history[0]["step"] == 1
    fit(plain, recipe(), tmp_path / "plain", {**IDENTITY, "seed": 8})
    assert all(torch.equal(value, state(other)[name]) for name, value in state(plain).items())


def test_periodic_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", -1.0)
    fit(Toy(), recipe(), tmp_path, IDENTITY)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"resume-000000{n}.safetensors" for n in (18, 19)]


def test_history_means_and_validation_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "ROWS", 4)
    coarse = fit(Toy(), recipe(), tmp_path / "a", IDENTITY)
    monkeypatch.setattr(loop_module, "ROWS", 400)
    fine = fit(Toy(), recipe(), tmp_path / "b", IDENTITY)
    assert [row["step"] for row in coarse] == [5, 10, 15, 20] and len(fine) == 20
    assert coarse[1]["loss"] == pytest.approx(sum(row["loss"] for row in fine[5:10]) / 5)
    assert [row["step"] for row in fine if "validation_loss" in row] == [5, 10, 15, 20]
    assert fine[-1]["validation_loss"] < fine[4]["validation_loss"]


def test_divergence_stops_the_run(tmp_path: Path) -> None:
    task = Toy()
    task.scale = float("nan")
    with pytest.raises(MachineFault, match="not finite at step 1"):
        fit(task, recipe(), tmp_path, IDENTITY)


def test_a_state_that_has_diverged_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two rows of history nothing has looked at the losses yet when a signal asks for a state."""
    monkeypatch.setattr(loop_module, "ROWS", 3)
    task = Toy()
    task.scale = float("nan")
    with pytest.raises(MachineFault, match=r"training diverged: .*loss.* not finite at step 3"):
        fit(task, recipe(), tmp_path, IDENTITY, stop_at=3)
    assert not list(tmp_path.glob("resume-*"))


def test_a_validation_loss_that_is_not_finite_stops_the_run_too(tmp_path: Path) -> None:
    """Batch statistics can be sound in training and overflow in evaluation; JSON cannot hold the value."""
    task = Toy()
    task.validate = lambda: {"validation_loss": float("nan")}  # type: ignore[method-assign]
    with pytest.raises(MachineFault, match="validation_loss not finite at step 5"):
        fit(task, recipe(), tmp_path, IDENTITY)


def test_schedules_closed_form() -> None:
    cosine = recipe(steps=100, warmup=10)
    assert [cosine.factor(s) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert cosine.factor(55) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert cosine.factor(99) < 1e-3
    by_epoch = recipe(steps=100, warmup=30, warmup_block=10, decay="constant")  # 3 epochs of 10 steps
    assert [by_epoch.factor(s) for s in (0, 9, 10, 29, 30, 99)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1, 1, 1])
    assert recipe(warmup=0, decay="constant").factor(0) == 1


def test_only_matrices_decay() -> None:
    module = nn.ModuleDict({"l": nn.Linear(3, 2), "n": nn.LayerNorm(3), "off": nn.Linear(2, 2).requires_grad_(False)})
    module.register_parameter("token", nn.Parameter(torch.zeros(1, 1, 3)))
    groups = adamw(module, recipe(weight_decay=0.5)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    held = {id(p) for group in groups for p in group["params"]}
    assert decayed == {id(module["l"].weight)}
    assert held == {id(p) for p in module.parameters() if p.requires_grad}


def test_clipping() -> None:
    for by, expected in (("value", [1.0, -1.0, 0.5]), ("norm", [x / math.sqrt(25.25) for x in (3.0, -4.0, 0.5)])):
        module = nn.ParameterDict({"w": nn.Parameter(torch.zeros(3))})
        module["w"].grad = torch.tensor([3.0, -4.0, 0.5])
        norm = clip_gradients(module, recipe(clip=1.0, clip_by=by))
        assert float(norm) == pytest.approx(math.sqrt(25.25))
        assert module["w"].grad.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (11, 8, [11]), (12, 8, [8, 4]), (3, 2, [3]), (1, 4, [1])],
)
def test_batches_cover_every_sample_once(n: int, batch: int, sizes: list[int]) -> None:
    pieces = epoch_batches(n, batch, "m", 7, 0)
    assert sorted(i for piece in pieces for i in piece.tolist()) == list(range(n))
    assert [len(piece) for piece in pieces] == sizes and batches_per_epoch(n, batch) == len(sizes)


def test_order_changes_with_the_epoch_only() -> None:
    first = [piece.tolist() for piece in epoch_batches(50, 8, "m", 7, 0)]
    assert first == [piece.tolist() for piece in epoch_batches(50, 8, "m", 7, 0)]
    assert first != [piece.tolist() for piece in epoch_batches(50, 8, "m", 7, 1)]


def test_too_few_samples_are_a_configuration_error() -> None:
    require(2, 2, "scans", "here")
    with pytest.raises(ConfigError, match="holds 1 scans"):
        require(1, 2, "scans", "here")


def test_effective_rank_closed_form() -> None:
    rng = torch.Generator().manual_seed(0)
    line = torch.randn(50, 1, generator=rng) @ torch.randn(1, 6, generator=rng)
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-3)
    corners = torch.cat([torch.eye(4), -torch.eye(4)])  # four equal singular values
    assert effective_rank(corners) == pytest.approx(4.0, abs=1e-9)
    assert spread(corners)["embedding_variance"] == pytest.approx(0.25)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1.0)  # collapsed to a point: no spread at all


def test_weights_are_refused_by_another_model_and_by_a_broken_file(tmp_path: Path) -> None:
    path = save_weights(tmp_path / "model.safetensors", {"w": torch.ones(2)}, model="a", architecture={"x": 1})
    assert load_weights(path, model="a")[1] == {"x": 1}
    with pytest.raises(ConfigError, match="it holds 'a', not 'b'"):
        load_weights(path, model="b")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ConfigError, match="cannot read"):
        load_weights(path, model="a")
    with pytest.raises(ConfigError, match="cannot read"):
        load_weights(tmp_path / "absent", model="a")


def test_tensor_files_do_not_depend_on_insertion_order(tmp_path: Path) -> None:
    a, b = torch.ones(2), torch.zeros(3)
    one = write_tensors(tmp_path / "1", {"a": a, "b": b}, {"k": 1, "j": 2}).read_bytes()
    assert one == write_tensors(tmp_path / "2", {"b": b, "a": a}, {"j": 2, "k": 1}).read_bytes()


def test_device_names() -> None:
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cpu", "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(MachineFault, match="no GPU"):
            pick_device("cuda")


def test_environment_is_restored() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with environment("cpu", before[0] + 1):
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (before[0] + 1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_subject_in_two_splits_is_leakage() -> None:
    import pandas as pd

    from boldmill.train.data import training_scans

    class Leaky:
        id = "x"
        subjects = {"d/1": "train", "d/2": "heldout"}

        def scans(self, *, split: str, having: str) -> pd.DataFrame:
            rows = {"train": ["1", "2"], "validation": []}[split]
            return pd.DataFrame({"scan_id": rows, "dataset": ["d"] * len(rows), "subject": rows})

    with pytest.raises(LeakageError, match=r"d/2.*heldout"):
        training_scans(Leaky(), "timeseries")  # type: ignore[arg-type]


def test_alignment_and_uniformity_against_loops() -> None:
    """Wang and Isola's eqs. with alpha = t = 2, on the unit sphere whatever the length of the vectors."""
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 5, generator=rng), torch.randn(7, 5, generator=rng)
    units = [[row / math.sqrt(sum(v * v for v in row.tolist())) for row in z.double()] for z in (x, y)]

    def apart(a: Tensor, b: Tensor) -> float:
        return sum((u - v) ** 2 for u, v in zip(a.tolist(), b.tolist(), strict=True))

    assert alignment(x, 3 * y) == pytest.approx(sum(apart(a, b) for a, b in zip(*units, strict=True)) / 7, abs=1e-6)
    spread_out = []
    for unit in units:
        pairs = [math.exp(-2 * apart(unit[i], unit[j])) for i in range(7) for j in range(i)]
        spread_out.append(math.log(sum(pairs) / len(pairs)))
    assert uniformity(x) == pytest.approx(spread_out[0], abs=1e-6)
    assert sphere(x, y)["uniformity"] == pytest.approx(sum(spread_out) / 2, abs=1e-6)
    assert alignment(x, x) == pytest.approx(0, abs=1e-12) and alignment(x, -x) == pytest.approx(4)
    assert uniformity(x[:1].expand(4, -1)) == pytest.approx(0, abs=1e-9) and uniformity(x[:1]) == 0  # collapsed
