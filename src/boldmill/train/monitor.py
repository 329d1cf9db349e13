"""Numbers that show a collapse before a downstream task does.

Axes: B batch, D features.
"""

from __future__ import annotations

import math

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


def alignment(first: Tensor, second: Tensor) -> float:
    """Return mean_i ||x_i - y_i||^2 of L2-normalised pairs (B, D): 0 (equal) to 4 (opposite).

    Wang and Isola, ICML 2020, eq. 4 with alpha = 2.
    """
    x, y = _unit(first), _unit(second)
    return float((x - y).square().sum(1).mean())


def uniformity(vectors: Tensor) -> float:
    """Return log mean_{i < j} exp(-2 ||x_i - x_j||^2) of L2-normalised vectors (B, D): 0 = all in one place.

    Wang and Isola, ICML 2020, eq. 5 with t = 2; the lower, the more evenly spread. 0 for a single vector.
    """
    x = _unit(vectors)
    if len(x) < 2:
        return 0.0
    distances = torch.pdist(x).square()
    return float(torch.logsumexp(-2 * distances, 0) - math.log(len(distances)))


def sphere(first: Tensor, second: Tensor) -> dict[str, float]:
    """Return ``alignment`` of two views of the same scans (B, D) and ``uniformity``, the mean of both views."""
    return {"alignment": alignment(first, second), "uniformity": (uniformity(first) + uniformity(second)) / 2}


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.double().cpu(), dim=1)
