"""Participants tables: phenotypes, site and family of each subject. A missing row is flagged, never guessed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import ConfigError, nearest
from boldmill.index.config import DatasetConfig
from boldmill.index.phenotype_rows import read_rows
from boldmill.index.table_names import plain_label

if TYPE_CHECKING:
    from boldmill.index.scans import Scan

MISSING = frozenset(("", "n/a", "N/A", "NA", "NaN", "nan", "None", "null"))
_PADDED = re.compile(r"-?0\d+")
_FRACTION = re.compile(r"-?\d+\.\d*")
_COMMA = re.compile(r"[-+]?\d+(,\d+)?")


@dataclass(slots=True)
class Participants:
    """The participants of one data set.

    Parameters
    ----------
    rows : dict
        Subject label -> column -> number, text or None.
    columns : list of str
        Phenotype columns, in file order.
    header : list of str
        All columns.
    descriptions : dict
        Column -> ``Description``, ``Levels``, ``Units`` of participants.json.
    flags : dict
        Subject label -> remarks.
    warnings : list of str
        What is wrong with the table as a whole.
    unused : dict
        Identifiers that are nobody's of the data set, and how many rows each has.
    path : Path
        The table.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    descriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    unused: dict[str, int] = field(default_factory=dict)
    path: Path = Path("participants.tsv")

    @property
    def table(self) -> str:
        """Name of the table."""
        return self.path.name

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
            flags.append(f"no row in {self.table}")
            row = dict.fromkeys(self.columns)
        found = row.get(site_column)
        family = row.get(family_column) if family_column else None
        return {
            "site": site or (str(found) if found is not None else fallback),
            "family": None if family is None else str(family),
            "phenotypes": {column: row.get(column) for column in self.columns},
            "flags": flags,
        }


def phenotypes_of(dataset: DatasetConfig, base: Path, scans: Iterable[Scan]) -> Participants:
    """Return the participants of a data set, from the table it names.

    A row of a table of parcel series is found by its subject, as written or as a label, or by the name of a series.
    ``5.0``, which spreadsheets and data frames write for a whole number, is ``5``, and no other fraction is a label:
    its digits alone would be those of somebody else.

    Raises
    ------
    ConfigError
        The table, or a column it should have, is not there.
    """
    table, subject_of = phenotype_table(dataset, base), _plain
    if dataset.kind == "tables":
        scans = list(scans)
        written: dict[str, str] = {}
        known: dict[str, str] = {}
        for scan in scans:
            if scan.table is not None:
                written |= {scan.table.name: scan.label("sub"), scan.table.subject: scan.label("sub")}
                known.setdefault(plain_label(scan.table.name), scan.label("sub"))
        for scan in scans:
            known[scan.label("sub")] = scan.label("sub")

        def subject_of(identifier: str) -> str:
            if identifier in written:
                return written[identifier]
            if _FRACTION.fullmatch(identifier):
                whole, _, rest = identifier.partition(".")
                return "" if rest.strip("0") else known.get(whole, "")
            return known.get(plain_label(identifier)) or known.get(plain_label(_plain(identifier)), "")

    found = read_participants(base, table, id_column=dataset.id_column, missing=dataset.missing, subject_of=subject_of)
    check_columns(dataset, found)
    if dataset.kind == "tables" and dataset.phenotypes:
        _count_rowless(found, {scan.label("sub") for scan in scans})
    return found


def _count_rowless(found: Participants, subjects: set[str]) -> None:
    """Warn of subjects without a row; a spreadsheet that takes the zeros from ``007`` is the usual reason."""
    rowless = subjects - found.rows.keys()
    if rowless:
        lost = {subject.lstrip("0") for subject in rowless if subject.startswith("0")} & found.unused.keys()
        hint = f"; leading zeros seem lost in {len(lost)} of them" if lost else ""
        found.warnings.append(f"{len(rowless)} of {len(subjects)} subjects have no row in {found.table}{hint}")


def phenotype_table(dataset: DatasetConfig, base: Path) -> Path:
    """Return the phenotype table of a data set; ``participants.tsv`` where none is configured.

    Raises
    ------
    ConfigError
        The configured one is not there.
    """
    path = base / (dataset.phenotypes or "participants.tsv")
    if dataset.phenotypes and not path.is_file():
        where = f"datasets[{dataset.name}].phenotypes"
        raise ConfigError("file not found", where, f"{path} is not there", "give its path below root")
    return path


def check_columns(dataset: DatasetConfig, found: Participants) -> None:
    """Refuse a column of a configured phenotype table that it does not have: most likely it is misspelt."""
    for key in ("id_column", "site_column", "family_column") if dataset.phenotypes else ():
        column = getattr(dataset, key)
        if column not in found.header and (key == "id_column" or column != DatasetConfig.model_fields[key].default):
            why = f"{found.table} has no column '{column}'{nearest(column, found.header)}"
            raise ConfigError("no such column", f"datasets[{dataset.name}].{key}", why, "correct the name")


def read_participants(
    root: Path,
    table: Path | None = None,
    *,
    id_column: str = "participant_id",
    missing: Iterable[str | float] = (),
    subject_of: Callable[[str], str] | None = None,
) -> Participants:
    """Read a phenotype table and the descriptions beside it (JSON of the same name); absent ones give an empty table.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    table : Path, optional
        Default ``participants.tsv`` below the root; read by :func:`boldmill.index.phenotype_rows.read_rows`.
    id_column : str
        Column of the identifiers.
    missing : iterable
        Values that mean a missing one, beside the usual.
    subject_of : callable, optional
        Subject label of an identifier, or an empty text where it is nobody's; default: without ``sub-``.
    """
    table = root / "participants.tsv" if table is None else table
    found = Participants(path=table)
    if table.is_file():
        _read_table(table, found, id_column, _Missing(missing), subject_of or _plain)
    else:
        found.warnings.append(f"there is no {table.name}: phenotypes are empty")
    sidecar = table.with_suffix(".json")
    if sidecar.is_file():
        try:
            value = json.loads(sidecar.read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)
        except ValueError as error:
            found.warnings.append(f"{sidecar.name} is not valid JSON ({error}): phenotypes have no descriptions")
            value = {}
        for column in found.columns:
            about = value.get(column) if isinstance(value, dict) else None
            if isinstance(about, dict):
                keys = ("Description", "LongName", "Levels", "Units")
                found.descriptions[column] = {key: about[key] for key in keys if key in about}
    return found


def _plain(identifier: str) -> str:
    return identifier.removeprefix("sub-")


class _Missing:
    """Tells the cells that mean a missing value; codes are compared as numbers where they are."""

    def __init__(self, codes: Iterable[str | float]) -> None:
        self._texts = {str(code) for code in codes}
        self._numbers = {number for code in codes if (number := _number(str(code))) is not None}

    def empty(self, cell: str) -> str:
        """Return the cell, or an empty text where it means a missing value."""
        if cell in MISSING or cell in self._texts:
            return ""
        return "" if self._numbers and _number(cell) in self._numbers else cell


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_table(
    path: Path, found: Participants, id_column: str, missing: _Missing, subject_of: Callable[[str], str]
) -> None:
    rows, mark = read_rows(path)
    header = found.header = [cell.strip() for cell in rows[0]] if rows else []
    if id_column not in header:
        found.warnings.append(f"{path.name} has no {id_column} column: phenotypes are empty")
        return
    identity = header.index(id_column)
    found.columns = [name for i, name in enumerate(header) if i != identity and name]
    cells: dict[str, list[dict[str, str]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            found.warnings.append(f"{path.name} line {number} has {len(row)} of {len(header)} columns")
            row = [*row, *[""] * len(header)][: len(header)]
        identifier = row[identity].strip()
        subject = subject_of(identifier)
        if not subject:
            found.unused[identifier] = found.unused.get(identifier, 0) + 1
            continue
        words = {name: missing.empty(cell.strip()) for name, cell in zip(header, row, strict=True)}
        cells.setdefault(subject, []).append(words)
    for name in found.columns:
        _decimal_commas(name, [row for rows_of in cells.values() for row in rows_of], mark, found)
    kinds = {name: _kind([row[name] for rows_of in cells.values() for row in rows_of]) for name in found.columns}
    for subject, several in cells.items():
        values = [{name: _value(row[name], kinds[name]) for name in found.columns} for row in several]
        merged = dict(values[0])
        for name in found.columns:
            if any(value[name] != merged[name] for value in values[1:]):
                merged[name] = None
                note = f"{path.name} gives several values of {name}; none is used"
                found.flags.setdefault(subject, []).append(note)
        found.rows[subject] = merged


def _decimal_commas(name: str, rows: list[dict[str, str]], mark: str, found: Participants) -> None:
    """Read ``23,5`` as 23.5 in a column of such numbers between semicolons; elsewhere it is text, with a warning."""
    given = [row[name] for row in rows if row[name]]
    if not any("," in cell for cell in given) or not all(_COMMA.fullmatch(cell) for cell in given):
        return
    if mark != ";":
        found.warnings.append(f"{found.table}: {name} has numbers with a comma, which are kept as text")
        return
    for row in rows:
        row[name] = row[name].replace(",", ".")


def _kind(cells: list[str]) -> type[int] | type[float] | type[str]:
    """Return the type of a column: a number only if every value is one and none is zero-padded (a code)."""
    given = [cell for cell in cells if cell not in MISSING]
    if not given or any(_PADDED.fullmatch(cell) for cell in given):
        return str
    if all(re.fullmatch(r"[-+]?\d+", cell) for cell in given):
        return int
    number = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
    return float if all(re.fullmatch(number, cell) and math.isfinite(float(cell)) for cell in given) else str


def _value(cell: str, kind: type[int] | type[float] | type[str]) -> int | float | str | None:
    return None if cell in MISSING else kind(cell)
