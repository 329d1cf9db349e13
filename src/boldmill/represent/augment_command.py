r"""Write the pFC views of one bucket: FC of random subsets of the time points, one row per scan and view.

Row k of a scan and view k made on the fly in training are the same network. A scan too short for the settings is
quarantined: its reason is in `<out>.quarantine.json` (suffix .parquet replaced) and in the metadata of the table.

Example
-------
boldmill augment --parcellated results/parcellate/bucket-003.json --results results \
    --tickets results/index/tickets/demo_sub-01_task-rest.json \
    --out results/shards/pfc/bucket-003.parquet --config-json "$(cat augment.json)"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from boldmill.errors import EXIT_OK, BoldmillError, DataFault


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--parcellated", type=Path, required=True, help="manifest of the bucket's parcel series")
    parser.add_argument("--tickets", type=Path, nargs="*", help="tickets; found below --results when not given")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--out", type=Path, required=True, help="shard to write: pfc")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the shard and its quarantine list."""
    import numpy as np
    from tqdm import tqdm

    from boldmill import tables
    from boldmill.atomic import canonical_json, read_json
    from boldmill.paths import Layout
    from boldmill.provenance.record import Recorder
    from boldmill.represent.config import AugmentConfig
    from boldmill.represent.fc import n_edges
    from boldmill.represent.pfc import GENERATOR_VERSION, check_length, n_dropped, pfc_views
    from boldmill.shards.build import entry_of, identity, read_timeseries
    from boldmill.shards.lineage import Lineage
    from boldmill.shards.write import quarantine_entries, shard_writer, write_quarantine
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    dtype_name = settings.section("augment", AugmentConfig).dtype
    parcellated = read_json(args.parcellated)
    scans = {s: e for s in sorted(parcellated["scans"]) if (e := entry_of(parcellated, s)) is not None}
    layout = Layout.at(args.results)
    tickets = [layout.ticket(scan_id) for scan_id in scans] if args.tickets is None else args.tickets
    with Recorder(settings, out=args.out, inputs=[args.parcellated, *tickets]) as record:
        ticket_of = {t["scan_id"]: t for t in map(read_json, tickets)}
        names = sorted({ticket_of[scan_id]["dataset"] for scan_id in scans})
        configs = {name: settings.section("augment", AugmentConfig, name) for name in names}
        lineage = Lineage()
        faults: dict[str, DataFault] = {}
        ready = {}
        for scan_id, entry in scans.items():
            try:
                check_length(int(entry["n_volumes"]), configs[ticket_of[scan_id]["dataset"]], scan_id)
                ready[scan_id] = args.results / entry["files"]["timeseries"]
            except DataFault as fault:
                faults[scan_id] = fault
        parcels = read_timeseries(next(iter(ready.values())))[0] if ready else []
        edges = n_edges(len(parcels))
        texts = {
            "parcels": canonical_json(parcels),
            "estimator": "pearson",
            "settings": canonical_json({name: cfg.model_dump(mode="json") for name, cfg in configs.items()}),
            "seed": str(settings.seed),
            "generator_version": str(GENERATOR_VERSION),
            "quarantine": canonical_json(quarantine_entries(faults)),
        }
        schema = tables.schema("pfc", dtypes={"values": dtype_name}, metadata=texts)
        dtype = tables.dtype_of(schema, "values")
        with shard_writer(args.out, schema, 1 << 20) as writer:
            for scan_id, path in tqdm(ready.items(), desc="pFC", unit="scan", disable=None):
                columns, series = read_timeseries(path)
                if columns != parcels:
                    why = "its parcels are not those of the first scan"
                    raise BoldmillError("inputs do not fit together", path, why, "run the parcellate stage again")
                ticket = ticket_of[scan_id]
                cfg = configs[ticket["dataset"]]
                record.add_input(path)
                views = pfc_views(series, scan_id, range(cfg.n_views), settings.seed, cfg)
                digests = lineage.digests(args.parcellated, layout.subject(ticket["dataset"], ticket["subject"]))
                base = identity(scan_id, ticket, {**digests, settings.stage: settings.digest})
                kept = len(series) - n_dropped(len(series), cfg.drop_rate)
                for view, values in enumerate(np.ascontiguousarray(views, dtype=dtype)):
                    writer.add({**base, "view": view, "n_kept": kept, "n_edges": edges, "values": values.tobytes()})
        record.add_output(write_quarantine(args.out, settings.stage, faults))
        record.note(scans=len(ready), quarantined=len(faults), seed=settings.seed)
    return EXIT_OK
