"""Names of the published BrainMass weights (podismine/BrainMass) in this package's module.

Published weights are not shipped; the user supplies the file. They belong to ``forward_style: paper``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_RULES = [
    (r"^online_network\.attention_list\.(\d+)\.self_attn\.in_proj_(weight|bias)$", r"online.blocks.\1.qkv.\2"),
    (r"^online_network\.attention_list\.(\d+)\.self_attn\.out_proj\.(weight|bias)$", r"online.blocks.\1.out.\2"),
    (r"^online_network\.attention_list\.(\d+)\.linear1\.(weight|bias)$", r"online.blocks.\1.up.\2"),
    (r"^online_network\.attention_list\.(\d+)\.linear2\.(weight|bias)$", r"online.blocks.\1.down.\2"),
    (r"^online_network\.attention_list\.(\d+)\.norm([12])\.(weight|bias)$", r"online.blocks.\1.norm\2.\3"),
    (r"^online_network\.dim_reduction\.0\.(weight|bias)$", r"online.reduce.\1"),
    (r"^online_network\.g\.net\.(\d)\.(.+)$", r"online.project.\1.\2"),
    (r"^(cpred)\.(\d)\.(weight|bias)$", r"head_clf.\2.\3"),
    (r"^(gpred)\.(\d)\.(weight|bias)$", r"head_rec.\2.\3"),
    (r"^mask_embed$", "mask_vector"),
    (r"^cls_token$", "cls_token"),
    (r"^dist_token$", "dist_token"),
]


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors under this package's names; unknown ones are left out."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, ours in _RULES:
            if re.match(pattern, name):
                renamed[re.sub(pattern, ours, name)] = value
                break
    return renamed
