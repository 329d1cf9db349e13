"""A bucket of subjects: each in a process of its own, reused when unchanged, none lost to another's failure."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from boldmill.atomic import read_json, sha256_file
from boldmill.errors import MachineFault
from boldmill.index.buckets import listed
from boldmill.preprocess import bucket, command, raw
from boldmill.provenance.record import prov_path
from boldmill.stages import stage_json

from . import pipelines as made
from .mill import Mill

PEOPLE = ("01", "02", "03")


def series(root: Path, subject: str, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(made.T, 20))
    stem = f"sub-{subject}/func/sub-{subject}_task-rest_space-fsLR_seg-toy"
    made.write(root, f"{stem}_stat-mean_timeseries.tsv", made.tsv(dict(zip(made.schaefer(20), values.T, strict=True))))
    made.write(root, f"{stem}_stat-mean_timeseries.json", {"RepetitionTime": made.TR})


@pytest.fixture
def mill(tmp_path: Path) -> Mill:
    mill = Mill(tmp_path, shards={"n_buckets": 1})
    made.describe(mill.root, "XCP-D")
    for number, subject in enumerate(PEOPLE):
        series(mill.root, subject, number)
    mill.ingest()
    mill.template()
    return mill


def words(mill: Mill, threads: int = 2) -> list[str]:
    results = mill.results
    given = {"bucket": "index/buckets/bucket-000.json", "template": "templates/template.json"}
    found = [word for name, path in given.items() for word in (f"--{name}", str(results / path))]
    found += ["--results", str(results), "--out", str(results / "preprocess/bucket-000.json")]
    return [*found, "--threads", str(threads), "--config-json", stage_json(mill.config, "preprocess")]


def run(mill: Mill, threads: int = 2) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(words(mill, threads))) == 0
    return dict(read_json(mill.results / "preprocess/bucket-000.json"))


def started(mill: Mill) -> dict[str, str]:
    return {s: read_json(prov_path(mill.results / f"preprocess/ds/sub-{s}.json"))["started"] for s in PEOPLE}


def test_everybody_is_listed_with_the_hash_of_the_manifest(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    content = run(mill)
    assert list(content["subjects"]) == [f"ds/{s}" for s in PEOPLE]  # type: ignore[call-overload]
    files = listed([mill.results / "preprocess/bucket-000.json"], mill.results)
    assert files == [mill.results / f"preprocess/ds/sub-{s}.json" for s in PEOPLE]
    assert "3 of 3: " in capsys.readouterr().out
    assert (mill.results / "logs/preprocess/ds/sub-02.log").read_text().rstrip().endswith("1 of 1 scans ok")


def test_the_list_does_not_depend_on_the_number_of_processes(mill: Mill) -> None:
    run(mill, threads=3)
    first = sha256_file(mill.results / "preprocess/bucket-000.json")
    for subject in PEOPLE:
        (mill.results / f"preprocess/ds/sub-{subject}.json").unlink()
    run(mill, threads=1)
    assert sha256_file(mill.results / "preprocess/bucket-000.json") == first


def test_a_changed_raw_file_redoes_that_subject_only(mill: Mill) -> None:
    run(mill)
    before = started(mill)
    series(mill.root, "02", 99)
    mill.ingest()
    run(mill)
    after = started(mill)
    assert [s for s in PEOPLE if before[s] != after[s]] == ["02"]
    record = read_json(prov_path(mill.results / "preprocess/bucket-000.json"))
    assert (record["subjects"], record["reused"]) == (3, 2)


def test_a_damaged_output_and_another_setting_are_not_reused(mill: Mill) -> None:
    run(mill)
    before = started(mill)
    (mill.results / "preprocess/ds/sub-03.json").write_text("{}\n")
    prov_path(mill.results / "preprocess/ds/sub-01.json").write_text('{"inputs": []')  # damaged
    run(mill)
    after = started(mill)
    assert [s for s in PEOPLE if before[s] != after[s]] == ["01", "03"]
    mill.config = mill.config.model_copy(update={"seed": 7})
    run(mill)
    assert all(before[s] != started(mill)[s] for s in PEOPLE)


def test_one_failure_keeps_the_others_and_is_named(mill: Mill, capsys: pytest.CaptureFixture[str]) -> None:
    next((mill.root / "sub-02").rglob("*timeseries.tsv")).unlink()
    with pytest.raises(MachineFault, match="1 of 3 subjects failed"):
        run(mill)
    assert "raw file vanished" in capsys.readouterr().err
    assert not (mill.results / "preprocess/bucket-000.json").exists()
    kept = {s: (mill.results / f"preprocess/ds/sub-{s}.json").exists() for s in PEOPLE}
    assert kept == {"01": True, "02": False, "03": True}
    series(mill.root, "02", 1)
    run(mill)
    assert read_json(prov_path(mill.results / "preprocess/bucket-000.json"))["reused"] == 2


def test_a_killed_process_is_said_to_be_killed(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    die = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    monkeypatch.setattr(bucket, "_command", lambda *_: die)
    with pytest.raises(MachineFault, match="3 of 3 subjects failed"):
        run(mill)
    assert bucket._ending(-signal.SIGKILL).startswith("killed (most likely out of memory)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stopped_job_stops_its_processes_and_starts_no_other(mill: Mill, number: int) -> None:
    script = "import sys, time; from boldmill.preprocess import bucket, command; import argparse\n"
    script += "wait = [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)']\n"
    script += "bucket._command = lambda *_: wait\n"
    script += "parser = argparse.ArgumentParser(); command.add_arguments(parser)\n"
    script += "sys.exit(command.run(parser.parse_args(sys.argv[1:])))\n"
    job = subprocess.Popen([sys.executable, "-c", script, *words(mill, 1)], stderr=subprocess.DEVNULL)
    log = mill.results / "logs/preprocess/ds/sub-01.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().strip()):
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.1)
    job.send_signal(number)
    assert job.wait(timeout=30) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)
    assert not any((mill.results / f"logs/preprocess/ds/sub-{s}.log").exists() for s in PEOPLE[1:])


def test_an_index_written_anew_meanwhile_fails_the_job_and_the_next_reads_it(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake would take the output for one of the new list, whose hash it takes when the job is over."""
    inner = bucket._Children.run

    def slow(self: object, command: list[str], log: Path) -> int:
        code = inner(self, command, log)  # type: ignore[arg-type]
        if log.stem == "sub-03":
            series(mill.root, "02", 99)
            mill.ingest()
        return code

    with monkeypatch.context() as patch:
        patch.setattr(bucket._Children, "run", slow)
        with pytest.raises(MachineFault, match="the index changed meanwhile"):
            run(mill, threads=1)
    assert not prov_path(mill.results / "preprocess/bucket-000.json").exists()
    before = started(mill)
    run(mill)
    after = started(mill)
    assert [s for s in PEOPLE if before[s] != after[s]] == ["02"]


def test_a_subject_records_the_tickets_it_read(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that ingest wrote before it was over: they would make it look unchanged."""
    ticket = next((mill.results / "index/tickets").iterdir())
    read = sha256_file(ticket)
    inner = raw.verify

    def slow(tickets: list[dict[str, object]]) -> None:
        inner(tickets)
        ticket.write_text(ticket.read_text() + "\n")

    monkeypatch.setattr(raw, "verify", slow)
    out = mill.results / "preprocess/ds/sub-01.json"
    given = words(mill)
    given[:2] = ["--tickets", str(ticket)]
    given[given.index("--out") + 1] = str(out)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(given)) == 0
    inputs = {Path(item["path"]).name: item["sha256"] for item in read_json(prov_path(out))["inputs"]}
    assert inputs[ticket.name] == read != sha256_file(ticket)


def test_results_below_a_folder_named_tickets_are_reused_too(tmp_path: Path) -> None:
    (tmp_path / "tickets").mkdir()
    mill = Mill(tmp_path / "tickets", shards={"n_buckets": 1})
    made.describe(mill.root, "XCP-D")
    series(mill.root, "01", 1)
    mill.ingest()
    mill.template()
    run(mill)
    run(mill)
    assert read_json(prov_path(mill.results / "preprocess/bucket-000.json"))["reused"] == 1
