"""Names of the published flat-map MAE weights (both generations) in this package's module.

Published weights are not shipped; the user supplies the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = {
    "pos_embed.weight_spatial": "pos_embed.space",
    "pos_embed.weight_temporal": "pos_embed.time",
    "cls_token_pos": "cls_position",
    ".mlp.fc1.": ".fc1.",
    ".mlp.fc2.": ".fc2.",
}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors under this package's names."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for theirs, ours in _PARTS.items():
            name = name.replace(theirs, ours)
        renamed[name] = value
    return renamed
