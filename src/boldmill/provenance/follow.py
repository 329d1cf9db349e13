"""Records follow what was cut: their lists lose a person's files, and their hashes are those of the files as they are.

A record that changed says so in `withdrawn`: when, and of each input that was read before the cut, the hash that was
read. So a model's record still tells what it was trained on, and nothing is stale without a reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from boldmill.atomic import sha256_file, write_text
from boldmill.provenance.cut import folders_of, same_time, without
from boldmill.provenance.person import Person
from boldmill.provenance.record import SUFFIX, render, shown
from boldmill.provenance.record import sound as sound

FIELD = "withdrawn"
Record = dict[str, Any]


class Changed:
    """What became of files, by their path as records name it.

    Attributes
    ----------
    now : dict
        Rewritten file -> hash and size now.
    before : dict
        Rewritten file -> all hashes it had before.
    removed, folders : set of str
        Files and folders that are gone.
    """

    def __init__(self) -> None:
        self.now: dict[str, tuple[str, int]] = {}
        self.before: dict[str, set[str]] = {}
        self.removed: set[str] = set()
        self.folders: set[str] = set()

    def rewrote(self, path: Path, before: str) -> None:
        """Note a file as it is now; one that is gone counts as removed."""
        name = shown(path)
        if not path.is_file():
            self.removed.add(name)
            return
        self.before.setdefault(name, set()).add(before)
        self.now[name] = (sha256_file(path), path.stat().st_size)

    def theirs(self, path: str, person: Person) -> bool:
        """Return whether a recorded file was removed, or is one of the person's raw files."""
        if path in self.removed or person.named_in(path) or person.is_raw(path):
            return True
        return any(parent.as_posix() in self.folders for parent in Path(path).parents)


def follow(results: Path, person: Person, changed: Changed, *, date: str, facts: dict[str, Record]) -> int:
    """Bring every record up to date and return how many changed.

    Parameters
    ----------
    facts : dict
        Path of an output -> notes of its record that changed with it (identity and counts of a snapshot).
    """
    records = [folder / name for folder, _, names in folders_of(results) for name in names if name.endswith(SUFFIX)]
    readers: dict[str, set[Path]] = {}
    touched: set[Path] = set()
    pending = set(records)
    while pending:
        moved: set[str] = set()
        for path in sorted(pending):
            if not path.is_file():
                continue
            record = _load(path)
            if record is None:
                continue
            for item in record["inputs"]:
                if item["path"].endswith(SUFFIX):
                    readers.setdefault(item["path"], set()).add(path)
            left = followed(record, person, changed, date, facts)
            if left == record:
                continue
            before = sha256_file(path)
            if left is None:
                path.unlink()
            else:
                rewrite(path, left, sound=sound(record))
            changed.rewrote(path, before)
            touched.add(path)
            moved.add(shown(path))
        pending = {reader for name in moved for reader in readers.get(name, ())}
    return len(touched)


def _load(path: Path) -> Record | None:
    """Return a record; None of a damaged one, which stays as it is.

    `boldmill audit verify` names it, and so does the withdrawal where it tells of the person.
    """
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        items = [*record["inputs"], *record["outputs"]]
        whole = all(isinstance(item[key], str) for item in items for key in ("path", "sha256"))
    except (ValueError, KeyError, TypeError):
        return None
    return record if whole else None


def rewrite(path: Path, record: Record, *, sound: bool) -> None:
    """Write a record at its old time; one that somebody edited does not get the digest of a sound one."""
    with same_time(path):
        write_text(path, render(record) if sound else json.dumps(record, sort_keys=True, indent=2) + "\n")


def followed(record: Record, person: Person, changed: Changed, date: str, facts: dict[str, Record]) -> Record | None:
    """Return a record without the person and with true hashes; None where none of its outputs is left."""
    inputs, read = _items(record["inputs"], person, changed)
    outputs, _ = _items(record["outputs"], person, changed)
    if not outputs:
        return None
    kept = {key: record[key] for key in ("settings", FIELD) if key in record}
    left = {**without({k: v for k, v in record.items() if k not in kept}, person), **kept}
    left |= {"inputs": inputs, "outputs": outputs}
    for item in outputs:
        left |= facts.get(item["path"], {})
    if left == record:
        return record
    earlier = list(record.get(FIELD, []))
    if earlier and earlier[-1]["date"] == date:  # a record that other records made change again
        read = {**read, **earlier.pop()["read"]}
    return {**left, FIELD: [*earlier, {"date": date, "read": dict(sorted(read.items()))}]}


def _items(items: Iterable[Record], person: Person, changed: Changed) -> tuple[list[Record], dict[str, str]]:
    """Return the files of a record as they are now, and path -> hash it told of those that changed."""
    kept: list[Record] = []
    told: dict[str, str] = {}
    for item in items:
        path = item["path"]
        if changed.theirs(path, person):
            continue
        if item["sha256"] in changed.before.get(path, ()) and item["sha256"] != changed.now[path][0]:
            told[path] = item["sha256"]
            digest, size = changed.now[path]
            kept.append({**item, "sha256": digest, "size": size})
        else:
            kept.append(item)
    return kept, told
