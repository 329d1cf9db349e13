"""AdamW groups, learning-rate schedules and gradient clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one model is optimised.

    Parameters
    ----------
    steps : int
        Optimiser steps of the whole run.
    lr : float
        Peak learning rate.
    warmup : int
        Steps of linear warm-up.
    warmup_block : int
        The warm-up rises once every so many steps (1: every step; the steps of an epoch: once per epoch).
    decay : {"constant", "cosine"}
        What follows the warm-up; cosine falls to 0 at the last step.
    clip, clip_by : float, {"value", "norm"}
        Gradient clipping.
    validate_every : int
        Steps between validations (0: after the last step only).
    fused : bool
        One kernel per step in place of one per operation; rounds differently in the last bit.
    """

    steps: int
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    warmup: int
    warmup_block: int = 1
    decay: Literal["constant", "cosine"] = "constant"
    clip: float = 1.0
    clip_by: Literal["value", "norm"] = "norm"
    validate_every: int = 0
    fused: bool = False

    def factor(self, step: int) -> float:
        """Return the share of the peak learning rate at ``step``, counted from 0."""
        if step < self.warmup:
            block = step // self.warmup_block + 1
            return min(1.0, block * self.warmup_block / self.warmup)
        if self.decay == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))


def adamw(module: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over every trained parameter; only matrices decay (no biases, norms, tokens, position tables)."""
    import torch

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if _is_matrix(p)], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if not _is_matrix(p)], "weight_decay": 0.0},
    ]
    used = [group for group in groups if group["params"]]
    return torch.optim.AdamW(used, lr=recipe.lr, betas=recipe.betas, fused=recipe.fused or None)


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim == 2


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def clip_gradients(module: nn.Module, recipe: Recipe) -> Tensor:
    """Clip in place and return the gradient norm before clipping."""
    import torch

    grads = [p.grad for p in module.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if recipe.clip_by == "value":
        torch.nn.utils.clip_grad_value_(module.parameters(), recipe.clip)
    else:
        torch.nn.utils.clip_grads_with_norm_(module.parameters(), recipe.clip, norm)
    return norm
