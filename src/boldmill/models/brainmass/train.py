"""Train and load BrainMass (protocol: :mod:`boldmill.train.protocol`).

Axes: B batch, P parcels (ROIs).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boldmill.errors import ConfigError
from boldmill.models.brainmass.config import BrainMassConfig
from boldmill.models.brainmass.losses import Weights, draw_masks, freeze_untrained, n_masked, total
from boldmill.models.brainmass.model import BrainMass
from boldmill.models.brainmass.start import NAME, load_module, start_module
from boldmill.models.brainmass.views import FlyViews, ShardViews, Views
from boldmill.represent.config import AugmentConfig
from boldmill.represent.pfc import n_dropped
from boldmill.train.checkpoint import WEIGHTS, save_weights
from boldmill.train.data import training_scans
from boldmill.train.distributed import is_first, own
from boldmill.train.loop import discard_resume, fit
from boldmill.train.monitor import sphere, spread
from boldmill.train.optim import Recipe
from boldmill.train.order import batches_per_epoch, epoch_batches, require
from boldmill.train.protocol import TrainResult

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
    ) -> None:
        self.module, self.views, self.config, self.seed = module, views, config, seed
        self.train, self.validation = train, validation
        self.per_epoch = batches_per_epoch(len(train), config.batch)
        self.weights = Weights(config.weight_lra, config.weight_clf, config.weight_rec)
        module.set_execution(config.precision, compiled=config.compile)

    def epoch(self, step: int) -> int:
        """Return the pass over the scans."""
        return step // self.per_epoch

    def losses(self, step: int) -> dict[str, Tensor]:
        """Return the losses of one batch of scans; on several ranks those of this rank's scans by their share."""
        epoch, place = divmod(step, self.per_epoch)
        picked = epoch_batches(len(self.train), self.config.batch, NAME, self.seed, epoch)[place]
        mine = own(picked.tolist())
        found = self._total([self.train[i] for i in mine], epoch, epoch)
        share = len(mine) / len(picked)
        return found if share == 1 else {name: value * share for name, value in found.items()}

    def _total(self, scans: list[str], epoch: int, key: int | str) -> dict[str, Tensor]:
        rois, device = self.module.arch.rois, self.module.cls_token.device
        masks = [
            torch.from_numpy(draw_masks(scans, purpose, key, self.seed, rois, n_masked(rois, ratio))).to(device)
            for purpose, ratio in (("clf", self.config.mask_clf), ("rec", self.config.mask_rec))
        ]
        return total(self.module, self.views.pair(scans, epoch), masks[0], masks[1], self.weights)

    def after_step(self, step: int) -> None:
        """Move the target network, which only the alignment term looks at."""
        if self.weights.lra:
            self.module.update_target(self.config.ema)

    @torch.no_grad()
    def monitors(self) -> dict[str, float]:
        """Return what shows a collapse, always of the same training scans and their views 0 and 1.

        Spread and effective rank of the features of view 0, alignment and uniformity of both views' projections.
        """
        pieces = range(0, min(len(self.train), MONITORED), self.config.batch)
        scans = [self.train[first : min(first + self.config.batch, MONITORED)] for first in pieces]
        features, projected = [], []
        for some in scans:
            read = [self.module.online.readout(self.module.encode(view)) for view in self.views.pair(some, 0)]
            features.append(read[0])
            projected.append([self.module.online.project(one) for one in read])
        first, second = (torch.cat(view) for view in zip(*projected, strict=True))
        return spread(torch.cat(features)) | sphere(first, second)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Return the losses of the validation scans: always views 0 and 1 and the same masks."""
        sums: dict[str, float] = {}
        for start in range(0, len(self.validation), self.config.batch):
            scans = self.validation[start : start + self.config.batch]
            for name, value in self._total(scans, 0, "validation").items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(scans)
        return {f"validation_{name}": value / len(self.validation) for name, value in sums.items()}


def train(
    snapshot: Snapshot, settings: Settings, out_dir: Path, device: str, threads: int, progress: bool
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
    task = BrainMassTask(module, views, kept, kept_validation, config, settings.seed)
    freeze_untrained(module, task.weights, legacy_frozen_heads=config.legacy_frozen_heads)
    steps = config.epochs * task.per_epoch
    recipe = Recipe(
        steps=steps,
        lr=config.lr,
        betas=(0.9, 0.999),
        weight_decay=config.weight_decay,
        warmup=config.warmup_epochs * task.per_epoch,
        warmup_block=task.per_epoch,
        decay=config.schedule,
        clip=1.0,
        clip_by="value",
        fused=True,
        validate_every=max(1, steps // 10),
    )
    identity = {"model": NAME, "seed": settings.seed, "settings": settings.digest, "data": scans.digest}
    history = fit(task, recipe, out_dir, identity | facts, progress=progress)
    if is_first():
        save_weights(out_dir / WEIGHTS, module.state_dict(), model=NAME, architecture=arch.as_dict())
        discard_resume(out_dir)
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
