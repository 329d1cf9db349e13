"""Text tables of parcel series (TSV, CSV, C-PAC 1D) and of parcel names.

Axes: T time, C columns of the given table.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.index.headers import cells, delimiter, is_header

Array = NDArray[Any]


def read_parcels(path: Path) -> tuple[list[str], Array]:
    """Return names (none: an empty list) and series (T, C) float64 of a TSV, CSV or C-PAC 1D table; NaN where missing.

    Raises
    ------
    DataFault
        Not a table of numbers.
    """
    fix = "restore the table: one row per volume, one column per parcel"
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataFault("cannot read parcel series", path, "it is not text", fix) from error
    heads = [line.lstrip("# ") for line in lines if line.startswith("#")]
    rows = [line for line in lines if not line.startswith("#")]
    mark = delimiter(rows[0]) if rows else None
    names = cells(heads[-1], mark) if heads else []
    if rows and is_header(first := cells(rows[0], mark)):
        names, rows = first, rows[1:]
    values = _fast(rows, mark)
    if values is None:
        words = [cells(row, mark) for row in rows]
        if len({len(row) for row in words}) != 1:
            raise DataFault("cannot read parcel series", path, "rows have different lengths or there are none", fix)
        try:
            values = np.array([[_number(word) for word in row] for row in words])
        except ValueError as error:
            raise DataFault("cannot read parcel series", path, str(error), fix) from error
    if names and len(names) == values.shape[1] + 1:  # an index column without values is not a parcel
        names = names[1:]
    if names and names[0] in ("", "Unnamed: 0") and np.array_equal(values[:, 0], np.arange(len(values))):
        names, values = names[1:], values[:, 1:]  # nor is that of a written data frame
    if names and len(names) != values.shape[1]:
        why = f"{len(names)} names for {values.shape[1]} columns"
        raise DataFault("cannot read parcel series", path, why, fix)
    return names, values


def _fast(rows: list[str], mark: str | None) -> Array | None:
    """Return a table of plain numbers, or None where it has other cells or ragged rows: four times as fast as words."""
    try:
        return np.loadtxt(rows, delimiter=mark, comments=None, ndmin=2) if rows else None
    except ValueError:
        return None


def _number(word: str) -> float:
    return float("nan") if word.lower() in ("n/a", "na", "") else float(word)


def read_labels(path: Path, n_columns: int) -> list[str]:
    """Return the parcel names of a label table (id, then name; with or without a header) in id order.

    Raises
    ------
    DataFault
        It names another number of parcels than the series has columns.
    """
    found: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        mark = "\t" if "\t" in line else "," if re.match(r"\s*\d+\s*,", line) else None
        words = line.split(mark) if mark else line.split(None, 1)
        if len(words) > 1 and words[0].strip().isdigit() and int(words[0]) > 0:
            found[int(words[0])] = words[1].strip()
    if len(found) != n_columns:
        why = f"{path.name} names {len(found)} parcels, the series has {n_columns} columns"
        raise DataFault("labels do not fit", path, why, "give the label table of the atlas the series was made with")
    return [found[key] for key in sorted(found)]
