"""Progress of a long loop: a bar on a terminal, a line a minute in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

EVERY = 60.0
"""Seconds between two lines of a log."""


class Pulse:
    """Shows where a loop stands.

    Parameters
    ----------
    start, total : int
        First step of this run and number of steps in all.
    bar : bool
        A bar; else lines on stderr.
    quiet : bool
        Neither (all ranks but the first).
    clock : callable
        Seconds.
    """

    def __init__(
        self, start: int, total: int, *, bar: bool, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from tqdm import tqdm

        self.start, self.total, self.clock = start, total, clock
        self.lines = not (bar or quiet)
        self.began = self.said = clock()
        self.bar: Any = tqdm(
            initial=start, total=total, disable=quiet or not bar, desc="train", unit="step", leave=True
        )

    def beat(self, done: int, loss: float | None) -> None:
        """Tell that ``done`` steps are done; ``loss`` is the last one that was read from the device."""
        self.bar.update(1)
        if loss is not None:
            self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        now = self.clock()
        if self.lines and now - self.said >= EVERY:
            self.said = now
            print(line(done, self.start, self.total, now - self.began, loss), file=sys.stderr, flush=True)


def line(done: int, start: int, total: int, seconds: float, loss: float | None) -> str:
    """Return one line of a log.

    >>> line(30, 10, 100, 40.0, 1.25)
    'train: step 30 of 100, loss 1.2500, 2 s a step, 2.3 min left'
    """
    pace = seconds / max(1, done - start)
    known = "" if loss is None else f", loss {loss:.4f}"
    return f"train: step {done} of {total}{known}, {pace:.2g} s a step, {pace * (total - done) / 60:.1f} min left"
