"""Rows of phenotype tables as spreadsheets and other programs write them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from boldmill.errors import ConfigError


def read_rows(path: Path) -> tuple[list[list[str]], str]:
    """Return the rows of a table that are not blank, and what separates the cells.

    That is a tab; in a ``.csv`` the comma, semicolon or tab that its header has most of. Text is UTF-8 or UTF-16.

    Raises
    ------
    ConfigError
        A quote that is never closed.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding, "replace")
    mark = max(",;\t", key=text.partition("\n")[0].count) if path.suffix.lower() == ".csv" else "\t"
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if any(map(str.strip, row))]
    except csv.Error as error:
        fix = "close the quote, or save the table again"
        raise ConfigError("cannot read table", path, f'{error}: most likely a " is never closed', fix) from error
    return rows, mark
