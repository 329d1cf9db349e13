"""How far the shards have moved on since a snapshot was frozen, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.paths import ROLLING, Layout


def changed_buckets(frozen: Mapping[str, Any], latest: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many buckets differ between two manifests, and how many there are in either.

    A bucket differs where any of its shards does: rewritten, new or gone, in any table and atlas.
    """
    before, now = _hashes(frozen), _hashes(latest)
    buckets = before.keys() | now.keys()
    return sum(before.get(bucket) != now.get(bucket) for bucket in buckets), len(buckets)


def staleness(results: str | Path, name: str) -> str:
    """Return the words for a named snapshot; none where its buckets are the present ones, or a manifest is not there.

    >>> staleness("results", "latest")
    ''
    """
    layout = Layout.at(results)
    frozen, latest = layout.snapshot(name), layout.snapshot(ROLLING)
    if name == ROLLING or not (frozen.is_file() and latest.is_file()):
        return ""
    try:
        changed, total = changed_buckets(read_json(frozen), read_json(latest))
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"snapshot {name}: its manifest or that of {ROLLING} is damaged; run `boldmill audit verify`"
    return words(name, changed, total) if changed else ""


def words(name: str, changed: int, total: int) -> str:
    """Return the one line a person can act on.

    >>> words("first", 2, 16)
    'snapshot first: 2 of 16 buckets changed since; set snapshot.name to a new name to train on them'
    """
    return (
        f"snapshot {name}: {changed} of {total} buckets changed since; set snapshot.name to a new name to train on them"
    )


def _hashes(manifest: Mapping[str, Any]) -> dict[str, dict[tuple[str, str], str]]:
    found: dict[str, dict[tuple[str, str], str]] = {}
    for shard in manifest.get("shards", []):
        found.setdefault(shard["bucket"], {})[shard["table"], shard.get("atlas", "")] = shard["sha256"]
    return found
