"""Files are whole or absent, and a hash is that of the bytes as they are."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from boldmill.atomic import (
    atomic,
    canonical_json,
    hash_file,
    read_json,
    sha256_file,
    sha256_text,
    write_json,
    write_text,
)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = write_text(tmp_path / "x.nii.gz", "old")
    with pytest.raises(KeyboardInterrupt), atomic(target) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith("-x.nii.gz") and temporary.name[0] == "."
        temporary.write_text("ha")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = write_text(tmp_path / "deep" / "x", "old")
    with atomic(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and list(target.parent.iterdir()) == [target]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    target = write_text(tmp_path / "x", "old")
    with pytest.raises(FileNotFoundError), atomic(target):
        pass
    assert target.read_text() == "old"


def _write(path: str, letter: str) -> None:
    for _ in range(40):
        write_text(path, letter * 50_000)


def test_two_processes_that_write_one_file_leave_one_of_two_contents(tmp_path: Path) -> None:
    target = tmp_path / "x"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(str(target), letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if target.exists():
            seen.add(target.read_text())
    for writer in writers:
        writer.join()
    assert {target.read_text(), *seen} <= {"a" * 50_000, "b" * 50_000}
    assert [writer.exitcode for writer in writers] == [0, 0] and list(tmp_path.iterdir()) == [target]


def test_json_is_the_same_text_for_the_same_value_and_holds_numbers_only(tmp_path: Path) -> None:
    assert canonical_json({"b": 1, "a": [1.5, "\u00e9"]}) == canonical_json({"a": [1.5, "\u00e9"], "b": 1})
    assert json.loads(canonical_json("\u00e9")) == "\u00e9"
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bom").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "bom") == {"a": 1}


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    path = write_text(tmp_path / "x", "abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
    assert hash_file(path) == sha256_file(path) == sha256_text("abc") == abc
