"""Numbers that show a collapse before a downstream task does.

Axes: B batch, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(features: Tensor) -> float:
    """Return exp(entropy) of the normalised singular values of centred features (B, D): 1 = collapsed to a line.

    Roy and Vetterli, EUSIPCO 2007.
    """
    centred = (features - features.mean(0)).double().cpu()
    values = torch.linalg.svdvals(centred)
    share = values / values.sum().clamp(min=1e-300)
    share = share[share > 0]
    return float(torch.exp(-(share * share.log()).sum()))


def spread(features: Tensor) -> dict[str, float]:
    """Return ``embedding_variance`` (mean over features of the variance over the batch) and ``effective_rank``."""
    return {
        "embedding_variance": float(features.double().var(dim=0, correction=0).mean()),
        "effective_rank": effective_rank(features),
    }
