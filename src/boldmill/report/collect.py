"""Gather what the report shows from manifests and tables; nothing is computed here but summaries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.index.quarantine import BUCKET_MANIFESTS
from boldmill.index.read import TABLE, Index, ScanRow, read_index
from boldmill.paths import MODELS, ROLLING, Layout
from boldmill.provenance.withdrawn import marked
from boldmill.report.results import Results, read_results
from boldmill.shards.staleness import staleness
from boldmill.train.checkpoint import CONFIG, HISTORY, size_note

QC_COLUMNS = ("mean_fd", "max_fd", "mean_dvars", "tsnr", "residual_dof", "bbr_cost", "coverage")
"""Quality numbers shown in the scan table, where a scan has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One scan as the report shows it: identity, numbers, warnings and where its pictures come from."""

    scan_id: str
    dataset: str
    subject: str
    kind: str
    site: str
    tr: float | None
    n_volumes: int | None
    qc: dict[str, Any]
    flags: list[str]
    files: dict[str, Path]
    anat: dict[str, Path]
    anat_qc: dict[str, Any]
    timeseries: Path | None
    still: Path | None
    movie: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Everything the page needs.

    ``newer`` says that shards are newer than the snapshot, ``small`` models show no science, ``withdrawn`` says which
    models knew people who withdrew consent since, ``read`` names the files.
    """

    scans: list[Scan]
    quarantine: list[dict[str, Any]]
    cohort: list[dict[str, Any]]
    sources: dict[str, Any]
    snapshot: dict[str, Any]
    newer: str
    results: Results = field(default_factory=Results)
    history: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    small: list[str] = field(default_factory=list)
    withdrawn: dict[str, str] = field(default_factory=dict)
    read: list[Path] = field(default_factory=list)


def collect(results: Path, snapshot: Path) -> Collected:
    """Read index, manifests, metrics and training histories below a results folder."""
    from boldmill.index.quarantine import collect_quarantine

    layout = Layout.at(results)
    index = read_index(results)
    parcels = [layout.parcellated(bucket) for bucket in index.buckets()]
    flats = [layout.flat(bucket) for bucket in index.preprocessed_buckets()]
    series = [read_json(path) for path in parcels]
    parcellated, flat = _by_scan(results, series), _by_scan(results, map(read_json, flats))
    subjects = [layout.subject(dataset, subject) for dataset, subject in index.subjects()]
    scans = [scan for path in subjects for scan in _subject(results, path, index, parcellated, flat)]
    scans += _tables(series, index, parcellated)
    found = {
        "template": layout.template,
        **{f"atlas {path.parent.name}": path for path in sorted(results.glob("atlas/*/atlas.json"))},
        **{
            f"operators {path.stem}": path
            for path in sorted(results.glob("operators/*.json"))
            if ".prov" not in path.name
        },
    }
    sources = {name: path for name, path in found.items() if path.is_file()}
    models = [model for model in MODELS if layout.checkpoint(model).with_name(HISTORY).exists()]
    results_found = read_results(layout)
    beside = [layout.checkpoint(model).with_name(name) for model in models for name in (HISTORY, CONFIG)]
    refused = [layout.index_quarantine]
    lists = [BUCKET_MANIFESTS[stage] for stage in ("clips", "augment", "shards")]
    refused += [path for pattern in lists for path in sorted(results.glob(pattern))]
    read = [
        snapshot,
        layout.snapshot(ROLLING),
        layout.index,
        *subjects,
        *parcels,
        *flats,
        *sources.values(),
        *results_found.read,
        *beside,
        *refused,
    ]
    return Collected(
        scans=sorted(scans, key=lambda scan: scan.scan_id),
        quarantine=[row._asdict() for row in collect_quarantine(results)],
        cohort=cohort_table(index),
        sources={name: read_json(path) for name, path in sources.items()},
        snapshot=read_json(snapshot),
        newer=staleness(results, snapshot.parent.name),
        results=results_found,
        history={model: read_history(layout.checkpoint(model).with_name(HISTORY)) for model in models},
        small=[model for model in models if size_note(layout.checkpoint(model))],
        withdrawn=marked(results),
        read=list(dict.fromkeys(path for path in read if path.exists())),
    )


def picture_sources(scan: Scan, *, movie: bool) -> dict[str, Path]:
    """Return the files the pictures of a scan are made from, by what they are."""
    named = {
        **{name: scan.anat.get(name) for name in ("t1w_template", "brain_mask", "gm")},
        **{name: scan.files.get(name) for name in ("boldref", "confounds")},
        "timeseries": scan.timeseries,
        "still": scan.still,
        "movie": scan.movie if movie else None,
    }
    return {name: path for name, path in named.items() if path is not None and path.exists()}


def cohort_table(index: Index) -> list[dict[str, Any]]:
    """Return one row per data set and site: subjects, scans, quarantined scans, repetition times."""
    rows = []
    groups: dict[tuple[str, str], list[ScanRow]] = {}
    for scan in index.scans:
        groups.setdefault((scan.dataset, scan.site), []).append(scan)
    for (dataset, site), here in sorted(groups.items()):
        kinds = Counter(scan.kind for scan in here if scan.ok)
        rows.append(
            {
                "data set": dataset,
                "site": site or "n/a",
                "subjects": len({scan.subject for scan in here if scan.ok}),
                "scans": sum(kinds.values()),
                "kinds": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
                "TR (s)": ", ".join(sorted({f"{scan.tr:g}" for scan in here if scan.ok and scan.tr})),
                "volumes": _range([scan.n_volumes for scan in here if scan.ok and scan.n_volumes]),
                "refused at ingest": len(here) - sum(kinds.values()),
                "licence": ", ".join(sorted({scan.licence for scan in here if scan.licence})) or "n/a",
            }
        )
    return rows


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a training history."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _range(values: list[int]) -> str:
    if not values:
        return "n/a"
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _by_scan(results: Path, manifests: Iterable[dict[str, Any]]) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for content in manifests:
        for scan_id, scan in content["scans"].items():
            if scan["status"] == "ok":
                files = _files(scan, content.get("configured") or [])
                found[scan_id] = {name: results / path for name, path in files.items() if path}
    return found


def _files(scan: dict[str, Any], configured: list[str]) -> dict[str, Any]:
    """Return the files of a scan; of parcel series, those of the first atlas that has them."""
    atlases = scan.get("atlases") or {}
    good = [label for label in (*configured, *sorted(atlases)) if atlases.get(label, {}).get("status") == "ok"]
    files: dict[str, Any] = atlases[good[0]]["files"] if good else scan.get("files") or {}
    return files


def _tables(manifests: list[dict[str, Any]], index: Index, parcellated: dict[str, dict[str, Path]]) -> list[Scan]:
    """Return the tables of parcel series: they have no subject manifest and no picture but their series."""
    rows = {scan.scan_id: scan for scan in index.ok if scan.kind == TABLE}
    if not rows:
        return []
    entries = {scan_id: entry for content in manifests for scan_id, entry in content["scans"].items()}
    return [
        Scan(
            scan_id=scan_id,
            dataset=row.dataset,
            subject=row.subject,
            kind=row.kind,
            site=row.site,
            tr=row.tr,
            n_volumes=row.n_volumes,
            qc=entries[scan_id]["qc"],
            flags=list(entries[scan_id]["flags"]),
            files={},
            anat={},
            anat_qc={},
            timeseries=parcellated[scan_id].get("timeseries"),
            still=None,
            movie=None,
        )
        for scan_id, row in rows.items()
        if scan_id in parcellated
    ]


def _subject(
    results: Path,
    manifest: Path,
    index: Index,
    parcellated: dict[str, dict[str, Path]],
    flat: dict[str, dict[str, Path]],
) -> list[Scan]:
    subject = read_json(manifest)
    rows = {scan.scan_id: scan for scan in index.scans_of(subject["dataset"], subject["subject"])}
    anat = subject["anat"]
    anat_files = {name: results / path for name, path in anat.get("files", {}).items() if isinstance(path, str)}
    scans = []
    for scan_id, scan in subject["scans"].items():
        if scan["status"] != "ok" or scan_id not in rows:
            continue
        scans.append(
            Scan(
                scan_id=scan_id,
                dataset=subject["dataset"],
                subject=subject["subject"],
                kind=scan["kind"],
                site=rows[scan_id].site,
                tr=scan.get("tr"),
                n_volumes=scan.get("n_volumes"),
                qc=scan.get("qc", {}),
                flags=[*anat.get("flags", []), *scan.get("flags", [])],
                files={name: results / path for name, path in scan["files"].items() if isinstance(path, str)},
                anat=anat_files if anat.get("status") == "ok" else {},
                anat_qc=anat.get("qc", {}),
                timeseries=parcellated.get(scan_id, {}).get("timeseries"),
                still=flat.get(scan_id, {}).get("still"),
                movie=flat.get(scan_id, {}).get("movie"),
            )
        )
    return scans
