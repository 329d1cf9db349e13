"""Train and load BrainMass (protocol: :mod:`boldmill.train.protocol`).

Axes: B batch, P parcels (ROIs).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boldmill.errors import ConfigError
from boldmill.models.brainmass.accumulate import total_in_pieces
from boldmill.models.brainmass.config import BrainMassConfig
from boldmill.models.brainmass.losses import Weights, draw_masks, freeze_untrained, n_masked, total
from boldmill.models.brainmass.model import BrainMass
from boldmill.models.brainmass.start import NAME, load_module, start_module
from boldmill.models.brainmass.views import FlyViews, ShardViews, Views
from boldmill.represent.config import AugmentConfig
from boldmill.represent.pfc import n_dropped
from boldmill.train.checkpoint import WEIGHTS, save_weights
from boldmill.train.data import identity, training_scans
from boldmill.train.distributed import is_first, own, size
from boldmill.train.loop import fit
from boldmill.train.machine import Machine
from boldmill.train.monitor import sphere, spread
from boldmill.train.optim import Recipe
from boldmill.train.order import Sampler, require
from boldmill.train.protocol import TrainResult
from boldmill.train.shares import micro_batches, share

if TYPE_CHECKING:
    import pandas as pd

    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings

MONITORED = 256
"""Training scans over which features and projections are watched."""


class BrainMassTask:
    """What the loop asks of BrainMass."""

    def __init__(
        self,
        module: BrainMass,
        views: Views,
        train: list[str],
        validation: list[str],
        config: BrainMassConfig,
        seed: int,
        machine: Machine | None = None,
    ) -> None:
        self.module, self.views, self.config, self.seed = module, views, config, seed
        self.train, self.validation = train, validation
        self.machine = machine or Machine()
        self.sampler = Sampler(samples=len(train), batch=config.batch, key=(NAME, seed))
        self.weights = Weights(config.weight_lra, config.weight_clf, config.weight_rec)
        module.set_execution(config.precision, compiled=config.compile)

    def shares(self, step: int) -> Iterator[dict[str, Tensor]]:
        """Yield shares of the losses of one batch of scans; each loss is a mean over scans."""
        picked, epoch = self.sampler.picked(step), self.sampler.epoch(step)
        scans = [self.train[i] for i in own(picked)]
        most = self.machine.micro_batch or len(scans)
        if most >= len(scans):
            yield share(self._total(scans, epoch, epoch), len(scans), len(picked))
            return
        views, masks = self.views.pair(scans, epoch), self._masks(scans, epoch)
        part = len(scans) / len(picked)
        yield from total_in_pieces(self.module, views, *masks, self.weights, most, part)

    def _masks(self, scans: list[str], key: int | str) -> tuple[Tensor, Tensor]:
        rois, device = self.module.arch.rois, self.module.cls_token.device
        clf, rec = (
            torch.from_numpy(draw_masks(scans, purpose, key, self.seed, rois, n_masked(rois, ratio))).to(device)
            for purpose, ratio in (("clf", self.config.mask_clf), ("rec", self.config.mask_rec))
        )
        return clf, rec

    def _total(self, scans: list[str], epoch: int, key: int | str) -> dict[str, Tensor]:
        return total(self.module, self.views.pair(scans, epoch), *self._masks(scans, key), self.weights)

    def after_step(self, step: int) -> None:
        """Move the target network, which only the alignment term looks at."""
        if self.weights.lra:
            self.module.update_target(self.config.ema)

    @torch.no_grad()
    def monitors(self) -> dict[str, float]:
        """Return what shows a collapse, always of the same training scans and their views 0 and 1.

        Spread and effective rank of the features of view 0, alignment and uniformity of both views' projections.
        """
        features, projected = [], []
        for some in micro_batches(self.train[:MONITORED], self.machine.piece(self.config.batch)):
            read = [self.module.online.readout(self.module.encode(view)) for view in self.views.pair(some, 0)]
            features.append(read[0])
            projected.append([self.module.online.project(one) for one in read])
        first, second = (torch.cat(view) for view in zip(*projected, strict=True))
        return spread(torch.cat(features)) | sphere(first, second)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the losses of the validation scans: always views 0 and 1 and the same masks."""
        sums: dict[str, float] = {}
        for scans in micro_batches(self.validation, self.machine.piece(self.config.batch)):
            for name, value in self._total(list(scans), 0, "validation").items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(scans)
        return {f"validation_{name}": value / len(self.validation) for name, value in sums.items()}


def train(
    snapshot: Snapshot,
    settings: Settings,
    out_dir: Path,
    device: str,
    threads: int,
    progress: bool,
    machine: Machine | None = None,
) -> TrainResult:
    """Train on parcel series (``views: fly``) or stored pFC views (``views: shards``).

    With ``epochs: 0`` the weights of ``init`` are written as they are, and no scan is read.
    """
    config = settings.section("models.brainmass", BrainMassConfig)
    begin = start_module(config, len(snapshot.parcels()), settings.seed)
    module = begin.module.to(device)
    arch = module.arch
    facts = {"architecture": arch.as_dict(), "size": arch.size, "estimator": arch.estimator, **begin.facts}
    if config.epochs == 0:
        if is_first():
            save_weights(out_dir / WEIGHTS, module.state_dict(), model=NAME, architecture=arch.as_dict())
        return TrainResult(history=[], metadata=facts | {"subjects": sorted(begin.subjects), "steps": 0, "skipped": []})

    scans = training_scans(snapshot, "timeseries")
    augment = _augment(settings, scans.train, scans.validation)
    kept, kept_validation = (_long_enough(table, augment) for table in (scans.train, scans.validation))
    skipped = sorted({*scans.train["scan_id"], *scans.validation["scan_id"]} - {*kept, *kept_validation})
    require(len(kept), 2, "scans with a parcel series", "models.brainmass")
    _enough_masked(arch.rois, config)

    views: Views = (
        ShardViews(snapshot, device, arch.estimator)
        if config.views == "shards"
        else FlyViews(snapshot, augment, settings.seed, device, arch.estimator)
    )
    task = BrainMassTask(module, views, kept, kept_validation, config, settings.seed, machine)
    task.sampler.require_ranks(size(), "models.brainmass.batch")
    freeze_untrained(module, task.weights, legacy_frozen_heads=config.legacy_frozen_heads)
    per_epoch = task.sampler.per_epoch
    steps = config.epochs * per_epoch
    recipe = Recipe(
        steps=steps,
        lr=config.lr,
        betas=(0.9, 0.999),
        weight_decay=config.weight_decay,
        warmup=config.warmup_epochs * per_epoch,
        warmup_block=per_epoch,
        decay=config.schedule,
        clip=1.0,
        clip_by="value",
        fused=True,
        validate_every=max(1, steps // 10),
    )
    run = identity(NAME, settings, scans) | facts
    history = fit(task, recipe, out_dir, run, machine=machine, progress=progress)
    if is_first():
        save_weights(out_dir / WEIGHTS, module.state_dict(), model=NAME, architecture=arch.as_dict())
    subjects = sorted({*scans.subjects, *begin.subjects})
    return TrainResult(
        history=history, metadata=scans.metadata() | facts | {"subjects": subjects, "steps": steps, "skipped": skipped}
    )


def load(checkpoint: Path, device: str = "cpu") -> BrainMass:
    """Load a trained BrainMass in eval mode."""
    return load_module(checkpoint).to(device).eval()


def _enough_masked(rois: int, config: BrainMassConfig) -> None:
    """Refuse an InfoNCE task with one candidate: its loss is 0 whatever the network does."""
    if config.weight_clf and n_masked(rois, config.mask_clf) < 2:
        why = f"{config.mask_clf:g} of {rois} ROIs is one, and one candidate is always the right one"
        raise ConfigError("too few masked ROIs", "models.brainmass.mask_clf", why,
                          f"set mask_clf to {2 / rois:.2g} or more, or weight_clf: 0")  # fmt: skip


def _augment(settings: Settings, *tables: pd.DataFrame) -> dict[str, AugmentConfig]:
    pairs = [pair for table in tables for pair in zip(table["scan_id"], table["dataset"], strict=True)]
    by_dataset = {name: settings.section("augment", AugmentConfig, name) for name in {d for _, d in pairs}}
    return {scan: by_dataset[dataset] for scan, dataset in pairs}


def _long_enough(table: pd.DataFrame, augment: dict[str, AugmentConfig]) -> list[str]:
    """Return scans whose views keep enough points; the augment stage says why the others have none."""
    kept = []
    for scan, volumes in zip(table["scan_id"], table["n_volumes"], strict=True):
        if int(volumes) - n_dropped(int(volumes), augment[scan].drop_rate) >= augment[scan].min_timepoints:
            kept.append(str(scan))
    return kept
