"""The failure table without people, for the end of a run: others may read where its output is kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from boldmill.index.quarantine import QuarantineRow

GONE = "(..)"
SHORT = 2
"""Labels of so few characters are looked for as words of their own only: "4" is part of too many others."""


class Refusal(NamedTuple):
    """How many scans a stage refused for one reason."""

    scans: int
    stage: str
    reason: str
    fix: str


def nameless(rows: Iterable[QuarantineRow]) -> list[Refusal]:
    """Return reasons with the number of their scans, the most frequent first; no word names a file or a person."""
    counts = Counter((row.stage, without(row.reason, row), without(row.fix, row)) for row in rows)
    return [Refusal(count, *said) for said, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def without(text: str, row: QuarantineRow) -> str:
    """Return a text with ``(..)`` for each word that names a subject's file, the scan or its subject.

    >>> row = QuarantineRow("ds_sub-04_task-rest", "ds", "04", "ingest", "", "", "raw/sub-04/sub-04_bold.nii.gz")
    >>> without("row '04' of 1045: cannot read raw/sub-04/sub-04_bold.nii.gz", row)
    'row (..) of 1045: cannot read (..)'
    """
    label = row.subject
    parts = [part for part in ("sub-", row.scan_id, Path(row.file).name, label if len(label) > SHORT else "") if part]

    def names(word: str) -> bool:
        return any(part in word for part in parts) or (bool(label) and label in re.split(r"[^A-Za-z0-9]+", word))

    return " ".join(GONE if names(word) else word for word in text.split())
