"""Lists of one bucket: what they name, when they change, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boldmill.atomic import canonical_json, read_json, sha256_file, write_json
from boldmill.errors import MachineFault
from boldmill.index.buckets import listed, steady, subject_list, write_bucket_lists
from boldmill.index.read import ScanRow
from boldmill.paths import Layout
from boldmill.provenance.record import Recorder
from boldmill.stages import Settings


def made(layout: Layout, subject: str, derivative: str = "bold", **config: Any) -> Path:
    """A subject's manifest with its record: it names a derivative and says nothing of its bytes."""
    manifest = layout.subject("ds", subject)
    text = canonical_json({"stage": "preprocess", "version": 1, "config": config, "overrides": {}})
    with Recorder(Settings(text), out=manifest) as record:
        write_json(manifest, {"files": ["bold"]})
        for name in ("dataset_description.json", f"sub-{subject}_bold.txt"):
            path = layout.derivatives("ds") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(derivative if name.startswith("sub-") else str(layout.results))
            record.add_output(path)
    return manifest


EMPTY = dict.fromkeys(ScanRow._fields, "")


def row(layout: Layout, scan_id: str, bucket: int, kind: str = "volume", status: str = "ok") -> ScanRow:
    ticket = write_json(layout.ticket(scan_id), {"scan_id": scan_id, "status": status})
    values = {"scan_id": scan_id, "dataset": "ds", "subject": scan_id[-1], "kind": kind, "status": status}
    values |= {"bucket": bucket, "ticket": ticket.relative_to(layout.results).as_posix()}
    return ScanRow(**{**EMPTY, **values, "ticket_sha256": sha256_file(ticket)})  # type: ignore[arg-type]


def test_a_list_names_the_good_scans_of_its_bucket_images_and_tables_apart(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    rows = [row(layout, "ds_sub-1", 0), row(layout, "ds_sub-2", 0, "table"), row(layout, "ds_sub-3", 7)]
    rows.append(row(layout, "ds_sub-4", 0, status="quarantined"))
    written = write_bucket_lists(layout, rows)
    assert written == [layout.bucket(0), layout.bucket(7), layout.bucket_tables(0)]
    assert listed([layout.bucket(0)], tmp_path) == [layout.ticket("ds_sub-1")]
    assert listed([layout.bucket_tables(0), layout.bucket(7)], tmp_path) == [
        layout.ticket("ds_sub-2"),
        layout.ticket("ds_sub-3"),
    ]


def test_an_unchanged_list_is_not_touched_and_that_of_an_emptied_bucket_goes(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    rows = [row(layout, "ds_sub-1", 0), row(layout, "ds_sub-3", 7)]
    write_bucket_lists(layout, rows)
    before = layout.bucket(0).stat().st_mtime_ns
    write_bucket_lists(layout, rows[:1])
    assert layout.bucket(0).stat().st_mtime_ns == before
    assert not layout.bucket(7).exists()


def test_a_changed_ticket_changes_its_list_only(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    rows = [row(layout, "ds_sub-1", 0), row(layout, "ds_sub-3", 7)]
    write_bucket_lists(layout, rows)
    before = [layout.bucket(n).read_bytes() for n in (0, 7)]
    write_json(layout.ticket("ds_sub-1"), {"scan_id": "ds_sub-1", "changed": True})
    rows[0] = rows[0]._replace(ticket_sha256=sha256_file(layout.ticket("ds_sub-1")))
    write_bucket_lists(layout, rows)
    assert [layout.bucket(n).read_bytes() == old for n, old in zip((0, 7), before, strict=True)] == [False, True]


def test_files_that_are_no_lists_stand_for_themselves(tmp_path: Path) -> None:
    paths = [tmp_path / "index/tickets/ds_sub-1.json", tmp_path / "preprocess/ds/sub-1.json"]
    assert listed(paths, tmp_path) == paths


@pytest.mark.parametrize("what", ["tickets", "subjects"])
def test_a_file_that_is_gone_or_another_is_named(tmp_path: Path, what: str) -> None:
    layout = Layout.at(tmp_path)
    if what == "tickets":
        write_bucket_lists(layout, [row(layout, "ds_sub-1", 0)])
        path, file = layout.bucket(0), layout.ticket("ds_sub-1")
    else:
        path, file = layout.preprocessed(0), made(layout, "1")
        write_json(path, subject_list(tmp_path, {"ds/1": file}))
        assert read_json(path)["subjects"]["ds/1"]["path"] == "preprocess/ds/sub-1.json"
    assert listed([path], tmp_path) == [file]
    file.write_text("{}")
    with pytest.raises(MachineFault, match=f"changed: {file}"):
        listed([path], tmp_path)
    file.unlink()
    with pytest.raises(MachineFault, match=f"gone: {file}"):
        listed([path], tmp_path)


def test_another_derivative_or_setting_is_another_list_though_the_manifest_is_the_same(tmp_path: Path) -> None:
    """Snakemake takes a list of the same bytes for unchanged: a run stopped after it would go on with old series."""
    layout = Layout.at(tmp_path / "a")
    first = subject_list(layout.results, {"ds/1": made(layout, "1")})
    assert subject_list(layout.results, {"ds/1": made(layout, "1")}) == first
    elsewhere = Layout.at(tmp_path / "b")
    assert subject_list(elsewhere.results, {"ds/1": made(elsewhere, "1")}) == first
    others: list[dict[str, Any]] = [{"derivative": "other bold"}, {"threshold": 2}]
    for other in others:
        found = subject_list(layout.results, {"ds/1": made(layout, "1", **other)})
        assert found != first and found["subjects"]["ds/1"]["sha256"] == first["subjects"]["ds/1"]["sha256"]
        first = found


def test_a_list_that_ingest_writes_anew_meanwhile_fails_the_job(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    rows = [row(layout, "ds_sub-1", 0)]
    write_bucket_lists(layout, rows)
    with steady(layout.bucket(0)):
        write_bucket_lists(layout, rows)  # the same again
    for change in ([*rows, row(layout, "ds_sub-2", 0)], []):
        with pytest.raises(MachineFault, match="the index changed meanwhile"), steady(layout.bucket(0)):
            write_bucket_lists(layout, change)
