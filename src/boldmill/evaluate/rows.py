"""Write frozen rows as a table: one line each, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import write_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


MISSING = "n/a"


def cell(value: Any) -> str:
    """Return a table cell: six significant digits, ``n/a`` for NaN, no tabs or line ends.

    >>> cell(0.123456789), cell(float("nan")), cell(12)
    ('0.123457', 'n/a', '12')
    """
    if isinstance(value, float):
        return MISSING if math.isnan(value) else f"{value + 0.0:.6g}"
    return " ".join(str(value).split()) or MISSING


def write_rows(path: str | Path, kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> Path:
    """Write rows of one dataclass in the order given; its fields are the columns, also of an empty table."""
    columns = [field.name for field in fields(kind)]
    lines = ["\t".join(columns)]
    lines += ["\t".join(cell(getattr(row, name)) for name in columns) for row in rows]
    return write_text(path, "\n".join(lines) + "\n")
