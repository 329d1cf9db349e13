r"""Parcel time series, coverage and T1w morphometry of one bucket's subjects.

Example
-------
boldmill parcellate --subjects results/preprocess/demo/sub-01.json --operators results/operators/parcels-LABEL.json \
    --results results --out results/parcellate/bucket-000.json --config-json "$JSON"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boldmill.provenance.record import Recorder
    from boldmill.represent.bucket import Bench


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boldmill parcellate`."""
    parser.add_argument("--subjects", type=Path, nargs="*", default=[], help="subject manifests of the bucket")
    parser.add_argument("--operators", type=Path, nargs="*", default=[], help="manifests of parcels, one per atlas")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--out", type=Path, required=True, help="bucket manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of stage `parcellate` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Parcellate every good scan of the bucket; a scan with a fault of its own is quarantined."""
    from tqdm import tqdm

    from boldmill.atomic import read_json, write_json
    from boldmill.errors import DataFault
    from boldmill.provenance.record import Recorder
    from boldmill.represent.bucket import Bench, quarantined, series_of
    from boldmill.represent.config import ParcellateConfig
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    scans: dict[str, Any] = {}
    subjects: dict[str, Any] = {}
    with Recorder(settings, out=args.out, inputs=args.subjects) as record:
        bench = Bench(args.operators, args.results, record)
        for path in tqdm(sorted(args.subjects), desc="parcellate", unit="subject", disable=None):
            subject = read_json(path)
            config = settings.section("parcellate", ParcellateConfig, subject["dataset"])
            for scan_id, scan in series_of(subject, parcels=True):
                try:
                    scans[scan_id] = _one_scan(bench, record, subject["dataset"], scan_id, scan, config.min_coverage)
                except DataFault as fault:
                    scans[scan_id] = quarantined("parcellate", fault)
            subjects[f"{subject['dataset']}/{subject['subject']}"] = _one_subject(bench, record, subject)
        write_json(
            args.out, {"schema": 1, "atlas": bench.atlas_name(bench.atlases[0]), "scans": scans, "subjects": subjects}
        )
    bad = sum(s["status"] != "ok" for s in scans.values())
    print(f"parcellate: {len(scans) - bad} scans of {len(subjects)} subjects, {bad} quarantined")
    return 0


def _one_scan(
    bench: Bench, record: Recorder, dataset: str, scan_id: str, scan: dict[str, Any], min_coverage: float
) -> dict[str, Any]:
    import numpy as np

    from boldmill.atomic import write_text
    from boldmill.represent.parcellate import given_coverage, parcel_series, rows_tsv, series_tsv

    label = bench.atlases[0]
    names = bench.parcels(label)
    flags: list[str] = []
    if scan["kind"] == "parcels":
        values, matched = bench.given(label, scan_id, scan)
        found = given_coverage(values, scan_id)
        flags.append(f"parcels of {scan['layout']} taken {matched.how}")
        if matched.dropped:
            flags.append(f"{matched.dropped} given columns are no parcels of the atlas: dropped")
    else:
        series = bench.open(scan)
        found = parcel_series(bench.membership(label, scan["kind"], scan.get("space", "")), series, min_coverage)
    folder = Path("parcellate") / dataset
    files = {
        "timeseries": (folder / f"{scan_id}_timeseries.tsv", series_tsv(names, found.values)),
        "coverage": (
            folder / f"{scan_id}_coverage.tsv",
            rows_tsv("parcel", names, ["coverage"], found.coverage[:, None]),
        ),
    }
    for relative, text in files.values():
        record.add_output(write_text(bench.results / relative, text))
    empty = np.isnan(found.values).all(0)
    spread = found.values[:, ~empty].std(0)
    return {
        "status": "ok",
        "kind": scan["kind"],
        "tr": scan["tr"],
        "n_volumes": int(found.values.shape[0]),
        "files": {key: relative.as_posix() for key, (relative, _) in files.items()},
        "qc": {
            "n_parcels": int((~empty).sum()),
            "n_parcels_missing": int(empty.sum()),
            "n_parcels_constant": int((spread == 0).sum()),
            "coverage_min": round(float(found.coverage.min()), 4),
            "coverage_mean": round(float(found.coverage.mean()), 4),
        },
        **({"flags": flags} if flags else {}),
    }


def _one_subject(bench: Bench, record: Recorder, subject: dict[str, Any]) -> dict[str, Any]:
    """Write the morphometry table of one subject; without a good T1w there is none, and the reason is kept."""
    from boldmill.atomic import write_text
    from boldmill.errors import DataFault
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
    return {"morphometry": relative.as_posix()}
