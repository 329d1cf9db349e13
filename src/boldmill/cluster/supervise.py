"""Watch over the ranks: pass the warning on until they stop, keep the job's time limit, have SLURM start it again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from boldmill.cluster import slurm
from boldmill.cluster.signals import WARNING, ignore_warning
from boldmill.train.command import EXIT_INTERRUPTED

STOPPED = {-signal.SIGTERM, -signal.SIGUSR1, 128 + signal.SIGUSR1, -signal.SIGKILL, 137}
"""Exit statuses of ranks that a request to stop ended before they could save."""
HISTORY = "history.txt"
"""What earlier starts of an unfinished run said."""
KEPT = {"SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CONF", "SLURM_CLUSTER_NAME", "SLURM_SUBMIT_DIR"}
KEPT |= {"SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"}
"""What a step on all nodes is told of the job."""
AGAIN = 5.0
"""Seconds between two warnings: a process that only starts does not listen yet."""
LOOK = 0.5
"""Seconds between two looks at the ranks."""
LATER = "Snakemake's retries or the next run go on from there"
GONE = 120.0
"""Seconds a requeued job waits for SLURM to end it."""


def say(text: str, folder: Path | None = None) -> None:
    """Write one line to the log and, with a folder, to the history that the next start of this run begins with."""
    line = f"{datetime.now():%Y-%m-%d %H:%M:%S} boldmill launch: {text}"
    print(line, file=sys.stderr, flush=True)
    if folder is not None and folder.is_dir():
        with open(folder / HISTORY, "a", encoding="utf-8") as handle:
            print(line, file=handle)


def open_folder(folder: Path) -> None:
    """Make the folder of a run; what its earlier starts said is repeated, for each start begins with an empty log."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / HISTORY).exists():
        print((folder / HISTORY).read_text(encoding="utf-8"), end="", file=sys.stderr, flush=True)


def supervise(command: Sequence[str], folder: Path, job: str, margin: float) -> int:
    """Run the ranks and return 0, :data:`EXIT_INTERRUPTED`, or their exit status.

    Parameters
    ----------
    command : sequence of str
        What starts all ranks.
    folder : Path
        Of :func:`open_folder`. Removed when the ranks are done.
    job : str
        SLURM job id whose limit is kept, empty for none.
    margin : float
        Seconds before that limit at which the ranks are told to stop, where no signal came before; a quarter of what
        is left for shorter jobs.
    """
    environment = dict(os.environ)
    if command[0] == "srun":  # the rule's own step has one node; a step on all nodes must not inherit its limits
        environment = {k: v for k, v in environment.items() if not k.startswith(("SLURM_", "SRUN_")) or k in KEPT}
    with _requests() as asked:
        child = subprocess.Popen(command, env=environment, preexec_fn=ignore_warning)
        try:
            status = _watch(child, folder, asked, Clock(job, margin))
        finally:
            _end(child)
    if status == EXIT_INTERRUPTED:
        say("the ranks saved their state and stopped", folder)
        return EXIT_INTERRUPTED
    if asked and status in STOPPED:
        say("stopped before the ranks could save: the next run goes on from the last saved state", folder)
        return EXIT_INTERRUPTED
    shutil.rmtree(folder, ignore_errors=True)
    return status if status >= 0 else 128 - status


def start_again(job: str, limit: int, folder: Path) -> None:
    """Have SLURM requeue this job and wait for the end that brings; returns where the job ends by itself instead."""
    known = slurm.show(job)
    if known is None or not known.ends_by_itself:
        state = known.state.lower() if known else "unknown to SLURM"
        state = "ended by a person or by SLURM" if state == "completing" else state
        say(f"job {job} is {state}: it is not requeued from here; {LATER}", folder)
        return
    if not known.may_requeue or known.restarts >= limit:
        why = f"it was started {known.restarts + 1} times" if known.may_requeue else "SLURM may not requeue it"
        say(f"job {job} ends with {EXIT_INTERRUPTED} ({why}); {LATER}", folder)
        return
    say(f"requeueing job {job}, to take up the run where it stopped", folder)
    if not slurm.requeue(job):
        say(f"SLURM did not take it: job {job} is on its way back already, or ends; {LATER}", folder)
        return
    ended = threading.Event()  # SLURM ends the job; an exit of our own would be a failure first
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    ended.wait(GONE)


class Clock:
    """Tells when the time limit of a job is near; asks again before it says so, for limits can be moved."""

    def __init__(self, job: str, margin: float) -> None:
        self.job, self.margin = job, margin
        left = slurm.seconds_left(job) if job else None
        if left is not None:
            self.margin = min(margin, left / 4)
        self._set(left)

    def near(self) -> bool:
        """Whether the ranks must stop now."""
        if time.monotonic() < self.deadline:
            return False
        left = slurm.seconds_left(self.job)
        if left is not None and left > self.margin + 1:
            self._set(left)
            return False
        say(f"the time limit of job {self.job} is near ({0 if left is None else left:.0f} s left)")
        return True

    def _set(self, left: float | None) -> None:
        self.deadline = float("inf") if left is None else time.monotonic() + left - self.margin


def _watch(child: subprocess.Popen[bytes], folder: Path, asked: list[int], clock: Clock) -> int:
    warned = float("-inf")
    told = False
    while (status := child.poll()) is None:
        if not asked and clock.near():
            asked.append(0)
        if asked and not told:
            told = True
            name = signal.Signals(asked[0]).name if asked[0] else "the clock"
            say(f"asked to stop by {name}: the ranks save and stop", folder)
        if asked and time.monotonic() - warned >= AGAIN:
            warned = time.monotonic()
            child.send_signal(WARNING)  # the trainer itself, or torchrun and srun, which hand it on
        time.sleep(LOOK)
    return status


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what still runs after a fault of the launcher itself."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def _requests() -> Iterator[list[int]]:
    """Collect the numbers of SIGUSR1 and SIGTERM as they come, and restore the handlers after."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (WARNING, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda got, _frame: asked.append(got))
    try:
        yield asked
    finally:
        for number, old in before.items():
            signal.signal(number, old)
