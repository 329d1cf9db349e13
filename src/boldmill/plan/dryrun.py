"""The jobs Snakemake itself would run, read from its dry run of the real Snakefile in a process of its own.

The child process (:mod:`boldmill.plan.dag`) drives Snakemake through its Python API, exactly as
``snakemake -n WORDS`` does, and writes the jobs of the DAG with Snakemake's reasons as JSON. A process of its own,
because a Snakefile may end the interpreter and Snakemake takes over logging.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from boldmill.errors import BoldmillError, ConfigError

MARK = "boldmill: "


@cache
def stage_of(settings: str) -> str:
    """Return the name of the stage a text of settings is of; empty where the text is, or is of no stage (`fetch`)."""
    return str(json.loads(settings).get("stage", "")) if settings else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job that will run.

    Parameters
    ----------
    rule : str
        Name of the rule.
    wildcards : dict of str to str
        Values of its wildcards.
    output : tuple of str
        Its outputs.
    inputs : tuple of str
        Inputs that are newer than the outputs, where that alone is the reason.
    missing : tuple of str
        Outputs that are not there and are wanted, temporary ones left out.
    temporary : bool
        Whether a temporary output is wanted again.
    changed : frozenset of str
        Further reasons of Snakemake: ``params``, ``input`` (another set of files), ``code``, ``software``, ``forced``.
    after : tuple of str
        Stages of the jobs whose outputs it waits for.
    settings : str
        The JSON of its stage now; empty where the rule has none.
    recorded : str
        The JSON its outputs were made with, as Snakemake recorded it; empty where unknown.
    threads, gpu : int
        What it asks for.
    """

    rule: str
    wildcards: dict[str, str] = field(default_factory=dict)
    output: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    temporary: bool = False
    changed: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    settings: str = ""
    recorded: str = ""
    threads: int = 1
    gpu: int = 0
    mem_mb: int = 0
    runtime: int = 0

    @property
    def stage(self) -> str:
        """Name of the stage, from its settings; the rule's name where it has none."""
        return stage_of(self.settings) or self.rule

    @property
    def bucket(self) -> int | None:
        """Number of the bucket it works on, if any."""
        return int(self.wildcards["bucket"]) if "bucket" in self.wildcards else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a dry run found: the merged configuration, jobs in the order of their levels, width of the run.

    ``cluster``: whether the profile submits jobs (then ``n_jobs`` at a time) rather than running them on ``cores``.
    """

    config: dict[str, Any]
    jobs: tuple[Job, ...]
    cores: int
    n_jobs: int
    cluster: bool = False


def dry_run(words: Sequence[str], *, snakefile: Path) -> DryRun:
    """Ask Snakemake what ``snakemake -n WORDS`` would run.

    Raises
    ------
    ConfigError
        The Snakefile refuses the configuration, e.g. because there is no index yet.
    BoldmillError
        Snakemake cannot build the DAG.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dag.json"
        command = [sys.executable, "-m", "boldmill.plan.dag", str(out), "--", "-s", str(snakefile), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not out.is_file():
            raise _refusal(done.stderr + done.stdout)
        found = json.loads(out.read_text())
    settings = found["settings"]
    jobs = tuple(
        Job(**{**job, "settings": settings[job["settings"]], "recorded": settings[job["recorded"]]}
            | {name: tuple(job[name]) for name in ("output", "inputs", "missing", "after")}
            | {"changed": frozenset(job["changed"])})
        for job in found["jobs"]
    )  # fmt: skip
    return DryRun(config=found["config"], jobs=jobs, cores=found["cores"], n_jobs=found["n_jobs"],
                  cluster=found["cluster"])  # fmt: skip


def _refusal(text: str) -> BoldmillError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if line.startswith(MARK):
            what, _, fix = line.removeprefix(MARK).partition(" Fix: ")
            head, _, rest = what.partition(": ")
            where, _, why = rest.partition(": ")
            return ConfigError(head, where, why.rstrip("."), fix)
    last = (lines or ["it said nothing"])[-1].rstrip(".")
    why = last.partition(": ")[2] if last.startswith("snakemake.exceptions.") else last
    return BoldmillError("Snakemake cannot plan this", "boldmill plan", why, "correct it; `snakemake -n` says more")
