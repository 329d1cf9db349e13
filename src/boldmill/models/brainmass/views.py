"""pFC views for training, in batches on the training device, or read from the shards: the same networks.

Axes: B batch (scans), T time (padded), P parcels, E = P (P - 1) / 2 edges.

Which points a view drops comes from :mod:`boldmill.represent.pfc`; view indices count over the whole run, 2 * epoch
and 2 * epoch + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from boldmill.errors import ConfigError
from boldmill.represent.pfc import view_masks

if TYPE_CHECKING:
    from boldmill.models.brainmass.architecture import Estimator
    from boldmill.represent.config import AugmentConfig
    from boldmill.shards.reader import Snapshot

CACHE_BYTES = 8 << 30
"""Series kept on the device; beyond it they are read again at every use."""


class Views(Protocol):
    """Where views come from."""

    def pair(self, scan_ids: Sequence[str], epoch: int) -> tuple[Tensor, Tensor]:
        """Return the two views of an epoch, each (B, P, P) with diagonal 1 and no NaN."""
        ...


def masked_correlation(series: Tensor, kept: Tensor, estimator: Estimator = "pearson") -> Tensor:
    """Return the correlation over the kept points of padded series.

    Parameters
    ----------
    series : Tensor
        (B, T, P); finite, of any value where not kept.
    kept : Tensor
        (B, T) bool.
    estimator : {"pearson", "ledoit_wolf"}
        Ledoit-Wolf multiplies every value off the diagonal by 1 less the shrinkage of that view.

    Returns
    -------
    Tensor
        (B, P, P); 0 for parcels constant over the kept points, diagonal 1.
    """
    weight = kept[..., None].to(series.dtype)
    mean = (series * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    centred = (series - mean) * weight
    square = centred.square().sum(1, keepdim=True)
    # z-scored input: a parcel this far below unit variance is constant but for rounding
    scaled = torch.where(square > 1e-8, centred * square.clamp(min=1e-8).rsqrt(), 0.0)
    r = scaled.mT @ scaled
    if estimator == "ledoit_wolf":
        r = r * (1.0 - shrinkage(scaled, r, kept.sum(1)))[:, None, None]
    return r.clamp(-1.0, 1.0).masked_fill(torch.eye(r.shape[-1], dtype=torch.bool, device=r.device), 1.0)


def shrinkage(unit: Tensor, r: Tensor, points: Tensor) -> Tensor:
    """Return the Ledoit-Wolf shrinkage of z-scored series (J. Multivar. Anal. 88:365-411, 2004).

    With n points, p parcels that are not constant and ``u`` the series scaled to unit norm (z = sqrt(n) u), the
    covariance of z is ``r`` and its target the identity, so that ::

        delta = (sum_ij r_ij^2 - p) / p
        beta  = (n sum_t (sum_i u_ti^2)^2 - sum_ij r_ij^2) / (n p)
        shrinkage = min(beta, delta) / delta, and 0 where beta is 0

    Parameters
    ----------
    unit : Tensor
        (B, T, P): centred and of unit norm over T; 0 for points left out, padding and constant parcels.
    r : Tensor
        (B, P, P): their products, ``unit.mT @ unit``.
    points : Tensor
        (B,): kept points n.

    Returns
    -------
    Tensor
        (B,), 0..1; 0 with fewer than two parcels. Sums are taken in float64: beta is a small difference of them.
    """
    parcels = (r.diagonal(dim1=1, dim2=2) > 0.5).sum(1).double()
    squares = r.square().sum((1, 2), dtype=torch.float64)
    fourth = unit.square().sum(2, dtype=torch.float64).square().sum(1)
    delta = (squares - parcels) / parcels
    beta = (points * fourth - squares) / (points * parcels)
    shrunk = torch.minimum(beta, delta) / delta
    return torch.where((parcels > 1) & (beta > 0) & (delta > 0), shrunk, 0.0).to(r.dtype)


def from_edges(edges: Tensor, parcels: int) -> Tensor:
    """Return matrices of upper triangles, (B, E) -> (B, P, P): NaN becomes 0, the diagonal 1."""
    rows, cols = torch.triu_indices(parcels, parcels, offset=1, device=edges.device)
    matrix = torch.eye(parcels, device=edges.device).repeat(len(edges), 1, 1)
    values = torch.nan_to_num(edges.float(), nan=0.0)
    matrix[:, rows, cols] = values
    matrix[:, cols, rows] = values
    return matrix


class FlyViews:
    """Views made on the device from parcel series.

    Parameters
    ----------
    snapshot : Snapshot
        Source of the series.
    augment : mapping
        Scan id -> pFC settings (a data set may override them).
    seed : int
        Base seed.
    device : str
        Torch device.
    estimator : {"pearson", "ledoit_wolf"}
        See :func:`masked_correlation`.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        augment: Mapping[str, AugmentConfig],
        seed: int,
        device: str,
        estimator: Estimator = "pearson",
    ) -> None:
        self.snapshot, self.augment, self.seed, self.device = snapshot, augment, seed, device
        self.estimator: Estimator = estimator
        self._cache: dict[str, Tensor] = {}
        self._room = CACHE_BYTES

    def series(self, scan_id: str) -> Tensor:
        """Return the z-scored series (T, P) on the device; parcels without data or variance are 0."""
        if scan_id in self._cache:
            return self._cache[scan_id]
        raw = np.asarray(self.snapshot.timeseries(scan_id), dtype=np.float64)
        spread = raw.std(axis=0)
        flat = ~(spread > 0) | (raw.max(axis=0) == raw.min(axis=0))
        z = np.where(flat, 0.0, (raw - raw.mean(axis=0)) / np.where(flat, 1.0, spread))
        tensor = torch.from_numpy(z.astype(np.float32)).to(self.device)
        self._room -= tensor.numel() * 4
        if self._room > 0:
            self._cache[scan_id] = tensor
        return tensor

    def pair(self, scan_ids: Sequence[str], epoch: int) -> tuple[Tensor, Tensor]:
        """Return views 2 * epoch and 2 * epoch + 1 of each scan."""
        series = [self.series(scan) for scan in scan_ids]
        longest = max(len(one) for one in series)
        kept = np.zeros((2, len(series), longest), dtype=bool)
        for place, (scan, one) in enumerate(zip(scan_ids, series, strict=True)):
            points = (2 * epoch, 2 * epoch + 1)
            kept[:, place, : len(one)] = view_masks(len(one), scan, points, self.seed, self.augment[scan])
        padded = torch.nn.utils.rnn.pad_sequence(series, batch_first=True)
        masks = torch.from_numpy(kept).to(self.device, non_blocking=True)
        first, second = (masked_correlation(padded, mask, self.estimator) for mask in masks)
        return first, second


class ShardViews:
    """Views read from the ``pfc`` shards; the view index is taken modulo the number stored.

    Raises
    ------
    ConfigError
        The shards hold views of another estimator.
    """

    def __init__(self, snapshot: Snapshot, device: str, estimator: Estimator = "pearson") -> None:
        for stored in snapshot.pfc_estimators():
            if stored != estimator:
                why = f"the pfc shards hold {stored} views, models.brainmass.estimator is {estimator}"
                raise ConfigError("views do not fit", "models.brainmass.views: shards", why,
                                  f"use views: fly, or estimator: {stored}")  # fmt: skip
        self.rows, self.device = snapshot.rows("pfc"), device
        self.parcels = len(snapshot.parcels())

    def pair(self, scan_ids: Sequence[str], epoch: int) -> tuple[Tensor, Tensor]:
        """Return views 2 * epoch and 2 * epoch + 1 of each scan, modulo the stored ones."""
        return self._view(scan_ids, 2 * epoch), self._view(scan_ids, 2 * epoch + 1)

    def _view(self, scan_ids: Sequence[str], view: int) -> Tensor:
        edges = []
        for scan in scan_ids:
            stored = self.rows.all_of(scan)
            edges.append(np.asarray(self.rows.array(stored[view % len(stored)], "values"), dtype=np.float32))
        return from_edges(torch.from_numpy(np.stack(edges)).to(self.device), self.parcels)
