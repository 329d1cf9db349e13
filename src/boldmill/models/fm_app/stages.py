"""The two trained stages of FM-APP, each a task of the shared training loop.

Axes: B scans, S subjects, R parcels, D width of ROI features, K seen phenotypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from boldmill.models.fm_app.losses import masked_mse, transfer_loss
from boldmill.train.distributed import is_first, own, size
from boldmill.train.loop import fit
from boldmill.train.machine import Machine
from boldmill.train.optim import Recipe
from boldmill.train.order import Sampler
from boldmill.train.precision import full, products
from boldmill.train.shares import micro_batches, share

if TYPE_CHECKING:
    import pandas as pd

    from boldmill.models.fm_app.config import FmAppConfig
    from boldmill.models.fm_app.data import Scans
    from boldmill.models.fm_app.network import FmApp

CLIP_NORM = 4.0
"""Gradient norm of the published recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What both stages work on.

    Parameters
    ----------
    network, config, identity
        The network, its settings, and what names the run.
    learn, watch : Scans
        Training and validation.
    scores_of : callable
        Table of phenotypes and subjects -> z-scores (S, K), NaN where unknown.
    out : Path
        Folder of the weights; each stage has one of its own below it while it goes on, with states of its own.
    machine, progress
        How the run is carried out.
    """

    network: FmApp
    config: FmAppConfig
    identity: dict[str, Any]
    learn: Scans
    watch: Scans
    scores_of: Callable[[pd.DataFrame, tuple[str, ...]], Tensor]
    out: Path
    machine: Machine
    progress: bool

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage's states."""
        return self.out / f"stage-{stage}"

    def train_only(self, *names: str) -> None:
        """Freeze all parameters but those below ``names``."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(names))

    def features(self, encode: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Return ROI features of training, (B, R, D) in fp32, by products of the chosen precision."""
        with products(values.device, self.config.precision):
            return full(encode(values))


class Stage:
    """One supervised stage as the training loop wants it: inputs by index, a loss, nothing after a step.

    Parameters
    ----------
    module : nn.Module
        Its parameters with ``requires_grad`` are trained.
    name : str
        Of the stage.
    sampler : Sampler
        Which samples make up a step.
    losses : callable
        Indices of some samples, and of all those of their step -> their shares of loss and parts.
    validation : callable
        Loss and parts of the validation samples; None without any.
    machine : Machine
        How many samples go through at a time.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        sampler: Sampler,
        losses: Callable[[list[int], list[int]], dict[str, Tensor]],
        validation: Callable[[], dict[str, Tensor]] | None,
        machine: Machine,
    ) -> None:
        self.module, self.name, self.sampler, self.machine = module, name, sampler, machine
        self.losses, self.validation = losses, validation
        sampler.require_ranks(size(), f"models.fm_app.batch (stage {name})")

    def shares(self, step: int) -> Iterator[dict[str, Tensor]]:
        """Yield shares of the losses of a step."""
        batch = self.sampler.picked(step)
        for rows in micro_batches(own(batch), self.machine.micro_batch):
            yield self.losses(list(rows), batch)

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def monitors(self) -> dict[str, float]:
        """No monitors beyond the losses."""
        return {}

    def validate(self) -> dict[str, float]:
        """Return the losses of the validation samples."""
        if self.validation is None:
            return {}
        with torch.no_grad():
            return {f"validation_{name}": float(value) for name, value in self.validation().items()}


def stage_fmri(job: Job) -> list[dict[str, Any]]:
    """Stage 1: FC -> seen phenotypes."""
    network, learn, watch = job.network, job.learn, job.watch
    device = network.text.device
    fc, truth = torch.from_numpy(learn.fc).to(device), job.scores_of(learn.table, learn.subjects)
    held, held_truth = torch.from_numpy(watch.fc).to(device), job.scores_of(watch.table, watch.subjects)
    job.train_only("encoder_fmri.", "map.", "heads.")
    known = torch.isfinite(truth).sum(dim=1).cpu().numpy()  # (B,)

    def losses(rows: list[int], batch: list[int]) -> dict[str, Tensor]:
        roi = job.features(network.roi_fmri, fc[rows])
        return share({"loss": masked_mse(network.seen(roi), truth[rows])}, *_counts(known, rows, batch))

    def validation() -> dict[str, Tensor]:
        return {"loss": masked_mse(network.seen(job.features(network.roi_fmri, held)), held_truth)}

    return _fit(job, "fmri", len(fc), losses, validation if len(held) else None, job.config.epochs_fmri)


def stage_t1w(job: Job) -> list[dict[str, Any]]:
    """Stage 2: morphometry -> frozen fMRI features and phenotypes; map and heads stay as they are."""
    network, config = job.network, job.config
    job.train_only("adapter.", "encoder_t1w.")
    training, held = _t1w_inputs(job, job.learn), _t1w_inputs(job, job.watch)
    network.adapter.fit(training[0])
    has_fc = torch.isfinite(training[1][:, 0, 0]).cpu().numpy()  # (S,)
    known = torch.isfinite(training[3]).sum(dim=1).cpu().numpy()  # (S,)

    def parts(x: Tensor, roi: Tensor, active: Tensor, truth: Tensor) -> dict[str, Tensor]:
        learner = job.features(network.roi_t1w, x)
        label = masked_mse(network.seen(learner), truth)
        paired = torch.isfinite(roi[:, 0, 0])
        transfer = transfer_loss(roi[paired], learner[paired], active[paired]) if bool(paired.any()) else 0 * label
        return {"label": label, "transfer": transfer}

    def with_sum(found: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": found["label"] + config.transfer * found["transfer"], **found}

    def losses(rows: list[int], batch: list[int]) -> dict[str, Tensor]:
        found = parts(*(one[rows] for one in training))
        found |= share({"label": found["label"]}, *_counts(known, rows, batch))
        found |= share({"transfer": found["transfer"]}, *_counts(has_fc, rows, batch))
        return with_sum(found)

    validation = (lambda: with_sum(parts(*held))) if len(held[0]) else None
    return _fit(job, "t1w", len(training[0]), losses, validation, config.epochs_t1w)


def _counts(of: Any, rows: list[int], batch: list[int]) -> tuple[int, int]:
    """Return how much of what a mean goes over lies in some samples, and in their whole step."""
    return int(of[rows].sum()), int(of[batch].sum())


def _t1w_inputs(job: Job, scans: Scans) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return morphometry, fMRI features (NaN without FC), their map, scores: one row per subject."""
    network = job.network
    arch, like = network.arch, network.text
    names = sorted(scans.morphometry)
    shape = (0, arch.rois, arch.features)
    x = np.stack([scans.morphometry[n] for n in names]) if names else np.zeros(shape, dtype=np.float32)
    roi = like.new_full((len(names), arch.rois, arch.d), torch.nan)
    active = like.new_zeros((len(names), arch.rois, len(arch.seen)))
    rows: dict[str, list[int]] = {}
    for row, subject in enumerate(scans.subjects):
        rows.setdefault(subject, []).append(row)
    network.eval()
    with torch.no_grad():
        for i, name in enumerate(names):
            if mine := rows.get(name):
                roi[i] = network.roi_fmri(torch.from_numpy(scans.fc[mine]).to(like.device)).mean(dim=0)
                active[i] = network.pool(roi[i : i + 1], network.text)[1][0]
    return torch.from_numpy(x).to(like.device), roi, active, job.scores_of(scans.table, tuple(names))


def _fit(
    job: Job,
    name: str,
    samples: int,
    losses: Callable[[list[int], list[int]], dict[str, Tensor]],
    validation: Callable[[], dict[str, Tensor]] | None,
    epochs: int,
) -> list[dict[str, Any]]:
    """Run the shared loop in a folder of the stage's own; its last state stays until the run is recorded."""
    config = job.config
    sampler = Sampler(samples=samples, batch=config.batch, key=("fm_app", name, job.identity["seed"]))
    stage = Stage(job.network, name, sampler, losses, validation, job.machine)
    per_epoch = sampler.per_epoch
    recipe = Recipe(
        steps=epochs * per_epoch,
        lr=config.lr,
        betas=(0.9, 0.999),
        weight_decay=config.weight_decay,
        warmup=per_epoch,
        decay="cosine",
        clip=CLIP_NORM,
        clip_by="norm",
        validate_every=5 * per_epoch,
    )
    identity = {**job.identity, "model": f"fm_app.{name}", "samples": samples}
    folder = job.folder(name)
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
    history = fit(stage, recipe, folder, identity, machine=job.machine, progress=job.progress, keep_end=True)
    return [{"stage": name, **row} for row in history]
