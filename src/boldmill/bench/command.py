"""Measure ours against a peer, side by side in the same run, and print a table.

Example
-------
boldmill bench startup
boldmill bench representations --json representations.json
boldmill bench preprocess --quick
boldmill bench brainmass --sizes S L
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from boldmill.errors import EXIT_OK, ConfigError

BENCHES: dict[str, tuple[str, str]] = {
    # name: (module with measure(repeats, **options) -> list of Row, help); OPTIONS of the module are its flags
    "startup": ("boldmill.bench.startup", "import and --help against an empty interpreter"),
    "preprocess": ("boldmill.bench.preprocess", "a phantom with known truth against antspyx, SimpleITK and dipy"),
    "representations": (
        "boldmill.bench.representations",
        "parcellation, flat maps, pFC, shard reading beside their peers",
    ),
    "plan": ("boldmill.bench.plan", "dry run, plan and nothing-to-do of a study of 70,000 scans"),
    "brainmass": (
        "boldmill.bench.brainmass",
        "pre-training steps beside the published step and the rate of matrix products",
    ),
}
FLAGS = ("quick", "long")
CHOICES = ("sizes",)
"""Options with values; those not given are left to the bench."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    described = "; ".join(f"{name}: {text}" for name, (_, text) in BENCHES.items())
    parser.add_argument("name", choices=[*BENCHES], help=described)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    parser.add_argument("--quick", action="store_true", help="smaller inputs and no goals")
    parser.add_argument(
        "--long", action="store_true", help="also what takes minutes more (1,200 volumes; jobs per subject)"
    )
    parser.add_argument("--sizes", nargs="+", choices=["tiny", "S", "B", "L"], help="model sizes (default S B L)")
    parser.add_argument("--repeats", type=int, default=7, help="timings per figure; the median counts (default 7)")


def run(args: argparse.Namespace) -> int:
    """Measure, print and save."""
    from boldmill.bench.table import render, save

    module = importlib.import_module(BENCHES[args.name][0])
    given = [flag for flag in (*FLAGS, *CHOICES) if getattr(args, flag)]
    foreign = [flag for flag in given if flag not in getattr(module, "OPTIONS", ())]
    if foreign:
        raise ConfigError("not an option of this bench", f"--{foreign[0]}", f"{args.name} has none", "leave it out")
    rows = module.measure(args.repeats, **{flag: getattr(args, flag) for flag in given})
    print(render(rows))
    if args.json is not None:
        save(rows, args.json)
    return EXIT_OK
