"""Which settings made a row: settings digests of all stages upstream of a file, read from provenance records."""

from __future__ import annotations

from pathlib import Path

from boldmill.atomic import read_json
from boldmill.provenance.record import prov_path

INGEST = "ingest"
"""Not part of a row: its settings name all data sets, so a new data set would change every shard."""


class Lineage:
    """Follow ``<output>.prov.json`` from a file through its inputs; records are read once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def digests(self, *files: str | Path) -> dict[str, str]:
        """Return stage -> settings digest over the files and everything they were made from.

        Where two files name one stage, the later file wins: give what belongs to one subject last, since a bucket's
        manifest was made from subjects of several data sets, each with its own settings.
        """
        merged: dict[str, str] = {}
        for file in files:
            merged.update(self._of(str(file)))
        return dict(sorted(merged.items()))

    def _of(self, file: str) -> dict[str, str]:
        if file in self._known:
            return self._known[file]
        self._known[file] = found = {}
        path = prov_path(file)
        if path.is_file():
            record = read_json(path)
            if record["stage"] != INGEST:
                found[record["stage"]] = record["settings_digest"]
            for source in record["inputs"]:
                found.update(self._of(source["path"]))
        return found
