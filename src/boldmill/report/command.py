"""Write the self-contained HTML report: cohort, quarantine, quality pictures, FC, flat maps, training, evaluation.

Example:
  boldmill report --results results --snapshot results/datasets/latest/manifest.json --out results/report/index.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from boldmill.atomic import write_text
from boldmill.errors import EXIT_OK
from boldmill.provenance.record import Recorder
from boldmill.stages import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--snapshot", type=Path, required=True, help="manifest of the snapshot the models saw")
    parser.add_argument("--out", type=Path, required=True, help="HTML page to write")
    parser.add_argument("--config-json", required=True, help="settings of the stage (canonical JSON)")


def run(args: argparse.Namespace) -> int:
    """Write the page and the complete quarantine table beside the results."""
    from boldmill.paths import Layout
    from boldmill.report.collect import collect
    from boldmill.report.config import ReportConfig
    from boldmill.report.page import render
    from boldmill.setup.status import write_quarantine

    settings = Settings(args.config_json)
    layout = Layout.at(args.results)
    with Recorder(settings, out=args.out, inputs=[args.snapshot, layout.index]) as record:
        collected = collect(args.results, args.snapshot)
        for model in collected.metrics:
            record.add_input(layout.metrics(model))
        for source in (layout.template, layout.atlas, layout.operators):
            record.add_input(source)
        write_text(args.out, render(collected, settings.section("report", ReportConfig), settings.raw("project")))
        write_quarantine(args.results)
        record.add_output(layout.quarantine)
    print(f"{args.out}: {len(collected.scans)} scans, {len(collected.quarantine)} quarantined")
    return EXIT_OK
