"""Losses in pieces: the same dropout in both passes, terms without weight left out, the whole batch's gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boldmill.models.brainmass.accumulate import total_in_pieces
from boldmill.models.brainmass.architecture import Architecture
from boldmill.models.brainmass.losses import Weights, total
from boldmill.models.brainmass.model import BrainMass

SCANS, ROIS = 7, 6


def given(dropout: float) -> tuple[BrainMass, tuple[Tensor, Tensor], Tensor, Tensor]:
    torch.manual_seed(0)
    arch = Architecture(rois=ROIS, width=ROIS, depth=2, heads=2, ffn=8, latent=5, hidden=9, dropout=dropout)
    fc = torch.randn(2, SCANS, ROIS, ROIS, dtype=torch.float64)
    masks = torch.stack([torch.randperm(ROIS)[:3].sort().values for _ in range(2 * SCANS)]).view(2, SCANS, 3)
    return BrainMass(arch).double().train(), (fc[0], fc[1]), masks[0], masks[1]


def gradients(
    weights: Weights, most: int = 0, dropout: float = 0.4
) -> tuple[dict[str, float], dict[str, Tensor], dict[str, Tensor]]:
    """Losses, gradients and buffers of one step; whole, or in pieces of ``most``."""
    model, views, clf, rec = given(dropout)
    torch.manual_seed(5)
    pieces = (
        total_in_pieces(model, views, clf, rec, weights, most) if most else [total(model, views, clf, rec, weights)]
    )
    sums: dict[str, float] = {}
    for piece in pieces:
        piece["loss"].backward()
        for name, value in piece.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return sums, grads, dict(model.named_buffers())


def test_the_second_pass_draws_the_dropout_of_the_first() -> None:
    """The alignment term alone, in one piece, draws what a whole step draws."""
    weights = Weights(1.0, 0.0, 0.0)
    for one, two in zip(gradients(weights), gradients(weights, SCANS), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=1e-12, rtol=1e-12, msg=name)


@pytest.mark.parametrize("weights", [Weights(0.7, 0.2, 2.0), Weights(0.7, 0.0, 2.0), Weights(0.0, 0.2, 0.0)])
@pytest.mark.parametrize("most", [1, 3])
def test_without_dropout_pieces_are_the_whole(weights: Weights, most: int) -> None:
    for one, two in zip(gradients(weights, dropout=0.0), gradients(weights, most, dropout=0.0), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=1e-12, rtol=1e-10, msg=name)
