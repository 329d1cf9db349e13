"""Measure ours against a peer, side by side in the same run, and print a table.

Example
-------
boldmill bench startup
boldmill bench representations --json representations.json
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from boldmill.errors import EXIT_OK

BENCHES: dict[str, tuple[str, str]] = {
    # name: (module with measure(repeats) -> list of Row, help)
    "startup": ("boldmill.bench.startup", "import and --help against an empty interpreter"),
    "representations": ("boldmill.bench.representations", "pFC views against numpy.corrcoef; shard reading"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    described = "; ".join(f"{name}: {text}" for name, (_, text) in BENCHES.items())
    parser.add_argument("name", choices=[*BENCHES], help=described)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    parser.add_argument("--repeats", type=int, default=7, help="timings per figure; the median counts (default 7)")


def run(args: argparse.Namespace) -> int:
    """Measure, print and save."""
    from boldmill.bench.table import render, save

    rows = importlib.import_module(BENCHES[args.name][0]).measure(args.repeats)
    print(render(rows))
    if args.json is not None:
        save(rows, args.json)
    return EXIT_OK
