"""Sizes of BrainMass, and how any number of ROIs is brought to a width its heads divide."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from boldmill.errors import ConfigError

READOUT = 8
"""Features per ROI (arXiv 2403.01433: 100 ROIs give an 800-d vector)."""

Style = Literal["uniform", "paper"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One row of the size table.

    Parameters
    ----------
    depth, heads, ffn : int
        Encoder blocks, attention heads, width of the feed-forward layers and of both MRM heads.
    latent : int
        Width D of projector and predictor output.
    hidden : int or None
        Hidden width of the projector; ``None``: twice the feature length, as published.
    """

    depth: int
    heads: int
    ffn: int
    latent: int = 1024
    hidden: int | None = None


SIZES = {
    "tiny": Size(depth=2, heads=5, ffn=256, latent=128, hidden=256),
    "S": Size(depth=8, heads=5, ffn=1024),
    "B": Size(depth=16, heads=10, ffn=2048),
    "L": Size(depth=32, heads=20, ffn=4096),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Everything needed to build the module again.

    ``width`` is the token width; where it differs from ``rois`` a learned projection carries FC rows to it.
    ``style`` is ``"uniform"`` (extra tokens and positions in every pass) or ``"paper"`` (in masked passes only).
    """

    rois: int
    width: int
    depth: int
    heads: int
    ffn: int
    latent: int
    hidden: int
    dropout: float = 0.1
    style: Style = "uniform"

    def __post_init__(self) -> None:
        if self.rois < 2:
            raise ConfigError("too few ROIs", f"rois = {self.rois}", "FC needs at least two", "use a parcellation")
        if self.width % self.heads:
            near = -(-self.width // self.heads) * self.heads
            raise ConfigError("heads do not divide the token width", f"models.brainmass.width = {self.width}",
                              f"{self.heads} heads leave {self.width % self.heads} of {self.width} channels over",
                              f"use {near}, or null to have it chosen")  # fmt: skip

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return READOUT * self.rois

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for the checkpoint header."""
        return asdict(self)


def design(preset: str, rois: int, *, width: int | None = None, style: Style = "uniform") -> Architecture:
    """Return the architecture of a preset for ``rois`` ROIs.

    ``width=None`` takes the number of ROIs itself where the heads divide it (as published, 100 ROIs), else the
    next multiple of the heads with a learned projection: 111 ROIs get 115 (5 heads) or 120 channels (10, 20).

    >>> design("B", 100).width, design("B", 111).width
    (100, 120)
    """
    size = SIZES[preset]
    chosen = -(-rois // size.heads) * size.heads if width is None else width
    return Architecture(
        rois=rois,
        width=chosen,
        depth=size.depth,
        heads=size.heads,
        ffn=size.ffn,
        latent=size.latent,
        hidden=2 * READOUT * rois if size.hidden is None else size.hidden,
        style=style,
    )
