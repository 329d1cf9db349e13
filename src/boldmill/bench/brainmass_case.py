"""What one measurement of BrainMass works on: made-up series, our whole step, the published step, one large product.

Axes: T time, P parcels (ROIs), B batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boldmill.models.brainmass.architecture import design
from boldmill.models.brainmass.config import BrainMassConfig
from boldmill.models.brainmass.flops import step_flops
from boldmill.models.brainmass.losses import n_masked
from boldmill.models.brainmass.model import BrainMass
from boldmill.models.brainmass.start import NAME
from boldmill.models.brainmass.train import BrainMassTask
from boldmill.models.brainmass.views import FlyViews
from boldmill.represent.config import AugmentConfig
from boldmill.rng import generator
from boldmill.train.loop import train_step
from boldmill.train.optim import Recipe, adamw

ROIS, TIMEPOINTS, SCANS = 100, 176, 64
"""An ABIDE-like scan in Schaefer-100."""

BATCH = {"tiny": 4, "S": 32, "B": 8, "L": 4}
"""Scans per step on a CPU: both sides fit into 24 GB of memory."""

GPU_BATCH = {"tiny": 256, "S": 256, "B": 256, "L": 256}
"""The published global batch."""

SQUARE = 2048
"""Size of the product that gives the machine's arithmetic rate."""


def series() -> dict[str, Any]:
    """Return series (T, P) of the scans, float32."""
    made = {}
    for number in range(SCANS):
        rng = generator("bench", "brainmass", number)
        shared = rng.standard_normal((TIMEPOINTS, 5)) @ rng.standard_normal((5, ROIS))
        made[f"scan-{number:02d}"] = (shared + rng.standard_normal((TIMEPOINTS, ROIS))).astype(np.float32)
    return made


class Ours:
    """Our whole step, as the training loop does it."""

    def __init__(self, size: str, precision: str, batch: int, device: str, data: dict[str, Any]) -> None:
        config = BrainMassConfig.model_validate(
            {"size": size, "batch": batch, "precision": precision, "compile": device != "cpu"}
        )
        arch = design(size, ROIS)
        torch.manual_seed(1)
        snapshot: Any = SimpleNamespace(timeseries=data.__getitem__)
        views = FlyViews(snapshot, dict.fromkeys(data, AugmentConfig()), 1, device)
        self.task = BrainMassTask(BrainMass(arch).to(device), views, list(data), [], config, 1)
        self.recipe = Recipe(steps=10**6, lr=3e-4, betas=(0.9, 0.999), weight_decay=5e-5, warmup=0, clip_by="value",
                             fused=True)  # fmt: skip
        self.optimiser = adamw(self.task.module, self.recipe)
        self.number = 0
        masked = n_masked(ROIS, config.mask_clf), n_masked(ROIS, config.mask_rec)
        self.flops = batch * step_flops(arch, masked)

    def __call__(self) -> None:
        """Do one step."""
        train_step(self.task, self.optimiser, self.recipe, {"model": NAME, "seed": 1}, self.number)
        self.number += 1


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def square(device: str, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a call that multiplies two SQUARE x SQUARE matrices."""
    matrix = torch.from_numpy(generator("bench", "square").standard_normal((SQUARE, SQUARE), np.float32))
    one = matrix.to(device=device, dtype=dtype)
    out = torch.empty_like(one)
    return lambda: torch.mm(one, one, out=out)


@dataclass(slots=True)
class Clock:
    """Wall and CPU seconds of repeated calls (CPU: of all threads of this process)."""

    wall: list[float]
    cpu: list[float]

    def clear(self) -> None:
        """Forget what was measured."""
        self.wall.clear()
        self.cpu.clear()

    def time(self, call: Callable[[], Any], wait: Callable[[], object]) -> Any:
        """Call and note both times; return what the call gave."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = call()
        wait()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return found
