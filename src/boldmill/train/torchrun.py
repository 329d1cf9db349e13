"""`torchrun` that hands stop requests on to its ranks: ``python -m boldmill.train.torchrun <options of torchrun> ...``.

torch's own launcher dies of SIGUSR1 and leaves its ranks behind; of SIGTERM it gives them 30 seconds and then kills
them; and either way it exits with status 1. Here SIGUSR1 and SIGTERM go on to every rank of this node, the launcher
waits until the ranks have saved their state and exits with 143, as a single process does. Ranks agree on when to stop:
on several nodes a signal to the launcher of one, or to one rank, stops all of them, and every launcher exits with 143.

Without ranks of its own yet (at the rendezvous) the launcher exits with 143 at once. Where a rank fails, the status is
that of the first one that failed, or 128 + the signal that killed it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

from boldmill.errors import EXIT_OK
from boldmill.train.command import EXIT_INTERRUPTED
from boldmill.train.stop import SIGNALS

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

HANDLED_BY_TORCH = "SIGINT,SIGHUP,SIGQUIT"


def main(words: Sequence[str]) -> int:
    """Run torchrun with ``words`` and return the exit status."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        ranks = children(os.getpid())
        for rank in ranks:
            try:
                os.kill(rank, number)
            except ProcessLookupError:  # it has just ended
                continue
        if not ranks:
            raise SystemExit(EXIT_INTERRUPTED)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    with TemporaryDirectory(prefix="boldmill-torchrun-") as logs:  # else torch leaves a folder behind with every run
        options = ["--signals-to-handle", HANDLED_BY_TORCH, "--log-dir", logs]
        try:
            run(parse_args([*options, *words]))  # type: ignore[no-untyped-call]
        except ChildFailedError as error:
            return status_of(error, asked=bool(asked))
    return EXIT_OK


def status_of(error: ChildFailedError, *, asked: bool) -> int:
    """Return the exit status that stands for those of the ranks, and name a rank that failed on stderr.

    Once asked to stop, a rank that died of the signal itself (before it could listen) has stopped, too.
    """
    stopped = {EXIT_INTERRUPTED} | {-number for number in SIGNALS}
    codes = {failure.exitcode for failure in error.failures.values()}
    if codes <= stopped and (asked or EXIT_INTERRUPTED in codes):
        return EXIT_INTERRUPTED
    failed = {rank: one for rank, one in error.failures.items() if one.exitcode not in stopped} or error.failures
    rank, first = min(failed.items(), key=lambda item: item[1].timestamp)
    if first.exitcode >= 0:
        print(f"boldmill train: rank {rank} ended with status {first.exitcode}", file=sys.stderr)
        return first.exitcode or 1
    name = signal.Signals(-first.exitcode).name
    hint = ", often because memory ran out" if name == "SIGKILL" else ""
    print(f"boldmill train: rank {rank} was killed by {name}{hint}", file=sys.stderr)
    return 128 - first.exitcode


def children(parent: int) -> list[int]:
    """Return the process ids of the children of a process (Linux: from /proc)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if int(after_name[1]) == parent:
                found.append(int(entry.name))
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
