"""The launcher: signals reach the ranks, exit statuses tell what happened, two nodes train together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boldmill.paths import MODELS
from boldmill.train.torchrun import children, status_of

Train = Callable[..., list[int]]
Whole = Callable[..., Path]
FORKED = Path(__file__).with_name("forked.py")


def start(job: dict[str, Any], *options: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "boldmill.train.torchrun", *options, str(FORKED), json.dumps(job)]
    return subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def wait_for(folder: Path, name: str, launcher: subprocess.Popen[str]) -> None:
    for _ in range(2400):
        if (folder / name).exists():
            return
        if launcher.poll() is not None:
            break
        time.sleep(0.05)
    launcher.kill()
    pytest.fail(f"{name} never came: {launcher.communicate()[1][-2000:]}")


def assert_resumes(model: str, out: Path, ranks: int, train: Train, whole: Whole) -> None:
    assert not (out / "model.safetensors").exists() and list(out.rglob("resume-*.safetensors"))
    assert train(model, out, ranks) == [0] * ranks
    for name in ("model.safetensors", "history.jsonl"):
        assert (out / name).read_bytes() == (whole(model, ranks) / name).read_bytes(), name


@pytest.mark.parametrize("model", MODELS)
def test_usr1_to_the_launcher_stops_its_ranks_and_they_resume_bit_for_bit(
    model: str,
    job: Callable[..., dict[str, Any]],
    train: Train,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = job(model, tmp_path / "out", 2, pace=[str(tmp_path), 0.5])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    launcher = start(given, "--standalone", "--nproc-per-node", "2")
    wait_for(tmp_path, "2-rank-1", launcher)
    launcher.send_signal(signal.SIGUSR1)
    told = launcher.communicate(timeout=120)[1]
    assert launcher.returncode == 143, told
    assert told.count("training stopped on request") == 1
    # torch's own launcher leaves a folder with every run (the compiler's cache is one for all)
    assert [path.name for path in scratch.iterdir() if not path.name.startswith("torchinductor")] == []
    assert_resumes(model, tmp_path / "out", 2, train, whole)


def test_term_to_one_of_two_nodes_stops_both(
    job: Callable[..., dict[str, Any]], train: Train, whole: Whole, tmp_path: Path
) -> None:
    """Two launchers of one rank each, that find each other by address and port of the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = job("fmri_mae", tmp_path / "out", 2, pace=[str(tmp_path), 0.5])
    where = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    nodes = [start(given, *where, "--node-rank", str(number)) for number in range(2)]
    wait_for(tmp_path, "2-rank-1", nodes[1])
    nodes[1].send_signal(signal.SIGTERM)
    told = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [143, 143], told
    assert_resumes("fmri_mae", tmp_path / "out", 2, train, whole)


def failure(**codes: int) -> Any:
    return SimpleNamespace(
        failures={
            int(rank[1:]): SimpleNamespace(exitcode=code, timestamp=place)
            for place, (rank, code) in enumerate(codes.items())
        }
    )


def test_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """The rank that failed first counts, not those that the launcher then ended."""
    assert status_of(failure(r1=143, r0=143), asked=False) == 143
    assert status_of(failure(r1=143, r0=-15), asked=False) == 143
    assert status_of(failure(r0=-10, r1=-15), asked=True) == 143  # the signal came before they listened
    assert capsys.readouterr().err == ""
    assert status_of(failure(r0=-15, r1=-9), asked=False) == 137
    assert "rank 1 was killed by SIGKILL, often because memory ran out" in capsys.readouterr().err
    assert status_of(failure(r1=2, r0=-15), asked=True) == 2
    assert "rank 1 ended with status 2" in capsys.readouterr().err
    assert status_of(failure(r0=-15), asked=False) == 143  # nobody asked this launcher: somebody asked the rank


def test_children_are_found() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert child.pid in children(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert child.pid not in children(os.getpid())
