"""The three losses of BrainMass and how its masks are drawn.

Axes: B batch, N ROIs, M masked ROIs, D latent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from boldmill.rng import generator
from boldmill.train.precision import products

if TYPE_CHECKING:
    from boldmill.models.brainmass.model import BrainMass


def n_masked(rois: int, ratio: float) -> int:
    """Return floor(ratio * rois), at least 1 (10 and 5 of 100 as published; 11 and 5 of 111).

    >>> [n_masked(100, 0.1), n_masked(100, 0.05), n_masked(111, 0.1), n_masked(100, 0.29)]
    [10, 5, 11, 29]
    """
    return max(1, int(ratio * rois + 1e-9))


def draw_masks(
    scan_ids: Sequence[str], purpose: str, epoch: int | str, seed: int, rois: int, count: int
) -> npt.NDArray[np.int64]:
    """Return masked ROIs, (B, count), sorted: uniform without replacement, keyed by (purpose, scan, epoch, seed)."""
    words = np.stack([generator("mrm", purpose, scan, str(epoch), seed).random(rois) for scan in scan_ids])
    return np.sort(np.argsort(words, axis=1, kind="stable")[:, :count], axis=1).astype(np.int64)


def info_nce(predicted: Tensor, truth: Tensor) -> Tensor:
    """Masked-ROI classification: which of the subject's M predictions belongs to each true row.

    -(1 / (B M)) sum_b sum_i log softmax_j(x_i . c_j)[i], dot products, temperature 1; inputs (B, M, N).
    """
    logits = truth @ predicted.transpose(1, 2)
    labels = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def reconstruction(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error over B x M x N."""
    return F.mse_loss(predicted, truth)


def alignment(online: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
    """Symmetric BYOL loss, 0..8: mean_b of 2 - 2 cos(p1, z2) plus 2 - 2 cos(p2, z1); inputs (B, D)."""
    first = 2 - 2 * F.cosine_similarity(online[0], target[1], dim=-1)
    second = 2 - 2 * F.cosine_similarity(online[1], target[0], dim=-1)
    return (first + second).mean()


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the three terms; a term of weight 0 is not computed."""

    lra: float
    clf: float
    rec: float


def total(
    model: BrainMass, views: tuple[Tensor, Tensor], mask_clf: Tensor, mask_rec: Tensor, weights: Weights
) -> dict[str, Tensor]:
    """Return ``loss``, the weighted sum, and those of its parts ``lra``, ``clf``, ``rec`` that have a weight.

    Masked passes see view 1 only; all online passes share one batch in the blocks. In bf16 the matrix products alone
    are: losses are taken in fp32. Views (B, N, N), masks (B, M) int64.
    """
    first, second = views
    passes: dict[str, tuple[Tensor, Tensor | None]] = {}
    if weights.lra:
        passes |= {"first": (first, None), "second": (second, None)}
    passes |= masked_passes(first, mask_clf, mask_rec, weights)
    parts: dict[str, tuple[float, Tensor]] = {}
    with products(first.device, model.online.precision):
        encoded = dict(zip(passes, model.encode_all(list(passes.values())), strict=True))
    if weights.lra:
        with products(first.device, model.online.precision):
            read = [model.online.readout(encoded[view]) for view in ("first", "second")]
            target = model.target_readouts(first, second)
        parts["lra"] = (weights.lra, aligned(model, read, target, first.dtype))
    parts |= masked_losses(model, passes, encoded, weights)
    loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
    return {"loss": loss, **{name: part for name, (_, part) in parts.items()}}


def masked_passes(
    first: Tensor, mask_clf: Tensor, mask_rec: Tensor, weights: Weights
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return those of the masked passes ``clf`` and ``rec`` that have a weight: view 1 and its mask."""
    both = (("clf", weights.clf, mask_clf), ("rec", weights.rec, mask_rec))
    return {name: (first, mask) for name, weight, mask in both if weight}


def masked_losses(
    model: BrainMass,
    passes: Mapping[str, tuple[Tensor, Tensor | None]],
    encoded: Mapping[str, Tensor],
    weights: Weights,
) -> dict[str, tuple[float, Tensor]]:
    """Return weight and loss of the masked passes, each scan's by itself; ``encoded`` are their tokens (B, N, C)."""
    parts = {}
    for name, weight, head, loss_of in (
        ("clf", weights.clf, model.head_clf, info_nce),
        ("rec", weights.rec, model.head_rec, reconstruction),
    ):
        if weight:
            first, mask = passes[name]
            assert mask is not None
            with products(first.device, model.online.precision):
                predicted, truth = model.masked_predictions(first, mask, head, encoded[name])
            parts[name] = (weight, loss_of(predicted.to(truth.dtype), truth))
    return parts


def aligned(model: BrainMass, read: Sequence[Tensor], target: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the alignment loss of both views' readouts, online and target, each (B, F).

    From here on scans meet, in the batch statistics of projector and predictor: the whole slice of a rank at once.
    """
    with products(read[0].device, model.online.precision):
        projected = [model.online.project(one) for one in read]
        online = [model.predictor(one).to(dtype) for one in projected]
        latent = [one.to(dtype) for one in model.target_project(*target)]
    return alignment((online[0], online[1]), (latent[0], latent[1]))


def freeze_untrained(model: BrainMass, weights: Weights, *, legacy_frozen_heads: bool = False) -> None:
    """Take everything out of training that no term of the loss moves, so that the optimiser holds what is trained.

    ``legacy_frozen_heads`` also takes out what the published optimiser forgets: both masked-ROI heads, the mask vector
    and the extra tokens.
    """
    any_masked = bool(weights.clf or weights.rec)
    vectors = [model.cls_token, model.dist_token]
    idle: list[Iterable[Tensor]] = []
    if not weights.lra:  # the readout is part of the aligned features alone
        idle += [model.online.reduce.parameters(), model.online.project.parameters(), model.predictor.parameters()]
    if not weights.clf or legacy_frozen_heads:
        idle.append(model.head_clf.parameters())
    if not weights.rec or legacy_frozen_heads:
        idle.append(model.head_rec.parameters())
    if not any_masked or legacy_frozen_heads:
        idle.append([model.mask_vector])
    if legacy_frozen_heads or (not any_masked and model.arch.style == "paper"):
        idle.append(vectors)
    for parameters in idle:
        for parameter in parameters:
            parameter.requires_grad_(False)
