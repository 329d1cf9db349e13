"""The training loop: every step is a function of its number, so a run resumes bit for bit from weights and moments.

A model supplies a :class:`Task`; batches, masks and views are drawn by generators keyed by scan, epoch and seed, and
torch's own generators (dropout) are seeded anew at every step.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from boldmill.atomic import canonical_json, sha256_text
from boldmill.errors import BoldmillError, MachineFault
from boldmill.train.checkpoint import RESUME, load_resume, save_resume
from boldmill.train.device import seed_step
from boldmill.train.distributed import any_rank, from_first, is_first, rank, same_on_all, sum_over_ranks, wait_for_all
from boldmill.train.optim import Recipe, adamw, clip_gradients, set_lr
from boldmill.train.pulse import Pulse

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ROWS = 400
"""About how many rows of history a run writes: each is the mean over the steps since the last one."""


CHECKPOINT_SECONDS = 600.0
"""Time between saved states; a resumed run is the same bit for bit, so the clock moves no result."""


class Interrupted(BoldmillError):
    """The run was asked to stop; its state is saved and the same command goes on from it."""


class Task(Protocol):
    """What a model gives the loop."""

    @property
    def module(self) -> nn.Module:
        """The module that is trained; all its state is saved."""
        ...

    def epoch(self, step: int) -> int:
        """Return the pass over the data that ``step`` belongs to."""
        ...

    def losses(self, step: int) -> dict[str, Tensor]:
        """Return ``loss`` and its parts of the batch of ``step``; on several ranks this rank's share of their sum."""
        ...

    def after_step(self, step: int) -> None:
        """Do what follows an optimiser step (EMA)."""
        ...

    def monitors(self) -> dict[str, float]:
        """Return numbers that watch the run (embedding variance, rank) of the last batch."""
        ...

    def validate(self) -> dict[str, float]:
        """Return ``validation_loss`` and its parts in eval mode; empty where there is no validation scan."""
        ...


def fit(
    task: Task, recipe: Recipe, out_dir: Path, identity: dict[str, Any], *, progress: bool = False, stop_at: int = 0
) -> list[dict[str, Any]]:
    """Run the loop to its end and return the history.

    Parameters
    ----------
    task, recipe
        The model and how it is optimised.
    out_dir : Path
        Where ``resume.safetensors`` lies while the run goes on.
    identity : dict
        JSON values that name the run (settings, data, architecture): only its own state is resumed.
    stop_at : int, optional
        Stop before this step as a signal would.

    Raises
    ------
    Interrupted
        SIGTERM or SIGUSR1 came.
    MachineFault
        A loss, a monitor or a validation loss is not finite.
    """
    path = out_dir / RESUME
    optimiser = adamw(task.module, recipe)
    position = load_resume(path, task.module, optimiser, sha256_text(canonical_json(identity)))
    every = max(1, recipe.steps // ROWS)
    same_on_all(position.step, str(path))
    meter = _Meter(position.pending)
    saved = time.monotonic()
    with _stop_signals() as asked:
        pulse = Pulse(position.step, recipe.steps, bar=progress, quiet=not is_first())
        for step in range(position.step, recipe.steps):
            if any_rank(asked.is_set()) or (stop_at and step == stop_at):
                position.pending = meter.state()
                if is_first():
                    save_resume(path, task.module, optimiser, position)
                wait_for_all()  # a rank that ends early takes the others with it
                raise Interrupted("training stopped on request", out_dir, f"saved at step {step} of {recipe.steps}",
                                  "run the same command again to go on")  # fmt: skip
            meter.add(train_step(task, optimiser, recipe, identity, step))
            position.step = step + 1
            if position.step % every == 0 or position.step == recipe.steps:
                row = {"step": position.step, "epoch": task.epoch(step), "lr": recipe.lr * recipe.factor(step)}
                row |= meter.means()
                if position.step == recipe.steps or _due(position.step, every, recipe.validate_every):
                    task.module.eval()
                    row |= from_first(task.monitors() | task.validate() if is_first() else {})
                _check_finite(row, out_dir)
                position.history.append(row)
            pulse.beat(position.step, position.history[-1]["loss"] if position.history else None)
            if is_first() and time.monotonic() - saved > CHECKPOINT_SECONDS and position.step < recipe.steps:
                position.pending = meter.state()
                save_resume(path, task.module, optimiser, position)
                saved = time.monotonic()
    task.module.eval()
    return position.history


def train_step(
    task: Task, optimiser: torch.optim.Optimizer, recipe: Recipe, identity: dict[str, Any], step: int
) -> dict[str, Tensor]:
    """Do step number ``step``: losses, gradients, clipping, optimiser, what follows; return the losses (unreduced).

    ``identity`` needs ``model`` and ``seed``: dropout is seeded by them, the step's number and the rank.
    """
    task.module.train()
    seed_step("step", str(identity["model"]), int(identity["seed"]), step, *([rank()] if rank() else []))
    set_lr(optimiser, recipe.lr * recipe.factor(step))
    parts = task.losses(step)
    optimiser.zero_grad(set_to_none=True)
    parts["loss"].backward()  # type: ignore[no-untyped-call]
    parts = {name: value.detach() for name, value in parts.items()}
    sum_over_ranks([p.grad for p in task.module.parameters() if p.grad is not None] + list(parts.values()))
    norm = clip_gradients(task.module, recipe)
    optimiser.step()
    task.after_step(step)
    return {**parts, "grad_norm": norm}


def discard_resume(out_dir: Path) -> None:
    """Remove the state of a run whose weights are written."""
    (out_dir / RESUME).unlink(missing_ok=True)


class _Meter:
    """Means of losses since the last row, kept on the device: one synchronisation per row, not per step."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.count: int = state.get("count", 0)
        self.sums: dict[str, Any] = dict(state.get("sums", {}))

    def add(self, parts: dict[str, Tensor]) -> None:
        self.count += 1
        for name, value in parts.items():
            # float64 on the device: sums go through JSON without loss
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double()

    def means(self) -> dict[str, float]:
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        self.count, self.sums = 0, {}
        return means

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "sums": {name: float(total) for name, total in self.sums.items()}}


def _due(step: int, every: int, wanted: int) -> bool:
    """Whether a multiple of ``wanted`` lies in the row that ends at ``step``."""
    return wanted > 0 and step // wanted > (step - every) // wanted


def _check_finite(row: dict[str, Any], where: Path) -> None:
    import math

    bad = sorted(name for name, value in row.items() if not math.isfinite(value))
    if bad:
        raise MachineFault("training diverged", where, f"{', '.join(bad)} not finite at step {row['step']}",
                           "lower the learning rate, or look at the data of that step")  # fmt: skip


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Set an event on SIGTERM or SIGUSR1 (what SLURM sends before its limit), and restore the handlers after."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handler(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
