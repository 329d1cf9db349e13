r"""Write the pFC views of one bucket: FC of random subsets of the time points, one row per scan and view.

One shard per atlas, in a folder of its label; the views of a scan drop the same points in all of them. Row k of a scan
and view k made on the fly in training are the same network. A scan too short for the settings is quarantined: its
reason is in `<out>.quarantine.json` (suffix .parquet replaced) and in the metadata of the table.

Example
-------
boldmill augment --parcellated results/parcellate/bucket-003.json --results results \
    --tickets results/index/tickets/demo_sub-01_task-rest.json \
    --out results/shards/pfc/Schaefer2018-100Parcels7Networks/bucket-003.parquet --config-json "$(cat augment.json)"
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import EXIT_OK, BoldmillError, DataFault

if TYPE_CHECKING:
    from boldmill.paths import Layout
    from boldmill.provenance.record import Recorder
    from boldmill.represent.config import AugmentConfig
    from boldmill.stages import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--parcellated", type=Path, required=True, help="manifest of the bucket's parcel series")
    parser.add_argument("--tickets", type=Path, nargs="*", help="tickets, or lists (default: by scan)")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--out", type=Path, nargs="+", required=True, help="shards to write: pfc, one per atlas")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the shards and their quarantine lists."""
    from boldmill.atomic import read_json
    from boldmill.index.buckets import listed, steady
    from boldmill.paths import Layout
    from boldmill.provenance.record import Recorder
    from boldmill.represent.config import AugmentConfig
    from boldmill.represent.pfc import check_length
    from boldmill.shards.build import entry_of
    from boldmill.shards.lineage import check_tickets
    from boldmill.shards.parcel_series import check_atlases
    from boldmill.shards.write import write_quarantine
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    parcellated = read_json(args.parcellated)
    scans = {s: e for s in sorted(parcellated["scans"]) if (e := entry_of(parcellated, s)) is not None}
    layout = Layout.at(args.results)
    given = args.tickets or []
    check_atlases(parcellated, [path.parent.name for path in args.out], args.parcellated)
    with Recorder(settings, out=args.out[0], inputs=[args.parcellated, *given]) as record, steady(*given):
        tickets = [layout.ticket(s) for s in scans] if args.tickets is None else listed(given, args.results)
        for path in tickets:
            record.add_input(path)
        ticket_of = {t["scan_id"]: t for t in map(read_json, tickets)}
        if missing := sorted(scans.keys() - ticket_of.keys()):
            why = "the manifest of parcel series has it, no ticket does"
            raise BoldmillError("inputs do not fit together", missing[0], why, "name the tickets of all its scans")
        subjects = {layout.subject(t["dataset"], t["subject"]) for t in ticket_of.values()}
        check_tickets(tickets, [args.parcellated, *sorted(subjects)])
        names = sorted({ticket_of[scan_id]["dataset"] for scan_id in scans})
        configs = {name: settings.section("augment", AugmentConfig, name) for name in names}
        faults: dict[str, DataFault] = {}
        for scan_id, entry in scans.items():
            try:
                check_length(int(entry["n_volumes"]), configs[ticket_of[scan_id]["dataset"]], scan_id)
            except DataFault as fault:
                faults[scan_id] = fault
        ready = {scan_id: ticket_of[scan_id] for scan_id in scans if scan_id not in faults}
        bucket = Bucket(args.parcellated, parcellated, ready, ticket_of, layout)
        for out in args.out:
            _write_views(bucket, out, configs, faults, settings, record)
            record.add_output(write_quarantine(out, settings.stage, faults))
            record.add_output(out, own_record=out != args.out[0])
        record.note(scans=len(ready), quarantined=len(faults), seed=settings.seed)
    return EXIT_OK


@dataclass(frozen=True, slots=True)
class Bucket:
    """Parcel series of a bucket: the manifest, tickets of the scans that are long enough, and of all."""

    path: Path
    manifest: dict[str, Any]
    ready: dict[str, dict[str, Any]]
    tickets: dict[str, dict[str, Any]]
    layout: Layout

    def digests(self) -> dict[str, dict[str, str]]:
        """Return scan id -> stage -> digest of its settings."""
        from boldmill.shards.lineage import Lineage

        lineage = Lineage()
        subjects = {s: self.layout.subject(t["dataset"], t["subject"]) for s, t in self.tickets.items()}
        preprocessed = [subjects[s] for s, t in self.tickets.items() if t["kind"] != "table"]
        of_tables = lineage.digests(self.path, leave=preprocessed)
        return {
            scan_id: of_tables if ticket["kind"] == "table" else lineage.digests(self.path, subjects[scan_id])
            for scan_id, ticket in self.ready.items()
        }


def _write_views(
    bucket: Bucket,
    out: Path,
    configs: Mapping[str, AugmentConfig],
    faults: Mapping[str, DataFault],
    settings: Settings,
    record: Recorder,
) -> None:
    """Write the shard of one atlas."""
    import numpy as np
    from tqdm import tqdm

    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.represent.config import AugmentConfig
    from boldmill.represent.fc import n_edges
    from boldmill.represent.pfc import GENERATOR_VERSION, n_dropped, pfc_views
    from boldmill.shards.build import identity, read_timeseries
    from boldmill.shards.parcel_series import parcels_of, series_entry
    from boldmill.shards.write import quarantine_entries, shard_writer

    atlas = out.parent.name
    parcels = parcels_of(bucket.manifest, atlas)
    texts = {
        "atlas": atlas,
        "parcels": canonical_json(parcels),
        "estimator": "pearson",
        "settings": canonical_json({name: cfg.model_dump(mode="json") for name, cfg in configs.items()}),
        "seed": str(settings.seed),
        "generator_version": str(GENERATOR_VERSION),
        "quarantine": canonical_json(quarantine_entries(faults)),
    }
    dtype_name = settings.section("augment", AugmentConfig).dtype
    schema = tables.schema("pfc", dtypes={"values": dtype_name}, metadata=texts)
    dtype = tables.dtype_of(schema, "values")
    found = {s: e for s in bucket.ready if (e := series_entry(bucket.manifest, s, atlas)) is not None}
    digests = bucket.digests()
    with shard_writer(out, schema, 1 << 20) as writer:
        for scan_id, entry in tqdm(found.items(), desc=f"pFC {atlas}", unit="scan", disable=None):
            path = bucket.layout.results / entry["timeseries"]
            columns, series = read_timeseries(path)
            if columns != parcels:
                why = f"its parcels are not those of {atlas} in the manifest"
                raise BoldmillError("inputs do not fit together", path, why, "run the parcellate stage again")
            ticket = bucket.ready[scan_id]
            cfg = configs[ticket["dataset"]]
            record.add_input(path)
            views = pfc_views(series, scan_id, range(cfg.n_views), settings.seed, cfg)
            base = identity(scan_id, ticket, {**digests[scan_id], settings.stage: settings.digest})
            row = {**base, "atlas": atlas, "n_kept": len(series) - n_dropped(len(series), cfg.drop_rate)}
            for view, values in enumerate(np.ascontiguousarray(views, dtype=dtype)):
                writer.add({**row, "view": view, "n_edges": n_edges(len(parcels)), "values": values.tobytes()})
