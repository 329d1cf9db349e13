"""Participants tables: phenotypes, site and family of each subject. A missing row is flagged, never guessed."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MISSING = frozenset(("", "n/a", "N/A", "NA", "NaN", "nan", "None", "null"))
_PADDED = re.compile(r"-?0\d+")


@dataclass(slots=True)
class Participants:
    """The participants of one data set.

    Parameters
    ----------
    rows : dict
        Subject label -> column -> number, text or None.
    columns : list of str
        Phenotype columns, in file order.
    descriptions : dict
        Column -> ``Description``, ``Levels``, ``Units`` of participants.json.
    flags : dict
        Subject label -> remarks.
    warnings : list of str
        What is wrong with the table as a whole.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    descriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def entry(self, subject: str, site: str, site_column: str, family_column: str, fallback: str) -> dict[str, Any]:
        """Return site, family, phenotypes and flags of one subject.

        Parameters
        ----------
        site : str
            Site of everybody, or empty.
        site_column, family_column : str
            Columns that hold them, or empty.
        fallback : str
            Site of a subject whose row names none.
        """
        row = self.rows.get(subject)
        flags = list(self.flags.get(subject, []))
        if row is None:
            flags.append("no row in participants.tsv")
            row = dict.fromkeys(self.columns)
        found = row.get(site_column)
        family = row.get(family_column) if family_column else None
        return {
            "site": site or (str(found) if found is not None else fallback),
            "family": None if family is None else str(family),
            "phenotypes": {column: row.get(column) for column in self.columns},
            "flags": flags,
        }


def read_participants(root: Path) -> Participants:
    """Read ``participants.tsv`` and ``participants.json`` below a root; absent ones give an empty table."""
    found = Participants()
    table = root / "participants.tsv"
    if table.is_file():
        _read_table(table, found)
    else:
        found.warnings.append("there is no participants.tsv: phenotypes are empty")
    sidecar = root / "participants.json"
    if sidecar.is_file():
        try:
            value = json.loads(sidecar.read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)
        except ValueError as error:
            found.warnings.append(f"participants.json is not valid JSON ({error}): phenotypes have no descriptions")
            value = {}
        for column in found.columns:
            about = value.get(column) if isinstance(value, dict) else None
            if isinstance(about, dict):
                keys = ("Description", "LongName", "Levels", "Units")
                found.descriptions[column] = {key: about[key] for key in keys if key in about}
    return found


def _read_table(path: Path, found: Participants) -> None:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    rows = [row for row in csv.reader(text.splitlines(), delimiter="\t") if any(cell.strip() for cell in row)]
    if not rows or "participant_id" not in rows[0]:
        found.warnings.append("participants.tsv has no participant_id column: phenotypes are empty")
        return
    header = [cell.strip() for cell in rows[0]]
    identity = header.index("participant_id")
    found.columns = [name for i, name in enumerate(header) if i != identity and name]
    cells: dict[str, list[dict[str, str]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            found.warnings.append(f"participants.tsv line {number} has {len(row)} of {len(header)} columns")
            row = [*row, *[""] * len(header)][: len(header)]
        subject = row[identity].strip().removeprefix("sub-")
        cells.setdefault(subject, []).append({name: cell.strip() for name, cell in zip(header, row, strict=True)})
    kinds = {name: _kind([row[name] for rows_of in cells.values() for row in rows_of]) for name in found.columns}
    for subject, several in cells.items():
        values = [{name: _value(row[name], kinds[name]) for name in found.columns} for row in several]
        merged = dict(values[0])
        for name in found.columns:
            if any(value[name] != merged[name] for value in values[1:]):
                merged[name] = None
                note = f"participants.tsv gives several values of {name}; none is used"
                found.flags.setdefault(subject, []).append(note)
        found.rows[subject] = merged


def _kind(cells: list[str]) -> type[int] | type[float] | type[str]:
    """Return the type of a column: a number only if every value is one and none is zero-padded (a code)."""
    given = [cell for cell in cells if cell not in MISSING]
    if not given or any(_PADDED.fullmatch(cell) for cell in given):
        return str
    if all(re.fullmatch(r"[-+]?\d+", cell) for cell in given):
        return int
    number = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
    return float if all(re.fullmatch(number, cell) for cell in given) else str


def _value(cell: str, kind: type[int] | type[float] | type[str]) -> int | float | str | None:
    return None if cell in MISSING else kind(cell)
