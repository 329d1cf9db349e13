"""Sizes and presets of BrainMass, and how any number of ROIs is brought to a width its heads divide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from boldmill.errors import ConfigError

READOUT = 8
"""Features per ROI (arXiv 2403.01433: 100 ROIs give an 800-d vector)."""

PUBLISHED_ROIS = 100
"""Width of a token where the heads do not divide the number of ROIs: that of the published network."""

Style = Literal["uniform", "paper"]
Estimator = Literal["pearson", "ledoit_wolf"]

PRESETS: dict[str, dict[str, str]] = {
    "boldmill": {},
    "paper": {"forward_style": "paper", "estimator": "ledoit_wolf"},
}
"""Named sets of values for keys of ``models.brainmass``; ``paper`` follows the published code exactly."""


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
    """Everything needed to build the module again, and what it reads.

    Parameters
    ----------
    rois, width : int
        Number of ROIs and width of a token; where they differ, a learned projection carries FC rows to tokens.
    depth, heads, ffn, latent, hidden : int
        See :class:`Size`.
    dropout : float
        In attention, feed-forward and residual paths.
    style : {"uniform", "paper"}
        Extra tokens and positions in every pass, or in masked passes only, as published.
    rec_layers : {2, 3}
        Linear layers of the reconstruction head: 2 as in the published code and totals, 3 as in the paper's text.
    mask_columns : bool
        Whether a masked pass hides the columns of masked ROIs too: FC is symmetric, so that otherwise each visible
        row still holds its value with every masked ROI.
    estimator : {"pearson", "ledoit_wolf"}
        The FC the network was trained on, and is to be given.
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
    rec_layers: int = 2
    mask_columns: bool = False
    estimator: Estimator = "pearson"

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

    @property
    def size(self) -> str:
        """Name of the size this is one of; the numbers themselves where it is none."""
        found = (name for name, size in SIZES.items() if (size.depth, size.heads, size.ffn) == self._shape)
        return next(found, "x".join(map(str, self._shape)))

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.depth, self.heads, self.ffn

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for the checkpoint header."""
        return asdict(self)


def design(
    size: str,
    rois: int,
    *,
    width: int | None = None,
    style: Style = "uniform",
    rec_layers: int = 2,
    mask_columns: bool = False,
    estimator: Estimator = "pearson",
) -> Architecture:
    """Return the architecture of a size for ``rois`` ROIs.

    ``width=None`` takes the number of ROIs itself where the heads divide it (as published, 100 ROIs), else the
    published width of 100 with a learned projection: 111 ROIs keep the heads of every size.

    >>> design("B", 100).width, design("B", 120).width, design("B", 111).width
    (100, 120, 100)
    """
    row = SIZES[size]
    fitting = rois if rois % row.heads == 0 else PUBLISHED_ROIS
    return Architecture(
        rois=rois,
        width=fitting if width is None else width,
        depth=row.depth,
        heads=row.heads,
        ffn=row.ffn,
        latent=row.latent,
        hidden=2 * READOUT * rois if row.hidden is None else row.hidden,
        style=style,
        rec_layers=rec_layers,
        mask_columns=mask_columns,
        estimator=estimator,
    )


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of ``models.brainmass`` with those their ``preset`` stands for; keys that are given win.

    Raises
    ------
    ValueError
        The preset is the name of a size.
    """
    name = values.get("preset", "boldmill")
    if name in SIZES:
        raise ValueError(f"'{name}' is a size, not a preset: write `size: {name}`")
    return {**PRESETS.get(str(name), {}), **values}
