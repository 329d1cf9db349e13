"""Attention rollout: how much each region reaches the read-out through all layers of attention.

Abnar and Zuidema, "Quantifying attention flow in transformers", ACL 2020 (arXiv 2005.00928), section 3: per layer
``0.5 A + 0.5 I`` with the mean over heads, multiplied up over layers. The read-out of BrainMass takes every region's
token alike, so a region's relevance is the mean of its column. Weights are computed here, outside the training path:
fused attention never returns them.

Axes: B batch, H heads, S sequence (extra tokens first), N regions, C token width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def attention_weights(block: Any, x: Tensor) -> Tensor:
    """Return the softmax attention of a block on its input, (B, S, C) -> (B, H, S, S); rows sum to 1."""
    batch, length, width = x.shape
    qkv = block.qkv(x).view(batch, length, 3, block.heads, width // block.heads).permute(2, 0, 3, 1, 4)
    scores = qkv[0] @ qkv[1].transpose(-1, -2) / (width // block.heads) ** 0.5
    return torch.softmax(scores.float(), dim=-1)


@torch.no_grad()
def rollout(model: Any, fc: Tensor) -> Tensor:
    """Return the rollout between regions of FC matrices, (B, N, N) -> (B, N, N).

    Entry (i, j) is how much of region j's token reaches region i's; extra tokens are dropped at the end and rows
    brought to sum 1 again.

    Parameters
    ----------
    model : BrainMass
        In eval mode; what it runs on a scan is observed, not rebuilt.
    fc : Tensor
        Cleaned FC matrices (no NaN, diagonal 1).
    """
    if model.training:
        raise ValueError("rollout of a model in training mode: dropout would make it random")
    flow: list[Tensor] = []

    def seen(block: Any, inputs: tuple[Tensor, ...]) -> None:
        attention = attention_weights(block, inputs[0]).mean(dim=1)
        step = 0.5 * attention + 0.5 * torch.eye(attention.shape[-1], device=attention.device)
        flow[:] = [step @ flow[0]] if flow else [step]

    watched = [block.register_forward_pre_hook(seen) for block in model.online.blocks]
    try:
        model.features(fc)
    finally:
        for handle in watched:
            handle.remove()
    regions = fc.shape[-1]
    between = flow[0][:, -regions:, -regions:]
    return between / between.sum(dim=-1, keepdim=True)


def relevance(between: Tensor) -> Tensor:
    """Return the relevance of each region, (B, N, N) -> (B, N): 1 everywhere where no region stands out."""
    return between.mean(dim=1) * between.shape[-1]
