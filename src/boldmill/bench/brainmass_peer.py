"""The pre-training step as published, written from its description for the measurement alone.

Axes: B batch, N ROIs, M masked ROIs, C = N token width, D latent.

What the published code does is kept: ``torch.nn.TransformerEncoderLayer`` in fp32, one pass per purpose, the target in
training mode, masks and both masked-ROI heads in Python loops over the scans, nilearn's connectivity for the views
of each scan, gradients clipped by value, AdamW and the moving average parameter by parameter. What it leaves out by
mistake (heads and tokens in the optimiser) is left out here too: it only spares it work.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boldmill.models.brainmass.architecture import READOUT, Architecture
from boldmill.models.brainmass.encoder import sinusoid

MASKED = {"clf": 10, "rec": 5}
"""Masked ROIs of 100, as published."""


class Encoder(nn.Module):
    """Transformer over the rows of FC, readout and projector."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(arch.width, arch.heads, arch.ffn, batch_first=True)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(arch.depth))
        self.reduce = nn.Sequential(nn.Linear(arch.width, READOUT), nn.LeakyReLU())
        self.project = nn.Sequential(
            nn.Linear(arch.features, arch.hidden), nn.BatchNorm1d(arch.hidden), nn.ReLU(),
            nn.Linear(arch.hidden, arch.latent),
        )  # fmt: skip

    def tokens(self, x: Tensor) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, N) -> (B, D)."""
        latent: Tensor = self.project(self.reduce(self.tokens(x)).flatten(1))
        return latent


class PublishedStep:
    """One optimisation step of the published pre-training.

    Parameters
    ----------
    arch : Architecture
        The size; its width must be its number of ROIs.
    device : str
        Torch device.
    """

    def __init__(self, arch: Architecture, device: str) -> None:
        self.rois, self.device = arch.rois, device
        self.online = Encoder(arch).to(device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.predictor = nn.Sequential(
            nn.Linear(arch.latent, 2 * arch.latent), nn.BatchNorm1d(2 * arch.latent), nn.ReLU(),
            nn.Linear(2 * arch.latent, arch.latent),
        ).to(device)  # fmt: skip
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(arch.width, arch.ffn), nn.LeakyReLU(), nn.Linear(arch.ffn, arch.rois))
             for name in MASKED}
        ).to(device)  # fmt: skip
        self.mask_vector, self.extra = (
            nn.Parameter(0.1 * torch.randn(1, n, arch.width, device=device)) for n in (1, 2)
        )
        self.positions = sinusoid(arch.rois + 2, arch.width).to(device)
        self.trained = [*self.online.parameters(), *self.predictor.parameters()]
        self.optimiser = torch.optim.AdamW(self.trained, lr=3e-4, weight_decay=5e-5, foreach=False, fused=False)

    def views(self, series: Sequence[npt.NDArray[Any]]) -> tuple[Tensor, Tensor]:
        """Return two views (B, N, N) of series (T, N), each scan and view by itself, as at item access."""
        from nilearn.connectome import ConnectivityMeasure

        measure = ConnectivityMeasure(kind="correlation", standardize="zscore_sample")
        pairs: tuple[list[Any], list[Any]] = ([], [])
        for one in series:
            for found in pairs:
                dropped = random.sample(range(len(one)), 20 * len(one) // 100)
                matrix = measure.fit_transform([np.delete(one, dropped, axis=0)])[0]
                found.append(np.nan_to_num(matrix))
        stacked = [torch.from_numpy(np.stack(found)).float().to(self.device) for found in pairs]
        return stacked[0], stacked[1]

    def masked(self, x: Tensor, name: str) -> Tensor:
        """Return the loss of one masked pass: masks, heads and losses scan by scan."""
        count = MASKED[name]
        batch = len(x)
        index = torch.empty((batch, count), dtype=torch.long, device=self.device)
        dense = torch.ones_like(x)
        for i in range(batch):
            index[i] = torch.tensor(random.sample(range(self.rois), count), device=self.device)
            dense[i, index[i], :] = 0
        tokens = x * dense + (1 - dense) * self.mask_vector
        tokens = torch.cat([self.extra.expand(batch, -1, -1), tokens], dim=1) + self.positions
        encoded = self.online.tokens(tokens)
        loss = x.new_zeros(())
        for i in range(batch):
            predicted = self.heads[name](encoded[i, index[i] + 2, :])
            truth = x[i, index[i], :].detach()
            if name == "clf":
                scores = F.log_softmax(truth @ predicted.T, dim=-1)
                loss = loss - torch.diag(scores).mean()
            else:
                loss = loss + (predicted - truth).square().mean()
        return loss / batch

    def step(self, first: Tensor, second: Tensor) -> Tensor:
        """Do one step on two views, each (B, N, N); return the loss."""
        online = [self.predictor(self.online(view)) for view in (first, second)]
        with torch.no_grad():
            target = [self.target(view) for view in (first, second)]
        align = sum(
            (2 - 2 * F.cosine_similarity(a, b, dim=-1)).mean() for a, b in zip(online, target[::-1], strict=True)
        )
        loss: Tensor = align + 0.1 * self.masked(first, "clf") + 2.0 * self.masked(first, "rec")
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_value_(self.trained, 1.0, foreach=False)
        self.optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.data = slow.data * 0.996 + fast.data * 0.004
        return loss.detach()
