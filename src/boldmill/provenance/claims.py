"""What snapshot manifests and checkpoints say of other files, held against what lies there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.provenance.record import prov_path, shown

WEIGHTS, CONFIG = "model.safetensors", "config.json"
Claim = tuple[str, str]
"""Path of the file that says something wrong, and what."""


def manifests(results: Path) -> dict[str, dict[str, Any]]:
    """Return path -> content of every snapshot manifest that can be read."""
    found = {}
    for path in sorted((results / "datasets").glob("*/manifest.json")):
        value = read_dict(path)
        if value:
            found[shown(path)] = value
    return found


def snapshot_claims(results: Path, sha256_of: Callable[[str], str | None]) -> Iterator[Claim]:
    """Yield the shards that are not what a snapshot was frozen with.

    Parameters
    ----------
    results : Path
        Results folder.
    sha256_of : callable
        Path -> sha256 of a file as it is now, or None where it is gone.
    """
    for path, manifest in manifests(results).items():
        for shard in manifest.get("shards", []):
            name = shown(os.path.normpath(Path(path).parent / str(shard.get("path"))))
            found, said = sha256_of(name), str(shard.get("sha256"))
            if found != said:
                now = "it is missing" if found is None else f"it is {found[:12]} now"
                yield path, f"snapshot {manifest.get('id')} was frozen with {name} of {said[:12]}; {now}"


def checkpoints(results: Path) -> list[Path]:
    """Return the weights below a results folder: of models, of variants, and imported ones."""
    return sorted(path for path in results.glob(f"*/*/{WEIGHTS}") if path.parent.parent.name != "work")


def checkpoint_claims(results: Path) -> Iterator[Claim]:
    """Yield the checkpoints whose configuration names another snapshot than their record, or one that is not there."""
    ids = {str(manifest.get("id")): path for path, manifest in manifests(results).items()}
    for weights in checkpoints(results):
        config = weights.with_name(CONFIG)
        said = read_dict(config).get("snapshot")
        if said is None:  # imported weights were trained on no snapshot of ours
            continue
        recorded = read_dict(prov_path(weights)).get("snapshot")
        if recorded is not None and recorded != said:
            yield shown(config), f"it names snapshot {said}, but the record of its training says {recorded}"
        elif said not in ids and renamed(weights, str(said)) not in ids:
            yield shown(config), f"it names snapshot {said}, which is none of those below {results / 'datasets'}"


def snapshot_of(weights: Path) -> str:
    """Return the identity of the snapshot that the configuration beside weights names; else nothing."""
    return str(read_dict(weights.with_name(CONFIG)).get("snapshot") or "")


def renamed(weights: Path, snapshot: str) -> str:
    """Return what became of the snapshot a model was trained on, where somebody was cut out of it since."""
    from boldmill.provenance.withdrawn import MARK

    known: dict[str, str] = read_dict(weights.with_name(MARK)).get("snapshots", {})
    while snapshot in known:
        snapshot = known[snapshot]
    return snapshot


def read_dict(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none that can be read (`verify` names such a file)."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
