"""What a bucket's manifest of parcel series (``parcellate/bucket-000.json``) says of an atlas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boldmill.errors import BoldmillError
from boldmill.shards.build import entry_of


def series_entry(manifest: Mapping[str, Any], scan_id: str, atlas: str) -> dict[str, Any] | None:
    """Return a scan's ``files`` in an atlas, with its ``tr``, or ``None`` where it has no good series there."""
    scan = entry_of(manifest, scan_id)
    one = scan["atlases"].get(atlas) if scan is not None else None
    if scan is None or one is None or one["status"] != "ok":
        return None
    return {"tr": scan["tr"], "n_volumes": scan["n_volumes"], **one["files"]}


def parcels_of(manifest: Mapping[str, Any], atlas: str) -> list[str]:
    """Return the parcel names of an atlas; none where it is that of tables only and the bucket has no such table."""
    return list(manifest.get("atlases", {}).get(atlas, {}).get("parcels", []))


def check_atlases(manifest: Mapping[str, Any], labels: Sequence[str], where: Path) -> None:
    """Refuse shards that would leave out an atlas the bucket has series of, or name one twice."""
    known = set(manifest.get("atlases", {}))
    if len(set(labels)) != len(labels) or known - set(labels):
        why = f"it has series of {sorted(known)}, the shards to write are of {list(labels)}"
        raise BoldmillError(
            "inputs do not fit together", where, why, "name one shard per atlas, in a folder of its label"
        )
