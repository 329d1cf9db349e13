"""Mixed precision: matrix products in bf16, everything that sums in fp32."""

from __future__ import annotations

import torch
from torch import Tensor


def products(device: torch.device | str, precision: str) -> torch.autocast:
    """Return a context in which matrix products are ``precision``, "fp32" or "bf16", on a GPU and on a CPU."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def full(x: Tensor) -> Tensor:
    """Return ``x`` in fp32; float64 stays (tests of exactness train in it)."""
    return x if x.dtype == torch.float64 else x.float()
