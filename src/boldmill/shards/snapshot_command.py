r"""Freeze shards into a named snapshot: their hashes, the split of every subject, and the scans left out.

Training and evaluation read nothing but the snapshot. Splits are made over all subjects, before the quality filter, so
that another threshold moves nobody between splits. A scan that an inclusion rule leaves out keeps its row and its
reason (`excluded`); one whose figure is unknown is kept and named (`unchecked`).

Example
-------
boldmill snapshot --shards results/shards/*/bucket-*.parquet --out results/datasets/latest/manifest.json \
    --config-json "$(cat snapshot.json)"
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_OK, BoldmillError, ConfigError, nearest

SCHEMA = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="Parquet shards of all tables")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the manifest."""
    from boldmill.atomic import write_json
    from boldmill.provenance.record import Recorder
    from boldmill.quality.config import InclusionConfig
    from boldmill.shards.config import SnapshotConfig
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    cfg = settings.section("snapshot", SnapshotConfig)

    def rules(dataset: str) -> InclusionConfig:
        return settings.section("inclusion", InclusionConfig, dataset)

    with Recorder(settings, out=args.out) as record:
        manifest = take(args.shards, args.out.parent, cfg, rules, settings.seed)
        for shard in manifest["shards"]:
            path = Path(os.path.normpath(args.out.parent / shard["path"]))
            record.add_input(path, {"path": path.as_posix(), "size": shard["size"], "sha256": shard["sha256"]})
        write_json(args.out, manifest)
        record.note(snapshot=manifest["id"], counts=manifest["counts"])
    return EXIT_OK


def take(shards: Sequence[Path], folder: Path, cfg: Any, rules: Any, seed: int) -> dict[str, Any]:
    """Return the manifest of a snapshot; paths of shards are relative to ``folder``, where it will lie."""
    from boldmill.atomic import canonical_json, sha256_text
    from boldmill.shards.splits import Person, assign
    from boldmill.tables import SCHEMA_VERSION

    listed = sorted((_describe(path, folder) for path in shards), key=lambda s: (s["table"], s["bucket"], s["path"]))
    twice = [key for key, n in Counter((s["table"], s["bucket"]) for s in listed).items() if n > 1]
    if twice:
        raise BoldmillError("cannot take a snapshot", folder, f"two shards are {twice[0]}", "name each shard once")
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
    subjects = assign(people.values(), cfg, seed)
    limits = {name: rules(name) for name in sorted({str(row["dataset"]) for row in scans})}
    excluded, unchecked = _judge(scans, limits)
    kept = [row for row in scans if row["scan_id"] not in excluded]
    split_of = [subjects[f"{row['dataset']}/{row['subject']}"] for row in kept]
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "table_schema": SCHEMA_VERSION,
        "name": cfg.name,
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
                "series": sum(r["has_timeseries"] for r, s in zip(kept, split_of, strict=True) if s == split),
                "clips": sum(r["n_clips"] for r, s in zip(kept, split_of, strict=True) if s == split),
            }
            for split in ("train", "validation", "heldout")
        },
    }
    return {**content, "id": sha256_text(canonical_json(content))[:16]}


SHARED = {b"parcels": "parcels", b"features": "morphometry features", b"mask": "flat-map masks"}
"""Texts of the shards' schemas that must be the same in all shards with rows, and what they are."""


def _check_fit(shards: Sequence[Path]) -> None:
    """Refuse shards of different atlases or flat grids: their rows have the same length and other meanings."""
    import pyarrow.parquet as pq

    first: dict[bytes, tuple[bytes, Path]] = {}
    for path in sorted(shards):
        if not pq.read_metadata(path).num_rows:
            continue
        texts = pq.read_schema(path).metadata or {}
        for key, what in SHARED.items():
            text = texts.get(key, b"[]")
            known, where = first.setdefault(key, (text, path)) if text != b"[]" else (text, path)
            if text != known:
                fix = "build all with one atlas and one flat grid: snakemake shards -R parcellate_bucket flatmap_bucket"
                raise BoldmillError("shards do not fit together", path, f"its {what} are not those of {where}", fix)


def _describe(path: Path, folder: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from boldmill.atomic import sha256_file
    from boldmill.tables import SCHEMA_VERSION

    metadata = pq.read_metadata(path)
    texts = pq.read_schema(path).metadata or {}
    if texts.get(b"schema_version", b"").decode() != str(SCHEMA_VERSION):
        raise BoldmillError("not a shard", path, f"its schema version is not {SCHEMA_VERSION}", "rebuild the shards")
    return {
        "table": texts[b"table"].decode(),
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

    names = ["scan_id", "dataset", "subject", "kind", "site", "family", "mean_fd", "qc", "has_timeseries", "n_clips"]
    rows: list[dict[str, Any]] = []
    for path in paths:
        rows += pq.read_table(path, columns=names, use_threads=False).to_pylist()
    return sorted(rows, key=lambda row: str(row["scan_id"]))


def _judge(scans: Sequence[dict[str, Any]], limits: dict[str, Any]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return why scans are excluded, and the rules that could not be asked for want of a figure, by scan id.

    A T1w alone has no run to judge.
    """
    from boldmill.quality.inclusion import reasons, unchecked

    excluded: dict[str, str] = {}
    unasked: dict[str, list[str]] = {}
    for row in scans:
        if row["kind"] == "anat":
            continue
        figures, rules = {**dict(row["qc"]), "mean_fd": row["mean_fd"]}, limits[row["dataset"]]
        if found := reasons(figures, rules):
            excluded[row["scan_id"]] = "; ".join(found)
        if missing := unchecked(figures, rules):
            unasked[row["scan_id"]] = missing
    return excluded, unasked
