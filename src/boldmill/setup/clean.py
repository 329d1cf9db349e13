"""Say what could be freed below the results folder, with sizes; --delete frees it.

Kinds: work (scratch folders), temp (left by killed commands), logs (and benchmarks, the figures of `boldmill plan`),
orphans (outputs of subjects without a scan that passed the last ingest), snapshots (frozen ones that neither the
configuration of --config nor a model names), series (kept 4D images whose
parcel series and flat maps are done: later stages and `boldmill apply` make those of raw runs again from their recipes;
those of ready-made runs need the preprocess stage again). Without --what everything is listed, and --delete frees all
but `series` and `snapshots`. A frozen shard that no update has rewritten is one file with two names: deleting its
snapshot frees no room.

Example:
    boldmill clean --results results --what work,logs --delete
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from boldmill.atomic import read_json
from boldmill.cluster.events import locks
from boldmill.errors import EXIT_OK, ConfigError, nearest
from boldmill.index.read import TABLE, Index, read_index
from boldmill.paths import ATLAS_TABLES, ROLLING, SHARD_TABLES, Layout
from boldmill.train.checkpoint import CONFIG

KINDS = ("work", "temp", "logs", "orphans", "snapshots", "series")
DEFAULT = ("work", "temp", "logs", "orphans")
_SUBJECT = re.compile(r"([A-Za-z0-9]+)_sub-([A-Za-z0-9]+)(?:[_.]|$)")


class Candidate(NamedTuple):
    """Something that could be freed: a file or a folder below the results."""

    kind: str
    path: Path
    size: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, later ones winning")
    parser.add_argument("--results", metavar="DIR", help="results folder (default: the configuration's, else results)")
    parser.add_argument("--what", metavar="KINDS", help=f"comma-separated: {','.join(KINDS)}")
    parser.add_argument("--delete", action="store_true", help="really delete")


def size_of(path: Path) -> int:
    """Return the bytes below a path; links count as themselves."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(size_of(child) for child in path.iterdir())


def candidates(results: Path, snapshot: str = ROLLING) -> list[Candidate]:
    """Return all that could be freed, sorted by kind and path; ``snapshot`` is the one the configuration names."""
    layout = Layout.at(results)
    found: set[tuple[str, Path]] = set()
    found.update(("work", path) for path in (results / "work", *results.glob("derivatives/*/work")) if path.is_dir())
    found.update(("temp", path) for path in results.rglob(".tmp-*"))
    found.update(("logs", path) for path in (results / "logs", results / "benchmarks") if path.is_dir())
    index = read_index(results) if layout.index.is_file() else None
    if index is not None:
        found.update(("orphans", path) for path in _orphans(layout, index))
    found.update(("snapshots", path) for path in _snapshots(layout, {snapshot, ROLLING}))
    found.update(("series", path) for path in _series(layout, index))
    return [Candidate(kind, path, size_of(path)) for kind, path in sorted(found)]


def _orphans(layout: Layout, index: Index) -> Iterator[Path]:
    """Yield outputs of subjects and buckets without a scan that passed ingest.

    A data set of which nothing passed has a fault of its own (a setting, a disk): its outputs are no orphans.
    """
    spared = {scan.dataset for scan in index.scans} - {scan.dataset for scan in index.ok}
    kept = [scan for scan in index.scans if scan.ok or scan.dataset in spared]
    alive = {(scan.dataset, scan.subject) for scan in kept if scan.kind != TABLE}
    own = ("sub-*", ".cache/sub-*", "figures/sub-*")
    for pattern in ("derivatives/*/sub-*", *(f"preprocess/*/{name}" for name in own), "reports/*/sub-*"):
        for path in layout.results.glob(pattern):
            label = path.name.removeprefix("sub-").split(".")[0].split("_")[0]
            if (path.relative_to(layout.results).parts[1], label) not in alive:
                yield path
    # also frames (flatmap/bucket-*.frames) and arrays of pages (preprocess/*/figures)
    for pattern in ("flatmap/*/*", "parcellate/*/*", "preprocess/*/figures/*"):
        for path in layout.results.glob(pattern):
            match = _SUBJECT.match(path.name)
            if match and match.groups() not in alive:
                yield path
    buckets = {scan.bucket for scan in kept}
    shards = [f"shards/{table}" for table in SHARD_TABLES if table not in ATLAS_TABLES]
    shards += [f"shards/{table}/*" for table in ATLAS_TABLES]
    for folder in ("preprocess", "reports", "flatmap", "parcellate", *shards):
        for path in layout.results.glob(f"{folder}/bucket-*"):
            number = re.match(r"bucket-(\d+)\.", path.name)
            if number and int(number[1]) not in buckets:
                yield path


def _snapshots(layout: Layout, named: set[str]) -> Iterator[Path]:
    """Yield folders of frozen snapshots that nothing names: no configuration, and no model by its id."""
    models = (path for kind in ("models", "ablation") for path in layout.results.glob(f"{kind}/*/{CONFIG}"))
    used = {_about(path).get("snapshot") for path in models}
    for path in layout.results.glob("datasets/*/manifest.json"):
        if path.parent.name not in named and _about(path).get("id") not in used:
            yield path.parent


def _about(path: Path) -> dict[str, Any]:
    """Return what a model or a snapshot says of itself; one that cannot be read frees nothing."""
    try:
        about = read_json(path)
    except ValueError as error:
        raise ConfigError(
            "cannot tell what is in use", path, str(error), "make it again, or delete its folder"
        ) from error
    return about if isinstance(about, dict) else {}


def _series(layout: Layout, index: Index | None) -> Iterator[Path]:
    """Yield 4D images of subjects whose buckets went through parcellation and flat maps."""
    if index is None:
        return
    for bucket in index.buckets():
        if not (layout.parcellated(bucket).is_file() and layout.flat(bucket).is_file()):
            continue
        for who in index.subjects_in(bucket):
            if not layout.subject(*who).is_file():
                continue
            for scan in (read_json(layout.subject(*who)).get("scans") or {}).values():
                files = scan.get("files") or {}
                for key in ("clean", "preproc", "clean_lh", "clean_rh"):
                    path = layout.results / str(files.get(key))
                    if files.get(key) and path.is_file():
                        yield path


def run(args: argparse.Namespace) -> int:
    """List, and delete where asked."""
    from boldmill.setup.status import results_of

    asked = results_of(args.config, args.results)
    results = asked.results
    if not results.is_dir():
        raise ConfigError("no results", results, "there is no such folder", "give --results DIR")
    wanted = tuple(args.what.split(",")) if args.what else (DEFAULT if args.delete else KINDS)
    for kind in wanted:
        if kind not in KINDS:
            raise ConfigError("unknown kind", "--what", f"'{kind}'{nearest(kind, KINDS)}", f"use {', '.join(KINDS)}")
    if args.delete and locks():
        why = "Snakemake has locked this folder: scratch files and temporary names may be those of its jobs"
        raise ConfigError("a run is under way", ".snakemake/locks", why, "wait; if none runs: snakemake --unlock")
    chosen = [item for item in candidates(results, asked.snapshot) if item.kind in wanted]
    for item in chosen:
        print(f"{item.kind:<8} {_human(item.size):>10}  {item.path}")
    total = _human(sum(item.size for item in chosen))
    if not args.delete:
        print(f"{total} could be freed; nothing was deleted (add --delete)")
        return EXIT_OK
    for item in chosen:
        _delete(item.path, results)
    print(f"{total} freed")
    return EXIT_OK


def _delete(path: Path, results: Path) -> None:
    if not path.parent.resolve().is_relative_to(results.resolve()):
        raise ConfigError("refusing to delete", path, "it lies outside the results folder", "delete it by hand")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
