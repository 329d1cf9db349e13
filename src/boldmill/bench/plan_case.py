"""A large study that does not exist: the index of its scans, and all that Snakemake reads of it before a job runs.

Counter-based random numbers keyed by data set and subject, so that the same number of scans is always the same study.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import sha256_text, write_text
from boldmill.config.load import parse
from boldmill.index.buckets import write_bucket_lists
from boldmill.index.read import TABLE, ScanRow, settings_digest
from boldmill.index.write import json_text, write_index
from boldmill.paths import Layout
from boldmill.rng import bucket_of
from boldmill.setup.init import buckets_for
from boldmill.stages import stage_json

DATASETS = 30
TABLE_SETS = 3
"""The last data sets of a study are tables of parcel series; all others are images."""


def study(n_scans: int, n_buckets: int | None = None, datasets: int = DATASETS) -> dict[str, Any]:
    """Return the configuration of a study of about 64 scans per bucket."""
    names = [f"set{number:02d}" for number in range(datasets)]
    tables = set(names[datasets - min(TABLE_SETS, datasets - 1) :])
    entries: list[dict[str, Any]] = [
        {"name": name, "root": f"/data/{name}"} | ({"kind": "tables", "atlas": "HO111"} if name in tables else {})
        for name in names
    ]
    entries[1 % datasets]["overrides"] = {"clean": {"compcor": 3}}
    return {
        "project": "large",
        "datasets": entries,
        "shards": {"n_buckets": n_buckets or buckets_for(n_scans)},
        "evaluate": {"tasks": [{"name": "group", "column": "group"}]},
    }


def scans(config: dict[str, Any], n_scans: int) -> list[ScanRow]:
    """Return the rows of the index: 1 or 2 sessions, 1 to 4 runs each, some T1w alone, some quarantined."""
    rows: list[ScanRow] = []
    entries, n_buckets = config["datasets"], config["shards"]["n_buckets"]
    for number, entry in enumerate(entries):
        wanted = n_scans * (number + 1) // len(entries) - n_scans * number // len(entries)
        rng = np.random.default_rng([20261120, number])
        made: list[ScanRow] = []
        person = 0
        while len(made) < wanted:
            subject = f"{number:02d}{person:05d}"
            bucket = bucket_of(entry["name"], subject, n_buckets)
            made += _person(entry, subject, bucket, rng)
            person += 1
        rows += made[:wanted]
    return sorted(rows, key=lambda row: row.scan_id)


def _person(entry: dict[str, Any], subject: str, bucket: int, rng: np.random.Generator) -> Iterator[ScanRow]:
    name, kind = entry["name"], entry.get("kind", "volume")
    if kind == "tables":
        yield _row(name, subject, bucket, "", "", TABLE, int(rng.integers(100, 300)))
        return
    if rng.random() < 0.05:
        yield _row(name, subject, bucket, "", "", "anat", None)
        return
    for session in ("1", "2")[: 1 + int(rng.random() < 0.2)]:
        volumes = int(rng.integers(120, 600))
        for run in range(1, 1 + int(rng.integers(1, 5))):
            yield _row(name, subject, bucket, session, str(run), "volume", volumes, ok=bool(rng.random() > 0.01))


def _row(
    dataset: str, subject: str, bucket: int, session: str, run: str, kind: str, volumes: int | None, ok: bool = True
) -> ScanRow:
    task = "" if kind == "anat" else "rest"
    parts = [dataset, f"sub-{subject}", f"ses-{session}" if session else "", f"task-{task}" if task else ""]
    scan_id = "_".join(filter(None, [*parts, f"run-{run}" if run else ""]))
    return ScanRow(
        scan_id=scan_id, dataset=dataset, subject=subject, session=session, task=task, run=run, kind=kind,
        status="ok" if ok else "quarantined", bucket=bucket, site=dataset, licence="CC0", tr=2.0 if volumes else None,
        n_volumes=volumes, has_t1w=kind != TABLE, ticket=f"index/tickets/{scan_id}.json" if ok else "",
        ticket_sha256=sha256_text(scan_id) if ok else "", reason="" if ok else "no repetition time",
        fix="" if ok else "add RepetitionTime", flags="",
    )  # fmt: skip


def write_study(folder: Path, config: dict[str, Any], n_scans: int) -> list[ScanRow]:
    """Write configuration, index, lists of buckets and phenotypes below ``folder``; return the rows of the index."""
    import yaml

    parsed = parse(config)
    layout = Layout.at(folder / parsed.results)
    rows = scans(config, n_scans)
    write_text(folder / "config.yaml", yaml.safe_dump(config))
    write_index(layout.index, rows, settings_digest(stage_json(parsed, "ingest")), parsed.shards.n_buckets)
    write_text(layout.index_quarantine, "scan_id\n")
    write_bucket_lists(layout, rows)
    for bucket in sorted({row.bucket for row in rows if row.ok}):
        write_text(layout.participants(bucket), json_text({"subjects": {}}))
    return rows
