"""All blocks of an encoder on a CPU: pieces of a few scans, each through all blocks, shared out to threads.

Axes: B batch, S sequence, C token width.

Scans do not meet in the blocks, so a piece can go through all of them while its arrays are in cache, and threads work
on pieces instead of on parts of one product: no thread waits inside an operation. Which piece a thread takes is fixed,
and every piece has its own stream of dropout masks: one number of threads always gives the same bytes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boldmill.models.brainmass import block_cpu
from boldmill.models.brainmass.block_cpu import NAMES, Saved, Weights
from boldmill.models.brainmass.dropout import Masks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from boldmill.models.brainmass.encoder import Block

PIECE, LARGEST = 4, 16
"""Scans of one piece, least and most: arrays of few stay in cache, many share the cost of a call."""


def piece(batch: int) -> int:
    """Return how many scans of a batch go through together, whatever the number of threads: at most half of them.

    >>> [piece(n) for n in (3, 16, 128)]
    [4, 8, 16]
    """
    return max(PIECE, min(LARGEST, batch // 2))


class Setup(NamedTuple):
    """What a run needs beside its tensors."""

    heads: int
    rate: float
    low: torch.dtype
    seed: int
    threads: int


def run_blocks(tokens: Tensor, blocks: Sequence[Block], precision: str) -> Tensor:
    """Return ``tokens`` (B, S, C) after all blocks in training mode; dropout is seeded from torch's generator."""
    rate = blocks[0].dropout
    seed = int(torch.randint(2**63 - 1, ())) if rate else 0
    low = torch.bfloat16 if precision == "bf16" else torch.float32
    setup = Setup(blocks[0].heads, rate, low, seed, torch.get_num_threads())
    weights = [block.get_parameter(name) for block in blocks for name in NAMES]
    with torch.autocast("cpu", enabled=False):  # what is bf16 here is chosen by hand
        found: Tensor = _Run.apply(tokens.float(), setup, *weights)  # type: ignore[no-untyped-call]
    return found


class _Run(torch.autograd.Function):
    """Forward and backward through all blocks."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, setup: Setup, *weights: Tensor) -> Tensor:
        layers = _layers(weights, setup.low)
        save = any(ctx.needs_input_grad)
        pieces = torch.split(tokens, piece(len(tokens)))
        out: list[Any] = [None] * len(pieces)
        saved: list[list[Saved | None]] = [[] for _ in pieces]

        def work(number: int) -> None:
            x = pieces[number]
            masks = Masks(setup.rate, setup.seed, number)
            for layer in layers:
                x, kept = block_cpu.forward(x, layer, setup.heads, masks, save=save)
                saved[number].append(kept)
            out[number] = x

        _share(work, len(pieces), setup.threads)
        ctx.setup, ctx.layers, ctx.saved = setup, layers, saved
        ctx.shapes = [weight.shape for weight in weights]
        return torch.cat(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        setup, layers, saved = ctx.setup, ctx.layers, ctx.saved
        pieces = torch.split(grad.contiguous(), piece(len(grad)))
        out: list[Any] = [None] * len(pieces)
        threads = min(setup.threads, len(pieces))
        sums = [[torch.zeros(_kept(i, shape)) for i, shape in enumerate(ctx.shapes)] for _ in range(threads)]
        scale = 1 / (1 - setup.rate)

        def work(number: int) -> None:
            d, own = pieces[number], sums[number % threads]
            for depth in reversed(range(len(layers))):
                part = own[depth * len(NAMES) : (depth + 1) * len(NAMES)]
                d = block_cpu.backward(d, layers[depth], setup.heads, scale, saved[number][depth], part)
                saved[number][depth] = None  # its memory serves the next
            out[number] = d

        _share(work, len(pieces), threads)
        total = sums[0]
        for other in sums[1:]:
            torch._foreach_add_(total, other)
        grads = [one.t() if i % len(NAMES) == UP else one for i, one in enumerate(total)]
        return torch.cat(out) if ctx.needs_input_grad[0] else None, None, *grads


UP = NAMES.index("up.weight")


def _kept(index: int, shape: torch.Size) -> torch.Size:
    """Return the shape a gradient is summed in: that of ``up.weight`` is transposed."""
    return shape[::-1] if index % len(NAMES) == UP else shape


def _layers(weights: Sequence[Tensor], low: torch.dtype) -> list[Weights]:
    """Return the parameters block by block; all but the norms in the precision of the products."""
    cast = [w.detach() if "norm" in NAMES[i % len(NAMES)] else w.detach().to(low) for i, w in enumerate(weights)]
    return [Weights(*cast[start : start + len(NAMES)]) for start in range(0, len(cast), len(NAMES))]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="brainmass")


def _share(work: Callable[[int], None], count: int, threads: int) -> None:
    """Call ``work`` with 0 .. count - 1: thread t takes t, t + threads, ..., each with one thread per operation."""
    if threads == 1 or count == 1:
        for number in range(count):
            work(number)
        return

    def strided(first: int) -> None:
        torch.set_num_threads(1)
        with torch.no_grad():
            for number in range(first, count, threads):
                work(number)

    torch.set_num_threads(1)
    try:
        for _ in _pool(threads).map(strided, range(min(threads, count))):
            pass
    finally:
        torch.set_num_threads(threads)
