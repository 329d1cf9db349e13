"""Show what a shard, a folder of shards or a snapshot holds: rows, columns, sizes, ranges, and a picture.

Footers and small columns are read whole; ranges of arrays come from a sample of rows, so tens of GB take seconds.

Example
-------
boldmill describe results/datasets/latest/manifest.json
boldmill describe results/shards/fc --png fc.png --json fc.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_OK, ConfigError, nearest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("path", type=Path, help="a shard, a folder of shards, or the manifest.json of a snapshot")
    parser.add_argument("--table", help="only this table")
    parser.add_argument("--atlas", help="only this atlas")
    parser.add_argument("--rows", type=int, default=64, help="rows read for ranges of arrays (default: 64)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the first flat clip, matrix or series")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the facts as JSON too")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    from boldmill.atomic import write_json
    from boldmill.shards.describe import describe_table, find
    from boldmill.shards.describe_picture import DRAWN, draw
    from boldmill.shards.rows import TableRows

    if args.rows < 1:
        raise ConfigError("unusable option", "--rows", f"it is {args.rows}", "give 1 or more")
    shards, snapshot = find(args.path)
    for part, wanted in enumerate((args.table, args.atlas)):
        known = sorted({place[part] for place in shards} - {""})
        if wanted is not None and wanted not in known:
            why = f"there is {', '.join(known) or 'none'}{nearest(wanted, known)}"
            raise ConfigError("not there", wanted, why, "use one of them")
        shards = {place: paths for place, paths in shards.items() if wanted is None or place[part] == wanted}
    facts: dict[str, Any] = {"path": args.path.as_posix()}
    if snapshot is not None:
        facts["snapshot"] = {key: snapshot.manifest[key] for key in ("id", "name", "atlases", "counts")}
        facts["snapshot"]["excluded"] = len(snapshot.excluded)
        print("\n".join(snapshot_lines(facts["snapshot"])))
    facts["tables"] = []
    for place, paths in shards.items():
        found = describe_table(place, paths, args.rows)
        facts["tables"].append(found)
        print("\n".join(["", *table_lines(found)]))
    if args.json is not None:
        write_json(args.json, facts)
    if args.png is not None:
        drawn = sorted(shards, key=lambda place: DRAWN.index(place[0]) if place[0] in DRAWN else len(DRAWN))
        rows = [(place, TableRows(shards[place])) for place in drawn]
        (table, _), chosen = next((pair for pair in rows if len(pair[1])), rows[0])
        print(f"\n{args.png}: {draw(args.png, table, chosen)}")
    return EXIT_OK


def snapshot_lines(facts: dict[str, Any]) -> list[str]:
    """Return the lines on a snapshot."""
    lines = [f"snapshot {facts['name']} ({facts['id']}), atlases: {', '.join(facts['atlases']) or 'none'}"]
    cells = [["split", "subjects", "scans", "series", "clips"]]
    cells += [[split, *(str(n[key]) for key in cells[0][1:])] for split, n in facts["counts"].items()]
    return [*lines, *aligned(cells, right=(1, 2, 3, 4)), f"left out by inclusion rules: {facts['excluded']} scans"]


def table_lines(facts: dict[str, Any]) -> list[str]:
    """Return the lines on a table."""
    title = facts["table"] + (f", atlas {facts['atlas']}" if facts["atlas"] else "")
    low, high = facts["rows_per_group"]
    per_group = f"{low}" if low == high else f"{low} to {high}"
    shards = f"{facts['shards']} shard" + ("s" if facts["shards"] != 1 else "")
    lines = [
        f"{title}: {facts['rows']} rows of {facts['scans']} scans in {shards}, {size(facts['bytes'])}",
        f"  {size(facts['bytes_per_row'])} a row; {facts['row_groups']} row groups of {per_group} rows",
    ]
    if "bytes_per_hour" in facts:
        part = (
            "" if facts["hours_known"] == 1 else f" (where the TR is known: {facts['hours_known']:.0%} of the volumes)"
        )
        lines.append(f"  {facts['hours']:.2f} h of fMRI, {size(facts['bytes_per_hour'])} an hour{part}")
    heads = "column|type|shape|unit|bytes|codec|of raw|range (* sampled)|NaN|missing|source"
    cells = [heads.split("|")]
    for column in facts["columns"]:
        cells.append(
            [
                column["name"],
                column["type"],
                column["shape"],
                column["unit"],
                size(column["bytes"]),
                column["codec"],
                f"{column['ratio']:.0%}" if column["bytes"] else "",
                _range(column),
                f"{column['nan']:.1%}" if column.get("nan") else "",
                f"{column['missing']:.1%}" if column.get("missing") else "",
                column["source"],
            ]
        )
    lines += [f"  {line}" for line in aligned(cells, right=(4, 6, 8, 9))]
    if any(column.get("sampled") for column in facts["columns"]):
        lines.append(f"  (* from {facts['rows_sampled']} of {facts['rows']} rows, evenly spread)")
    return lines


def _range(column: dict[str, Any]) -> str:
    if "distinct" in column:
        return f"{column['distinct']} different, e.g. {column['example'][:40] or repr('')}"
    if "low" not in column:
        return ""
    return f"{column['low']:.5g} .. {column['high']:.5g}" + (" *" if column.get("sampled") else "")


def size(value: float) -> str:
    """Return a number of bytes in words.

    >>> size(2_488_416)
    '2.49 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1000
    return f"{value:.3g} TB"


def aligned(cells: list[list[str]], right: tuple[int, ...]) -> list[str]:
    """Return a table as lines: columns padded to their widest entry, those of ``right`` flush right."""
    widths = [max(len(row[number]) for row in cells) for number in range(len(cells[0]))]
    lines = []
    for row in cells:
        words = [w.rjust(n) if i in right else w.ljust(n) for i, (w, n) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(words).rstrip())
    return lines
