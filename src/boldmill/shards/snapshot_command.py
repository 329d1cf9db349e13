r"""Write a snapshot of shards: their hashes, the split of every subject, and the scans left out.

The snapshot `latest` is of the shards as they are, and follows every data update (`--scans`, `--atlases`). A named one
is of the shards that were frozen under its name (`--frozen`, :mod:`boldmill.shards.freeze_command`): its splits and its
inclusion rules follow the settings, its data never change.

Training and evaluation read nothing but a snapshot. Splits are made over all subjects, before the quality filter, so
that another threshold moves nobody between splits. A scan that an inclusion rule leaves out keeps its row and its
reason (`excluded`); one whose figure is unknown is kept and named (`unchecked`).

The shards of a bucket are those beside its shard of `scans`: one per table, and one per atlas for tables of parcels.
The first atlas is the one models read.

Example
-------
boldmill snapshot --scans results/shards/scans/bucket-*.parquet --atlases Schaefer2018-100Parcels7Networks HO111 \
    --out results/datasets/latest/manifest.json --config-json "$(cat snapshot.json)"
boldmill snapshot --frozen results/datasets/first/shards.json --out results/datasets/first/manifest.json \
    --config-json "$(cat freeze.json)"
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_OK, BoldmillError, ConfigError, nearest

SCHEMA = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--scans", type=Path, nargs="+", help="shards of scans, one per bucket")
    source.add_argument("--frozen", type=Path, help="list of frozen shards (`boldmill freeze`)")
    words = "labels of the atlases, the one models read first (with --scans)"
    parser.add_argument("--atlases", nargs="+", default=[], help=words)
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the manifest."""
    from boldmill.atomic import write_json
    from boldmill.paths import ROLLING
    from boldmill.provenance.record import Recorder
    from boldmill.quality.config import InclusionConfig
    from boldmill.shards import intact
    from boldmill.shards.config import SnapshotConfig
    from boldmill.shards.freeze_command import read_frozen
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    cfg = settings.section("snapshot", SnapshotConfig)
    if args.frozen is None:
        cfg = cfg.model_copy(update={"name": ROLLING})

    def rules(dataset: str) -> InclusionConfig:
        return settings.section("inclusion", InclusionConfig, dataset)

    with Recorder(settings, out=args.out) as record:
        if args.frozen is None:
            shards = beside(args.scans, args.atlases)
            manifest = take(shards, args.atlases, args.out.parent, cfg, rules, settings.seed)
        else:
            record.add_input(args.frozen)
            held = read_frozen(args.frozen)
            if args.frozen.resolve().parent != args.out.resolve().parent:
                why = f"its shards lie in {args.frozen.parent}"
                raise ConfigError("cannot take a snapshot", args.out, why, "write the manifest beside the list")
            intact.check(args.frozen.parent, [shard for shard in held["shards"] if shard["table"] == "scans"])
            shards = [args.frozen.parent / shard["path"] for shard in held["shards"]]
            manifest = take(shards, held["atlases"], args.out.parent, cfg, rules, settings.seed, held["shards"])
        for shard in manifest["shards"]:
            path = Path(os.path.normpath(args.out.parent / shard["path"]))
            record.add_input(path, {"path": path.as_posix(), "size": shard["size"], "sha256": shard["sha256"]})
        write_json(args.out, manifest)
        record.note(snapshot=manifest["id"], counts=manifest["counts"])
    return EXIT_OK


def beside(scans: Sequence[Path], atlases: Sequence[str]) -> list[Path]:
    """Return every shard of the buckets whose shards of ``scans`` are given.

    Only those are on the command line: with several atlases the others would not fit there.
    """
    from boldmill.paths import ATLAS_TABLES, SHARD_TABLES

    found: list[Path] = []
    for path in scans:
        root = path.parent.parent
        found += [root / table / path.name for table in SHARD_TABLES if table not in ATLAS_TABLES]
        found += [root / table / atlas / path.name for table in ATLAS_TABLES for atlas in atlases]
    for path in found:
        if not path.is_file():
            raise BoldmillError("cannot take a snapshot", path, "there is no such shard", "run `snakemake shards`")
    return found


def take(
    shards: Sequence[Path],
    atlases: Sequence[str],
    folder: Path,
    cfg: Any,
    rules: Any,
    seed: int,
    known: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the manifest of a snapshot; paths of shards are relative to ``folder``, where it will lie.

    ``known`` are the entries of frozen shards, hashed when they were frozen.
    """
    from boldmill.atomic import canonical_json, sha256_text
    from boldmill.shards.splits import Person, assign
    from boldmill.tables import SCHEMA_VERSION

    listed = sorted(known or _describe_all(shards, folder), key=_place)
    twice = [key for key, n in Counter(map(_place, listed)).items() if n > 1]
    if twice:
        raise BoldmillError(
            "cannot take a snapshot",
            folder,
            f"two shards are {' '.join(filter(None, twice[0]))}",
            "name each shard once",
        )
    _check_fit(shards)
    scans = _scans([path for path in shards if _table_of(path) == "scans"])
    people = {
        (row["dataset"], row["subject"]): Person(
            dataset=row["dataset"], subject=row["subject"], site=row["site"], family=row["family"]
        )
        for row in scans
    }
    sites = {person.site for person in people.values()}
    for site in cfg.heldout_sites:
        if site not in sites:
            why = f"'{site}' is no site of the scans{nearest(site, sites)}; they are {', '.join(sorted(sites))}"
            raise ConfigError("unknown site", "snapshot.heldout_sites", why, "correct or remove it")
    names = {person.dataset for person in people.values()}
    for name in cfg.heldout_datasets:
        if name not in names:
            why = f"'{name}' is no data set of the scans{nearest(name, names)}; they are {', '.join(sorted(names))}"
            raise ConfigError("unknown data set", "snapshot.heldout_datasets", why, "correct or remove it")
    subjects = assign(people.values(), cfg, seed)
    limits = {name: rules(name) for name in sorted({str(row["dataset"]) for row in scans})}
    excluded, unchecked = _judge(scans, limits)
    kept = [row for row in scans if row["scan_id"] not in excluded]
    split_of = [subjects[f"{row['dataset']}/{row['subject']}"] for row in kept]
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "table_schema": SCHEMA_VERSION,
        "name": cfg.name,
        "atlases": list(atlases),
        "settings": {**cfg.model_dump(mode="json"), "seed": seed},
        "inclusion": {name: limit.model_dump(mode="json") for name, limit in limits.items()},
        "shards": listed,
        "subjects": subjects,
        "excluded": excluded,
        "unchecked": unchecked,
        "counts": {
            split: {
                "subjects": sum(s == split for s in subjects.values()),
                "scans": split_of.count(split),
                "series": sum(bool(r["atlases"]) for r, s in zip(kept, split_of, strict=True) if s == split),
                "clips": sum(r["n_clips"] for r, s in zip(kept, split_of, strict=True) if s == split),
            }
            for split in ("train", "validation", "heldout")
        },
    }
    return {**content, "id": sha256_text(canonical_json(content))[:16]}


SHARED = {b"parcels": "parcels", b"features": "morphometry features", b"mask": "flat-map masks"}
"""Texts of the shards' schemas that must be the same in all shards with rows of an atlas, and what they are."""


def _place(shard: dict[str, Any]) -> tuple[str, str, str]:
    return shard["table"], shard.get("atlas", ""), shard["bucket"]


def _check_fit(shards: Sequence[Path]) -> None:
    """Refuse shards of an atlas or a flat grid that differ: their rows may have one length and several meanings."""
    import pyarrow.parquet as pq

    first: dict[tuple[bytes, bytes], tuple[bytes, Path]] = {}
    for path in sorted(shards):
        if not pq.read_metadata(path).num_rows:
            continue
        texts = pq.read_schema(path).metadata or {}
        for key, what in SHARED.items():
            text = texts.get(key, b"[]")
            place = (key, texts.get(b"atlas", b""))
            known, where = first.setdefault(place, (text, path)) if text != b"[]" else (text, path)
            if text != known:
                fix = (
                    "build all with the same atlas and flat grid: snakemake shards -R parcellate_bucket flatmap_bucket"
                )
                raise BoldmillError("shards do not fit together", path, f"its {what} are not those of {where}", fix)


def _describe_all(shards: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """Return the entries of shards; they are read by several threads at once, for all of their bytes are hashed."""
    from concurrent.futures import ThreadPoolExecutor

    from boldmill.shards.freeze_command import THREADS

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda path: _describe(path, folder), shards))


def _describe(path: Path, folder: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from boldmill.atomic import sha256_file
    from boldmill.paths import ATLAS_TABLES
    from boldmill.tables import SCHEMA_VERSION

    metadata = pq.read_metadata(path)
    texts = pq.read_schema(path).metadata or {}
    if texts.get(b"schema_version", b"").decode() != str(SCHEMA_VERSION):
        raise BoldmillError("not a shard", path, f"its schema version is not {SCHEMA_VERSION}", "rebuild the shards")
    table = texts[b"table"].decode()
    return {
        "table": table,
        **({"atlas": texts[b"atlas"].decode()} if table in ATLAS_TABLES else {}),
        "bucket": path.stem,
        "path": Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix(),
        "rows": metadata.num_rows,
        "size": path.stat().st_size,
        "sha256": sha256_file(path),
    }


def _table_of(path: Path) -> str:
    import pyarrow.parquet as pq

    return str((pq.read_schema(path).metadata or {}).get(b"table", b"").decode())


def _scans(paths: Sequence[Path]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    names = ["scan_id", "dataset", "subject", "kind", "site", "family", "mean_fd", "qc", "atlases", "n_clips"]
    rows: list[dict[str, Any]] = []
    for path in paths:
        rows += pq.read_table(path, columns=names, use_threads=False).to_pylist()
    return sorted(rows, key=lambda row: str(row["scan_id"]))


def _judge(scans: Sequence[dict[str, Any]], limits: dict[str, Any]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return why scans are excluded, and the rules that could not be asked for want of a figure, by scan id.

    A T1w alone has no run to judge.
    """
    from boldmill.quality.inclusion import reasons, unchecked
    from boldmill.tables import pairs

    excluded: dict[str, str] = {}
    unasked: dict[str, list[str]] = {}
    for row in scans:
        if row["kind"] == "anat":
            continue
        figures, rules = {**pairs(row["qc"]), "mean_fd": row["mean_fd"]}, limits[row["dataset"]]
        if found := reasons(figures, rules):
            excluded[row["scan_id"]] = "; ".join(found)
        if missing := unchecked(figures, rules):
            unasked[row["scan_id"]] = missing
    return excluded, unasked
