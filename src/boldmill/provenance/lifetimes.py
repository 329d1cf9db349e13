"""Outputs that outlive their sources, which is no mismatch.

Frozen shards are made from shards that later updates rewrite: that is what they are frozen for. They are never stale,
and neither are the models that read them.
"""

from __future__ import annotations

import re
from pathlib import Path

FROZEN = r"(?:^|/)datasets/[^/]+/shards[./]"
"""What the path of a frozen shard, of the list of them, or of the record of either looks like."""


def is_frozen(path: str | Path) -> bool:
    """Return whether a file, or the record of one, belongs to the frozen shards of a snapshot.

    >>> is_frozen("results/datasets/first/shards/fc/Toy/bucket-000.parquet.prov.json")
    True
    >>> is_frozen("results/datasets/first/shards.json"), is_frozen("results/shards/fc/Toy/bucket-000.parquet")
    (True, False)
    """
    return re.search(FROZEN, Path(path).as_posix()) is not None
