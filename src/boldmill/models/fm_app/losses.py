"""Losses of FM-APP: squared error over known labels only, and feature transfer guided by the active map.

Axes: B batch, R parcels, D width of ROI features, K phenotypes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mse(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error over the known labels (NaN in ``truth`` is unknown); 0 where none is known."""
    known = torch.isfinite(truth)
    error = torch.where(known, predicted - torch.nan_to_num(truth, nan=0.0), torch.zeros_like(predicted))
    return error.square().sum() / known.sum().clamp(min=1)


def transfer_loss(target: Tensor, learner: Tensor, active: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference of ROI features, parcels weighted by ``a_r = R mean_k S[r, k]``.

    Parameters
    ----------
    target, learner : Tensor
        (B, R, D) features of the frozen fMRI encoder and of the T1w encoder.
    active : Tensor, optional
        (B, R, K) map of the fMRI features. Without it every parcel weighs 1 (the published code); a uniform map gives
        the same, because its columns sum to 1.
    """
    difference = (target - learner).abs()
    if active is not None:
        difference = difference * (active.shape[1] * active.mean(dim=2))[:, :, None]
    return difference.mean()
