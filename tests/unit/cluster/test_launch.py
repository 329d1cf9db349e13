"""The launcher: geometry and commands, warnings passed on to the ranks, the clock, and when a job is requeued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from boldmill.cli import main
from boldmill.cluster import slurm, supervise
from boldmill.cluster.geometry import Geometry, command, geometry
from boldmill.cluster.launch_command import folder_of
from boldmill.cluster.slurm import Job
from boldmill.errors import ConfigError

RANK = """
import signal, sys, time
assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN  # nobody dies of it before the loop listens
time.sleep(float(sys.argv[1]))
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
end = time.monotonic() + 20
while not got and time.monotonic() < end:
    time.sleep(0.05)
sys.exit(143 if got else 0)
"""


def ranks(**more: int) -> Geometry:
    return geometry(**{"gpus": 0, "nodes": 1, "ranks": 0, "threads": 4} | more)


def test_one_rank_needs_no_torchrun() -> None:
    words = command(ranks(gpus=1), ["train", "--model", "x"])
    assert words == [sys.executable, "-m", "boldmill", "train", "--model", "x", "--threads", "4"]


def test_a_rank_per_gpu_of_one_node() -> None:
    words = command(ranks(gpus=4), ["train"])
    assert words[words.index("--nproc-per-node") + 1] == "4" and words[words.index("--nnodes") + 1] == "1"
    assert "srun" not in words and words[-2:] == ["--threads", "4"]


def test_ranks_without_gpus_share_the_threads() -> None:
    assert command(ranks(ranks=2), ["train"])[-1] == "2"
    assert command(ranks(ranks=8), ["train"])[-1] == "1"


def test_several_nodes_meet_through_srun_at_the_first() -> None:
    words = command(ranks(gpus=8, nodes=2), ["train"], host="node07", job="123456")
    assert words[0] == "srun" and {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--overlap", "--mpi=none"} <= set(
        words
    )
    assert "--gpus-per-node=4" in words and words[words.index("--nproc-per-node") + 1] == "4"
    host, _, port = words[words.index("--rdzv-endpoint") + 1].partition(":")
    assert host == "node07" and 20000 <= int(port) < 40000


def test_ranks_that_do_not_fit_the_nodes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "--gpus", "3", "--nodes", "2", "--", "train", "--out", "x/model.safetensors"]) == 2
    assert "3 ranks on 2 nodes" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="SLURM names no job"):
        command(ranks(gpus=4, nodes=2), ["train"])


def test_the_folder_lies_beside_the_output() -> None:
    assert folder_of(["train", "--out", "a/b/model.safetensors"]) == Path("a/b/.launch")


def run_ranks(folder: Path, *, late: float = 0.0, script: str = RANK, ask: bool = True) -> int:
    """Supervise one rank that listens after ``late`` seconds; the warning comes after one second."""
    supervise.open_folder(folder)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGUSR1))
    if ask:
        timer.start()
    try:
        return supervise.supervise([sys.executable, "-c", script, str(late)], folder, "", 1.0)
    finally:
        timer.cancel()


def test_a_warning_reaches_the_ranks_and_means_143(tmp_path: Path) -> None:
    assert run_ranks(tmp_path / ".launch") == 143
    history = (tmp_path / ".launch" / "history.txt").read_text()
    assert "asked to stop by SIGUSR1" in history and "saved their state" in history


def test_a_warning_that_came_too_early_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "AGAIN", 0.3)
    assert run_ranks(tmp_path / ".launch", late=3.0) == 143


def test_the_next_start_tells_what_went_before_and_the_end_clears_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".launch"
    run_ranks(folder)
    capfd.readouterr()
    assert run_ranks(folder, script="pass", ask=False) == 0
    assert "asked to stop by SIGUSR1" in capfd.readouterr().err and not folder.exists()


@pytest.mark.parametrize(
    ("script", "status"), [("import sys; sys.exit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_a_failure_of_the_ranks_is_passed_on(tmp_path: Path, script: str, status: int) -> None:
    assert run_ranks(tmp_path / ".launch", script=script, ask=False) == status


def test_ranks_that_die_of_the_request_can_go_on_later(tmp_path: Path) -> None:
    script = "import os, time; time.sleep(2); os.kill(os.getpid(), 15)"
    assert run_ranks(tmp_path / ".launch", script=script) == 143


def test_the_clock_asks_again_before_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [0.2, 1000.0, 1000.0, None]
    monkeypatch.setattr(slurm, "seconds_left", lambda job: answers.pop(0))
    clock = supervise.Clock("7", 120.0)
    assert clock.margin == 0.05  # a quarter of what is left of a short job
    threading.Event().wait(0.2)
    assert not clock.near() and len(answers) == 2  # the limit was moved
    assert not clock.near() and len(answers) == 2
    clock.deadline = 0.0
    assert not clock.near()
    clock.deadline = 0.0
    assert clock.near()  # SLURM is away: better too early


def test_without_a_job_there_is_no_clock() -> None:
    assert supervise.Clock("", 120.0).deadline == float("inf")


JOB = Job(number="7", state="RUNNING", may_requeue=True, restarts=1, nodes="n1")


@pytest.mark.parametrize(
    ("known", "asked", "words"),
    [
        (JOB, True, "requeueing job 7"),
        (Job(number="7", state="CANCELLED", may_requeue=True, restarts=0, nodes=""), False, "is cancelled"),
        (replace(JOB, state="COMPLETING", reason="None"), False, "ended by a person or by SLURM: it is not requeued"),
        (replace(JOB, state="COMPLETING", reason="TimeLimit"), True, "requeueing job 7"),
        (Job(number="7", state="RUNNING", may_requeue=False, restarts=0, nodes=""), False, "may not requeue"),
        (Job(number="7", state="RUNNING", may_requeue=True, restarts=9, nodes=""), False, "started 10 times"),
        (None, False, "unknown to SLURM"),
    ],
)
def test_a_job_is_requeued_where_that_is_allowed(
    known: Job | None, asked: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(slurm, "show", lambda job: known)
    monkeypatch.setattr(slurm, "requeue", lambda job: bool(calls.append(job)) or False)
    supervise.start_again("7", 9, tmp_path)
    assert calls == (["7"] if asked else [])
    assert words in (tmp_path / "history.txt").read_text()


def test_what_slurm_prints_is_read() -> None:
    text = "JobId=84 JobName=x JobState=COMPLETING Reason=None Requeue=1 Restarts=3 ReqNodeList=(null) NodeList=a[1-2]"
    found = Job(number="84", state="COMPLETING", may_requeue=True, restarts=3, nodes="a[1-2]", reason="None")
    assert slurm.parse_job(text) == found
    assert slurm.parse_job("slurm_load_jobs error") is None
    assert slurm.parse_time("12") == 12 and slurm.parse_time("INVALID") is None


def test_a_task_of_an_array_is_never_taken_for_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "70")  # the last task has the number of the array
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert slurm.own_job() == "70_4"
    words = command(ranks(gpus=2, nodes=2), ["train"], host="n1", job=slurm.own_job())
    assert words[words.index("--rdzv-endpoint") + 1] == "n1:20704"
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    assert slurm.own_job() == "70"


def test_no_slurm_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert slurm.show("1") is None and slurm.seconds_left("1") is None and not slurm.requeue("1")


def test_names_of_any_bytes_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "scontrol"
    tool.write_bytes(b"#!/bin/sh\nprintf 'JobId=7 JobName=b\\344r JobState=RUNNING Requeue=1 Restarts=0'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = slurm.show("7")
    assert found is not None and found.state == "RUNNING"


def test_a_nested_snakemake_survives_the_warning() -> None:
    code = "from boldmill.cluster.signals import ignore_warning; ignore_warning()\n"
    code += "import subprocess; raise SystemExit(subprocess.run(['sh', '-c', 'kill -USR1 $$; exit 7']).returncode)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7
