"""After a failure the logs to read are named, and nothing of what they say."""

import os
from pathlib import Path

from boldmill.atomic import write_text
from boldmill.setup.failed import failed_logs, words


def job(results: Path, name: str, log: float, benchmark: float | None = None) -> Path:
    path = write_text(results / "logs" / f"{name}.log", "sub-SECRET: no such file\n")
    os.utime(path, (log, log))
    if benchmark is not None:
        done = write_text(results / "benchmarks" / f"{name}.jsonl", "{}")
        os.utime(done, (benchmark, benchmark))
    return path


def test_a_job_without_a_newer_benchmark_failed(tmp_path: Path) -> None:
    job(tmp_path, "preprocess/bucket-000", 100, 101)  # succeeded
    again = job(tmp_path, "preprocess/bucket-001", 100, 50)  # succeeded once, failed now
    never = job(tmp_path, "train/brainmass", 120)
    job(tmp_path, "snapshot", 10)  # failed long ago
    job(tmp_path, "preprocess/ds/sub-01", 110)  # of one person: a bucket's log names it
    assert failed_logs(tmp_path, 60) == [never, again]


def test_logs_are_named_and_not_shown(tmp_path: Path) -> None:
    log = job(tmp_path, "preprocess/bucket-001", 100)
    assert words(str(tmp_path), 60) == f"boldmill: what failed is said in\n  {log}"
    assert words(str(tmp_path), 200) == ""
    for number in range(2, 14):
        job(tmp_path, f"preprocess/bucket-{number:03d}", 100)
    assert words(str(tmp_path), 60).endswith("and 3 more")
