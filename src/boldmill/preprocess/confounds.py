"""The confounds table in files: fMRIPrep's column names, one row per volume, ``n/a`` where a value is undefined.

Axes: T time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import write_json, write_text
from boldmill.errors import DataFault
from boldmill.preprocess.motion import Float

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """``columns``: name -> values (T,), NaN where undefined; ``notes``: name -> its JSON description."""

    columns: dict[str, Float]
    notes: dict[str, dict[str, Any]]

    @property
    def n_rows(self) -> int:
        """Number of volumes."""
        return len(next(iter(self.columns.values())))


def write(table: Table, tsv: str | Path, description: str | Path) -> None:
    """Write the table and its description; numbers keep twelve significant digits."""
    names = list(table.columns)
    rows = np.stack([table.columns[name] for name in names], axis=1)
    lines = ["\t".join(names)]
    lines += ["\t".join("n/a" if np.isnan(v) else format(v, ".12g") for v in row) for row in rows]
    write_text(tsv, "\n".join(lines) + "\n")
    write_json(description, table.notes)


def read(path: str | Path, notes: str | Path | None = None) -> Table:
    """Read a confounds TSV (tab or space separated); columns without names become ``confound_00`` and on.

    Parameters
    ----------
    path : path
        The table.
    notes : path, optional
        Its JSON description; by default the file of the same name beside it, where there is one.

    Raises
    ------
    DataFault
        Not a table of numbers.
    """
    fix = "give one row per volume, with numbers or n/a"
    try:
        lines = [line.split() for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataFault("cannot read confounds", path, "it is not text", fix) from error
    if not lines or len({len(line) for line in lines}) != 1:
        raise DataFault("cannot read confounds", path, "rows have different lengths or there are none", fix)
    names = lines.pop(0) if not all(_is_number(word) for word in lines[0]) else None
    if names is None:
        names = [f"confound_{index:02d}" for index in range(len(lines[0]))]
    try:
        values = np.array([[np.nan if w.lower() in MISSING else float(w) for w in line] for line in lines])
    except ValueError as error:
        raise DataFault("cannot read confounds", path, str(error), fix) from error
    if not len(values):
        raise DataFault("cannot read confounds", path, "it has a header only", fix)
    beside = Path(notes) if notes is not None else Path(path).with_suffix(".json")
    return Table(dict(zip(names, values.T, strict=True)), _notes(beside) if beside.is_file() else {})


def _notes(path: Path) -> dict[str, dict[str, Any]]:
    try:
        described = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataFault("cannot read the description of confounds", path, str(error), "repair the JSON") from error
    found = described if isinstance(described, dict) else {}
    return {str(name): note for name, note in found.items() if isinstance(note, dict)}


MISSING = frozenset({"n/a", "nan", "na"})


def _is_number(word: str) -> bool:
    if word.lower() in MISSING:
        return True
    try:
        float(word)
    except ValueError:
        return False
    return True
