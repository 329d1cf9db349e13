"""Show how far each stage is, whether shards are newer than the snapshot models read, and every quarantined scan.

Below them every failed job of the last run in this folder: why, whether it is tried again, what to do. With --unquoted
nothing that may name people, neither scans nor words of logs: so a run ends, whose output may be kept anywhere.

Exit status: 0 if nothing is quarantined, 3 if at least one scan is, 2 if there is no index yet.

Example:
    boldmill status --config config.yaml my.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boldmill.errors import EXIT_OK, EXIT_QUARANTINED, ConfigError
from boldmill.index import quarantine
from boldmill.paths import ATLAS_TABLES, MODELS, ROLLING, SHARD_TABLES, Layout
from boldmill.setup.nameless import nameless
from boldmill.shards.staleness import staleness

SHOWN = 10
"""Failed jobs, or reasons of --unquoted, told below the tables; --failures names all jobs."""


class Progress(NamedTuple):
    """How many outputs of a stage are there, and how many there will be."""

    stage: str
    done: int
    total: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, later ones winning")
    parser.add_argument("--results", metavar="DIR", help="results folder (default: the configuration's, else results)")
    parser.add_argument("--models", nargs="*", choices=MODELS, help="models to count (default: the configuration's)")
    parser.add_argument("--atlases", nargs="*", metavar="LABEL", help="atlases to count (default: the configuration's)")
    parser.add_argument("--also", nargs="*", metavar="NAME=PATH", help="further tables (default: the configuration's)")
    parser.add_argument("--failures", action="store_true", help="only the failed jobs of the last run in this folder")
    parser.add_argument(
        "--unquoted",
        action="store_true",
        help="name nobody: quarantined scans are counted, failed jobs are told without the words of their logs",
    )
    parser.add_argument("--snapshot", metavar="NAME", help="snapshot to count (default: the configuration's)")


class Counted(NamedTuple):
    """What a command line asks after; without a configuration, the atlases are those that have shards."""

    results: Path
    models: list[str]
    snapshot: str
    atlases: list[str]
    also: dict[str, list[Path]]


def results_of(config: list[str] | None, results: str | None) -> Counted:
    """Return what a command line asks after (defaults where no configuration is given)."""
    if not config:
        folder = Path(results or "results")
        made = sorted(path.name for path in (folder / "shards" / ATLAS_TABLES[0]).glob("*") if path.is_dir())
        return Counted(folder, list(MODELS), ROLLING, made, {})
    from boldmill.config.load import load
    from boldmill.optional import optional_outputs
    from boldmill.spaces.names import atlas_labels

    loaded = load(*config)
    folder = Path(results or loaded.results)
    also = optional_outputs(loaded.model_copy(update={"results": str(folder)}))
    return Counted(folder, list(loaded.models.train), loaded.snapshot.name, atlas_labels(loaded), also)


def progress(
    results: Path, models: list[str], snapshot: str, atlases: list[str], also: Mapping[str, list[Path]]
) -> list[Progress]:
    """Return the progress of every stage, counted by the outputs that are there.

    Raises
    ------
    ConfigError
        There is no index yet.
    """
    from boldmill.index.read import read_index

    index = read_index(results)
    layout = Layout.at(results)

    def stage(name: str, paths: list[Path]) -> Progress:
        return Progress(name, sum(path.is_file() for path in paths), len(paths))

    buckets = index.buckets()
    asked = bool(index.subjects())  # a project of tables alone needs none of these

    def once(path: Path) -> list[Path]:
        return [path] if asked or path.is_file() else []

    def shards(table: str) -> list[Path]:
        labels = (atlases or ["unknown"]) if table in ATLAS_TABLES else [""]
        return [layout.shard(table, bucket, label) for label in labels for bucket in buckets]

    return [
        Progress("ingest", len(index.ok), len(index.scans)),
        stage("templates", once(layout.template)),
        stage("atlas", sorted(results.glob("atlas/*/atlas.json"))),
        stage("preprocess", [layout.subject(*who) for who in index.subjects()]),
        stage("operators", [path for name in ("ribbon", "flat", "meshes") for path in once(layout.operator(name))]),
        stage("parcellate", [layout.parcellated(b) for b in buckets]),
        stage("flatmap", [layout.flat(b) for b in index.preprocessed_buckets()]),
        stage("augment", shards("pfc")),
        stage("shards", [path for table in SHARD_TABLES for path in shards(table)]),
        stage("snapshot", [layout.snapshot(snapshot)]),
        stage("train", [layout.checkpoint(model) for model in models]),
        stage("evaluate", [layout.metrics(model) for model in models]),
        stage("report", [layout.report]),
        *(stage(name, paths) for name, paths in also.items() if paths),
        stage("ledger", [layout.ledger]),
    ]


UNITS = {
    "ingest": "scans",
    "preprocess": "subjects",
    "parcellate": "buckets",
    "flatmap": "buckets",
    "augment": "shards",
    "shards": "shards",
    "train": "models",
    "evaluate": "models",
}


def failures(*, quoting: bool = True) -> list[str]:
    """Return one line per failed job of the last run in this folder, with or without the words of their logs."""
    from boldmill.cluster.events import latest_log
    from boldmill.cluster.failures import lines

    log = latest_log()
    return lines(log, quoting=quoting) if log else []


def tell_failures(*, quoting: bool) -> None:
    """Print the first failed jobs of the last run, if any failed."""
    if failed := failures(quoting=quoting):
        more = f"\n  and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        print("\nFailed jobs of the last run:\n  " + "\n  ".join(failed[:SHOWN]) + more)
        if more or not quoting:
            print("All, in the words of their logs: boldmill status --failures")


def run(args: argparse.Namespace) -> int:
    """Print the tables."""
    if args.failures:
        print("\n".join(failures(quoting=not args.unquoted)) or "No job of the last run failed.")
        return EXIT_OK
    results, models, snapshot, atlases, also = results_of(args.config, args.results)
    models = models if args.models is None else args.models
    atlases = atlases if args.atlases is None else args.atlases
    snapshot = args.snapshot or snapshot
    if args.also is not None:
        also = {}
        for one in args.also:
            name, _, path = one.partition("=")
            also.setdefault(name, []).append(Path(path))
    try:
        if not results.is_dir():
            fix = "run the workflow, or give --results DIR"
            raise ConfigError("no results", results, "there is no such folder", fix)
        counted = progress(results, models, snapshot, atlases, also)
    except ConfigError:  # ingest itself may be what failed
        tell_failures(quoting=not args.unquoted)
        raise
    for name, done, total in counted:
        unit = UNITS.get(name, "")
        bar = "#" * round(20 * done / total) if total else ""
        print(f"{name:<11} {done:>6} of {total:<6} {unit:<9} |{bar:<20}|".rstrip())
    if newer := staleness(results, snapshot):
        print(f"\n{newer}")
    tell_failures(quoting=not args.unquoted)
    rows = quarantine.collect_quarantine(results)
    if not rows:
        print("\nNo scan is quarantined.")
        return EXIT_OK
    if args.unquoted:
        print(f"\n{len(rows)} quarantined; everything else goes on. Scans, stage, reason, fix:")
        groups = nameless(rows)
        for count, stage, reason, fix in groups[:SHOWN]:
            print(f"  {count:>6} {stage:<11} {reason}\n                     fix: {fix}")
        more = f"and {len(groups) - SHOWN} more reasons. " if len(groups) > SHOWN else ""
        print(f"{more}Which scans: boldmill status --config FILE..., or {Layout.at(results).quarantine}")
        return EXIT_QUARANTINED
    print(f"\n{len(rows)} quarantined; everything else goes on. Stage, scan, reason, fix:")
    for row in rows:
        print(f"  {row.stage:<11} {row.scan_id}\n              {row.reason}\n              fix: {row.fix}")
    return EXIT_QUARANTINED
