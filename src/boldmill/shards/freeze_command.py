r"""Keep the shards of a snapshot under a name: later updates rewrite the shards, and leave these as they are.

The shards are hard links, which take no room until a bucket is rewritten, or copies where the file system has no links.
Each is hashed as it lies there and must be the one the manifest names. The folder appears whole or not at all; the
list beside it is written last.

Example
-------
boldmill freeze --snapshot results/datasets/latest/manifest.json --out results/datasets/first/shards.json \
    --config-json "$(cat freeze_shards.json)"
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_OK, BoldmillError, ConfigError

SCHEMA = 1
SHARDS = "shards"
"""Folder of the frozen shards, beside the list of them."""

THREADS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--snapshot", type=Path, required=True, help="manifest of the snapshot whose shards are kept")
    parser.add_argument("--out", type=Path, required=True, help="list to write: results/datasets/<name>/shards.json")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Link every shard and write the list."""
    from boldmill.atomic import read_json, write_json
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    if args.out.exists():
        fix = f"set another snapshot.name, or delete {args.out.parent} to freeze this day's shards under it"
        raise ConfigError("already frozen", args.out, "what was trained on it would lose its data", fix)
    with Recorder(settings, out=args.out, inputs=[args.snapshot]) as record:
        manifest = read_json(args.snapshot)
        folder: Path = args.out.parent
        held = keep(manifest["shards"], args.snapshot.parent, folder)
        for live, shard in zip(manifest["shards"], held, strict=True):
            source = Path(os.path.normpath(args.snapshot.parent / live["path"]))
            with Recorder(settings, out=folder / shard["path"]) as own:
                own.add_input(source, {"size": shard["size"], "sha256": shard["sha256"]})
        content = {"schema": SCHEMA, "snapshot": manifest["id"], "atlases": manifest["atlases"], "shards": held}
        write_json(args.out, content)
        record.note(snapshot=manifest["id"], shards=len(held))
    print(f"{args.out}: {len(held)} shards kept")
    return EXIT_OK


def keep(shards: list[dict[str, Any]], source: Path, folder: Path) -> list[dict[str, Any]]:
    """Link shards into ``folder/shards`` and return their entries with paths relative to ``folder``.

    Parameters
    ----------
    shards : list of dict
        Entries of a manifest in ``source``.
    source, folder : Path
        Where the manifest lies, and where the list will.

    Raises
    ------
    BoldmillError
        A shard is gone or is not the one the manifest names; nothing is left behind.
    """
    target = folder / SHARDS
    temporary = folder / f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{SHARDS}"
    held = []
    try:
        for shard in shards:
            place = Path(shard["table"], shard.get("atlas", ""), f"{shard['bucket']}.parquet")
            link(Path(os.path.normpath(source / shard["path"])), temporary / place)
            held.append({**shard, "path": (SHARDS / place).as_posix()})
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda entry: _same(temporary.parent, temporary.name, entry), held))
        if target.exists():  # left by a call that was stopped before it wrote its list
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return held


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be: file systems give many reasons (EPERM, EXDEV, ...).

    Where the disk is the reason, copying says so.
    """
    if not source.is_file():
        raise BoldmillError("shard is missing", source, "the snapshot names it", "run `snakemake shards`")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)  # not a link to a link
    except OSError:
        shutil.copyfile(source, target)


def _same(folder: Path, shards: str, entry: dict[str, Any]) -> None:
    from boldmill.atomic import sha256_file

    path = folder / shards / Path(entry["path"]).relative_to(SHARDS)
    if sha256_file(path) != entry["sha256"]:
        why = "its sha256 is not that of the snapshot"
        raise BoldmillError("shard changed", entry["path"], why, "run `snakemake shards`, then again")


def read_frozen(path: Path) -> dict[str, Any]:
    """Return the list of frozen shards.

    Raises
    ------
    ConfigError
        It is no such list.
    BoldmillError
        A shard is gone or has another size; the reader compares the bytes (:class:`boldmill.shards.reader.Snapshot`).
    """
    from boldmill.atomic import read_json

    held: dict[str, Any] = read_json(path)
    if held.get("schema") != SCHEMA or "shards" not in held:
        raise ConfigError("cannot read the frozen shards", path, "it is no list of them", "set another snapshot.name")
    for shard in held["shards"]:
        file = path.parent / shard["path"]
        if not file.is_file() or file.stat().st_size != shard["size"]:
            why = "it is gone" if not file.is_file() else f"it has {file.stat().st_size} bytes, not {shard['size']}"
            raise BoldmillError("frozen shard changed", file, why, "set snapshot.name to a new name")
    return held
