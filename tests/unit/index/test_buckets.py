"""Lists of one bucket: what they name, when they change, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.errors import MachineFault
from boldmill.index.buckets import listed, subject_list, write_bucket_lists
from boldmill.index.read import ScanRow
from boldmill.paths import Layout

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
        path, file = layout.preprocessed(0), write_json(layout.subject("ds", "1"), {"schema": 1})
        write_json(path, subject_list(tmp_path, {"ds/1": file}))
        assert read_json(path)["subjects"]["ds/1"]["path"] == "preprocess/ds/sub-1.json"
    assert listed([path], tmp_path) == [file]
    file.write_text("{}")
    with pytest.raises(MachineFault, match=f"changed: {file}"):
        listed([path], tmp_path)
    file.unlink()
    with pytest.raises(MachineFault, match=f"gone: {file}"):
        listed([path], tmp_path)
