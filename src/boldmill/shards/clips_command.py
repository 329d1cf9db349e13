r"""Write the flat clips of one bucket: the frames of its flat maps, cut into clips.

A job of its own, because the frames are large and temporary: once they are clips, no change of a phenotype, an atlas or
a parcel series asks for them again.

A scan with a fault found here (fewer frames than a clip, frames that are not finite) is left out, with its reason in
`<out>.quarantine.json` (suffix .parquet replaced); its parcel series go on.

Example
-------
boldmill clips --bucket 3 --tickets results/index/buckets/bucket-003.json \
    --subjects results/preprocess/bucket-003.json --flat results/flatmap/bucket-003.json --results results \
    --out results/shards/flat_clips/bucket-003.parquet --config-json "$(cat clips.json)"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from boldmill.errors import EXIT_OK, DataFault

if TYPE_CHECKING:
    from boldmill.shards.build import Bucket
    from boldmill.shards.config import ShardsConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--bucket", type=int, required=True, help="number of the bucket")
    parser.add_argument("--tickets", type=Path, nargs="*", default=[], help="tickets of the bucket's scans, or lists")
    parser.add_argument("--subjects", type=Path, nargs="*", default=[], help="subject manifests, or lists")
    parser.add_argument("--flat", type=Path, nargs="?", help="manifest of the flat maps; none where all are tables")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--out", type=Path, required=True, help="shard to write: flat_clips")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the shard and its list of refused scans."""
    from boldmill.index.buckets import listed, steady
    from boldmill.provenance.record import Recorder
    from boldmill.shards.build import load_bucket
    from boldmill.shards.config import ShardsConfig
    from boldmill.shards.write import write_quarantine
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    cfg = settings.section("shards", ShardsConfig)
    manifests = [*args.tickets, *args.subjects, *filter(None, [args.flat])]
    with Recorder(settings, out=args.out, inputs=manifests) as record, steady(*args.tickets):
        tickets, subjects = listed(args.tickets, args.results), listed(args.subjects, args.results)
        for path in (*tickets, *subjects):
            record.add_input(path)
        bucket = load_bucket(
            number=args.bucket, results=args.results, tickets=tickets, subjects=subjects, flat=args.flat
        )
        for digests in bucket.digests.values():
            digests[settings.stage] = settings.digest
        clips = write_clips(bucket, args.out, cfg)
        record.add_output(write_quarantine(args.out, settings.stage, bucket.faults))
        for path in bucket.read:
            record.add_input(path)
        record.note(bucket=args.bucket, scans=len(clips), clips=sum(clips.values()), quarantined=len(bucket.faults))
    return EXIT_OK


def write_clips(bucket: Bucket, out: Path, cfg: ShardsConfig) -> dict[str, int]:
    """Write the clips of every scan; return their number by scan id."""
    import numpy as np
    from tqdm import tqdm

    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.shards.build import common, entry_of, mismatch
    from boldmill.shards.clips import clip_rows, encode_mask
    from boldmill.shards.write import shard_writer

    found = [(s, t, e) for s, t, _ in bucket.usable() if (e := entry_of(bucket.flat, s)) is not None]
    methods = {entry["method"] for _, _, entry in found if entry.get("method")}
    grid = canonical_json(bucket.flat.get("grid") or {})
    texts = {"grid": grid, "method": "; ".join(sorted(methods))}
    mask = None
    if found:
        with np.load(bucket.frames(found[0][2]), allow_pickle=False) as flat:
            mask = flat["mask"]
        texts["mask"] = encode_mask(mask)
    counts: dict[str, int] = {}
    schema = tables.schema("flat_clips", dtypes={"values": cfg.clip_dtype}, metadata=texts)
    with shard_writer(out, schema, cfg.row_group_rows) as writer:
        for scan_id, ticket, entry in tqdm(found, desc="flat clips", unit="scan", disable=None):
            path = bucket.frames(entry)
            with np.load(path, allow_pickle=False) as archive:
                flat = {name: archive[name] for name in ("frames", "mean", "std", "mask", "tr", "tr_in")}
            if mask is None or not np.array_equal(flat["mask"], mask):
                raise mismatch(path, f"its mask is not that of {found[0][0]}", "flatmap")
            if not np.isfinite(flat["frames"]).all():
                fault = ("the frames are not all finite", "look at the series of the scan")
                bucket.refuse(scan_id, DataFault("cannot use flat maps", scan_id, *fault))
                continue
            if len(flat["frames"]) < cfg.clip_frames:
                fault = (
                    f"{len(flat['frames'])} frames of {float(flat['tr']):g} s, a clip has {cfg.clip_frames}",
                    "leave the scan out, or lower shards.clip_frames or flatmap.target_tr",
                )
                bucket.refuse(scan_id, DataFault("run too short for a clip", scan_id, *fault))
                continue
            base = common(bucket, scan_id, ticket)
            counts[scan_id] = 0
            shape = {"length": cfg.clip_frames, "stride": cfg.clip_stride}
            for row in clip_rows(base, flat, **shape, dtype=cfg.clip_dtype):
                writer.add(row)
                counts[scan_id] += 1
    return counts


def clip_counts(shard: Path) -> dict[str, int]:
    """Return the number of clips of every scan in a shard."""
    from collections import Counter

    import pyarrow.parquet as pq

    return dict(Counter(pq.read_table(shard, columns=["scan_id"], use_threads=False)["scan_id"].to_pylist()))
