"""What the job's own SLURM says about it, and the one thing asked of it: to start the job again.

SLURM may be slow or away for a moment; then nothing is known and the job goes on without.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

SECONDS = 20
"""How long an answer is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as ``scontrol show job`` tells it.

    Parameters
    ----------
    number : str
        SLURM job id.
    state : str
        E.g. ``RUNNING``, ``COMPLETING``, ``TIMEOUT``.
    may_requeue : bool
        Whether SLURM may start it again (``--requeue``, or the site's JobRequeue).
    restarts : int
        How often it was started again.
    nodes : str
        Node list, e.g. ``gpu[01-02]``.
    reason : str
        Why it is in that state, e.g. ``TimeLimit``; ``None`` where SLURM has no word for it.
    """

    number: str
    state: str
    may_requeue: bool
    restarts: int
    nodes: str
    reason: str = ""

    @property
    def ends_by_itself(self) -> bool:
        """Whether only its time limit ends it, or nothing yet; else a person or SLURM has decided about it.

        A job that is being cancelled, preempted or requeued reads ``COMPLETING``, as one at its limit does; the limit
        alone leaves its reason. SLURM would take a request to requeue a cancelled job, and start it again.
        """
        return self.state in ("RUNNING", "TIMEOUT") or (self.state == "COMPLETING" and self.reason == "TimeLimit")


def own_job() -> str:
    """Return the id of the job this process runs in, ``array_task`` for one of a job array; empty outside SLURM.

    A task of an array is named by both: the number of one of them is also that of the array, and SLURM would answer for
    all tasks and requeue all.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def show(number: str) -> Job | None:
    """Return a job, or None where SLURM does not answer or knows it no more."""
    return parse_job(ask("scontrol", "show", "job", "-o", number))


def parse_job(text: str) -> Job | None:
    """Read one line of ``scontrol show job -o``.

    >>> parse_job("JobId=7 JobName=x JobState=RUNNING Requeue=1 Restarts=2 NodeList=n[1-2] Partition=gpu").restarts
    2
    """
    fields = dict(re.findall(r"(\w+)=(\S*)", text))
    if "JobId" not in fields:
        return None
    return Job(
        number=fields["JobId"],
        state=fields.get("JobState", ""),
        may_requeue=fields.get("Requeue") == "1",
        restarts=int(fields.get("Restarts", "0")),
        nodes=fields.get("NodeList", ""),
        reason=fields.get("Reason", ""),
    )


def seconds_left(number: str) -> float | None:
    """Return the seconds to a job's time limit, None where there is no limit or no answer."""
    return parse_time(ask("squeue", "-h", "-j", number, "-O", "TimeLeft:30"))


def parse_time(text: str) -> float | None:
    """Return seconds of SLURM's ``[[hours:]minutes:]seconds`` or ``days-hours[:minutes[:seconds]]``.

    None for words such as UNLIMITED.

    >>> parse_time("1-02:03:04"), parse_time("9:58"), parse_time("UNLIMITED")
    (93784.0, 598.0, None)
    >>> parse_time("2-12")
    216000.0
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text.strip())
    if not found:
        return None
    parts = [int(part) for part in found[2].split(":")]
    if found[1]:  # hours come first
        parts += [0] * (3 - len(parts))
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + part
    return float(int(found[1] or 0) * 86400 + seconds)


def parse_gpus(gres: str) -> int:
    """Return the GPUs of a node by its generic resources.

    >>> parse_gpus("gpu:a100:4(S:0-1),gpu:2,tmp:9"), parse_gpus("gpu:3090:4")
    (6, 4)
    >>> parse_gpus("gpu:1g.10gb:7"), parse_gpus("(null)")
    (7, 0)
    """
    entries = re.sub(r"\([^)]*\)", "", gres).split(",")  # without the sockets, which hold commas of their own
    counts = (re.fullmatch(r"gpu(?::.+)?:(\d+)", entry.strip()) for entry in entries)
    return sum(int(count[1]) for count in counts if count)


def first_host(nodes: str) -> str:
    """Return the first host of a node list, empty where SLURM does not answer."""
    return ask("scontrol", "show", "hostnames", nodes).partition("\n")[0].strip()


def requeue(number: str) -> bool:
    """Ask SLURM to end a job and start it again under the same id; whether it agreed."""
    try:
        words = ["scontrol", "requeue", number]
        return subprocess.run(words, capture_output=True, check=False, timeout=SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def ask(*words: str) -> str:
    """Return what a command of SLURM printed; empty where it failed, is not there, or took too long."""
    try:
        done = subprocess.run(words, capture_output=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else ""  # names may be of any bytes
