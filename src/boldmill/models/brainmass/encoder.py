"""The BrainMass encoder: a post-norm transformer over the rows of an FC matrix.

Axes: B batch, N ROIs, S sequence (N, or N + 2 with the extra tokens), C token width, M masked ROIs, F = 8 N features.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boldmill.errors import MachineFault
from boldmill.models.brainmass.architecture import READOUT, Architecture
from boldmill.models.brainmass.run_cpu import run_blocks
from boldmill.train.batch_norm import BatchNorm


class Block(nn.Module):
    """Post-norm transformer block with a ReLU feed-forward, as ``torch.nn.TransformerEncoderLayer`` by default.

    Written out so that attention goes through ``scaled_dot_product_attention`` in training and evaluation alike.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, ffn)
        self.down = nn.Linear(ffn, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def attention(self, x: Tensor) -> Tensor:
        """Multi-head self-attention, (B, S, C) -> (B, S, C)."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], dropout_p=self.dropout if self.training else 0.0)
        y: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        x = self.norm1(x + self._drop(self.attention(x)))
        y: Tensor = self.norm2(x + self._drop(self.down(self._drop(F.relu(self.up(x))))))
        return y

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def sinusoid(length: int, width: int) -> Tensor:
    """Return the fixed sine and cosine position table, (length, width), base 10000."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
    table = torch.zeros(length, width, dtype=torch.float64)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)[:, : width // 2]
    return table.float()


class Encoder(nn.Module):
    """Blocks, per-ROI readout and projector: what the EMA target holds a copy of.

    With a width other than the number of ROIs, a learned projection comes first.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.arch = arch
        self.precision = "fp32"
        self.compiled: Callable[[Block, Tensor], Tensor] | None = None
        self.embed = nn.Identity() if arch.width == arch.rois else nn.Linear(arch.rois, arch.width)
        self.blocks = nn.ModuleList(Block(arch.width, arch.heads, arch.ffn, arch.dropout) for _ in range(arch.depth))
        self.reduce = nn.Linear(arch.width, READOUT)
        self.project = nn.Sequential(
            nn.Linear(arch.features, arch.hidden),
            BatchNorm(arch.hidden),
            nn.ReLU(),
            nn.Linear(arch.hidden, arch.latent),
        )

    def run(self, tokens: Tensor) -> Tensor:
        """Apply all blocks, (B, S, C) -> (B, S, C); there is no final norm.

        In training on a CPU :mod:`boldmill.models.brainmass.run_cpu` does the same, faster.
        """
        if self.training and tokens.device.type == "cpu" and tokens.dtype != torch.float64:
            return run_blocks(tokens, list(self.blocks), self.precision)  # type: ignore[arg-type]
        if self.training and self.compiled:
            return self._run_compiled(self.compiled, tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def _run_compiled(self, forward: Callable[[Block, Tensor], Tensor], tokens: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # seconds to import

        try:
            for block in self.blocks:
                tokens = forward(block, tokens)  # type: ignore[arg-type]
        except TorchDynamoException as error:
            raise MachineFault("cannot compile the network", "models.brainmass.compile", str(error)[:300],
                               "install a C++ compiler and triton, or set compile: false") from error  # fmt: skip
        return tokens

    def readout(self, tokens: Tensor) -> Tensor:
        """Eight numbers per ROI, ROI-major: (B, N, C) -> (B, 8 N)."""
        return F.leaky_relu(self.reduce(tokens), 0.01).flatten(1)
