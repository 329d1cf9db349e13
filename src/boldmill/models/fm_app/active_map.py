"""Phenotype active map: which parcels matter for a phenotype, from ROI features and its text.

Axes: B batch, R parcels, D width of ROI features, K phenotypes, E width of text vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sinkhorn(logits: Tensor, *, iterations: int = 100, tolerance: float = 1e-7) -> Tensor:
    """Return exp of the Sinkhorn-normalised logits (..., R, K): columns sum to 1, rows to K / R.

    Rows (over K), then columns (over R), in the log domain, until the rows move by less than ``tolerance`` or for
    ``iterations`` rounds (100 in the published code). Each map stops by itself, so that none depends on its batch.
    """
    target = logits.shape[-1] / logits.shape[-2]
    moving = torch.ones(logits.shape[:-2], dtype=torch.bool, device=logits.device)
    for _ in range(iterations):
        rows = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
        balanced = rows - torch.logsumexp(rows, dim=-2, keepdim=True)
        logits = torch.where(moving[..., None, None], balanced, logits)
        moving = moving & ((logits.detach().exp().sum(dim=-1) - target).abs().amax(dim=-1) >= tolerance)
        if not moving.any():
            break
    return logits.exp()


class PhenotypeMap(nn.Module):
    """S (B, R, K) from F (B, R, D) and T (K, E): weights over parcels, each column summing to 1.

    ``softmax`` (default) normalises each phenotype's affinities over the parcels on their own, so that the map of one
    phenotype does not depend on which others are asked for. ``sinkhorn`` is the published mode: the affinities are
    instance-normed over the whole R x K map and balanced, which couples the phenotypes.
    """

    def __init__(self, d: int, text: int, mode: str = "softmax") -> None:
        super().__init__()
        if mode not in ("softmax", "sinkhorn"):
            raise ValueError(f"map mode {mode!r} is neither softmax nor sinkhorn")
        self.mode, self.square = mode, d == text
        bound = d**-0.5
        self.affinity = nn.Parameter(torch.empty(d, text).uniform_(-bound, bound) + torch.eye(d, text))
        self.gain = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor, text: Tensor) -> Tensor:
        """Return the map of each scan."""
        affinity = (self.affinity + self.affinity.T) / 2 if self.square else self.affinity
        logits = features @ affinity @ text.T
        over = (1,) if self.mode == "softmax" else (1, 2)
        centred = logits - logits.mean(dim=over, keepdim=True)
        normed = centred / (centred.square().mean(dim=over, keepdim=True) + 1e-5).sqrt()
        logits = normed * self.gain + self.bias
        return torch.softmax(logits, dim=1) if self.mode == "softmax" else sinkhorn(logits)
