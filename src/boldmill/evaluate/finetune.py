"""The encoder of BrainMass with a head: fine-tuned from a checkpoint, or trained from random weights.

Axes: B batch, E edges, P parcels, F = 8 P features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from boldmill.evaluate.methods_config import Budget
from boldmill.evaluate.networks import Matrices

UNUSED = ("target", "predictor", "head_clf", "head_rec")
"""Parts of BrainMass that features do not pass through."""


def linear_head(features: int) -> nn.Module:
    """Return one linear layer on standardised features (He et al. 2022, Masked autoencoders, A.1)."""
    return nn.Sequential(nn.BatchNorm1d(features, affine=False), nn.Linear(features, 1))


class PublishedHead(nn.Module):
    """Head of the class ``FT`` of the published code: F -> 256 -> 32 -> 2, or 1 for a regression.

    The score is the difference of the two outputs, so that its logistic loss is their cross-entropy.
    """

    def __init__(self, features: int, outputs: int, dropout: float) -> None:
        super().__init__()

        def hidden(width: int, out: int) -> list[nn.Module]:
            return [nn.Linear(width, out), nn.BatchNorm1d(out), nn.LeakyReLU(0.01), nn.Dropout(dropout)]

        self.layers = nn.Sequential(
            nn.LeakyReLU(0.01), *hidden(features, 256), *hidden(256, 32), nn.Linear(32, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 1)."""
        y: Tensor = self.layers(x)
        return y[:, 1:] - y[:, :1] if y.shape[1] == 2 else y


class EncoderClassifier(nn.Module):
    """BrainMass features of FC edges and a head: (B, E) -> (B,)."""

    def __init__(self, model: Any, head: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.matrices = Matrices(model.arch.rois)
        self.head = head

    def forward(self, edges: Tensor) -> Tensor:
        """Return one score per scan."""
        y: Tensor = self.head(self.model.features(self.matrices(edges)))[:, 0]
        return y


def classifier(model: Any, *, fresh: bool, head: str, kind: str, dropout: float) -> Callable[[], nn.Module]:
    """Return a builder of classifiers: each call copies the model, or (``fresh``) draws its weights anew.

    The model given is never changed. ``head`` is ``"linear"`` or ``"published"``.
    """

    def build() -> nn.Module:
        own = type(model)(model.arch) if fresh else copy.deepcopy(model)
        for name in UNUSED:
            setattr(own, name, nn.Identity())
        own.online.project = nn.Identity()
        own.requires_grad_(True)
        width = model.arch.features
        outputs = 2 if kind == "classification" else 1
        chosen = linear_head(width) if head == "linear" else PublishedHead(width, outputs, dropout)
        return EncoderClassifier(own, chosen)

    return build


def layered(network: nn.Module, budget: Budget) -> list[dict[str, Any]]:
    """Return parameter groups whose learning rate falls by ``layer_decay`` from each block to the one below it.

    Head and readout have the full rate, the input (projection, tokens) that of the lowest block times the decay.
    """
    decay = float(getattr(budget, "layer_decay", 1.0))
    own: Any = network
    blocks = list(own.model.online.blocks)
    level = {id(p): i for i, block in enumerate(blocks) for p in block.parameters()}
    level |= {id(p): len(blocks) for part in (own.model.online.reduce, own.head) for p in part.parameters()}
    groups: dict[int, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault(level.get(id(parameter), -1), []).append(parameter)
    return [{"params": groups[i], "lr": budget.lr * decay ** (len(blocks) - i)} for i in sorted(groups)]
