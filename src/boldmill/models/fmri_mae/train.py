"""Train and load fMRI-MAE (protocol: :mod:`boldmill.train.protocol`).

Axes: B batch, T frames, X valid pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from boldmill.errors import ConfigError
from boldmill.models.fmri_mae.architecture import Architecture, design
from boldmill.models.fmri_mae.config import FmriMaeConfig
from boldmill.models.fmri_mae.grid import Ints, tube_masks
from boldmill.models.fmri_mae.model import FmriMae
from boldmill.shards.clips import clip_batch
from boldmill.train.checkpoint import WEIGHTS, load_weights, save_weights
from boldmill.train.data import identity, training_scans
from boldmill.train.device import seed_step
from boldmill.train.distributed import count_over_ranks, is_first, own, size
from boldmill.train.loop import fit
from boldmill.train.machine import Machine
from boldmill.train.optim import Recipe
from boldmill.train.order import Sampler, require
from boldmill.train.precision import products
from boldmill.train.protocol import TrainResult
from boldmill.train.shares import micro_batches, share

if TYPE_CHECKING:
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings

NAME = "fmri_mae"

VALIDATIONS = 5
"""Validations of a run."""


class Clips:
    """Random access to clips in compact storage: one sample is (scan id, row in the shards)."""

    def __init__(self, snapshot: Snapshot, scan_ids: list[str], device: str) -> None:
        self.rows, self.device = snapshot.rows("flat_clips"), device
        self.samples = [(scan, row) for scan in scan_ids for row in self.rows.all_of(scan)]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return int(self.rows.array(self.samples[0][1], "values").shape[0])

    def batch(self, samples: list[int]) -> Tensor:
        """Return clips (B, T, X) on the device: sent in the stored precision; unmasking and scaling are done there."""
        return clip_batch(self.rows, [self.samples[sample][1] for sample in samples], self.device)


class FmriMaeTask:
    """What the loop asks of fMRI-MAE."""

    def __init__(
        self,
        module: FmriMae,
        train: Clips,
        validation: Clips,
        config: FmriMaeConfig,
        seed: int,
        machine: Machine | None = None,
    ) -> None:
        self.module, self.train, self.validation, self.config, self.seed = module, train, validation, config, seed
        self.machine = machine or Machine()
        self.sampler = Sampler(samples=len(train), batch=config.batch, key=(NAME, seed))
        self.pixels = module.grid.valid.sum(1).cpu().numpy()  # (S,) valid pixels of each filled patch

    def shares(self, step: int) -> Iterator[dict[str, Tensor]]:
        """Yield shares of the masked reconstruction loss, a mean over the valid hidden pixels of the global batch."""
        mine = own(self.sampler.picked(step))
        masks = self._masks(self.train, mine, f"epoch-{self.sampler.epoch(step)}", self.config.decode_share)
        yield from self._pieces(self.train, mine, masks, count_over_ranks(self._valid(masks)))

    def _pieces(
        self, clips: Clips, samples: Sequence[int], masks: tuple[Ints, Ints], whole: int
    ) -> Iterator[dict[str, Tensor]]:
        """Yield shares of the loss in micro-batches; ``whole`` counts the valid hidden pixels it is a mean over."""
        for places in micro_batches(range(len(samples)), self.machine.micro_batch):
            at = slice(places[0], places[-1] + 1)
            part = masks[0][at], masks[1][at]
            yield share({"loss": self._loss(clips, samples[at], part)}, self._valid(part), whole)

    def _valid(self, masks: tuple[Ints, Ints]) -> int:
        return int(self.pixels[masks[1]].sum())

    def _masks(self, clips: Clips, samples: Sequence[int], purpose: str, part: float) -> tuple[Ints, Ints]:
        chosen = [clips.samples[sample] for sample in samples]
        first = {scan: clips.rows.all_of(scan)[0] for scan, _ in chosen}
        within = [row - first[scan] for scan, row in chosen]  # the clip's number in its scan, whatever the shards
        return tube_masks(
            [scan for scan, _ in chosen],
            within,
            purpose,
            self.seed,
            self.module.grid,
            self.config.mask_ratio,
            decode_share=part,
        )

    def _loss(self, clips: Clips, samples: Sequence[int], masks: tuple[Ints, Ints]) -> Tensor:
        visible, hidden = (torch.from_numpy(mask).to(clips.device) for mask in masks)
        with products(clips.device, self.config.precision):
            loss: Tensor = self.module(clips.batch(list(samples)), visible, hidden)
        return loss

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def monitors(self) -> dict[str, float]:
        """No monitors."""
        return {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the loss of validation clips spread evenly over the split: always the same clips, masks, all patches.

        As many as one in a hundred training clips, so that watching costs a few percent of a run.
        """
        number = min(len(self.validation), max(8, self.config.steps * self.config.batch // 100))
        if not number:
            return {}
        chosen = np.linspace(0, len(self.validation) - 1, number).round().astype(int).tolist()
        total = 0.0
        for some in micro_batches(chosen, self.config.batch):
            masks = self._masks(self.validation, some, "validation", 1.0)
            for piece in self._pieces(self.validation, some, masks, self._valid(masks)):
                total += float(piece["loss"]) * len(some)
        return {"validation_loss": total / number}


def train(
    snapshot: Snapshot,
    settings: Settings,
    out_dir: Path,
    device: str,
    threads: int,
    progress: bool,
    machine: Machine | None = None,
) -> TrainResult:
    """Train on flat clips."""
    config = settings.section("models.fmri_mae", FmriMaeConfig)
    scans = training_scans(snapshot, "flat_clips")
    clips, validation = (Clips(snapshot, list(table["scan_id"]), device) for table in (scans.train, scans.validation))
    require(len(clips), 1, "flat clips", "models.fmri_mae")
    arch = design(
        config.preset, frames=clips.frames, patch=config.patch, patch_t=config.patch_t, clip_value=config.clip_value
    )
    seed_step("init", NAME, settings.seed)
    module = FmriMae(arch, snapshot.flat_mask).to(device)
    task = FmriMaeTask(module, clips, validation, config, settings.seed, machine)
    task.sampler.require_ranks(size(), "models.fmri_mae.batch")
    recipe = Recipe(
        steps=config.steps,
        lr=config.lr,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        warmup=int(config.warmup * config.steps),
        decay="cosine",
        clip=1.0,
        clip_by="norm",
        validate_every=max(1, config.steps // VALIDATIONS),
    )
    run = identity(NAME, settings, scans) | {"architecture": arch.as_dict()}
    history = fit(task, recipe, out_dir, run, machine=machine, progress=progress)
    if is_first():
        save_weights(out_dir / WEIGHTS, module.state_dict(), model=NAME, architecture=arch.as_dict())
    facts = {
        "architecture": arch.as_dict(),
        "steps": config.steps,
        "n_clips": len(clips),
        "grid": {"n_pixels": module.grid.n_pixels, "n_patches": module.grid.n_filled},
    }
    return TrainResult(history=history, metadata=scans.metadata() | facts)


def load(checkpoint: Path, device: str = "cpu") -> FmriMae:
    """Load a trained fMRI-MAE in eval mode; the pixel mask is in the checkpoint."""
    state, architecture = load_weights(checkpoint, model=NAME)
    try:
        module = FmriMae(Architecture(**architecture), state["grid.mask"].numpy())
        module.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        why = " ".join(str(error).split())[:300]
        raise ConfigError("weights do not fit", checkpoint, why, "train again with this version") from error
    return module.to(device).eval()
