"""Outputs that outlive their sources, and outputs that do not stay: neither is a mismatch.

Frozen shards are made from shards that later updates rewrite: that is what they are frozen for. Temporary files are
gone once they were read: their record says so (``"temporary": true``), and names their hash for who kept them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from boldmill.atomic import read_json


def is_frozen(path: str | Path) -> bool:
    """Return whether a file, or the record of one, belongs to the frozen shards of a snapshot.

    >>> is_frozen("results/datasets/first/shards/fc/Toy/bucket-000.parquet.prov.json")
    True
    >>> is_frozen("results/datasets/first/shards.json"), is_frozen("results/shards/fc/Toy/bucket-000.parquet")
    (True, False)
    """
    parts = Path(path).parts
    places = [number for number, part in enumerate(parts[:-2]) if part == "datasets"]
    return any(parts[number + 2].split(".")[0] == "shards" for number in places)


@cache
def temporary(record: str) -> frozenset[str]:
    """Return the outputs of a record that do not stay; none where it cannot be read, which is another's finding."""
    try:
        outputs = read_json(record)["outputs"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return frozenset()
    return frozenset(str(item["path"]) for item in outputs if item.get("temporary"))
