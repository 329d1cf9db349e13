"""What Snakemake's own log of a run says about its jobs: asked for what, failed how, tried again, done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LOGS = Path(".snakemake") / "log"
RULE = re.compile(r"(?:local)?rule (\w+):$")
ERROR = re.compile(r"Error in rule (\w+)")
FIELD = re.compile(r" {4}(\w+): (.*)$")
RESTART = re.compile(r"Trying to restart job (\d+)\.")
SHOWN = re.compile(r"^Logfile [^\n]*:\n(=+)\n.*?^\1$", flags=re.MULTILINE | re.DOTALL)
"""A failed job's log that Snakemake repeats in its own: of SLURM jobs it holds the Snakemake inside the job."""
RUN = re.compile(r"^(?:Job stats:|Nothing to be done|Exiting because a job execution failed)", flags=re.MULTILINE)
"""Lines of a run; `snakemake --unlock`, `--report` and a configuration that is refused leave logs without any."""
FAILED = "\nExiting because a job execution failed"
"""What Snakemake says at the end of a run in which a job failed, also where ``-q rules`` hides which."""
FINISHED = re.compile(r"Finished jobid: (\d+) ")


@dataclass(kw_only=True)
class Attempt:
    """One failed attempt of one job.

    Parameters
    ----------
    rule, wildcards : str
        The rule, and its wildcards as Snakemake prints them.
    number : int
        1 for the first attempt.
    slurm : str
        SLURM job id, empty for a job on this machine.
    state : str
        SLURM state such as ``OUT_OF_MEMORY``, empty where none was told.
    asked, next : dict of str
        Resources of this attempt and of the one after it.
    logs : list of Path
        Log of the rule, then that of SLURM.
    again, begun, done : bool
        Whether Snakemake tries it again, whether that has begun (it then writes the log of the rule anew), and whether
        it went well.
    """

    rule: str
    wildcards: str
    number: int
    slurm: str = ""
    state: str = ""
    asked: dict[str, str] = field(default_factory=dict)
    next: dict[str, str] = field(default_factory=dict)
    logs: list[Path] = field(default_factory=list)
    again: bool = False
    begun: bool = False
    done: bool = False


def locks(folder: Path = Path()) -> list[Path]:
    """Return the locks of a run that is under way in a working folder, or was killed there."""
    return sorted((folder / ".snakemake" / "locks").glob("*.lock"))


def latest_log(folder: Path = Path()) -> Path | None:
    """Return the log of the newest run below a working folder, None where nothing ran."""
    logs = sorted((folder / LOGS).glob("*.snakemake.log"), key=lambda path: path.name, reverse=True)
    return next((log for log in logs if RUN.search(read_log(log))), None)


def read_log(path: Path) -> str:
    """Return the text of a log of Snakemake's."""
    return path.read_text(encoding="utf-8", errors="replace")


def failed_attempts(text: str) -> list[Attempt]:
    """Return every failed attempt of a run in the order it failed."""
    asked: dict[str, dict[str, str]] = {}
    found: dict[str, list[Attempt]] = {}
    order: list[Attempt] = []
    for head, fields in _blocks(SHOWN.sub("", text).splitlines()):
        job = fields.get("jobid", "")
        if RULE.match(head):
            asked[job] = fields
            for one in found.get(job, [])[-1:]:
                one.next, one.begun = _resources(fields), True
        elif match := ERROR.match(head):
            before = found.setdefault(job, [])
            state = re.search(r"SLURM status is: '(\w+)", fields.get("message", ""))
            logs = fields.get("log", "").removesuffix(" (check log file(s) for error details)")
            attempt = Attempt(
                rule=match[1],
                wildcards=asked.get(job, {}).get("wildcards", ""),
                number=len(before) + 1,
                slurm=fields.get("external_jobid", ""),
                state=state[1] if state else "",
                asked=_resources(asked.get(job, {})),
                logs=[Path(part) for part in logs.split(", ") if part],
            )
            before.append(attempt)
            order.append(attempt)
        elif match := RESTART.match(head):
            for one in found.get(match[1], [])[-1:]:
                one.again = True
        elif match := FINISHED.match(head):
            for one in found.get(match[1], []):
                one.done = True
    return order


def _resources(fields: dict[str, str]) -> dict[str, str]:
    pairs = (part.partition("=") for part in fields.get("resources", "").split(", "))
    return {name: value for name, _, value in pairs if value}


def _blocks(lines: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each line that starts at the margin with the indented fields below it."""
    head: str = ""
    fields: dict[str, str] = {}
    for line in lines:
        if match := FIELD.match(line):
            fields.setdefault(match[1], match[2])
        elif line and not line[0].isspace():
            yield head, fields
            head, fields = line, {}
    yield head, fields
