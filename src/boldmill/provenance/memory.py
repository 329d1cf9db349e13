"""Peak memory of a command and all of its child processes together, from /proc; no dependency, next to no time."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

EVERY = 1.0
"""Seconds between two looks at the children."""
PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """Return the processes below ``pid``, as the kernel lists them now; none where it does not."""
    found: list[int] = []
    todo = [pid]
    while todo:
        try:
            tasks = list((PROC / str(todo.pop()) / "task").iterdir())
        except OSError:  # the process ended meanwhile
            continue
        for task in tasks:
            try:
                children = [int(word) for word in (task / "children").read_text().split()]
            except OSError:  # the task ended meanwhile
                continue
            found += children
            todo += children
    return found


def proportional_mib(pid: int) -> float:
    """Return the memory of a process in MiB, pages that n processes share counted as 1/n; 0 where it is gone."""
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0.0


def largest_process_mib() -> float:
    """Return the peak of the largest single process: this one, or one of those that were waited for."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / 1024


class Peak:
    """Watch this process and its children from :meth:`start` on.

    A pool of processes needs more than its largest worker. The sum is sampled once a second, so that a shorter peak
    can be missed; the peak of single processes is the kernel's and exact.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def look(self) -> None:
        """Take one sample; nothing is summed while there are no children."""
        if children := descendants(os.getpid()):
            self._sum = max(self._sum, sum(map(proportional_mib, (os.getpid(), *children))))

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self.look()

    def stop(self) -> float:
        """Stop watching and return the peak in MiB."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        return max(self._sum, largest_process_mib())
