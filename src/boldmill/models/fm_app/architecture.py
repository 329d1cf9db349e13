"""Sizes of FM-APP and everything else that is needed to build the network again from its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"d": 48, "width": 96, "heads": 4, "head_dim": 16, "mlp": 192, "dropout_in": 0.2, "dropout": 0.1},
    "full": {"d": 512, "width": 1024, "heads": 16, "head_dim": 64, "mlp": 2048, "dropout_in": 0.6, "dropout": 0.2},
}
"""``full`` has the published widths (github.com/ZhibinHe/FM-APP@cbc10c5), ``tiny`` suits a laptop and small cohorts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Everything the module is built from.

    Parameters
    ----------
    rois, features : int
        R parcels, and T1w features per parcel (0: no T1w branch).
    d, width, heads, head_dim, mlp : int
        Width of ROI features, of the transformer, heads, width of one head, hidden width of its MLP.
    dropout_in, dropout : float
        After the input layers, and inside the transformer.
    text : int
        Width of the text vectors.
    seen : tuple of str
        Phenotypes with a head, in order.
    map : str
        Phenotype active map, ``softmax`` or ``sinkhorn``.
    legacy : bool
        The published network to the parameter: batch normalisation, position table added twice, unused class token.
    """

    rois: int
    features: int
    seen: tuple[str, ...]
    d: int = 512
    width: int = 1024
    heads: int = 16
    head_dim: int = 64
    mlp: int = 2048
    dropout_in: float = 0.6
    dropout: float = 0.2
    text: int = 512
    map: str = "softmax"
    legacy: bool = False

    @classmethod
    def of(cls, preset: str, **values: Any) -> Architecture:
        """Return a preset with the sizes the data give."""
        return cls(**{**PRESETS[preset], **values})

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "seen": list(self.seen)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Architecture:
        """Return the architecture of :meth:`as_dict`."""
        return cls(**{**value, "seen": tuple(value["seen"])})
