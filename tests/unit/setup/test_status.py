"""`boldmill status`: progress, failed jobs of the last run, quarantined scans, and the exit status."""

from pathlib import Path

import pytest

from boldmill.cli import main

JOB = """
[Sun Nov 29 18:08:01 2026]
rule preprocess_bucket:
    jobid: {job}
    wildcards: bucket={job:03d}
    resources: mem_mb=4000, runtime=60
[Sun Nov 29 18:08:37 2026]
Error in rule preprocess_bucket:
    jobid: {job}
    log: results/logs/preprocess/bucket-{job:03d}.log (check log file(s) for error details)
"""
OWN = "boldmill preprocess: raw file vanished: sub-02.nii.gz: it is gone. Fix: snakemake ingest\n"


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A working folder whose last run had failed jobs."""
    monkeypatch.chdir(tmp_path)

    def make(jobs: int) -> None:
        log = tmp_path / ".snakemake/log/2026-11-29T180800.1.snakemake.log"
        log.parent.mkdir(parents=True)
        log.write_text("Job stats:\n" + "".join(JOB.format(job=job) for job in range(jobs)))
        own = tmp_path / "results/logs/preprocess/bucket-000.log"
        own.parent.mkdir(parents=True)
        own.write_text(OWN)

    return make


def test_progress_and_quarantine(tree, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree.good("01", "02")
    tree.ingest()
    assert main(["status", "--results", str(tree.results)]) == 0
    text = capsys.readouterr().out
    assert "No scan is quarantined." in text and "Failed jobs" not in text
    lines = {line.split()[0]: line.split()[1:4] for line in text.splitlines() if " of " in line}
    assert lines["ingest"] == ["2", "of", "2"] and lines["preprocess"] == ["0", "of", "2"]


def test_a_quarantined_scan_is_named_with_its_fix_and_3(tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.good("01", "02")
    for path in (tree.root / "sub-02" / "func").glob("*.json"):
        path.write_text("{}")
    for path in tree.root.glob("*.json"):
        if path.name != "dataset_description.json":
            path.unlink()
    (row,) = [row for row in tree.ingest() if not row.ok]
    assert main(["status", "--results", str(tree.results)]) == 3
    text = capsys.readouterr().out
    assert row.scan_id in text and row.reason in text and row.fix in text


def test_failed_jobs_are_told_also_before_there_is_an_index(failed, capsys: pytest.CaptureFixture[str]) -> None:
    failed(1)
    assert main(["status"]) == 2
    said = capsys.readouterr()
    assert "no index yet" in said.err
    assert "preprocess_bucket (bucket=000), attempt 1: raw file vanished: sub-02" in said.out


def test_what_a_run_ends_with_quotes_no_log_and_names_ten(failed, capsys: pytest.CaptureFixture[str]) -> None:
    failed(12)
    main(["status", "--unquoted"])
    text = capsys.readouterr().out
    assert "sub-02" not in text and "results/logs/preprocess/bucket-009.log" in text
    assert "bucket-010" not in text and "and 2 more" in text and "boldmill status --failures" in text
    assert main(["status", "--failures"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and "sub-02" in lines[0]


def test_without_a_run_no_job_failed(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["status", "--failures"]) == 0
    assert capsys.readouterr().out == "No job of the last run failed.\n"
