"""Who withdrew consent, without saying who: tombstones for ingest, and marks beside the models trained on them.

`provenance/forgotten.tsv` has one line per person: the salted sha256 of ``<dataset>/<subject>``, the date, and counts.
The salt lies beside it (`forgotten.salt`); without it nobody can try labels against the hashes. Both belong to the
project: copied into another results folder, they keep its ingest from taking the person in again.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json, write_json, write_text
from boldmill.errors import BoldmillError
from boldmill.provenance.claims import WEIGHTS
from boldmill.provenance.record import prov_path

FORGOTTEN = ("person", "date", "scans", "deleted", "rewritten", "models")
"""Columns of the tombstones: hash, date, scans that were there, files deleted and rewritten, models that knew them."""
REASON = "consent withdrawn"
FIX = "nothing to do; take the raw data out of the data set, or filter the participant out, and the scan is not listed"
MARK = "withdrawn.json"
"""File beside the weights of a model that was trained on somebody who withdrew consent since."""


def tombstones(results: Path) -> Path:
    """Return where the tombstones lie."""
    return results / "provenance" / "forgotten.tsv"


def salt_file(results: Path) -> Path:
    """Return where the salt of the hashes lies."""
    return results / "provenance" / "forgotten.salt"


def fingerprint(salt: str, dataset: str, subject: str) -> str:
    """Return the salted hash of a person."""
    return hashlib.sha256(f"{salt}\n{dataset}/{subject}".encode()).hexdigest()


SECONDS = len("2026-01-01T00:00:00")


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The people of a project who withdrew consent: hashes, and the salt they were made with."""

    salt: str
    people: frozenset[str]

    @classmethod
    def read(cls, results: Path) -> Forgotten:
        """Read the tombstones of a results folder; without any, nobody is forgotten."""
        rows = _rows(tombstones(results))
        return cls(_salt(results) if rows else "", frozenset(row[0] for row in rows))

    def holds(self, dataset: str, subject: str) -> bool:
        """Return whether a person withdrew consent."""
        return bool(self.people) and fingerprint(self.salt, dataset, subject) in self.people


def _salt(results: Path) -> str:
    """Return the salt of the tombstones that are there.

    Raises
    ------
    BoldmillError
        It is gone: nobody could be recognised, and everybody who withdrew consent would be taken in again.
    """
    path = salt_file(results)
    if not path.is_file():
        why = f"it is gone, and nobody in {tombstones(results)} can be recognised without it"
        raise BoldmillError("cannot tell who withdrew consent", path, why, "put it back from a backup")
    return path.read_text(encoding="utf-8").strip()


def bury(results: Path, dataset: str, subject: str, *, date: str, counts: dict[str, int]) -> Path:
    """Write or renew the tombstone of a person and return the file; the salt is drawn on the first call.

    Parameters
    ----------
    date : str
        ISO 8601; of a person who has a tombstone the first date stays.
    counts : dict
        ``scans``, ``deleted``, ``rewritten``, ``models``; of a repeated call the larger number of each stays.
    """
    path, salt = tombstones(results), salt_file(results)
    rows = {row[0]: row for row in _rows(path)}
    if not rows and not salt.is_file():
        write_text(salt, secrets.token_hex(16) + "\n")
        salt.chmod(0o600)
    person = fingerprint(_salt(results), dataset, subject)
    known = rows.get(person)
    numbers = [str(max(counts[key], int(known[2 + i]) if known else 0)) for i, key in enumerate(FORGOTTEN[2:])]
    rows[person] = (person, known[1] if known else date, *numbers)
    lines = ["\t".join(row) for row in (FORGOTTEN, *sorted(rows.values(), key=lambda row: (row[1], row[0])))]
    return write_text(path, "\n".join(lines) + "\n")


def _rows(path: Path) -> list[tuple[str, ...]]:
    if not path.is_file():
        return []
    return [tuple(line.split("\t")) for line in path.read_text(encoding="utf-8").splitlines()[1:] if line]


def mark(folder: Path, person: str | None, *, date: str, snapshots: dict[str, str]) -> Path:
    """Write beside a model that it knew a person; a person is counted once.

    Parameters
    ----------
    person : str or None
        The hash; None of a model that never knew them, and whose snapshot they were cut out of.
    snapshots : dict
        Identity of a snapshot before -> after the person was cut out of it.
    """
    path = folder / MARK
    known: dict[str, Any] = read_json(path) if path.is_file() else {"schema": 1, "people": {}, "snapshots": {}}
    if person is not None:
        known["people"].setdefault(person, date)
    known["snapshots"].update({before: after for before, after in snapshots.items() if before != after})
    return write_json(path, known)


def note(checkpoint: str | Path) -> str:
    """Return what must be said of a model that was trained on people who withdrew consent since; else nothing.

    Weights whose record says that their training began later never saw them: the mark of the weights before is over.
    """
    path = Path(checkpoint).with_name(MARK)
    if not path.is_file():
        return ""
    began = _began(prov_path(checkpoint))
    dates = [date for date in read_json(path)["people"].values() if date[:SECONDS] >= began[:SECONDS]]
    if not dates:
        return ""
    who = f"{len(dates)} {'person' if len(dates) == 1 else 'people'}"
    return f"trained on {who} who withdrew consent since (last {max(dates)[:10]}): train it again"


def _began(record: Path) -> str:
    """Return when a training began (UTC); empty where no record says it: then every mark counts."""
    try:
        return str(read_json(record)["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def marked(results: Path) -> dict[str, str]:
    """Return folder of a model, relative to the results -> what must be said of it, sorted."""
    said = {path.parent: note(path.with_name(WEIGHTS)) for path in sorted(results.glob(f"*/*/{MARK}"))}
    return {folder.relative_to(results).as_posix(): words for folder, words in said.items() if words}
