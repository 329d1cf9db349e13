"""Rows behind #: tables that are not quite tables, and columns that are no plain values."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boldmill.errors import BoldmillError
from boldmill.provenance.selection import choose


def test_a_ragged_table_in_another_code_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes("task\tsite\ngroup\nage\tZ\xfcrich\tmore\n".encode("latin-1"))
    assert choose(path, {"task": "group"}, "x").rows == [{"task": "group", "site": ""}]
    with pytest.raises(BoldmillError, match="no such row"):
        choose(path, {"site": "Bern"}, "x")


def test_a_column_of_lists_chooses_no_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"scan_id": ["a"], "values": [[0.5, 1.0]]}), tmp_path / "x.parquet")
    with pytest.raises(BoldmillError, match="no column of plain values"):
        choose(tmp_path / "x.parquet", {"values": "0.5"}, "x")
