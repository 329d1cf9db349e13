"""Why a job runs: what its records say was different, in words that count scans and jobs."""

import json
from pathlib import Path
from typing import Any

import pytest

from boldmill.atomic import sha256_text, write_json, write_text
from boldmill.plan.causes import CHANGED, GONE, LEFT, NEW, Why, in_words, why
from boldmill.plan.dryrun import Job
from boldmill.plan.past import past_of


def settings(high: float = 0.1, version: int = 3) -> str:
    value = {"stage": "preprocess", "version": version, "config": {"clean": {"band_high": high}}, "overrides": {}}
    return json.dumps(value)


class Bucket:
    """One finished bucket: its list of tickets, two subjects with records, the record of the job."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root, root / "preprocess" / "bucket-000.json"
        self.tickets = {"a_sub-01_run-1": "x1", "a_sub-01_run-2": "x2", "a_sub-02_run-1": "x3"}
        self.list = root / "index" / "buckets" / "bucket-000.json"
        write_text(self.list, "tickets of then")
        subjects = {}
        for who in ("01", "02"):
            manifest = root / "preprocess" / "a" / f"sub-{who}.json"
            mine = {scan: sha for scan, sha in self.tickets.items() if f"sub-{who}" in scan}
            self.record(manifest, {f"{root}/index/tickets/{scan}.json": sha for scan, sha in mine.items()})
            subjects[f"a/{who}"] = {"path": f"preprocess/a/sub-{who}.json"}
        write_json(self.out, {"schema": 1, "subjects": subjects})
        self.record(self.out, {str(self.list): sha256_text("tickets of then")})

    def record(self, path: Path, inputs: dict[str, str]) -> None:
        found = [{"path": name, "sha256": sha, "size": 1} for name, sha in inputs.items()]
        write_json(f"{path}.prov.json", {"settings": settings(), "inputs": found})

    def why(self, tickets: dict[str, str], **job: Any) -> Why:
        return why(
            Job(rule="preprocess_bucket", output=(str(self.out),), **{"settings": settings(), **job}),
            tickets,
            self.root,
        )


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path)


def test_scans_that_came_changed_and_left_are_told_apart(bucket: Bucket) -> None:
    write_text(bucket.list, "tickets of now")
    now = {"a_sub-01_run-1": "other", "a_sub-03_run-1": "x9"}
    found = bucket.why(now, inputs=(str(bucket.list),))
    assert found.scans == {
        NEW: {"a_sub-03_run-1"},
        CHANGED: {"a_sub-01_run-1"},
        LEFT: {"a_sub-01_run-2"},
        GONE: {"a_sub-02"},
    }
    assert found.only_scans == {"a_sub-01_run-1", "a_sub-03_run-1"}
    expected = "1 scan is new; raw files of 1 scan changed; 1 scan left; 1 subject left"
    assert in_words([found]) == expected


def test_a_list_that_is_the_same_reads_no_records_of_subjects(bucket: Bucket) -> None:
    (bucket.root / "preprocess" / "a" / "sub-01.json.prov.json").write_text("damaged")
    found = bucket.why(bucket.tickets, settings=settings(0.08), changed=frozenset({"params"}))
    assert found == Why(phrases=("clean.band_high changed 0.1 -> 0.08",)) and found.only_scans is None


def test_where_nobody_recorded_tickets_the_bucket_changed(bucket: Bucket) -> None:
    write_text(bucket.list, "tickets of now")
    for path in bucket.root.rglob("sub-*.prov.json"):
        path.unlink()
    assert in_words([bucket.why(bucket.tickets, inputs=(str(bucket.list),))]) == "scans of the bucket changed"


def test_the_record_wins_over_snakemakes_and_a_damaged_one_is_passed_over(bucket: Bucket) -> None:
    job = Job(rule="r", output=(str(bucket.out),), settings=settings(), recorded=settings(0.5))
    assert past_of(job).settings == settings()
    Path(f"{bucket.out}.prov.json").write_text("{")
    assert past_of(job).settings == settings(0.5)


def test_without_any_record_an_absent_output_was_never_made(tmp_path: Path) -> None:
    job = Job(rule="r", output=(str(tmp_path / "x"),), missing=("x",), settings=settings(), after=("preprocess",))
    assert in_words([why(job, {}, tmp_path)]) == "not made yet"
    again = Job(rule="r", output=job.output, missing=("x",), settings=settings(), recorded=settings())
    assert in_words([why(again, {}, tmp_path)]) == "output is missing"


def test_another_file_is_named_and_other_reasons_of_snakemake_are_said(tmp_path: Path) -> None:
    job = Job(
        rule="r",
        output=(str(tmp_path / "x"),),
        inputs=("weights/model.safetensors",),
        settings=settings(),
        recorded=settings(),
        changed=frozenset({"code", "software", "forced"}),
    )
    assert in_words([why(job, {}, tmp_path)]) == (
        "asked for (forced); weights/model.safetensors changed; the command of its rule changed; "
        "its software environment changed"
    )
    other = Job(rule="r", settings=settings(), recorded=settings(), changed=frozenset({"input"}))
    assert in_words([why(other, {}, tmp_path)]) == "its list of inputs changed"
    unknown = Job(rule="r", settings=settings(), changed=frozenset({"params"}))
    assert in_words([why(unknown, {}, tmp_path)]) == "settings changed"


def test_what_holds_for_some_jobs_says_for_how_many() -> None:
    version = Why(phrases=("stage version 3 -> 4",))
    found = in_words([version, version, Why(follows=("preprocess", "parcellate")), Why(missing=True)])
    assert found == (
        "stage version 3 -> 4 (2 of 4 jobs); output is missing (1 of 4 jobs); "
        "follows parcellate, preprocess (1 of 4 jobs)"
    )
    assert in_words([Why(follows=("preprocess", "parcellate"))], frozenset({"preprocess"})) == "follows parcellate"


def test_a_list_of_other_content_is_known_by_its_hash_and_one_that_is_gone_too(bucket: Bucket) -> None:
    """Snakemake's reason may be the settings alone; what else is different is said all the same."""
    assert past_of(Job(rule="r", output=(str(bucket.out),))).changed("buckets") == []
    write_text(bucket.list, "tickets of now")
    assert past_of(Job(rule="r", output=(str(bucket.out),))).changed("buckets") == [str(bucket.list)]
    assert bucket.why({**bucket.tickets, "a_sub-02_run-1": "other"}).scans == {CHANGED: {"a_sub-02_run-1"}}
    bucket.list.unlink()
    assert past_of(Job(rule="r", output=(str(bucket.out),))).changed("buckets") == [str(bucket.list)]


def test_another_list_of_inputs_is_a_reason_only_where_nothing_else_says_why(bucket: Bucket) -> None:
    assert bucket.why(bucket.tickets, changed=frozenset({"input"})).phrases == ("its list of inputs changed",)
    assert bucket.why(bucket.tickets, changed=frozenset({"input"}), after=("templates",)).phrases == ()
