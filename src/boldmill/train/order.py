"""Which samples make up which step: a function of (epoch, seed) alone.

Axes: one integer per sample.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Which samples make up which step of a run.

    Parameters
    ----------
    samples, batch : int
        Training samples, and how many of them make up a step.
    key : tuple
        What the order of an epoch is keyed by, beside the epoch.
    """

    samples: int
    batch: int
    key: tuple[str | int, ...]

    @property
    def per_epoch(self) -> int:
        """Steps of one pass over the samples."""
        return batches_per_epoch(self.samples, self.batch)

    def epoch(self, step: int) -> int:
        """Return the pass over the samples that ``step`` belongs to."""
        return step // self.per_epoch

    def picked(self, step: int) -> list[int]:
        """Return the samples of ``step``, on all ranks together."""
        epoch, place = divmod(step, self.per_epoch)
        return [int(one) for one in epoch_batches(self.samples, self.batch, *self.key, epoch)[place]]

    def words(self, step: int) -> str:
        """Return where a run stands before ``step``.

        >>> Sampler(samples=10, batch=4, key=("toy", 7)).words(4)
        'before batch 2 of 3 of epoch 1; the order of an epoch is keyed by order, toy, 7, epoch'
        """
        epoch, place = divmod(step, self.per_epoch)
        key = ", ".join(map(str, ("order", *self.key, "epoch")))
        return f"before batch {place + 1} of {self.per_epoch} of epoch {epoch}; the order of an epoch is keyed by {key}"

    def require_ranks(self, ranks: int, where: str) -> None:
        """Raise :class:`ConfigError` where the smallest step of an epoch has fewer samples than there are ranks."""
        rest = self.samples % self.batch
        least = rest if rest and not _too_small(rest, self.batch) else min(self.batch, self.samples)
        if least < ranks:
            raise ConfigError("fewer samples in a step than ranks", where,
                              f"the smallest step of an epoch has {least} of {self.samples} samples, torchrun started "
                              f"{ranks} ranks", "start fewer ranks, or raise the batch")  # fmt: skip


def _too_small(rest: int, batch: int) -> bool:
    return rest == 1 or 2 * rest < batch


def require(n_samples: int, least: int, what: str, where: str) -> None:
    """Raise :class:`ConfigError` where there are too few samples to train on."""
    if n_samples < least:
        raise ConfigError("nothing to train on", where, f"the split `train` holds {n_samples} {what}, not {least}",
                          "add data, or lower snapshot.heldout and snapshot.validation")  # fmt: skip
