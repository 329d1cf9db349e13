"""A running SLURM, and projects on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ["--executor", "slurm", "--jobs", "4", "--slurm-no-account", "--slurm-status-command", "squeue"]
QUICK += ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"]
QUICK += ["--latency-wait", "10", "--show-failed-logs", "--max-threads", "2"]
"""Seconds instead of minutes between looks at the queue, and no job of more cores than a node has."""


def slurm_answers() -> bool:
    if shutil.which("sbatch") is None:
        return False
    return subprocess.run(["sinfo", "-h"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def cluster() -> None:
    if not slurm_answers():
        reason = "no SLURM answers here (sbatch, sinfo); `bash .ci/slurm.sh` starts one on Debian as root"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def environment() -> dict[str, str]:
    """Of a command that runs this clone's package with this Python."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command in a folder; its output goes to ``run.log`` there."""
    with open(folder / "run.log", "w") as log:
        return subprocess.Popen(words, cwd=folder, env=environment(), stdout=log, stderr=log, text=True)


def call(folder: Path, *words: str) -> str:
    """Run a command that must succeed and return what it prints."""
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_for(
    what: Callable[[], object], seconds: float, why: str, running: subprocess.Popen[str] | None = None
) -> object:
    """Return what is not false within a time; fail where the time, or the process it depends on, ends before."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {why}"
        assert running is None or running.poll() is None, f"Snakemake ended before: {why}"
        time.sleep(0.3)
    return found


def job_of(folder: Path, running: subprocess.Popen[str]) -> str:
    """Return the SLURM id of the first job of a run."""
    import re

    def found() -> str:
        match = re.search(r"submitted with SLURM jobid (\d+)", (folder / "run.log").read_text())
        return match[1] if match else ""

    return str(wait_for(found, 120, "a job is submitted", running))
