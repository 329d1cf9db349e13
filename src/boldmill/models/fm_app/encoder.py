"""ROI encoder (a one-layer ViT whose tokens are parcels) and the T1w adapter in front of its twin.

Axes: B batch, R parcels, C input features of a parcel, W transformer width, D width of ROI features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from boldmill.models.fm_app.architecture import Architecture


class ChannelBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (B, R, C) over batch and parcels, channel by channel (published network)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def channel_norm(channels: int, *, legacy: bool) -> nn.Module:
    """Return batch normalisation (published) or layer normalisation (default: no scan sees its batch)."""
    return ChannelBatchNorm(channels) if legacy else nn.LayerNorm(channels)


class Block(nn.Module):
    """Pre-norm transformer block: self-attention over parcels, then an MLP."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        inner = arch.heads * arch.head_dim
        self.heads, self.dropout = arch.heads, arch.dropout
        self.norm_attention = nn.LayerNorm(arch.width)
        self.qkv = nn.Linear(arch.width, 3 * inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, arch.width), nn.Dropout(arch.dropout))
        self.norm_mlp = nn.LayerNorm(arch.width)
        self.mlp = nn.Sequential(
            nn.Linear(arch.width, arch.mlp),
            nn.GELU(),
            nn.Dropout(arch.dropout),
            nn.Linear(arch.mlp, arch.width),
            nn.Dropout(arch.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, R, W) to (B, R, W)."""
        b, r, _ = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).view(b, r, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, r, -1))
        y: Tensor = x + self.mlp(self.norm_mlp(x))
        return y


class RoiEncoder(nn.Module):
    """(B, R, C) -> (B, R, D), section 2.1 of the fact sheet; 11,014,656 parameters for C = R = 333 in legacy mode.

    The default adds the position table once and normalises by layer; ``legacy`` adds it twice, normalises by batch and
    carries the published, unused class token.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.legacy = arch.legacy
        self.lift = nn.Sequential(
            nn.Linear(arch.rois, arch.d),
            nn.ReLU(),
            nn.Dropout(arch.dropout_in),
            channel_norm(arch.d, legacy=arch.legacy),
        )
        self.widen = nn.Sequential(
            nn.Linear(arch.d, arch.width),
            nn.ReLU(),
            nn.Dropout(arch.dropout_in),
            channel_norm(arch.width, legacy=arch.legacy),
        )
        self.positions = nn.Parameter(0.02 * torch.randn(1, arch.rois, arch.width))
        if arch.legacy:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.width))
        self.dropout = nn.Dropout(arch.dropout)
        self.block = Block(arch)
        self.norm = nn.LayerNorm(arch.width)
        self.head = nn.Linear(arch.width, arch.width)
        self.project = nn.Linear(arch.width, arch.d)

    def forward(self, x: Tensor) -> Tensor:
        """Return ROI features (B, R, D) of node features (B, R, R)."""
        x = self.dropout(self.widen(self.lift(x)) + self.positions)
        if self.legacy:
            x = x + self.positions
        features: Tensor = self.project(self.head(self.norm(self.block(x))))
        return features


class T1Adapter(nn.Module):
    """(B, R, 9) morphometry -> (B, R, R): z-score of each (parcel, feature), linear, ReLU, normalisation.

    The z-scores are those of the training scans (:meth:`fit`); a missing value becomes 0, the training mean.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.mean: Tensor
        self.sd: Tensor
        self.register_buffer("mean", torch.zeros(arch.rois, arch.features))
        self.register_buffer("sd", torch.ones(arch.rois, arch.features))
        self.linear = nn.Linear(arch.features, arch.rois)
        self.norm: nn.Module = nn.BatchNorm1d(arch.rois) if arch.legacy else nn.LayerNorm(arch.rois)

    def fit(self, morphometry: Tensor) -> None:
        """Take means and standard deviations of the training scans, (B, R, 9) with NaN where missing."""
        mean, sd = column_scale(morphometry)
        self.mean.copy_(mean)
        self.sd.copy_(sd)

    def forward(self, morphometry: Tensor) -> Tensor:
        """Return node features of the T1w branch."""
        z = torch.nan_to_num((morphometry - self.mean) / self.sd, nan=0.0).clamp(-5, 5)
        features: Tensor = self.norm(torch.relu(self.linear(z)))
        return features


def column_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the first axis, NaN left out; an SD that is 0 or unknown becomes 1."""
    mean = torch.nan_to_num(torch.nanmean(values, dim=0), nan=0.0)
    sd = torch.nanmean((values - mean) ** 2, dim=0).sqrt()
    floor = 1e-6 * (1 + mean.abs())
    return mean, torch.where(sd > floor, sd, torch.ones_like(sd))
