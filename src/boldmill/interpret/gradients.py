"""Integrated gradients of a linear probe's log-odds with respect to the edges of FC.

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017 (arXiv 1703.01365), equation 1: the
gradient along the straight path from a baseline to the input, times their difference. The integral is taken at
Gauss-Legendre points. Completeness (their proposition 1): attributions sum to the difference of the log-odds, which is
measured for every scan.

Axes: B batch, K path points, N regions, F features, E = N (N - 1) / 2 edges (upper triangle, row by row).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PASSES = 64
"""Matrices per forward and backward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Attributions of some scans.

    Parameters
    ----------
    edges : (B, E) array
        Log-odds per edge: both halves of the symmetric input added up.
    difference : (B,) array
        Log-odds of the scan less those of the baseline.
    """

    edges: NDArray[np.float64]
    difference: NDArray[np.float64]

    @property
    def gap(self) -> NDArray[np.float64]:
        """What completeness leaves over, (B,): 0 for an exact integral."""
        return np.asarray(np.abs(self.edges.sum(axis=1) - self.difference))


def path_points(steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Gauss-Legendre points in (0, 1) and their weights, which sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2


def integrated_gradients(model: Any, fc: Tensor, baseline: Tensor, direction: Tensor, steps: int) -> Attribution:
    """Return the attribution of every edge to ``direction . features``.

    Parameters
    ----------
    model : module with ``features``
        In eval mode.
    fc : Tensor
        (B, N, N) cleaned FC matrices (no NaN, diagonal 1).
    baseline : Tensor
        (N, N), as ``fc``: where the path starts.
    direction : Tensor
        (F,) weights of the probe on unscaled features.
    steps : int
        K points of the path; points of several scans share a pass.
    """
    points, weights = path_points(steps)
    moved = fc - baseline
    place = torch.arange(len(fc), device=fc.device).repeat_interleave(steps)
    along = torch.as_tensor(points, dtype=fc.dtype, device=fc.device).repeat(len(fc))
    share = torch.as_tensor(weights, dtype=torch.float64, device=fc.device).repeat(len(fc))
    total = torch.zeros(fc.shape, dtype=torch.float64, device=fc.device)
    for start in range(0, len(place), PASSES):
        which, how_far = place[start : start + PASSES], along[start : start + PASSES]
        inputs = (baseline + how_far[:, None, None] * moved[which]).requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad((model.features(inputs) @ direction).sum(), inputs)
        total.index_add_(0, which, slope.double() * share[start : start + PASSES, None, None])
    attributed = total * moved.double()
    attributed = attributed + attributed.transpose(1, 2)
    upper = torch.triu_indices(fc.shape[-1], fc.shape[-1], offset=1, device=fc.device)
    with torch.no_grad():
        ends = [model.features(part).double() @ direction.double() for part in (fc, baseline[None])]
    return Attribution(
        edges=attributed[:, upper[0], upper[1]].cpu().numpy(), difference=(ends[0] - ends[1]).cpu().numpy()
    )
