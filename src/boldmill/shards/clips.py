"""Flat clips as models take them: z-scores on a device, whatever precision they were stored in.

Axes: B clips, T frames, X valid pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from boldmill.shards.rows import TableRows


def clip_batch(rows: TableRows, indices: Sequence[int], device: str) -> Tensor:
    """Return flat clips (B, T, X) on a device: float16 as stored; int8 is sent as it is and scaled there, float32."""
    import torch

    values = torch.from_numpy(rows.read(indices, "values")).to(device)
    if values.dtype != torch.int8:
        return values
    scale = torch.from_numpy(rows.column("scale")[list(indices)]).to(device, torch.float32)
    return values.float() * scale[:, None, None]
