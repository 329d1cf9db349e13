"""Fold every provenance record below the results folder into one table, one row per output.

What each output was made from lies beside it in `inputs.parquet`, one row per input of a record: `record` joins the
two. The same records always give the same bytes. Records that did not change since the last ledger are not read again
(`--fresh` reads all).

Example:
  boldmill ledger --results results --out results/provenance/ledger.parquet --config-json "$JSON"
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_OK, BoldmillError
from boldmill.paths import Layout
from boldmill.provenance.fold import INPUTS, fold
from boldmill.provenance.lifetimes import FROZEN, is_frozen
from boldmill.provenance.record import Recorder, shown
from boldmill.stages import Settings

NEVER_EMPTY = frozenset({"path", "sha256", "record"})
"""Columns of either table that have a value in every row."""


class Table:
    """Columns of a Parquet table sorted by its first column, read one value at a time without a copy."""

    def __init__(self, table: Any) -> None:
        self.table = table.combine_chunks()
        self.names: list[str] = self.table.column_names
        self.keys = _Column(self.table.column(0))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[Any]:
        """Return one column as a list."""
        return list(self.table.column(name).to_pylist())

    def rows(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the rows whose first column is ``key``."""
        first = bisect_left(self.keys, key)
        yield from self.table.slice(first, bisect_right(self.keys, key) - first).to_pylist()


class _Column:
    """A sorted column as a sequence, for bisection."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> str:
        return str(self._column[index].as_py())


class Ledger:
    """The ledger of a results folder, for questions about single files.

    Parameters
    ----------
    outputs : pyarrow.Table
        One row per output, sorted by path (:mod:`boldmill.provenance.fold`).
    inputs : pyarrow.Table
        One row per input of a record, sorted by record.
    """

    def __init__(self, outputs: Any, inputs: Any) -> None:
        self.outputs, self.inputs = Table(outputs), Table(inputs)

    @classmethod
    def load(cls, results: Path) -> Ledger:
        """Read both tables.

        Raises
        ------
        BoldmillError
            There is no ledger, it cannot be read, or it was written in another working directory.
        """
        path = Layout.at(results).ledger
        ledger = cls(read_table(path), read_table(path.with_name(INPUTS)))
        ledger.refuse_elsewhere(results)
        return ledger

    @classmethod
    def of_records(cls, results: Path) -> Ledger:
        """Fold the records themselves, where the ledger is not to be trusted."""
        found = fold(results, Layout.at(results).ledger)
        return cls(found.outputs, found.inputs)

    def refuse_elsewhere(self, results: Path) -> None:
        """Raise BoldmillError where no output lies below ``results``: recorded paths are relative to another folder."""
        below = shown(results / "x")[:-1]
        first = bisect_left(self.outputs.keys, below)
        if len(self.outputs) and not (first < len(self.outputs) and self.outputs.keys[first].startswith(below)):
            why = f"the records name no file below {below}"
            fix = "run this in the folder the workflow runs in, with --results as it is named there"
            raise BoldmillError("cannot audit", Layout.at(results).ledger, why, fix)

    @cached_property
    def paths(self) -> list[str]:
        """Return the paths of all outputs, sorted."""
        return self.outputs.column("path")

    def row(self, path: str) -> dict[str, Any] | None:
        """Return the row of an output, or None for a file nobody recorded as one."""
        return next(self.outputs.rows(path), None)

    def inputs_of(self, record: str) -> list[dict[str, Any]]:
        """Return path, sha256 and size of everything a record's command read, in the order of paths."""
        return [{key: row[key] for key in ("path", "sha256", "size")} for row in self.inputs.rows(record)]

    def temporary(self) -> set[str]:
        """Return the outputs that were recorded as temporary: nobody misses them once they are gone."""
        table = self.outputs.table
        return set(table.filter(table.column("temporary").fill_null(False)).column("path").to_pylist())

    def made_with(self, record: str) -> list[str]:
        """Return the outputs of one record, sorted."""
        import pyarrow.compute as pc

        table = self.outputs.table
        return list(table.filter(pc.equal(table.column("record"), record)).column("path").to_pylist())

    def older_inputs(self) -> Iterator[tuple[str, str]]:
        """Yield (record, input) where the input is an output that has been made again since, with other content.

        Frozen shards are left out (:mod:`boldmill.provenance.lifetimes`).
        """
        import pyarrow.compute as pc

        paths, inputs = self.outputs.table.column("path"), self.inputs.table
        place = pc.index_in(inputs.column("path"), value_set=paths.combine_chunks())
        now = self.outputs.table.column("sha256").take(place)
        older = inputs.filter(pc.fill_null(pc.not_equal(now, inputs.column("sha256")), False))
        for record, path in zip(older.column("record").to_pylist(), older.column("path").to_pylist(), strict=True):
            if not is_frozen(record):
                yield record, path

    def readers_of(self, paths: Iterable[str]) -> Iterator[tuple[str, str, str]]:
        """Yield (record, input, sha256 as it read it) of every record that read one of ``paths``."""
        import pyarrow as pa
        import pyarrow.compute as pc

        inputs = self.inputs.table
        chosen = inputs.filter(pc.is_in(inputs.column("path"), value_set=pa.array(list(paths), pa.string())))
        yield from zip(*(chosen.column(name).to_pylist() for name in ("record", "path", "sha256")), strict=True)

    def raw_inputs(self) -> Iterator[tuple[str, str]]:
        """Yield (path, sha256) of every input that is nobody's output; twice where readers saw two contents."""
        import pyarrow.compute as pc

        inputs = self.inputs.table
        frozen = pc.match_substring_regex(inputs.column("record"), FROZEN)  # their sources may be gone for good
        inputs = inputs.filter(pc.invert(frozen)).select(["path", "sha256"])
        known = pc.is_in(inputs.column("path"), value_set=self.outputs.table.column("path").combine_chunks())
        raw = inputs.filter(pc.invert(known)).group_by(["path", "sha256"]).aggregate([]).sort_by("path")
        yield from zip(raw.column("path").to_pylist(), raw.column("sha256").to_pylist(), strict=True)


def read_table(path: Path) -> Any:
    """Read one of the two tables.

    Raises
    ------
    BoldmillError
        It is not there, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise BoldmillError("cannot audit", path, "is not there yet", "run `snakemake audit`")
    try:
        table = pq.read_table(path)
        table.validate(full=True)  # a flipped byte may leave texts that are none, or places that are not there
        if lacking := [name for name in NEVER_EMPTY & set(table.column_names) if table.column(name).null_count]:
            raise ValueError(f"rows without {', '.join(sorted(lacking))}")
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        why = f"cannot be read ({' '.join(str(error).split())[:120]})"
        raise BoldmillError("cannot audit", path, why, "run `snakemake audit -R ledger`") from error


def write_ledger(results: Path, out: Path, *, fresh: bool = False) -> int:
    """Write the ledger and the table of inputs beside it; return the number of outputs."""
    import pyarrow.parquet as pq

    from boldmill.atomic import atomic

    found = fold(results, out, fresh=fresh)
    for record, why in found.faults.items():
        print(f"{record}: {why}; `boldmill audit verify` says what it spoils", file=sys.stderr)
    for table, path in ((found.inputs, out.with_name(INPUTS)), (found.outputs, out)):
        with atomic(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    found.remember(out)
    return int(found.outputs.num_rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--out", type=Path, required=True, help="ledger to write")
    parser.add_argument("--fresh", action="store_true", help="read every record again")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the ledger with its own record."""
    with Recorder(Settings(args.config_json), out=args.out) as record:
        count = write_ledger(args.results, args.out, fresh=args.fresh)
        record.add_output(args.out.with_name(INPUTS))
    print(f"{args.out}: {count} outputs")
    return EXIT_OK
