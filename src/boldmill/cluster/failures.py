"""One line per failed job: what, why in words, what happens next, what to do.

SLURM's own words differ by site: a killed job is OUT_OF_MEMORY where cgroups keep the limit and plain FAILED where
memory is polled, so the logs are read as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from boldmill.cluster.events import FAILED, Attempt, failed_attempts, read_log

TAIL = 20000
"""Bytes read from the end of a log."""
OWN = re.compile(r"boldmill [\w-]+: (.+)$", flags=re.MULTILINE)
"""A line of ours; it names its fix."""

Reason = tuple[str, str]
"""Why it failed, and what to do where nothing is tried again."""


UNNAMED = (
    "a job failed, but Snakemake's log does not name it (it was told to be quiet, or the job was part of a group); run "
    "again without --quiet, or read the newest file below results/logs"
)


def lines(log: Path, *, quoting: bool = True) -> list[str]:
    """Return one line per failed attempt of the run whose Snakemake log this is.

    Parameters
    ----------
    quoting : bool
        Whether lines may repeat words of the jobs' logs, which name people.
    """
    text, root = read_log(log), log.resolve().parents[2]
    attempts = failed_attempts(text)
    if not attempts and FAILED in text:
        return [UNNAMED]
    return [line(one, [tail(root / path) for path in own_logs(one)], quoting=quoting) for one in attempts]


def own_logs(attempt: Attempt) -> list[Path]:
    """Return the logs that still hold what this attempt said: the next one writes that of the rule anew."""
    if not attempt.begun:
        return attempt.logs
    return attempt.logs[-1:] if attempt.slurm else []


def line(attempt: Attempt, logs: list[str], *, quoting: bool = True) -> str:
    """Return one line about a failed attempt.

    Parameters
    ----------
    attempt : Attempt
        What Snakemake's log says of it.
    logs : list of str
        Ends of its own logs.
    quoting : bool
        Whether the line may repeat words of theirs.
    """
    why, fix = reason(attempt, logs, quoting=quoting)
    who = attempt.rule + (f" ({attempt.wildcards})" if attempt.wildcards else "")
    job = f", SLURM job {attempt.slurm}" if attempt.slurm else ""
    changes = [
        f"{name} {attempt.asked.get(name, '?')} -> {attempt.next[name]}"
        for name in ("mem_mb", "runtime")
        if attempt.next.get(name, "") != attempt.asked.get(name, "") and attempt.next
    ]
    more = f" with {', '.join(changes)}" if changes else ""
    if attempt.done:
        then = f"attempt {attempt.number + 1}{more} went well" if attempt.again else "done later"
    elif attempt.again:
        then = f"attempt {attempt.number + 1}{more} follows"
    else:
        then = f"not tried again. Fix: {fix}"
    return " ".join(f"{who}, attempt {attempt.number}{job}: {why}; {then}".split())


def reason(attempt: Attempt, logs: list[str], *, quoting: bool = True) -> Reason:
    """Return why an attempt failed and what to do about it.

    >>> reason(Attempt(rule="x", wildcards="", number=1, state="OUT_OF_MEMORY", asked={"mem_mb": "500"}), [])[0]
    'memory ran out (500 MB asked for)'
    """
    text = "\n".join(logs)
    for test in TESTS:
        if (quoting or test not in QUOTING) and (found := test(attempt, text)):
            return found
    where, state = attempt.logs[0] if attempt.logs else "Snakemake's log", attempt.state or "failed"
    if attempt.begun:
        return f"{state}: the next attempt wrote its log anew", f"read {where}, then run again"
    if not quoting:
        return f"{state}, its log says why", f"read {where}, then run again"
    last = next(
        (row.strip() for log in logs for row in reversed(log.splitlines()) if row.strip()), "no word in its log"
    )
    return f"{state}: {last[:200]}", f"read {where}, then run again"


def tail(path: Path) -> str:
    """Return the end of a log, empty where there is none."""
    try:
        with open(path, "rb") as handle:
            handle.seek(max(0, path.stat().st_size - TAIL))
            return handle.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _memory(attempt: Attempt, text: str) -> Reason | None:
    asked = attempt.asked.get("mem_mb", "?")
    polled = re.search(r"exceeded memory limit \((\d+) > (\d+)\)", text)
    words = r"oom[-_ ]?kill|Out Of Memory|MemoryError|bad_alloc|(?i:can(?:no|')t allocate memory)|not enough memory"
    if not (polled or attempt.state == "OUT_OF_MEMORY" or re.search(words, text)):
        return None
    used = f"{int(polled[1]) >> 20} MB used, " if polled else ""
    more = 2 * int(asked) if asked.isdigit() else "MORE"
    return f"memory ran out ({used}{asked} MB asked for)", f"--set-resources {attempt.rule}:mem_mb={more}"


def _gpu_memory(attempt: Attempt, text: str) -> Reason | None:
    if not re.search(r"CUDA (?:error: )?out of memory", text):
        return None
    return "GPU memory ran out", "a smaller batch, more GPUs (gpu) or a larger model of GPU (gpu_model)"


def _own_disk(attempt: Attempt, text: str) -> Reason | None:
    own = [found for found in OWN.findall(text) if "cannot write" in found and "Fix: " in found]
    if not (own and _disk(attempt, text)):
        return None
    why, _, fix = own[-1].partition("Fix: ")
    return why.strip().rstrip("."), fix


def _disk(attempt: Attempt, text: str) -> Reason | None:
    if not re.search(r"No space left on device|Disk quota exceeded|Read-only file system", text):
        return None
    return "the disk is full, or cannot be written", "free space (`boldmill clean`), then run again"


def _limit(attempt: Attempt, text: str) -> Reason | None:
    if attempt.state not in ("TIMEOUT", "DEADLINE") and "DUE TO TIME LIMIT" not in text:
        return None
    asked = attempt.asked.get("runtime", "?")
    more = 2 * int(asked) if asked.isdigit() else "MORE"
    return f"the time limit of {asked} min was reached", f"--set-resources {attempt.rule}:runtime={more}"


def _node(attempt: Attempt, text: str) -> Reason | None:
    if attempt.state not in ("NODE_FAIL", "BOOT_FAIL") and not re.search(r"(?i:node failure)", text):
        return None
    return "its node failed", "run again; SLURM starts it on another node (slurm-requeue does so by itself)"


def _preempted(attempt: Attempt, text: str) -> Reason | None:
    if attempt.state != "PREEMPTED" and "DUE TO PREEMPTION" not in text:
        return None
    return "another job took its place (preempted)", "run again, or ask for a partition that is not preempted"


def _own(attempt: Attempt, text: str) -> Reason | None:
    found = [one for one in OWN.findall(text) if "Fix: " in one]
    if not found:
        return None
    # a command that works on many things ends with how many failed; what the first one said is above
    told = found[0] if "see the lines above" in found[-1] else found[-1]
    why, _, fix = told.partition("Fix: ")
    return why.strip().rstrip("."), fix


def _cancelled(attempt: Attempt, text: str) -> Reason | None:
    if attempt.state != "CANCELLED" and "CANCELLED AT" not in text:
        return None
    return "it was cancelled (scancel, or Snakemake was stopped)", "run again when it is wanted"


def _interrupted(attempt: Attempt, text: str) -> Reason | None:
    if not re.search(r"boldmill launch: the ranks saved|boldmill launch: stopped before", text):
        return None
    return "training saved its state and stopped on request", "run again: it goes on from there"


TESTS: tuple[Callable[[Attempt, str], Reason | None], ...] = (
    _gpu_memory,
    _memory,
    _own_disk,
    _disk,
    _limit,
    _node,
    _preempted,
    _own,
    _cancelled,
    _interrupted,
)
"""In the order they are asked: SLURM's own words before those of a command that it killed."""
QUOTING = (_own_disk, _own)
"""Those that repeat what a command said."""
