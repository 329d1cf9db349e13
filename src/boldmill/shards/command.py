r"""Write the Parquet shards of one bucket: scans, timeseries, fc and flat_clips.

A scan that a stage quarantined is left out of the tables of that stage; a bucket without scans gives empty tables. A
scan with a fault found here (no FC from so few points, fewer frames than a clip, flat frames that are not finite) is
left out of the table it concerns, with its reason in `<out-scans>.quarantine.json` (suffix .parquet replaced).

Example
-------
boldmill shards --bucket 3 --tickets results/index/tickets/demo_sub-01_task-rest.json \
    --participants results/index/participants/bucket-003.json --subjects results/preprocess/demo/sub-01.json \
    --parcellated results/parcellate/bucket-003.json --flat results/flatmap/bucket-003.json --results results \
    --out-scans results/shards/scans/bucket-003.parquet --out-timeseries results/shards/timeseries/bucket-003.parquet \
    --out-fc results/shards/fc/bucket-003.parquet --out-flat-clips results/shards/flat_clips/bucket-003.parquet \
    --config-json "$(cat shards.json)"
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import EXIT_OK, BoldmillError, DataFault

if TYPE_CHECKING:
    from boldmill.shards.build import Bucket
    from boldmill.shards.config import ShardsConfig
    from boldmill.stages import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--bucket", type=int, required=True, help="number of the bucket")
    parser.add_argument("--tickets", type=Path, nargs="*", default=[], help="tickets of the bucket's scans")
    parser.add_argument("--participants", type=Path, required=True, help="phenotypes of the bucket's subjects")
    parser.add_argument("--subjects", type=Path, nargs="*", default=[], help="subject manifests")
    parser.add_argument("--parcellated", type=Path, required=True, help="manifest of the parcel series")
    parser.add_argument("--flat", type=Path, required=True, help="manifest of the flat maps")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    for table in ("scans", "timeseries", "fc", "flat-clips"):
        parser.add_argument(f"--out-{table}", type=Path, required=True, help=f"shard to write: {table}")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the four shards."""
    from boldmill.provenance.record import Recorder
    from boldmill.shards.build import load_bucket
    from boldmill.shards.config import ShardsConfig
    from boldmill.shards.write import write_quarantine
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    cfg = settings.section("shards", ShardsConfig)
    manifests = [*args.tickets, args.participants, *args.subjects, args.parcellated, args.flat]
    with Recorder(settings, out=args.out_scans, inputs=manifests) as record:
        bucket = load_bucket(
            number=args.bucket,
            results=args.results,
            tickets=args.tickets,
            participants=args.participants,
            subjects=args.subjects,
            parcellated=args.parcellated,
            flat=args.flat,
        )
        for digests in bucket.digests.values():
            digests[settings.stage] = settings.digest
        clips = _write_flat_clips(bucket, args.out_flat_clips, cfg)
        parcels, series = _write_series(bucket, args.out_timeseries, args.out_fc, cfg, settings)
        rows = _write_scans(bucket, args.out_scans, cfg, clips, series, parcels)
        record.add_output(write_quarantine(args.out_scans, settings.stage, bucket.faults))
        for path in bucket.read:
            record.add_input(path)
        for path in (args.out_timeseries, args.out_fc, args.out_flat_clips):
            record.add_output(path, own_record=True)
        record.note(bucket=args.bucket, scans=rows, quarantined=len(bucket.faults))
    return EXIT_OK


def _write_series(
    bucket: Bucket, out_series: Path, out_fc: Path, cfg: ShardsConfig, settings: Settings
) -> tuple[int, set[str]]:
    """Write timeseries and fc; return the number of parcels (0 where no scan has any) and the scans written."""
    from tqdm import tqdm

    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.represent.config import ParcellateConfig
    from boldmill.represent.fc import n_edges
    from boldmill.shards.build import common, entry_of, fc_row, read_timeseries, timeseries_row
    from boldmill.shards.write import shard_writer

    found = [(s, t, e) for s, t, _ in bucket.usable() if (e := entry_of(bucket.parcellated, s)) is not None]
    names: list[str] = []
    if found:
        names, _ = read_timeseries(bucket.results / found[0][2]["files"]["timeseries"])
    sizes = {"n_parcels": len(names), "n_edges": n_edges(len(names))} if names else {}
    texts = {"parcels": canonical_json(names)}
    datasets = sorted({ticket["dataset"] for _, ticket, _ in found})
    estimators = {d: settings.section("parcellate", ParcellateConfig, d).fc_estimator for d in datasets}
    written: set[str] = set()
    with ExitStack() as stack:
        schema = tables.schema("timeseries", sizes=sizes, metadata=texts)
        series_out = stack.enter_context(shard_writer(out_series, schema, cfg.row_group_rows))
        schema = tables.schema("fc", sizes=sizes, metadata={**texts, "estimators": canonical_json(estimators)})
        fc_out = stack.enter_context(shard_writer(out_fc, schema, cfg.row_group_rows))
        for scan_id, ticket, entry in tqdm(found, desc="series", unit="scan", disable=None):
            path = bucket.path(entry["files"]["timeseries"])
            columns, series = read_timeseries(path)
            if columns != names:
                raise _mismatch(path, f"its parcels are not those of {found[0][0]}", "parcellate")
            base = common(bucket, scan_id, ticket)
            try:
                fc_out.add(fc_row(base, series, estimators[ticket["dataset"]]))
            except DataFault as fault:
                bucket.refuse(scan_id, fault)
                continue
            series_out.add(timeseries_row(base, series, float(entry["tr"])))
            written.add(scan_id)
    return len(names), written


def _write_flat_clips(bucket: Bucket, out: Path, cfg: ShardsConfig) -> dict[str, int]:
    """Write flat_clips; return the number of clips of every scan."""
    import numpy as np
    from tqdm import tqdm

    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.shards.build import clip_rows, common, encode_mask, entry_of
    from boldmill.shards.write import shard_writer

    found = [(s, t, e) for s, t, _ in bucket.usable() if (e := entry_of(bucket.flat, s)) is not None]
    texts: dict[str, str] = {"grid": canonical_json(bucket.flat.get("grid") or {})}
    mask = None
    if found:
        with np.load(bucket.results / found[0][2]["files"]["frames"], allow_pickle=False) as flat:
            mask = flat["mask"]
        texts["mask"] = encode_mask(mask)
    counts: dict[str, int] = {}
    with shard_writer(out, tables.schema("flat_clips", metadata=texts), cfg.row_group_rows) as writer:
        for scan_id, ticket, entry in tqdm(found, desc="flat clips", unit="scan", disable=None):
            path = bucket.path(entry["files"]["frames"])
            with np.load(path, allow_pickle=False) as archive:
                flat = {name: archive[name] for name in ("frames", "mean", "std", "mask", "tr")}
            if mask is None or not np.array_equal(flat["mask"], mask):
                raise _mismatch(path, f"its mask is not that of {found[0][0]}", "flatmap")
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
            for row in clip_rows(base, flat, length=cfg.clip_frames, stride=cfg.clip_stride):
                writer.add(row)
                counts[scan_id] += 1
    return counts


def _write_scans(
    bucket: Bucket, out: Path, cfg: ShardsConfig, clips: dict[str, int], series: set[str], parcels: int
) -> int:
    """Write scans; return the number of rows."""
    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.shards.build import morphometry_of, phenotype_descriptions, scan_row, subject_key
    from boldmill.shards.write import shard_writer

    scans = list(bucket.usable())
    features: dict[str, Any] = {
        key: morphometry_of(bucket, key) for key in sorted({subject_key(t) for _, t, _ in scans})
    }
    known = [found for _, found in sorted(features.items()) if found is not None]
    names = known[0][0] if known else []
    parcels = parcels or (len(known[0][1]) if known else 0)
    for key, found in features.items():
        if found is not None and (found[0] != names or len(found[1]) != parcels):
            raise _mismatch(
                key, f"its morphometry has {found[1].shape} values, others have {parcels} rows", "parcellate"
            )
    sizes = {"n_parcels": parcels, "n_features": tables.MORPHOMETRY_FEATURES} if parcels else {}
    texts = {"features": canonical_json(names), "phenotype_descriptions": phenotype_descriptions(bucket)}
    with shard_writer(out, tables.schema("scans", sizes=sizes, metadata=texts), cfg.row_group_rows) as writer:
        for scan_id, ticket, entry in scans:
            found = features[subject_key(ticket)]
            writer.add(
                scan_row(
                    bucket,
                    scan_id,
                    ticket,
                    entry,
                    has_timeseries=scan_id in series,
                    n_clips=clips.get(scan_id, 0),
                    morphometry=None if found is None else found[1],
                )
            )
    return len(scans)


def _mismatch(where: str | Path, why: str, stage: str) -> BoldmillError:
    return BoldmillError("inputs do not fit together", where, why, f"run the {stage} stage again for all scans")
