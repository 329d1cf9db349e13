"""Write frozen rows as a table: one line each, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from boldmill.atomic import write_text
from boldmill.evaluate.table import cell

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def write_rows(path: str | Path, kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> Path:
    """Write rows of one dataclass in the order given; its fields are the columns, also of an empty table."""
    columns = [field.name for field in fields(kind)]
    lines = ["\t".join(columns)]
    lines += ["\t".join(cell(getattr(row, name)) for name in columns) for row in rows]
    return write_text(path, "\n".join(lines) + "\n")
