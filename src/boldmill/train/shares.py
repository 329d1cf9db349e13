"""Losses that add up: a batch in pieces, over ranks and over micro-batches, trains as the whole batch does.

Axes: B samples of the global batch, b of one rank, m of one micro-batch.

Every loss here is a mean over something: samples, known labels, valid pixels. A piece gives its own mean times its
share of that count, so that the pieces' losses, and with them their gradients, add up to those of the global batch
exactly, also where pieces are unequal. (Averaging the pieces' means, as gradient accumulation and
DistributedDataParallel do, weighs the samples of a small piece more.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def share(means: Mapping[str, Tensor], part: int, whole: int) -> dict[str, Tensor]:
    """Return means over ``part`` things as shares of the mean over ``whole``; the whole itself stays as it is.

    >>> share({"loss": 6.0}, 1, 3)
    {'loss': 2.0}
    """
    return dict(means) if part == whole else {name: value * (part / whole) for name, value in means.items()}


def micro_batches(items: Sequence[T], most: int | None) -> Iterator[Sequence[T]]:
    """Yield ``items`` in pieces of ``most``; all at once with None.

    >>> list(micro_batches([1, 2, 3, 4, 5], 2))
    [[1, 2], [3, 4], [5]]
    """
    step = most or max(1, len(items))
    for start in range(0, len(items), step):
        yield items[start : start + step]
