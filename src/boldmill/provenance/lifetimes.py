"""Outputs that outlive their sources are no mismatch: frozen shards are made from shards that later updates rewrite."""

from __future__ import annotations

from pathlib import Path


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
