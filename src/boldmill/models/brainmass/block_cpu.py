"""One transformer block on a CPU, forward and backward written by hand for a few scans that stay in cache.

Axes: B scans of one piece, S sequence, C token width, T = B S tokens, W feed-forward width.

The arithmetic is that of :class:`boldmill.models.brainmass.encoder.Block`, which stays the reference (tests compare
values and gradients). What is faster here:

- the feed-forward layer goes through in columns of its hidden width, each multiplied, bent, dropped and multiplied
  again while it is in cache;
- bias and the 1 / (1 - p) of dropout ride on the products (``addmm`` with alpha);
- its backward pass needs no mask: a hidden unit is 0 exactly where it was dropped or inactive;
- attention: :mod:`boldmill.models.brainmass.attention_cpu`; masks: :mod:`boldmill.models.brainmass.dropout`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boldmill.models.brainmass import attention_cpu
from boldmill.models.brainmass.attention_cpu import attend, attend_back
from boldmill.models.brainmass.dropout import Masks

EPS = 1e-5

COLUMNS = 128
"""Hidden units that go through the feed-forward layer at a time."""

NAMES = ("qkv.weight", "qkv.bias", "out.weight", "out.bias", "up.weight", "up.bias", "down.weight", "down.bias",
         "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")  # fmt: skip
"""Names of the parameters in :class:`~boldmill.models.brainmass.encoder.Block`."""


@dataclass(slots=True)
class Weights:
    """Parameters of a block, each (out, in) or (out,), in the order of :data:`NAMES`.

    Matrices and their biases may be bf16; norms are fp32.
    """

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor


@dataclass(slots=True)
class Norm:
    """What the backward pass of a residual sum and its norm needs; ``keep`` is the mask (1 or 0) of the branch."""

    keep: Tensor | None
    total: Tensor
    mean: Tensor
    rstd: Tensor


@dataclass(slots=True)
class Saved:
    """What the backward pass of a block needs; ``hidden`` holds the columns of the feed-forward layer."""

    x: Tensor
    attention: list[attention_cpu.Saved]
    mixed: Tensor
    norm1: Norm
    y: Tensor
    hidden: list[Tensor]
    norm2: Norm


def forward(x: Tensor, w: Weights, heads: int, masks: Masks, *, save: bool) -> tuple[Tensor, Saved | None]:
    """Return the block's output (B, S, C) of ``x`` (B, S, C), fp32, and what the backward pass needs."""
    width, low = x.shape[-1], w.qkv.dtype
    flat = (-1, width)
    batch, length = x.shape[:2]
    masks.fill(batch * length * (heads * length + 2 * width + len(w.up)))
    mixed, attention = attend(x.to(low), w.qkv, w.qkv_bias, heads, masks, save=save)
    attended = torch.addmm(w.out_bias, mixed.view(flat).to(low), w.out.t()).view(x.shape)
    y, norm1 = _residual_norm(x, attended, masks, w.norm1, w.norm1_bias)
    fed, hidden = _feed(y.view(flat).to(low), w, masks, save=save)
    z, norm2 = _residual_norm(y, fed.view(x.shape), masks, w.norm2, w.norm2_bias)
    return z, Saved(x, attention, mixed, norm1, y, hidden, norm2) if save else None


def backward(grad: Tensor, w: Weights, heads: int, scale: float, a: Saved, out: list[Tensor]) -> Tensor:
    """Return the gradient of the block's input; add those of its parameters to ``out``.

    ``grad`` (B, S, C). ``out`` follows :data:`NAMES`; the one of ``up.weight`` is transposed, (C, W): that product is
    a third faster. ``scale`` is 1 / (1 - p).
    """
    shape, low = grad.shape, w.qkv.dtype
    flat = (-1, shape[-1])
    d_total, d_fed = _residual_norm_back(grad, a.norm2, scale, w.norm2, w.norm2_bias, out[10:12])
    out[7].add_(d_fed.view(flat).sum(0))
    d_y = _feed_back(d_fed.view(flat).to(low), d_total.view(flat), a, w, scale, out)
    d_total, d_att = _residual_norm_back(d_y.view(shape), a.norm1, scale, w.norm1, w.norm1_bias, out[8:10])
    out[3].add_(d_att.view(flat).sum(0))
    d_att = d_att.to(low)
    _accumulate(out[2], d_att.view(flat).t(), a.mixed.view(flat).to(low), 1.0)
    d_mixed = torch.bmm(w.out.t().expand(len(grad), -1, -1), d_att.mT).float()
    d_qkv = attend_back(d_mixed, a.mixed, heads, scale, a.attention, low).view(-1, 3 * shape[-1])
    out[1].add_(d_qkv.sum(0, dtype=torch.float32))
    _accumulate(out[0], d_qkv.t(), a.x.view(flat).to(low), 1.0)
    d_x = d_total.view(flat)
    _accumulate(d_x, d_qkv, w.qkv, 1.0)
    return d_x.view(shape)


def _feed(y: Tensor, w: Weights, masks: Masks, *, save: bool) -> tuple[Tensor, list[Tensor]]:
    """Return down(dropout(relu(up(y)))), (T, C), and the hidden columns, each (T, COLUMNS)."""
    hidden: list[Tensor] = []
    spare = y.new_empty((len(y), COLUMNS))
    keep = y.new_empty((len(y), COLUMNS)) if masks.rate else None
    fed = torch.empty(0)
    for columns in _columns(len(w.up)):
        size = columns.stop - columns.start
        one = y.new_empty((len(y), size)) if save else spare[:, :size]
        torch.addmm(w.up_bias[columns], y, w.up[columns].t(), out=one).relu_()
        if keep is not None:
            one.mul_(masks.keep(keep[:, :size]))
        down = w.down[:, columns].t()
        if columns.start == 0:
            fed = torch.addmm(w.down_bias, one, down, alpha=masks.scale).float()
        else:
            _accumulate(fed, one, down, masks.scale)
        if save:
            hidden.append(one)
    return fed, hidden


def _feed_back(d_fed: Tensor, d_y: Tensor, a: Saved, w: Weights, scale: float, out: list[Tensor]) -> Tensor:
    """Add the feed-forward layer's share to ``d_y`` (T, C) and to the gradients of its parameters."""
    y = a.y.view(d_y.shape).to(d_fed.dtype)
    spare = d_fed.new_empty((len(d_fed), COLUMNS))
    for columns, hidden in zip(_columns(len(w.up)), a.hidden, strict=True):
        _accumulate(out[6][:, columns], d_fed.t(), hidden, scale)
        d_hidden = spare[:, : hidden.shape[1]]
        torch.addmm(hidden[0], d_fed, w.down[:, columns], beta=0, alpha=scale, out=d_hidden)
        torch.ops.aten.threshold_backward.grad_input(d_hidden, hidden, 0, grad_input=d_hidden)
        out[5][columns].add_(d_hidden.sum(0, dtype=torch.float32))
        _accumulate(out[4][:, columns], y.t(), d_hidden, 1.0)
        _accumulate(d_y, d_hidden, w.up[columns], 1.0)
    return d_y


def _columns(width: int) -> list[slice]:
    return [slice(start, min(start + COLUMNS, width)) for start in range(0, width, COLUMNS)]


def _residual_norm(x: Tensor, branch: Tensor, masks: Masks, weight: Tensor, bias: Tensor) -> tuple[Tensor, Norm]:
    """Return norm(x + dropout(branch)), (B, S, C)."""
    keep = None
    if masks.rate:
        keep = masks.keep(torch.empty_like(x))
        total = torch.addcmul(x, branch.float(), keep, value=masks.scale)
    else:
        total = x + branch
    y, mean, rstd = torch.native_layer_norm(total, (x.shape[-1],), weight, bias, EPS)
    return y, Norm(keep, total, mean, rstd)


def _residual_norm_back(
    grad: Tensor, a: Norm, scale: float, weight: Tensor, bias: Tensor, out: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of x and of the branch; add those of weight and bias to ``out``."""
    width, wanted = [grad.shape[-1]], [True, True, True]
    back = torch.ops.aten.native_layer_norm_backward
    d_total, d_weight, d_bias = back(grad, a.total, width, a.mean, a.rstd, weight, bias, wanted)
    out[0].add_(d_weight)
    out[1].add_(d_bias)
    return d_total, d_total.clone() if a.keep is None else (d_total * a.keep).mul_(scale)


def _accumulate(into: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
    """Add scale * a @ b to ``into``, in fp32 where the factors are bf16."""
    if a.dtype == into.dtype:
        into.addmm_(a, b, alpha=scale)
    else:
        into.add_(a @ b, alpha=scale)
