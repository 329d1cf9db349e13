"""Manifests of snapshots after their shards were cut: hashes, counts and identity; everybody else keeps their split.

A new snapshot would deal the splits again, and might move others; a cut one must not: models were trained on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boldmill.atomic import canonical_json, read_json, sha256_file, sha256_text, write_json
from boldmill.provenance.cut import same_time, without
from boldmill.provenance.follow import Changed
from boldmill.provenance.person import Person
from boldmill.provenance.record import shown


def is_snapshot(results: Path, path: Path) -> bool:
    """Return whether a file is the manifest of a snapshot."""
    return path.name == "manifest.json" and path.parent.parent == results / "datasets"


def recount(
    results: Path,
    person: Person,
    before: Callable[[Path], str],
    changed: Changed,
    renamed: Mapping[str, str],
    rename: Callable[[str, str], None],
) -> dict[str, dict[str, Any]]:
    """Bring every manifest, and every list of frozen shards, up to date.

    Returned are path -> what its record notes now (``snapshot``, ``counts`` or ``shards``), also of those that an
    earlier call, which was killed, brought up to date.

    Parameters
    ----------
    before : callable
        Notes the hash of a file that is about to change.
    renamed : mapping
        Identity before -> after the cut, of all snapshots so far.
    rename : callable
        Notes there that a snapshot is about to get another identity.
    """
    facts: dict[str, dict[str, Any]] = {}
    for path in sorted((results / "datasets").glob("*/manifest.json")):
        manifest = _read(path, "id", "shards", "subjects", "excluded")
        if manifest is None:
            continue
        left = without(manifest, person)
        left["shards"] = [one for one in (_shard(path.parent, shard, changed) for shard in left["shards"]) if one]
        if left == manifest:
            if manifest["id"] in renamed.values():
                facts[shown(path)] = {"snapshot": manifest["id"], "counts": manifest["counts"]}
            continue
        left["counts"] = counts(left, path.parent)
        del left["id"]
        left["id"] = sha256_text(canonical_json(left))[:16]
        digest = before(path)
        rename(str(manifest["id"]), left["id"])
        with same_time(path):
            write_json(path, left)
        changed.rewrote(path, digest)
        facts[shown(path)] = {"snapshot": left["id"], "counts": left["counts"]}
    for path in sorted((results / "datasets").glob("*/shards.json")):  # what a frozen snapshot is made from again
        listed = _read(path, "snapshot", "shards")
        if listed is None:
            continue
        kept = [one for one in (_shard(path.parent, shard, changed) for shard in listed["shards"]) if one]
        left = {**listed, "shards": kept, "snapshot": renamed.get(listed["snapshot"], listed["snapshot"])}
        if left != listed:
            digest = before(path)
            with same_time(path):
                write_json(path, left)
            changed.rewrote(path, digest)
        if left["snapshot"] in renamed.values():
            facts[shown(path)] = {"snapshot": left["snapshot"], "shards": len(kept)}
    return facts


def _read(path: Path, *keys: str) -> dict[str, Any] | None:
    """Return a manifest; None of a damaged one, which stays: verify names it, and the withdrawal says what is left."""
    try:
        found = read_json(path)
    except ValueError:
        return None
    return found if isinstance(found, dict) and all(key in found for key in keys) else None


def _shard(folder: Path, shard: dict[str, Any], changed: Changed) -> dict[str, Any] | None:
    """Return the entry of a shard as it is now; None of one that went with its bucket.

    A shard that had changed since the snapshot was taken keeps what the manifest says: the difference is not ours.
    """
    import pyarrow.parquet as pq

    path = Path(os.path.normpath(folder / shard["path"]))
    name = shown(path)
    if name in changed.removed:
        return None
    if shard["sha256"] not in changed.before.get(name, ()):
        return shard
    size = path.stat().st_size
    return {**shard, "rows": pq.read_metadata(path).num_rows, "size": size, "sha256": sha256_file(path)}


def counts(manifest: dict[str, Any], folder: Path) -> dict[str, dict[str, int]]:
    """Return subjects, scans, series and clips of each split, as a snapshot counts them.

    Of shards that are gone, or were made again since with people the snapshot does not know, only what it knows can be
    counted; `boldmill audit verify` names both.
    """
    import pyarrow.parquet as pq

    subjects, excluded = manifest["subjects"], manifest["excluded"]
    found = {
        split: {"subjects": sum(s == split for s in subjects.values()), "scans": 0, "series": 0, "clips": 0}
        for split in ("train", "validation", "heldout")
    }
    names = ["scan_id", "dataset", "subject", "atlases", "n_clips"]
    for shard in manifest["shards"]:
        if shard["table"] != "scans" or not (folder / shard["path"]).is_file():
            continue
        for row in pq.read_table(folder / shard["path"], columns=names, use_threads=False).to_pylist():
            split = subjects.get(f"{row['dataset']}/{row['subject']}")
            if split is not None and row["scan_id"] not in excluded:
                of = found[split]
                of["scans"] += 1
                of["series"] += bool(row["atlases"])
                of["clips"] += row["n_clips"]
    return found
