"""Attention over a few scans on a CPU, forward and backward, in an order that suits narrow heads.

Axes: B scans, S sequence, C token width, H heads, D = C / H.

Queries, keys, values and output lie channel-first, (B H, D, S): every product then has S as its long inner dimension,
where the usual layout multiplies by matrices only D = 5..20 wide (up to five times slower). The row sums of the softmax
gradient come from the output, sum_j dP_ij P_ij = do_i . o_i, dropout included. Scans go through in groups whose
attention matrices stay in cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boldmill.models.brainmass.dropout import Masks

GROUP = 220_000
"""Elements of the attention matrices of one group of scans (0.9 MB)."""


@dataclass(slots=True)
class Saved:
    """Softmax before and after dropout (1 / (1 - p) not applied), each (B' H, S, S), and q, k, v of one group."""

    scans: slice
    q: Tensor
    k: Tensor
    v: Tensor
    soft: Tensor
    dropped: Tensor


def attend(
    x: Tensor, weight: Tensor, bias: Tensor, heads: int, masks: Masks, *, save: bool
) -> tuple[Tensor, list[Saved]]:
    """Return the mixed values (B, S, C), fp32, of tokens ``x`` (B, S, C) and what the backward pass needs.

    ``x``, ``weight`` (3 C, C) and ``bias`` (3 C,) share one dtype, fp32 or bf16.
    """
    batch, length, width = x.shape
    group = max(1, GROUP // (heads * length * length))
    mixed = torch.empty((batch, length, width))
    merged = torch.addmm(bias, x.reshape(-1, width), weight.t()).view(batch, length, 3, width)
    turned = merged.float().permute(2, 0, 3, 1)
    turned[0].mul_((width // heads) ** -0.5)
    saved = []
    for start in range(0, batch, group):
        scans = slice(start, start + group)
        q, k, v = (one[scans].reshape(-1, width // heads, length) for one in turned)
        soft = torch.bmm(q.mT, k)
        torch.softmax(soft, -1, out=soft)
        dropped = soft
        if masks.rate:
            dropped = torch.empty_like(soft)
            masks.keep(dropped).mul_(soft)
        mixed[scans] = scaled_bmm(v, dropped.mT, masks.scale).view(-1, width, length).mT
        if save:
            saved.append(Saved(scans, q, k, v, soft, dropped))
    return mixed, saved


def attend_back(
    d_mixed: Tensor, mixed: Tensor, heads: int, scale: float, saved: list[Saved], low: torch.dtype
) -> Tensor:
    """Return the gradient (B, S, 3 C) of the projected queries, keys and values, as ``low``.

    ``d_mixed`` (B, C, S) is channel-first, ``mixed`` (B, S, C) what :func:`attend` gave, ``scale`` 1 / (1 - p).
    """
    batch, length, width = mixed.shape
    found = torch.empty((batch, length, 3 * width), dtype=low)
    for a in saved:
        d_out = d_mixed[a.scans]
        rows = (d_out * mixed[a.scans].mT).view(len(a.q), -1, length).sum(1)
        d_out = d_out.view(len(a.q), -1, length)
        d_v = scaled_bmm(d_out, a.dropped, scale)
        d_soft = scaled_bmm(d_out.mT, a.v, scale)
        d_soft.mul_(a.dropped).addcmul_(a.soft, rows[..., None], value=-1)
        d_q = scaled_bmm(a.k, d_soft.mT, (width // heads) ** -0.5)
        d_k = torch.bmm(a.q, d_soft)
        for part, one in zip(thirds(width), (d_q, d_k, d_v), strict=True):
            found[a.scans, :, part] = one.view(-1, width, length).mT
    return found


def thirds(width: int) -> tuple[slice, slice, slice]:
    """Return where queries, keys and values lie in the merged projection."""
    return slice(0, width), slice(width, 2 * width), slice(2 * width, 3 * width)


def scaled_bmm(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return scale * a @ b of batches."""
    return torch.bmm(a, b) if scale == 1 else torch.baddbmm(a.new_zeros(1), a, b, beta=0, alpha=scale)
