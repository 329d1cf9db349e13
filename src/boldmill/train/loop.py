"""The training loop: every step is a function of its number, so a run resumes bit for bit from weights and moments.

A model supplies a :class:`Task`; batches, masks and views are drawn by generators keyed by scan, epoch and seed, and
torch's own generators (dropout) are seeded anew at every step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from boldmill.errors import BoldmillError, MachineFault, disk_fault
from boldmill.train.device import seed_step
from boldmill.train.distributed import any_rank, from_first, is_first, on_first, rank, sum_over_ranks, told_once
from boldmill.train.machine import Machine
from boldmill.train.optim import Recipe, adamw, clip_gradients, set_lr
from boldmill.train.pulse import Pulse
from boldmill.train.resume import Checkpoints
from boldmill.train.stop import stop_signals

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from boldmill.train.order import Sampler

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

    @property
    def sampler(self) -> Sampler:
        """Which samples make up which step."""
        ...

    def shares(self, step: int) -> Iterator[dict[str, Tensor]]:
        """Yield ``loss`` and its parts of the batch of ``step`` in pieces.

        Over all pieces of all ranks they add up to those of the global batch (:mod:`boldmill.train.shares`). The loop
        goes backward through a piece's ``loss`` before it asks for the next.
        """
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
    task: Task,
    recipe: Recipe,
    out_dir: Path,
    identity: dict[str, Any],
    *,
    machine: Machine | None = None,
    progress: bool = False,
    stop_at: int = 0,
    keep_end: bool = False,
) -> list[dict[str, Any]]:
    """Run the loop to its end and return the history.

    Parameters
    ----------
    task, recipe
        The model and how it is optimised.
    out_dir : Path
        Where states of the run lie while it goes on (:mod:`boldmill.train.resume`).
    identity : dict
        JSON values that name the run (settings, data, architecture): only its own state is resumed.
    machine : Machine, optional
        States kept, and when the run stops itself.
    stop_at : int, optional
        Stop before this step as a signal would.
    keep_end : bool
        Save the last state too, so that a later call returns at once.

    Raises
    ------
    Interrupted
        SIGTERM or SIGUSR1 came, or the machine's time is up.
    MachineFault
        A loss, a monitor or a validation loss is not finite, at a row of the history or when a state would be saved; or
        the state cannot be written.
    """
    machine = machine or Machine()
    states = Checkpoints(out_dir, identity, machine.keep_checkpoints)
    optimiser = adamw(task.module, recipe)
    position = states.load(task.module, optimiser)
    first, every = position.step, max(1, recipe.steps // ROWS)
    meter = _Meter(position.pending)
    saved = time.monotonic()

    def save() -> None:
        position.pending = meter.state()
        # a state that has diverged would be resumed again and again: the one before it stays the newest
        _check_finite({"step": position.step, **position.pending["sums"]}, out_dir)
        try:
            states.save(task.module, optimiser, position, task.sampler)
        except OSError as error:
            raise disk_fault(error, out_dir) or error from error

    with stop_signals() as asked:
        pulse = Pulse(position.step, recipe.steps, bar=progress, quiet=not is_first())
        for step in range(first, recipe.steps):
            on = step > first  # a run that stops itself has done a step: a chain of short jobs comes to its end
            timely = on and time.monotonic() - saved > CHECKPOINT_SECONDS
            stop, due = any_rank(asked.is_set() or (on and machine.time_is_up()), timely and is_first())
            stop = stop or (stop_at > 0 and step == stop_at)
            if stop or due:
                on_first(save)
                saved = time.monotonic()
            if stop:
                raise Interrupted("training stopped on request", out_dir, f"saved at step {step} of {recipe.steps}",
                                  "run the same command again to go on")  # fmt: skip
            meter.add(train_step(task, optimiser, recipe, identity, step))
            position.step = step + 1
            if position.step % every == 0 or position.step == recipe.steps:
                row = {"step": position.step, "epoch": task.sampler.epoch(step), "lr": recipe.lr * recipe.factor(step)}
                row |= meter.means()
                if position.step == recipe.steps or _due(position.step, every, recipe.validate_every):
                    task.module.eval()
                    row |= from_first(task.monitors() | task.validate() if is_first() else {})
                _check_finite(row, out_dir)
                position.history.append(row)
            pulse.beat(position.step, position.history[-1]["loss"] if position.history else None)
    if keep_end and first < recipe.steps:
        on_first(save)
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
    task.module.zero_grad(set_to_none=True)  # also of what an earlier stage trained and this one does not
    parts: dict[str, Tensor] = {}
    for piece in task.shares(step):
        piece["loss"].backward()  # type: ignore[no-untyped-call]
        for name, value in piece.items():
            parts[name] = parts[name] + value.detach() if name in parts else value.detach()
    sum_over_ranks([p.grad for p in task.module.parameters() if p.grad is not None] + list(parts.values()))
    norm = clip_gradients(task.module, recipe)
    optimiser.step()
    task.after_step(step)
    return {**parts, "grad_norm": norm}


def discard_resume(out_dir: Path) -> None:
    """Remove the states of a run, and of its stages in folders ``stage-*``: its weights are written and recorded."""
    Checkpoints(out_dir, {}).discard()
    for folder in sorted(out_dir.glob("stage-*")):
        Checkpoints(folder, {}).discard()
        with suppress(OSError):  # something that is not ours lies there
            folder.rmdir()


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
        raise told_once(MachineFault("training diverged", where,
                                     f"{', '.join(bad)} not finite at step {row['step']}",
                                     "lower the learning rate, or look at the data of that step"))  # fmt: skip
