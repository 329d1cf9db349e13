"""Faults of the machine: the job fails with a clear line, leaves nothing half written, a rerun gives the same bytes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from boldmill.errors import EXIT_FAILURE

from .tree import Results, Tree

ROOT = Path(__file__).parents[4]
NOBODY = 65534


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One healthy subject, done."""
    tree = Tree(tmp_path_factory.mktemp("machine"))
    tree.subject("good")
    tree.participants()
    results = Results(tree, "done")
    assert results.ingest() == 0 and results.preprocess("good") == 0
    return results


def job(results: Results, **options: object) -> subprocess.Popen[str]:
    """Start the subject's job in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "boldmill", *results.words("good")]
    return subprocess.Popen(
        words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )  # type: ignore[call-overload,no-any-return]


def nothing_half_written(results: Results) -> None:
    left = [p for p in results.folder.rglob("*") if p.is_file() and (".tmp" in p.name or p.stat().st_size == 0)]
    assert not left
    assert not results.manifest_path("good").exists()


def test_a_full_disk_fails_the_job_and_a_rerun_gives_the_same_bytes(finished: Results) -> None:
    """A limit on the size of a file stands for the full disk: writing fails in the same place, as any user."""
    results = Results(finished.tree, "full")
    assert results.ingest() == 0

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = job(results, preexec_fn=small_files)
    _, told = process.communicate(timeout=120)
    assert process.returncode == EXIT_FAILURE, told
    last = told.strip().splitlines()[-1]
    assert "boldmill preprocess: cannot write" in last and "Fix:" in last, told[-2000:]
    nothing_half_written(results)
    assert results.preprocess("good") == 0
    assert results.digests("good") == finished.digests("good")


def test_a_killed_job_leaves_nothing_half_written_and_a_rerun_gives_the_same_bytes(finished: Results) -> None:
    results = Results(finished.tree, "killed")
    assert results.ingest() == 0
    process = job(results)
    deadline = time.monotonic() + 90
    while not list((results.folder / "work").rglob("*.nii")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not results.manifest_path("good").exists()
    assert results.preprocess("good") == 0
    assert results.digests("good") == finished.digests("good")
    assert not (results.folder / "work").exists()


@pytest.mark.parametrize(("damage", "words"), [("vanish", "raw file vanished"), ("change", "raw file changed")])
def test_a_raw_file_that_is_not_what_was_indexed_stops_the_job(
    finished: Results, tmp_path: Path, damage: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = Tree(tmp_path)
    tree.subject("good")
    tree.participants()
    results = Results(tree, "results")
    assert results.ingest() == 0
    path = tree.bold("good", "good")
    if damage == "vanish":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the same size, other bytes
    assert results.preprocess("good") == EXIT_FAILURE
    told = capsys.readouterr().err
    assert words in told and path.name in told and "Fix: run `snakemake ingest`" in told


def as_nobody(call: Callable[[], int]) -> int:
    """Call a function in a forked process without privileges (all modules are imported) and return its result."""
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        status = 120
        try:
            status = call()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_unreadable_file_is_quarantined_alone_and_looked_at_again(finished: Results) -> None:
    """As an unprivileged user: root may read everything."""
    base = Path("/tmp") / f"boldmill-unreadable-{os.getpid()}"
    shutil.rmtree(base, ignore_errors=True)
    try:
        tree = Tree(base)
        for label in ("good", "closed"):
            tree.subject(label)
        tree.participants()
        results = Results(tree, "results")
        tree.bold("closed", "good").chmod(0)
        if os.getuid() == 0:
            for path in (base, *base.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        assert as_nobody(results.ingest) == 0
        table = (results.folder / "index" / "quarantine.tsv").read_text()
        assert "bad_sub-closed_task-rest_acq-good" in table and "permission denied" in table and "chmod +r" in table
        assert "bad_sub-good_" not in table
        tickets = results.folder / "index" / "tickets"
        assert [path.name for path in tickets.iterdir()] == ["bad_sub-good_task-rest_acq-good.json"]
        tree.bold("closed", "good").chmod(0o644)
        assert as_nobody(results.ingest) == 0
        assert len(list(tickets.iterdir())) == 2
    finally:
        shutil.rmtree(base, ignore_errors=True)
