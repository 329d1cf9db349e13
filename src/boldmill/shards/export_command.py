r"""Write the flat clips of a snapshot in another tool's format: one WebDataset sample per run.

Frames come back from the clips; frames behind the last clip of a run are not in the shards. Beside the tar files lie
NAME.json (what was written, with the name and hash of the grid) and NAME-mask.npz (the pixels, for readers of v2).

Example
-------
boldmill export webdataset --snapshot results/datasets/latest/manifest.json --out flat.wds --name flat --split train
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import EXIT_OK, BoldmillError, ConfigError

if TYPE_CHECKING:
    from boldmill.shards.reader import Snapshot
    from boldmill.shards.rows import TableRows

FORMATS = ("webdataset",)
MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("format", choices=FORMATS, help="what to write")
    parser.add_argument("--snapshot", type=Path, required=True, metavar="FILE", help="manifest of the snapshot")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--name", default="flat", help="files are called NAME-00000.tar (default: flat)")
    parser.add_argument("--generation", choices=("v2", "v1"), default="v2", help="members of a sample (default: v2)")
    parser.add_argument("--shard-mb", type=float, default=640, help="size of a tar file, MB (default: 640)")
    for word in ("split", "dataset", "site"):
        parser.add_argument(f"--{word}", nargs="+", help=f"only scans of this {word}")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="runs in a random order; sorted by key without it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A run to write: its scan, key, meta and rows."""

    scan_id: str
    key: str
    meta: dict[str, Any]
    rows: list[int]


def run(args: argparse.Namespace) -> int:
    """Write the tar files."""
    import numpy as np
    from tqdm import tqdm

    from boldmill.atomic import atomic, canonical_json, write_json
    from boldmill.provenance.record import Recorder
    from boldmill.shards.reader import Snapshot
    from boldmill.shards.webdataset import write_tar
    from boldmill.stages import Settings

    if args.shard_mb <= 0:
        raise ConfigError("cannot write tar files", "--shard-mb", f"it is {args.shard_mb:g}", "give a size above 0")
    if found := sorted(args.out.glob(f"{args.name}-*.tar")):
        why = f"{len(found)} files of that name are there"
        raise ConfigError("will not overwrite", found[0], why, "remove them, or choose another --name or --out")
    snapshot = Snapshot.load(args.snapshot)
    mask, items = snapshot.flat_mask, plan(snapshot, args)
    groups = split_by_size(items, args.shard_mb * 1e6, int(mask.sum()))
    chosen = {key: getattr(args, key) for key in ("format", "generation", "shard_mb", "shuffle")}
    chosen |= {key: getattr(args, key) for key in ("name", "split", "dataset", "site")}
    settings = Settings(canonical_json({"stage": "export", "version": 1, "config": chosen, "overrides": {}}))
    out = args.out / f"{args.name}.json"
    with Recorder(settings, out=out, inputs=[args.snapshot]) as record:
        for shard in snapshot.manifest["shards"]:
            if shard["table"] in ("scans", "flat_clips"):
                record.add_input(args.snapshot.parent / shard["path"], {k: shard[k] for k in ("size", "sha256")})
        listed = []
        rows, bar = snapshot.rows("flat_clips"), tqdm(total=len(items), desc="export", unit="run", disable=None)
        for number, group in enumerate(groups):
            path = args.out / f"{args.name}-{number:05d}.tar"
            write_tar(path, _samples(rows, group, mask, args.generation, bar))
            record.add_output(path)
            listed.append({"path": path.name, "samples": len(group), "size": path.stat().st_size})
        with atomic(args.out / f"{args.name}-mask.npz") as temporary:
            np.savez_compressed(temporary, mask=mask)
        record.add_output(args.out / f"{args.name}-mask.npz")
        seconds = sum(item.meta["n_frames"] * item.meta["tr"] for item in items)
        facts = {"format": args.format, "generation": args.generation, "snapshot": snapshot.id, "hours": seconds / 3600}
        write_json(out, {"schema": 1, **facts, "grid": grid_of(rows), "samples": len(items), "shards": listed})
    print(f"export: {len(items)} runs, {seconds / 3600:.2f} h, {len(groups)} tar files in {args.out}")
    return EXIT_OK


def plan(snapshot: Snapshot, args: argparse.Namespace) -> list[Item]:
    """Return the runs to write, in their order."""
    from boldmill.rng import generator
    from boldmill.shards.select import select
    from boldmill.shards.webdataset import check_starts, run_key
    from boldmill.tables import pairs

    scans = select(snapshot, "flat_clips", split=args.split, dataset=args.dataset, site=args.site).scans
    if not len(scans):
        raise ConfigError(
            "nothing to export", args.snapshot, "no scan with flat clips passes the filters", "widen them"
        )
    rows, several = snapshot.rows("flat_clips"), scans["dataset"].nunique() > 1
    grid = grid_of(rows)
    items: dict[str, Item] = {}
    for scan in scans.itertuples():
        own = rows.all_of(str(scan.scan_id))
        check_starts(rows.column("start")[own].tolist(), rows.row(own[0], ["n_frames"])["n_frames"], str(scan.scan_id))
        entities: dict[str, str] = {**pairs(scan.entities), "sub": str(scan.subject)}
        entities |= {"ds": str(scan.dataset)} if several else {}
        last = rows.row(own[-1], ["start", "n_frames", "tr", "tr_in"])
        key = run_key(entities)
        if key in items:
            why = f"it has the entities of {items[key].scan_id}, from which keys are made"
            raise BoldmillError("two runs of one name", str(scan.scan_id), why, "export them one by one (--dataset)")
        meta: dict[str, Any] = dict(word.split("-", 1) for word in key.split("_"))
        meta |= {"n_frames": last["start"] + last["n_frames"], "tr": last["tr"], "grid": grid.get("name", "")}
        meta |= {} if last["tr_in"] != last["tr_in"] else {"tr_in": last["tr_in"]}
        meta |= {"mask_sha256": grid.get("mask_sha256", ""), "scan_id": scan.scan_id, "dataset": scan.dataset}
        items[key] = Item(scan_id=str(scan.scan_id), key=key, meta=meta, rows=own)
    ordered = [items[key] for key in sorted(items)]
    if args.shuffle is None:
        return ordered
    return [ordered[place] for place in generator("export", args.shuffle).permutation(len(ordered))]


def split_by_size(items: list[Item], size: float, n_pixels: int) -> list[list[Item]]:
    """Return the runs of each tar file: as many as fit, at least one."""
    groups: list[list[Item]] = []
    filled = size
    for item in items:
        need = 2.0 * n_pixels * (item.meta["n_frames"] + 4)  # float16 frames; mean and SD in float32
        if filled + need > size or not groups:
            groups.append([])
            filled = 0.0
        groups[-1].append(item)
        filled += need
    return groups


def grid_of(rows: TableRows) -> dict[str, Any]:
    """Return name, hash and size of the grid of flat clips."""
    import json

    found: dict[str, Any] = json.loads(rows.schemas[0].metadata.get(b"grid", b"{}"))
    return found


def _samples(
    rows: TableRows, group: list[Item], mask: Any, generation: str, bar: Any
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield key and members of every run."""
    import numpy as np

    from boldmill.shards.webdataset import Run, encode, join_clips

    for item in group:
        frames = join_clips(rows.column("start")[item.rows].tolist(), rows.read(item.rows, "values"), item.scan_id)
        if frames.dtype == np.int8:
            frames = (frames * np.float32(rows.column("scale")[item.rows[0]])).astype(np.float16)
        mean, std = (rows.find(item.rows[0], name) for name in ("mean", "std"))
        yield item.key, encode(Run(key=item.key, meta=item.meta, frames=frames, mean=mean, std=std), mask, generation)
        bar.update()
