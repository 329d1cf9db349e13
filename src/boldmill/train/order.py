"""Which samples make up which step: a function of (epoch, seed) alone.

Axes: one integer per sample.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from boldmill.errors import ConfigError
from boldmill.rng import generator

Ints = npt.NDArray[np.int64]


def epoch_batches(n_samples: int, batch: int, *key: str | int) -> list[Ints]:
    """Return the batches of one epoch: a permutation keyed by ``key``, cut into pieces.

    A last piece of less than half a batch joins the piece before it: batch statistics of two samples are worthless.
    """
    order = generator("order", *key).permutation(n_samples).astype(np.int64)
    pieces = [order[start : start + batch] for start in range(0, n_samples, batch)]
    if len(pieces) > 1 and _too_small(len(pieces[-1]), batch):
        pieces[-2:] = [np.concatenate(pieces[-2:])]
    return pieces


def batches_per_epoch(n_samples: int, batch: int) -> int:
    """Return how many batches :func:`epoch_batches` makes."""
    whole, rest = divmod(n_samples, batch)
    return whole + (rest > 0 and (whole == 0 or not _too_small(rest, batch)))


def _too_small(rest: int, batch: int) -> bool:
    return rest == 1 or 2 * rest < batch


def require(n_samples: int, least: int, what: str, where: str) -> None:
    """Raise :class:`ConfigError` where there are too few samples to train on."""
    if n_samples < least:
        raise ConfigError("nothing to train on", where, f"the split `train` holds {n_samples} {what}, not {least}",
                          "add data, or lower snapshot.heldout and snapshot.validation")  # fmt: skip
