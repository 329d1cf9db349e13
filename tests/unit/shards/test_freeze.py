"""Snapshots frozen by name: their bytes stay, their splits follow the settings, and changed shards are not read."""

import errno
import json
import os
import shutil

import pytest

from boldmill.atomic import canonical_json, read_json, sha256_file
from boldmill.cli import main
from boldmill.errors import BoldmillError
from boldmill.shards import freeze_command, intact
from boldmill.shards.reader import Snapshot
from boldmill.shards.staleness import changed_buckets, staleness

FREEZE = canonical_json({"stage": "freeze_shards", "version": 1, "config": {}, "overrides": {}})


def settings(**snapshot) -> str:
    config = {"snapshot": {"name": "first", **snapshot}, "inclusion": {}}
    return canonical_json({"stage": "freeze", "version": 1, "config": config, "overrides": {}, "seed": 7})


@pytest.fixture
def layout(cohort, tmp_path):
    """A copy of the cohort's results, to be changed."""
    shutil.copytree(cohort.results, tmp_path / "results")
    return type(cohort.layout).at(tmp_path / "results")


def freeze(layout, name: str = "first") -> int:
    latest = str(layout.snapshot("latest"))
    return main(["freeze", "--snapshot", latest, "--out", str(layout.frozen(name)), "--config-json", FREEZE])


def split(layout, config: str | None = None) -> dict:
    words = ["snapshot", "--frozen", str(layout.frozen("first")), "--out", str(layout.snapshot("first"))]
    assert main([*words, "--config-json", config or settings()]) == 0
    return read_json(layout.snapshot("first"))


def rewrite(path) -> None:
    """As a later update does: another file takes the name."""
    other = path.with_name("new")
    other.write_bytes(path.read_bytes()[::-1])
    other.replace(path)


def test_a_frozen_snapshot_says_what_the_latest_says_and_lies_in_its_own_folder(layout) -> None:
    assert freeze(layout) == 0
    manifest, latest = split(layout), read_json(layout.snapshot("latest"))
    assert manifest["name"] == "first" and latest["name"] == "latest" and manifest["id"] != latest["id"]
    same = ("atlases", "subjects", "excluded", "unchecked", "counts", "inclusion", "table_schema")
    assert {key: manifest[key] for key in same} == {key: latest[key] for key in same}
    for mine, theirs in zip(manifest["shards"], latest["shards"], strict=True):
        assert mine["path"].startswith("shards/") and mine["path"] == theirs["path"].removeprefix("../../")
        assert {**mine, "path": ""} == {**theirs, "path": ""}
    path = layout.snapshot("first").parent / manifest["shards"][0]["path"]
    assert path.samefile(layout.results / manifest["shards"][0]["path"])


def test_rewritten_shards_leave_the_frozen_ones(layout) -> None:
    freeze(layout)
    before = split(layout)
    series = Snapshot.load(layout.snapshot("first")).scans()
    for path in sorted((layout.results / "shards").rglob("*.parquet")):
        rewrite(path)
    frozen = Snapshot.load(layout.snapshot("first"))
    frozen.verify()
    assert frozen.scans().equals(series)
    assert split(layout) == before


def test_another_setting_splits_the_same_shards_anew(layout) -> None:
    freeze(layout)
    before = split(layout)
    for path in sorted((layout.results / "shards").rglob("*.parquet")):
        rewrite(path)
    after = split(layout, settings(heldout=0.6))
    assert after["shards"] == before["shards"]
    assert after["counts"]["heldout"]["subjects"] > before["counts"]["heldout"]["subjects"]
    assert after["id"] != before["id"]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP])
def test_copies_where_the_file_system_has_no_links(layout, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(freeze_command.os, "link", refuse)
    assert freeze(layout) == 0
    split(layout)
    Snapshot.load(layout.snapshot("first")).verify()
    shard = read_json(layout.frozen("first"))["shards"][0]["path"]
    assert not (layout.frozen("first").parent / shard).samefile(layout.results / shard)


def test_a_full_disk_is_said_to_be_full(layout, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(freeze_command.os, "link", full)
    monkeypatch.setattr(freeze_command.shutil, "copyfile", full)
    assert freeze(layout) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list(layout.frozen("first").parent.glob("*"))


def test_a_linked_shard_is_frozen_as_the_file_it_leads_to(layout) -> None:
    shard = layout.shard("scans", 0)
    kept = layout.results / "kept"
    shard.rename(kept)
    shard.symlink_to(os.path.relpath(kept, shard.parent))
    assert freeze(layout) == 0
    frozen = layout.frozen("first").parent / "shards" / "scans" / "bucket-000.parquet"
    assert not frozen.is_symlink() and frozen.samefile(kept)


def test_a_frozen_snapshot_is_never_frozen_over(layout, capsys) -> None:
    freeze(layout)
    before = {path: sha256_file(path) for path in layout.frozen("first").parent.rglob("*.*")}
    for path in sorted((layout.results / "shards").rglob("*.parquet")):
        rewrite(path)
    assert freeze(layout) == 2
    assert "already frozen" in capsys.readouterr().err
    assert {path: sha256_file(path) for path in layout.frozen("first").parent.rglob("*.*")} == before


def test_a_shard_that_changed_since_the_latest_snapshot_is_not_frozen(layout, capsys) -> None:
    shard = layout.shard("flat_clips", 1)
    rewrite(shard)
    assert freeze(layout) == 1
    assert "flat_clips/bucket-001.parquet: its sha256 is not that of the snapshot" in capsys.readouterr().err
    assert [path.name for path in layout.frozen("first").parent.iterdir()] == []


def test_what_a_stopped_call_left_is_replaced(layout) -> None:
    """The list is written last: a folder without it is not a frozen snapshot."""
    left = layout.frozen("first").parent / "shards" / "scans" / "bucket-999.parquet"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    assert freeze(layout) == 0
    assert not left.exists()
    assert len(list((layout.frozen("first").parent / "shards").rglob("*.parquet"))) == 3 * (2 + 3 * 2)


def test_every_frozen_shard_has_a_record_that_names_what_it_was(layout) -> None:
    freeze(layout)
    folder = layout.frozen("first").parent
    shard = read_json(layout.frozen("first"))["shards"][0]
    record = read_json(folder / f"{shard['path']}.prov.json")
    assert record["stage"] == "freeze_shards"
    assert [item["sha256"] for item in (*record["inputs"], *record["outputs"])] == [shard["sha256"]] * 2
    assert record["inputs"][0]["path"].endswith(f"results/{shard['path']}")
    split(layout)
    read = {item["path"] for item in read_json(f"{layout.snapshot('first')}.prov.json")["inputs"]}
    assert len(read) == 1 + 3 * (2 + 3 * 2)  # the list and every frozen shard


def test_a_manifest_is_written_beside_its_list_only(layout, capsys) -> None:
    freeze(layout)
    words = ["snapshot", "--frozen", str(layout.frozen("first")), "--out", str(layout.snapshot("second"))]
    assert main([*words, "--config-json", settings()]) == 2
    assert "beside the list" in capsys.readouterr().err


def test_a_frozen_shard_that_is_gone_or_cut_is_named(layout, capsys) -> None:
    freeze(layout)
    shard = layout.frozen("first").parent / "shards" / "scans" / "bucket-000.parquet"
    whole = shard.read_bytes()
    words = ["snapshot", "--frozen", str(layout.frozen("first")), "--out", str(layout.snapshot("first"))]
    shard.unlink()
    assert main([*words, "--config-json", settings()]) == 1
    assert "scans/bucket-000.parquet: it is gone" in capsys.readouterr().err
    shard.write_bytes(whole[:-1])
    assert main([*words, "--config-json", settings()]) == 1
    assert f"it has {len(whole) - 1} bytes, not {len(whole)}" in capsys.readouterr().err


def flip(path) -> None:
    """Change one byte; the size stays."""
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])


def test_a_changed_shard_is_refused_when_its_table_is_opened(layout) -> None:
    freeze(layout)
    split(layout)
    flip(layout.frozen("first").parent / "shards" / "fc" / "Toy-6" / "bucket-001.parquet")
    snapshot = Snapshot.load(layout.snapshot("first"))
    snapshot.scans()
    snapshot.rows("timeseries")
    with pytest.raises(BoldmillError, match=r"fc/Toy-6/bucket-001\.parquet: its sha256"):
        snapshot.rows("fc")
    snapshot.rows("fc", atlas="Toy-4")


def test_a_shard_is_hashed_once_until_it_changes(layout, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def sha256(path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(intact, "sha256_file", sha256)
    shutil.rmtree(layout.snapshot("latest").parent / ".cache", ignore_errors=True)
    Snapshot.load(layout.snapshot("latest")).rows("flat_clips")
    n_shards = len(hashed)
    assert n_shards == 2  # the third bucket has no clips
    Snapshot.load(layout.snapshot("latest")).rows("flat_clips")
    assert len(hashed) == n_shards
    os.utime(layout.shard("flat_clips", 0), (1, 1))
    Snapshot.load(layout.snapshot("latest")).rows("flat_clips")
    assert hashed[n_shards:] == ["bucket-000.parquet"]
    (layout.snapshot("latest").parent / intact.MEMORY).write_text("{cut")
    monkeypatch.setenv("RANK", "1")
    Snapshot.load(layout.snapshot("latest")).rows("flat_clips")
    assert len(hashed) == n_shards + 1  # only the first rank reads them
    monkeypatch.delenv("RANK")
    Snapshot.load(layout.snapshot("latest")).rows("flat_clips")
    assert len(hashed) == 2 * n_shards + 1


def test_training_refuses_a_changed_shard(layout, capsys) -> None:
    freeze(layout)
    split(layout)
    flip(layout.frozen("first").parent / "shards" / "timeseries" / "Toy-6" / "bucket-000.parquet")
    config = {"models": {"brainmass": {"size": "tiny", "epochs": 1}}, "augment": {"min_timepoints": 20}}
    value = {"stage": "train_brainmass", "version": 1, "config": config, "overrides": {}, "seed": 7}
    out = layout.checkpoint("brainmass")
    words = ["train", "--model", "brainmass", "--snapshot", str(layout.snapshot("first")), "--out", str(out)]
    assert main([*words, "--device", "cpu", "--config-json", canonical_json(value)]) == 1
    assert "timeseries/Toy-6/bucket-000.parquet: its sha256" in capsys.readouterr().err
    assert not out.exists()


def shards(**hashes: str) -> dict:
    """A manifest of one table of series and one of scans per bucket."""
    return {
        "shards": [
            {"table": table, "bucket": bucket, "sha256": f"{table}{sha256}"}
            for bucket, sha256 in hashes.items()
            for table in ("scans", "flat_clips")
        ]
    }


@pytest.mark.parametrize(
    ("latest", "expected"),
    [
        (shards(a="1", b="1"), (0, 2)),
        (shards(a="1", b="2"), (1, 2)),
        (shards(a="1"), (1, 2)),
        (shards(a="2", b="1", c="1"), (2, 3)),
        ({"shards": shards(a="1", b="1")["shards"][:-1]}, (1, 2)),
    ],
)
def test_buckets_that_changed_since_are_counted(latest, expected) -> None:
    assert changed_buckets(shards(a="1", b="1"), latest) == expected


def test_status_says_when_shards_are_newer(layout, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(layout)
    split(layout)
    assert staleness(layout.results, "first") == staleness(layout.results, "latest") == ""
    assert staleness(layout.results, "second") == ""
    manifest = read_json(layout.snapshot("latest"))
    manifest["shards"][0]["sha256"] = "0" * 64
    layout.snapshot("latest").write_text(json.dumps(manifest))
    line = "snapshot first: 1 of 3 buckets changed since; set snapshot.name to a new name to train on them"
    assert staleness(layout.results, "first") == line


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": 1, "shards": 3}', "{", "\udcff"])
def test_a_damaged_memory_of_intact_shards_costs_time_only(layout, text: str) -> None:
    freeze(layout)
    split(layout)
    memory = layout.snapshot("first").parent / intact.MEMORY
    memory.parent.mkdir(exist_ok=True)
    memory.write_bytes(text.encode(errors="surrogateescape"))
    assert Snapshot.load(layout.snapshot("first")).paths("scans")
    assert read_json(memory)["schema"] == 1


def test_no_split_is_made_of_a_frozen_shard_that_changed(layout, capsys) -> None:
    """Sites, families and figures come from it; its size alone says nothing."""
    freeze(layout)
    shard = layout.frozen("first").parent / "shards" / "scans" / "bucket-000.parquet"
    flip(shard)
    words = ["snapshot", "--frozen", str(layout.frozen("first")), "--out", str(layout.snapshot("first"))]
    assert main([*words, "--config-json", settings()]) == 1
    assert "shard changed" in capsys.readouterr().err and not layout.snapshot("first").exists()
