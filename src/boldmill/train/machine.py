"""What the machine decides of a training run, never the science: in no config file and in no tracked setting."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field

OPTIONS = {
    "micro_batch": ("BOLDMILL_MICRO_BATCH", int, None),
    "keep_checkpoints": ("BOLDMILL_KEEP_CHECKPOINTS", int, "2"),
    "max_seconds": ("BOLDMILL_MAX_SECONDS", float, None),
}
"""Option of `boldmill train` -> environment variable that stands for it, type, default."""

HELP = {
    "micro_batch": "samples that one rank puts through the network at a time (default: its whole share of the batch); "
    "the training is that of the whole batch",
    "keep_checkpoints": "saved states kept while the run goes on (default 2)",
    "max_seconds": "stop after so many seconds as a signal would: state saved, exit status 143 (default: never)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How a run is carried out.

    Parameters
    ----------
    micro_batch : int, optional
        Samples of one rank that go through the network at a time; None: its whole slice of the batch.
    keep_checkpoints : int
        Saved states kept.
    max_seconds : float, optional
        The run stops itself this long after ``began``.
    began : float
        Reading of ``time.monotonic``.
    """

    micro_batch: int | None = None
    keep_checkpoints: int = 2
    max_seconds: float | None = None
    began: float = field(default_factory=time.monotonic)

    def time_is_up(self) -> bool:
        """Whether ``max_seconds`` have passed."""
        return self.max_seconds is not None and time.monotonic() - self.began >= self.max_seconds

    def piece(self, batch: int) -> int:
        """Return how many samples go through at a time where ``batch`` would.

        >>> Machine().piece(8), Machine(micro_batch=3).piece(8), Machine(micro_batch=30).piece(8)
        (8, 3, 8)
        """
        return min(batch, self.micro_batch or batch)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; an environment variable stands for one that is not given."""
    for name, (variable, kind, default) in OPTIONS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_above_zero(kind),
            default=os.environ.get(variable) or default,
            help=f"{HELP[name]}; {variable}",
        )


def from_args(args: argparse.Namespace) -> Machine:
    """Return what the options say."""
    return Machine(**{name: getattr(args, name) for name in OPTIONS})


def _above_zero(kind: type[int] | type[float]) -> type[int] | type[float]:
    def read(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    read.__name__ = kind.__name__  # argparse says "invalid int value"
    return read  # type: ignore[return-value]
