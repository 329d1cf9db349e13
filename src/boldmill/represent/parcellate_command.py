r"""Parcel time series of every configured atlas, coverage and T1w morphometry of one bucket's subjects.

The cleaned series of a scan is opened and read once, whatever the number of atlases; a scan that does not suit one
atlas goes on with the others. Tables of parcel series (data sets of kind `tables`) enter here, by their tickets.

Example
-------
boldmill parcellate --subjects results/preprocess/demo/sub-01.json --operators results/operators/parcels-LABEL.json \
    --results results --out results/parcellate/bucket-000.json --config-json "$JSON"
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import ConfigError, DataFault

if TYPE_CHECKING:
    from boldmill.provenance.record import Recorder
    from boldmill.represent.bucket import Bench
    from boldmill.represent.parcellate import ParcelSeries

SCHEMA = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boldmill parcellate`."""
    parser.add_argument("--subjects", type=Path, nargs="*", default=[], help="subject manifests, or lists of them")
    parser.add_argument(
        "--tables", type=Path, nargs="*", default=[], help="tickets of tables of parcel series, or lists"
    )
    own = "none where all scans are tables of atlases of their own"
    parser.add_argument(
        "--operators", type=Path, nargs="*", default=[], help=f"manifests of parcels, one per atlas; {own}"
    )
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--out", type=Path, required=True, help="bucket manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of stage `parcellate` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Parcellate every good scan of the bucket; a scan with a fault of its own is quarantined."""
    from tqdm import tqdm

    from boldmill.atomic import read_json, write_json
    from boldmill.index.buckets import listed, steady
    from boldmill.provenance.record import Recorder
    from boldmill.represent.bucket import Bench, quarantined, series_of
    from boldmill.represent.config import ParcellateConfig
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    scans: dict[str, Any] = {}
    subjects: dict[str, Any] = {}
    with Recorder(settings, out=args.out, inputs=[*args.subjects, *args.tables]) as record, steady(*args.tables):
        manifests, tickets = listed(args.subjects, args.results), listed(args.tables, args.results)
        for path in (*manifests, *tickets):
            record.add_input(path)
        bench = Bench(args.operators, args.results, record)
        atlases: dict[str, dict[str, Any]] = {
            label: {"name": bench.atlas_name(label), "parcels": bench.parcels(label)} for label in bench.atlases
        }
        for path in tqdm(sorted(manifests), desc="parcellate", unit="subject", disable=None):
            subject = read_json(path)
            config = settings.section("parcellate", ParcellateConfig, subject["dataset"])
            for scan_id, scan in series_of(subject, parcels=True):
                try:
                    scans[scan_id] = _one_scan(bench, record, subject["dataset"], scan_id, scan, config.min_coverage)
                except DataFault as fault:
                    scans[scan_id] = quarantined("parcellate", fault)
            subjects[f"{subject['dataset']}/{subject['subject']}"] = _one_subject(bench, record, subject)
        for path in tqdm(sorted(tickets), desc="tables", unit="scan", disable=None):
            ticket = read_json(path)
            try:
                scans[ticket["scan_id"]] = _one_table(bench, record, ticket, atlases)
            except DataFault as fault:
                scans[ticket["scan_id"]] = {"kind": "table", **quarantined("parcellate", fault)}
        content = {"schema": SCHEMA, "configured": bench.atlases, "atlases": atlases}
        write_json(args.out, {**content, "scans": scans, "subjects": subjects})
    bad = sum(s["status"] != "ok" for s in scans.values())
    print(f"parcellate: {len(scans) - bad} scans, {bad} quarantined, {len(subjects)} subjects, {len(atlases)} atlases")
    return 0


def _one_scan(
    bench: Bench, record: Recorder, dataset: str, scan_id: str, scan: dict[str, Any], min_coverage: float
) -> dict[str, Any]:
    from boldmill.represent.parcellate import all_parcel_series, given_coverage

    found: dict[str, ParcelSeries | DataFault] = {}
    flags: list[str] = []
    if scan["kind"] == "parcels":
        for label in bench.atlases:
            try:
                values, matched = bench.given(label, scan_id, scan)
                found[label] = given_coverage(values, scan_id)
                flags += _matched(label, f"parcels of {scan['layout']}", matched.how, matched.dropped)
            except DataFault as fault:
                found[label] = fault
    else:
        space = scan.get("space", "")
        operators = {label: bench.membership(label, scan["kind"], space) for label in bench.atlases}
        found = dict(all_parcel_series(operators, bench.open(scan), min_coverage))
    names = {label: bench.parcels(label) for label in found}
    return _entry(bench.results, record, dataset, scan_id, names, found, kind=scan["kind"], tr=scan["tr"], flags=flags)


def _one_table(
    bench: Bench, record: Recorder, ticket: dict[str, Any], atlases: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Take a table of parcel series: its columns are matched to the configured atlases, or are an atlas of their own.

    The parcels of an atlas that only tables bring are those of the first such table; they are added to ``atlases``.
    Columns without names are those of a configured atlas, in its order, where the data set names that atlas.
    """
    from boldmill.provenance.record import member_path
    from boldmill.represent.given_parcels import match, unnamed
    from boldmill.represent.parcellate import given_coverage
    from boldmill.represent.table_series import table_series

    scan_id, own = ticket["scan_id"], ticket["atlas"]
    columns, values = table_series(ticket)
    for item in ticket["series"]:
        known = {key: item[key] for key in ("size", "sha256")}
        record.add_input(member_path(Path(ticket["root"]) / item["path"], item["member"]), known)
    if not own and not bench.atlases:
        raise ConfigError(
            "no operators", "--operators", f"{scan_id} is of no atlas of its own", "give those of an atlas"
        )
    found: dict[str, ParcelSeries | DataFault] = {}
    flags: list[str] = [*ticket["flags"]]
    if not own or own in bench.atlases:
        for label in [own] if own else bench.atlases:
            try:
                parcels, name = bench.parcels(label), bench.atlas_name(label)
                if ticket["columns"]["named"]:
                    matched = match(columns, ticket["atlas_name"], parcels, name, scan_id)
                else:
                    matched = unnamed(len(columns), ticket["atlas_name"], parcels, name, scan_id)
                found[label] = given_coverage(values[:, matched.columns], scan_id)
                flags += _matched(label, "columns of the table", matched.how, matched.dropped)
            except DataFault as fault:
                found[label] = fault
    else:
        given = given_coverage(values, scan_id)
        first = atlases.setdefault(own, {"name": ticket["atlas_name"], "parcels": columns})
        if first["parcels"] != columns:
            why = f"its {len(columns)} columns are not the {len(first['parcels'])} of the first table of {own}"
            raise DataFault("another atlas", scan_id, why, "give the data set its own datasets[].atlas")
        found[own] = given
    names = {label: atlases[label]["parcels"] for label in found}
    tr = ticket["tr"]
    return _entry(bench.results, record, ticket["dataset"], scan_id, names, found, kind="table", tr=tr, flags=flags)


def _matched(label: str, what: str, how: str, dropped: int) -> list[str]:
    flags = [f"{what} taken {how} as {label}"]
    return [*flags, f"{dropped} given columns are no parcels of {label}: dropped"] if dropped else flags


def _entry(
    results: Path,
    record: Recorder,
    dataset: str,
    scan_id: str,
    names: Mapping[str, list[str]],
    found: Mapping[str, ParcelSeries | DataFault],
    *,
    kind: str,
    tr: float | None,
    flags: list[str],
) -> dict[str, Any]:
    """Write the tables of every atlas and return the entry of the scan; without any good atlas it is quarantined."""
    from boldmill.represent.bucket import quarantined

    atlases = {
        label: quarantined("parcellate", series)
        if isinstance(series, DataFault)
        else _write(results, record, dataset, scan_id, label, names[label], series)
        for label, series in found.items()
    }
    good = [label for label in found if atlases[label]["status"] == "ok"]
    if not good:
        first = atlases[next(iter(found))]
        said = first["reason"] if len(found) == 1 else "; ".join(f"{k}: {a['reason']}" for k, a in atlases.items())
        return {**first, "kind": kind, "reason": said, "atlases": atlases}
    return {
        "status": "ok",
        "kind": kind,
        "tr": tr,
        "n_volumes": next(len(s.values) for s in found.values() if not isinstance(s, DataFault)),
        "atlases": atlases,
        "qc": atlases[good[0]]["qc"],
        "flags": flags,
    }


def _write(
    results: Path, record: Recorder, dataset: str, scan_id: str, label: str, names: list[str], series: ParcelSeries
) -> dict[str, Any]:
    import numpy as np

    from boldmill.atomic import sha256_text, write_text
    from boldmill.represent.parcellate import rows_tsv, series_tsv

    stem = Path("parcellate") / dataset / f"{scan_id}_atlas-{label.replace('-', '')}"  # a BIDS value has no dash
    texts = {
        "timeseries": series_tsv(names, series.values),
        "coverage": rows_tsv("parcel", names, ["coverage"], series.coverage[:, None]),
    }
    files = {key: f"{stem.as_posix()}_{key}.tsv" for key in texts}
    for key, text in texts.items():
        record.add_output(write_text(results / files[key], text))
    empty = np.isnan(series.values).all(0)
    spread = series.values[:, ~empty].std(0)
    return {
        "status": "ok",
        "files": files,
        "sha256": {key: sha256_text(text) for key, text in texts.items()},  # other series, another manifest
        "qc": {
            "n_parcels": int((~empty).sum()),
            "n_parcels_missing": int(empty.sum()),
            "n_parcels_constant": int((spread == 0).sum()),
            "coverage_min": round(float(series.coverage.min()), 4),
            "coverage_mean": round(float(series.coverage.mean()), 4),
        },
    }


def _one_subject(bench: Bench, record: Recorder, subject: dict[str, Any]) -> dict[str, Any]:
    """Write the morphometry table of one subject; without a good T1w there is none, and the reason is kept."""
    from boldmill.atomic import sha256_text, write_text
    from boldmill.represent.morphometry import FEATURES, morphometry
    from boldmill.represent.parcellate import rows_tsv

    anat = subject["anat"]
    if anat["status"] != "ok":
        return {"morphometry": None, "reason": anat.get("reason") or f"T1w {anat['status']}"}
    try:
        images = bench.anatomy(anat["files"])
        label = bench.atlases[0]
        table = morphometry(bench.membership(label), images, bench.voxel_volume)
    except DataFault as fault:
        return {"morphometry": None, "reason": fault.why, "fix": fault.fix}
    relative = Path("parcellate") / subject["dataset"] / f"sub-{subject['subject']}_morphometry.tsv"
    text = rows_tsv("parcel", bench.parcels(label), list(FEATURES), table)
    record.add_output(write_text(bench.results / relative, text))
    return {"morphometry": relative.as_posix(), "sha256": sha256_text(text)}
