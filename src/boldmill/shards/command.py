r"""Write the Parquet shards of one bucket: scans, and timeseries and fc of every atlas.

The folder of a shard of timeseries or fc is the label of its atlas.

A scan that a stage quarantined is left out of the tables of that stage; a bucket without scans gives empty tables. A
scan with a fault found here (no FC from so few points) is left out of the table it concerns, with its reason in
`<out-scans>.quarantine.json` (suffix .parquet replaced).

Example
-------
boldmill shards --bucket 3 --tickets results/index/tickets/demo_sub-01_task-rest.json \
    --participants results/index/participants/bucket-003.json --subjects results/preprocess/demo/sub-01.json \
    --parcellated results/parcellate/bucket-003.json --clips results/shards/flat_clips/bucket-003.parquet \
    --results results --out-scans results/shards/scans/bucket-003.parquet \
    --out-timeseries results/shards/timeseries/Schaefer2018-100Parcels7Networks/bucket-003.parquet \
    --out-fc results/shards/fc/Schaefer2018-100Parcels7Networks/bucket-003.parquet --config-json "$(cat shards.json)"
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import EXIT_OK, DataFault

if TYPE_CHECKING:
    from boldmill.represent.config import ParcellateConfig
    from boldmill.shards.build import Bucket
    from boldmill.shards.config import ShardsConfig
    from boldmill.stages import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--bucket", type=int, required=True, help="number of the bucket")
    parser.add_argument(
        "--tickets", type=Path, nargs="*", default=[], help="tickets of the bucket's scans, or lists of them"
    )
    parser.add_argument("--participants", type=Path, required=True, help="phenotypes of the bucket's subjects")
    parser.add_argument("--subjects", type=Path, nargs="*", default=[], help="subject manifests, or lists")
    parser.add_argument("--parcellated", type=Path, required=True, help="manifest of the parcel series")
    parser.add_argument("--clips", type=Path, required=True, help="shard of the bucket's flat clips, to count them")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--out-scans", type=Path, required=True, help="shard to write: scans")
    for table in ("timeseries", "fc"):
        words = f"shards to write: {table}, one per atlas"
        parser.add_argument(f"--out-{table}", type=Path, nargs="+", required=True, help=words)
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the shards."""
    from boldmill.index.buckets import listed, steady
    from boldmill.provenance.record import Recorder
    from boldmill.shards.build import load_bucket, mismatch
    from boldmill.shards.clips_command import clip_counts
    from boldmill.shards.config import ShardsConfig
    from boldmill.shards.parcel_series import check_atlases
    from boldmill.shards.write import write_quarantine
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    cfg = settings.section("shards", ShardsConfig)
    manifests = [*args.tickets, args.participants, *args.subjects, args.parcellated, args.clips]
    index = [*args.tickets, args.participants]
    with Recorder(settings, out=args.out_scans, inputs=manifests) as record, steady(*index):
        tickets, subjects = listed(args.tickets, args.results), listed(args.subjects, args.results)
        for path in (*tickets, *subjects):
            record.add_input(path)
        bucket = load_bucket(
            number=args.bucket,
            results=args.results,
            tickets=tickets,
            participants=args.participants,
            subjects=subjects,
            parcellated=args.parcellated,
            clips=args.clips,
        )
        for digests in bucket.digests.values():
            digests[settings.stage] = settings.digest
        series_of = {path.parent.name: path for path in args.out_timeseries}
        fc_of = {path.parent.name: path for path in args.out_fc}
        if list(series_of) != list(fc_of):
            raise mismatch(args.out_scans, f"atlases {list(series_of)} and {list(fc_of)} of its tables", "shards")
        check_atlases(bucket.parcellated, [path.parent.name for path in args.out_timeseries], args.parcellated)
        atlases: dict[str, list[str]] = {}
        for label, path in series_of.items():
            for scan_id in _write_series(bucket, label, path, fc_of[label], cfg, settings):
                atlases.setdefault(scan_id, []).append(label)
        rows = _write_scans(bucket, args.out_scans, cfg, clip_counts(args.clips), atlases)
        record.add_output(write_quarantine(args.out_scans, settings.stage, bucket.faults))
        for path in bucket.read:
            record.add_input(path)
        for path in (*args.out_timeseries, *args.out_fc):
            record.add_output(path, own_record=True)
        record.note(bucket=args.bucket, scans=rows, quarantined=len(bucket.faults), atlases=list(series_of))
    return EXIT_OK


def _write_series(
    bucket: Bucket, atlas: str, out_series: Path, out_fc: Path, cfg: ShardsConfig, settings: Settings
) -> list[str]:
    """Write timeseries and fc of one atlas; return the scans written."""
    from tqdm import tqdm

    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.represent.config import ParcellateConfig
    from boldmill.represent.fc import n_edges
    from boldmill.shards.build import common, fc_row, mismatch, read_timeseries, timeseries_row
    from boldmill.shards.parcel_series import parcels_of, series_entry
    from boldmill.shards.write import shard_writer

    found = [(s, t, e) for s, t, _ in bucket.usable() if (e := series_entry(bucket.parcellated, s, atlas)) is not None]
    names = parcels_of(bucket.parcellated, atlas)
    sizes = {"n_parcels": len(names), "n_edges": n_edges(len(names))} if names else {}
    texts = {"atlas": atlas, "parcels": canonical_json(names)}
    datasets = sorted({ticket["dataset"] for _, ticket, _ in found})
    configs = {d: settings.section("parcellate", ParcellateConfig, d) for d in datasets}
    unit, fc_texts = fc_metadata(configs, settings.section("parcellate", ParcellateConfig))
    written: list[str] = []
    with ExitStack() as stack:
        schema = tables.schema("timeseries", sizes=sizes, metadata=texts)
        series_out = stack.enter_context(shard_writer(out_series, schema, cfg.row_group_rows))
        schema = tables.schema("fc", sizes=sizes, units={"values": unit}, metadata={**texts, **fc_texts})
        fc_out = stack.enter_context(shard_writer(out_fc, schema, cfg.row_group_rows))
        for scan_id, ticket, entry in tqdm(found, desc=atlas, unit="scan", disable=None):
            path = bucket.path(entry["timeseries"])
            columns, series = read_timeseries(path)
            if columns != names:
                raise mismatch(path, f"its parcels are not those of {atlas} in the manifest", "parcellate")
            base = common(bucket, scan_id, ticket)
            try:
                fc_out.add(fc_row(base, atlas, series, configs[ticket["dataset"]]))
            except DataFault as fault:
                bucket.refuse(scan_id, fault)
                continue
            series_out.add(timeseries_row(base, atlas, series, entry["tr"]))
            written.append(scan_id)
    return written


def fc_metadata(configs: Mapping[str, ParcellateConfig], default: ParcellateConfig) -> tuple[str, dict[str, str]]:
    """Return the unit of FC and the texts of its schema: estimator and Fisher z, by data set."""
    from boldmill.atomic import canonical_json
    from boldmill.represent.fc import UNITS

    units = [f"{'Fisher z of ' if c.fisher_z else ''}{UNITS[c.fc_estimator]}" for c in configs.values() or [default]]
    return " or ".join(dict.fromkeys(units)), {
        "estimators": canonical_json({name: c.fc_estimator for name, c in configs.items()}),
        "fisher_z": canonical_json({name: c.fisher_z for name, c in configs.items()}),
    }


def _write_scans(
    bucket: Bucket, out: Path, cfg: ShardsConfig, clips: dict[str, int], atlases: dict[str, list[str]]
) -> int:
    """Write scans; return the number of rows. Morphometry is of the first configured atlas."""
    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.shards.build import mismatch, morphometry_of, phenotype_descriptions, scan_row, subject_key
    from boldmill.shards.parcel_series import parcels_of
    from boldmill.shards.write import shard_writer

    scans = list(bucket.usable())
    features: dict[str, Any] = {
        key: morphometry_of(bucket, key) for key in sorted({subject_key(t) for _, t, _ in scans})
    }
    known = [found for _, found in sorted(features.items()) if found is not None]
    names = known[0][0] if known else []
    first = next(iter(bucket.parcellated.get("configured", [])), "")
    parcels = len(parcels_of(bucket.parcellated, first))
    for key, found in features.items():
        if found is not None and (found[0] != names or len(found[1]) != parcels):
            why = f"its morphometry has {found[1].shape} values, {first} has {parcels} parcels"
            raise mismatch(key, why, "parcellate")
    sizes = {"n_parcels": parcels, "n_features": tables.MORPHOMETRY_FEATURES} if parcels else {}
    texts = {
        "atlas": first,
        "features": canonical_json(names),
        "phenotype_descriptions": phenotype_descriptions(bucket),
    }
    with shard_writer(out, tables.schema("scans", sizes=sizes, metadata=texts), cfg.row_group_rows) as writer:
        for scan_id, ticket, entry in scans:
            found = features[subject_key(ticket)]
            writer.add(
                scan_row(
                    bucket,
                    scan_id,
                    ticket,
                    entry,
                    atlases=atlases.get(scan_id, []),
                    n_clips=clips.get(scan_id, 0),
                    morphometry=None if found is None else found[1],
                )
            )
    return len(scans)
