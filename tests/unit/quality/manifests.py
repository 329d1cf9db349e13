"""A generated cohort as ingest, preprocess and parcellate leave it: manifests with quality figures, no images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import write_json
from boldmill.rng import generator

SITES = {"north": (0.12, 62.0), "south": (0.18, 55.0), "east": (0.15, 48.0)}
"""Site -> (mean FD, tSNR): sites differ, as scanners do."""


def run_figures(rng: np.random.Generator, site: str) -> dict[str, Any]:
    fd, tsnr = SITES[site]
    motion = fd * float(np.exp(0.45 * rng.standard_normal()))
    censored = float(np.clip(0.9 * (motion - 0.15), 0, 0.9))
    return {
        "mean_fd": motion,
        "max_fd": motion * 6,
        "censored_share": censored,
        "minutes_kept": 8 * (1 - censored),
        "mean_dvars": 180 + 300 * motion + 8 * float(rng.standard_normal()),
        "mean_std_dvars": 1 + 0.1 * float(rng.standard_normal()),
        "tsnr": tsnr - 40 * motion + 3 * float(rng.standard_normal()),
        "gcor": 0.04 + 0.1 * motion + 0.01 * float(rng.standard_normal()),
        "residual_dof": 40 + int(rng.integers(0, 8)),
        "coverage": 1 - 0.02 * float(rng.exponential()),
        "coreg_dice": 0.93 + 0.01 * float(rng.standard_normal()),
        "efc": 0.55 + 0.02 * float(rng.standard_normal()),
        "coreg_method": "bbr",
    }


def t1w_figures(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "template_mask_dice": 0.985 + 0.003 * float(rng.standard_normal()),
        "cnr": 3.4 + 0.3 * float(rng.standard_normal()),
        "cjv": 0.45 + 0.04 * float(rng.standard_normal()),
        "efc": 0.5 + 0.03 * float(rng.standard_normal()),
        "mask_ml": 1500.0,
    }


def write_cohort(results: Path, subjects: int, *, runs: int = 1) -> list[str]:
    """Write the manifests of a data set ``toy``; return the words of ``boldmill cohort`` without its settings.

    Subject 000 moves a lot, 001 has a low tSNR, 002 was refused by preprocessing, 003 by
    parcellate, and one scan of 004 by ingest.
    """
    people: dict[str, Any] = {}
    parcels: dict[str, Any] = {}
    paths = []
    for number in range(subjects):
        name, site = f"{number:03d}", list(SITES)[number % len(SITES)]
        people[f"toy/{name}"] = {"site": site, "family": "", "phenotypes": {}}
        scans: dict[str, Any] = {}
        for run in range(1, runs + 1):
            scan_id = f"toy_sub-{name}_task-rest_run-{run}"
            rng = generator("cohort", scan_id)
            figures = run_figures(rng, site)
            if number == 0:
                figures |= {"mean_fd": 1.4, "censored_share": 0.71, "minutes_kept": 2.3}
            if number == 1:
                figures |= {"tsnr": 9.0}
            scans[scan_id] = {
                "status": "ok", "stage": "preprocess", "kind": "volume", "tr": 2.0, "n_volumes": 240, "files": {},
                "qc": figures, "flags": ["large motion: mean FD 1.40 mm"] if number == 0 else [],
            }  # fmt: skip
            parcels[scan_id] = {"status": "ok"}
            if number == 2:
                why = {"reason": "cannot read BOLD run: the file ends early", "fix": "replace the file"}
                scans[scan_id] = {"status": "quarantined", "stage": "preprocess", "files": {}, "qc": {}, **why}
            if number == 3:
                why = {"reason": "no parcel is covered", "fix": "look at the registration"}
                parcels[scan_id] = {"status": "quarantined", "stage": "parcellate", **why}
        anat = {"status": "ok", "files": {}, "qc": t1w_figures(generator("anat", name)), "flags": []}
        manifest = {"schema": 1, "dataset": "toy", "subject": name, "space": "X", "anat": anat, "scans": scans}
        paths.append(write_json(results / "preprocess" / "toy" / f"sub-{name}.json", manifest))
    table = results / "index" / "quarantine.tsv"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(
        "scan_id\tdataset\tsubject\tstage\treason\tfix\tfile\n"
        "toy_sub-004_task-other\ttoy\t004\tingest\tno RepetitionTime in any sidecar\tadd it\tsub-004/func/x.nii.gz\n"
    )
    joined = write_json(results / "parcellate" / "bucket-000.json", {"scans": parcels, "subjects": {}})
    sites = write_json(results / "index" / "participants" / "bucket-000.json", {"subjects": people})
    words = ["cohort", "--subjects", *map(str, paths), "--parcellated", str(joined), "--participants", str(sites)]
    return [*words, "--results", str(results), "--out", str(results / "reports" / "cohort.html")]
