"""Which settings made a row: settings digests of all stages upstream of a file, read from provenance records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from boldmill.atomic import read_json, sha256_file
from boldmill.errors import MachineFault
from boldmill.provenance.record import prov_path, shown

INGEST = "ingest"
"""Not part of a row: its settings name all data sets, so a new data set would change every shard."""


class Lineage:
    """Follow ``<output>.prov.json`` from a file through its inputs; records are read once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def digests(self, *files: str | Path, leave: Iterable[str | Path] = ()) -> dict[str, str]:
        """Return stage -> settings digest over the files and everything they were made from.

        Where two files name one stage, the later file wins: give what belongs to one subject last, since a bucket's
        manifest was made from subjects of several data sets, each with its own settings. ``leave`` names direct inputs
        of the files that are not followed: of a table of series, the subjects that were preprocessed in its bucket.
        """
        others = {shown(path) for path in leave}
        merged: dict[str, str] = {}
        for file in files:
            merged.update(self._follow(str(file), others) if others else self._of(str(file)))
        return dict(sorted(merged.items()))

    def _of(self, file: str) -> dict[str, str]:
        if file in self._known:
            return self._known[file]
        self._known[file] = found = {}
        found.update(self._follow(file, set()))
        return found

    def _follow(self, file: str, leave: set[str]) -> dict[str, str]:
        path = prov_path(file)
        if not path.is_file():
            return {}
        record = read_json(path)
        found = {} if record["stage"] == INGEST else {record["stage"]: record["settings_digest"]}
        for source in record["inputs"]:
            if source["path"] not in leave:
                found.update(self._of(source["path"]))
        return found


def check_tickets(tickets: Iterable[Path], made: Iterable[Path]) -> None:
    """Refuse tickets that are not those the files were made from: rows would name raw data that is not in them.

    So it is where ingest runs between two stages. A file without a record says nothing.

    Raises
    ------
    MachineFault
        A record names another content of a ticket.
    """
    read: dict[str, str] = {}
    for path in filter(Path.is_file, map(prov_path, made)):
        items = [(Path(item["path"]), item["sha256"]) for item in read_json(path)["inputs"]]
        read |= {name.name: digest for name, digest in items if name.parent.name == "tickets"}
    for ticket in tickets:
        if ticket.name in read and sha256_file(ticket) != read[ticket.name]:
            why = "the series was made from another content of it"
            raise MachineFault("the index changed meanwhile", ticket, why, "run the workflow again")
