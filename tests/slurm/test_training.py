"""One training run that SLURM stops three times and starts again: the same bytes as of a run that nobody stopped.

The ranks are frozen (SIGSTOP) as soon as they train, so that the run is under way whenever SLURM gets to it; SLURM
sends SIGCONT before each of its signals.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("slurm_project", HERE / "project.py")
assert spec is not None and spec.loader is not None
projects = importlib.util.module_from_spec(spec)
spec.loader.exec_module(projects)
helpers = projects.load(HERE / "conftest.py")
STEPS = 1000
"""So many that no start but the last comes near the end before it is frozen, also on a fast machine."""
IMPORTS = 4.0
"""Seconds of processor time before a rank trains."""


def members(job: str) -> list[int]:
    """Return the process ids of the ranks of a job."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (process / "environ").read_bytes()
            if f"\0SLURM_JOB_ID={job}\0".encode() in variables and b"\0LOCAL_RANK=" in variables:
                found.append(int(process.name))
    return found


def trains(process: int) -> bool:
    """Whether a rank has used the processor for longer than its imports take (4 s), however busy the machine is."""
    try:
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return False
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") > IMPORTS + 1


class Run:
    """A training rule under way on the partition of two nodes."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.out = folder / "results" / "models" / "brainmass"
        self.snakemake = helpers.start(folder, *projects.training(*helpers.QUICK, *words))
        self.job = helpers.job_of(folder, self.snakemake)

    def history(self) -> str:
        path = self.out / ".launch" / "history.txt"
        return path.read_text() if path.exists() else ""

    def freeze(self, start: int, ranks: int = 2) -> None:
        """Wait until the ranks of a start train, and stop them."""
        helpers.wait_for(lambda: f"start {start}" in self.history(), 120, f"start {start} launches", self.snakemake)

        def processes() -> list[int]:
            found = [process for process in members(self.job) if trains(process)]
            return found if len(found) == ranks else []

        def asked() -> bool:  # on a busy machine the limit may come first
            return "asked to stop" in self.history().partition(f"start {start}")[2]

        helpers.wait_for(lambda: processes() or asked(), 240, "the ranks train", self.snakemake)
        found = processes()
        for process in found:
            os.kill(process, signal.SIGSTOP)

    def again(self) -> None:
        """Wait until SLURM has put the job back, and spare it the two minutes that it keeps such jobs."""
        helpers.wait_for(self.pending, 180, "the job is requeued", self.snakemake)
        subprocess.run(["scontrol", "update", f"jobid={self.job}", "starttime=now", "timelimit=30"], check=True)

    def pending(self) -> bool:
        words = ["squeue", "-h", "-j", self.job, "-o", "%T"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() == "PENDING"


def daemon(node: str) -> int:
    """Return the process id of a node's slurmd, 0 where it does not run."""
    path = Path(f"/run/slurmd-{node}.pid")
    process = int(path.read_text()) if path.exists() else 0
    return process if process and Path(f"/proc/{process}").exists() else 0


def lose_node(node: str, job: str) -> None:
    """End a node as a power cut does: its daemon, the daemon's helpers and all of the job at once."""
    os.kill(daemon(node), signal.SIGKILL)
    helper, mine = f"slurmstepd: [{job}.".encode(), f"\0SLURM_JOB_ID={job}\0".encode()
    for told in (
        lambda p: (p / "cmdline").read_bytes().startswith(helper),
        lambda p: mine in (p / "environ").read_bytes(),
    ):
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if told(process):
                    os.kill(int(process.name), signal.SIGKILL)
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = projects.project(tmp_path_factory.mktemp("undisturbed"), STEPS)
    words = [
        "--model",
        "brainmass",
        "--snapshot",
        "results/datasets/latest/manifest.json",
        "--out",
        "out/model.safetensors",
    ]
    words += ["--config-json", (folder / "settings.json").read_text()]
    helpers.call(folder, "boldmill", "launch", "--ranks", "2", "--threads", "2", "--", "train", *words)
    return folder / "out"


@pytest.fixture(scope="module")
def disturbed(cluster: None, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = projects.project(tmp_path_factory.mktemp("disturbed"), STEPS)
    second = subprocess.run(["sinfo", "-h", "-N", "-p", "pair", "-o", "%N"], capture_output=True, text=True, check=True)
    node = next(name for name in second.stdout.split() if name.endswith("b"))
    wanted = ["slurm_partition=pair", "gpu=2", "runtime=2", "mem_mb=3000", "slurm_extra='--signal=USR1@30'"]
    run = Run(folder, "--slurm-requeue", "--set-resources", *(f"train_model:{one}" for one in wanted))
    seen = []
    try:
        run.freeze(1)  # SLURM's own signal before the time limit
        run.again()
        seen.append(run.history())
        run.freeze(2)  # preempted by a person or by another job
        subprocess.run(["scontrol", "requeue", run.job], check=True)
        run.again()
        seen.append(run.history())
        run.freeze(3)  # the node fails
        lose_node(node, run.job)
        run.again()
        seen.append(run.history())
        status = run.snakemake.wait(timeout=600)
    finally:
        subprocess.run(["scancel", run.job], check=False)
        if not daemon(node):
            subprocess.run(["slurmd", "-N", node], check=False)
        if run.snakemake.poll() is None:
            run.snakemake.terminate()
    assert status == 0, (folder / "run.log").read_text()
    log = (folder / "results" / "logs" / "train" / "brainmass.log").read_text()
    return run, seen, log


def test_weights_and_losses_are_those_of_a_run_nobody_stopped(disturbed, undisturbed: Path) -> None:
    run, _, _ = disturbed
    for name in ("model.safetensors", "history.jsonl", "config.json"):
        assert (run.out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert json.loads((run.out / "history.jsonl").read_text().splitlines()[-1])["step"] == STEPS


def test_the_trainer_got_the_signal_before_its_limit_and_had_its_job_requeued(disturbed) -> None:
    _, (first, _, _), _ = disturbed
    assert "asked to stop by SIGUSR1" in first and "the ranks saved their state and stopped" in first
    assert "requeueing job" in first


def test_a_preempted_job_stops_and_starts_again(disturbed) -> None:
    _, (_, second, third), _ = disturbed
    assert "start 2" in second and "asked to stop by SIGTERM" in second
    assert second.count("the ranks saved their state and stopped") == 2
    assert "start 3" in third


def test_the_log_tells_every_start(disturbed) -> None:
    run, _, log = disturbed
    assert [f"SLURM job {run.job}, start {number}" in log for number in (1, 2, 3, 4)] == [True] * 4
    assert not (run.out / ".launch").exists()


def test_nothing_failed(disturbed) -> None:
    run, _, _ = disturbed
    assert "No job of the last run failed." in helpers.call(run.folder, "boldmill", "status", "--failures")


def test_a_cancelled_training_saves_its_state_and_stays_cancelled(cluster: None, tmp_path: Path) -> None:
    """SLURM would take a request to requeue a job that it is cancelling, and start it again."""
    folder = projects.project(tmp_path, 100_000)
    wanted = ["gpu=2", "runtime=20", "mem_mb=3000", "slurm_extra='--signal=USR1@30'"]
    run = Run(folder, "--slurm-requeue", "--set-resources", *(f"train_model:{one}" for one in wanted))
    try:
        run.freeze(1)
        subprocess.run(["scancel", run.job], check=True)
        assert run.snakemake.wait(timeout=300) != 0, (folder / "run.log").read_text()
        assert not run.pending() and members(run.job) == []
    finally:
        subprocess.run(["scancel", run.job], check=False)
        if run.snakemake.poll() is None:
            run.snakemake.terminate()
    said = run.history()
    assert "the ranks saved their state and stopped" in said and "it is not requeued from here" in said
    assert "requeueing" not in said and "start 2" not in said
    assert list(run.out.glob("resume-*.safetensors"))
