r"""Write the cohort page: quality figures of every scan, outliers, inclusion with reasons, distributions by site.

Writes the page (self-contained HTML) and, beside it, the same table as TSV (suffix .tsv). Manifests that are not named
are those of the index below --results: a large cohort does not fit on one command line.

Example:
  boldmill cohort --subjects results/preprocess/demo/sub-01.json results/preprocess/demo/sub-02.json \
    --parcellated results/parcellate/bucket-000.json --participants results/index/participants/bucket-000.json \
    --results results --out results/reports/cohort.html --config-json "$(cat cohort.settings.json)"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from boldmill.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--subjects", type=Path, nargs="*", help="subject manifests (default: by index)")
    parser.add_argument("--parcellated", type=Path, nargs="*", help="manifests of the parcel series (by index)")
    parser.add_argument("--participants", type=Path, nargs="*", help="sites of the subjects (by index)")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--out", type=Path, required=True, help="HTML page to write; the table lies beside it (.tsv)")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write page and table."""
    from functools import cache

    from tqdm import tqdm

    from boldmill.atomic import read_json, write_text
    from boldmill.index.quarantine import read_quarantine, to_tsv
    from boldmill.index.read import read_index
    from boldmill.paths import Layout
    from boldmill.provenance.record import Recorder
    from boldmill.quality.cohort import collect, to_rows
    from boldmill.quality.cohort_page import render
    from boldmill.quality.config import InclusionConfig
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    layout = Layout.at(args.results)
    subjects, parcellated, participants = args.subjects, args.parcellated, args.participants
    if None in (subjects, parcellated, participants):
        index = read_index(args.results)
        subjects = [layout.subject(*who) for who in index.subjects()] if subjects is None else subjects
        buckets = index.buckets()
        parcellated = [layout.parcellated(bucket) for bucket in buckets] if parcellated is None else parcellated
        participants = [layout.participants(bucket) for bucket in buckets] if participants is None else participants
    refused = layout.index_quarantine
    inputs = [*subjects, *parcellated, *participants, *([refused] if refused.exists() else [])]

    @cache
    def rules(dataset: str) -> InclusionConfig:
        return settings.section("inclusion", InclusionConfig, dataset)

    with Recorder(settings, out=args.out, inputs=inputs) as record:
        cohort = collect(
            (  # one at a time: the manifests of a large cohort together do not fit into memory
                (path, read_json(path))
                for path in tqdm(sorted(subjects), desc="manifests", unit="subject", disable=None)
            ),
            ((path, read_json(path)) for path in sorted(parcellated)),
            map(read_json, sorted(participants)),
            read_quarantine(refused),
            rules,
        )
        write_text(args.out, render(cohort, rules, settings.raw("project")))
        head, rows = to_rows(cohort)
        record.add_output(write_text(args.out.with_suffix(".tsv"), to_tsv(map(tuple, rows), tuple(head))))
        included = sum(scan.included for scan in cohort.scans)
        record.note(scans=len(cohort.scans), included=included, quarantined=len(cohort.quarantine))
    left = len(cohort.scans) - included
    print(f"{args.out}: {included} scans included, {left} excluded, {len(cohort.quarantine)} quarantined")
    return EXIT_OK
