r"""Write the self-contained HTML report: cohort, quarantine, quality pictures, FC, flat maps, training, evaluation.

Example:
  boldmill report --results results --snapshot results/datasets/latest/manifest.json \
    --out results/report/index.html --config-json "$(cat report.settings.json)"
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
    from boldmill.index.quarantine import write_quarantine
    from boldmill.paths import Layout
    from boldmill.report.collect import collect
    from boldmill.report.config import ReportConfig
    from boldmill.report.page import render, with_pictures

    settings = Settings(args.config_json)
    layout = Layout.at(args.results)
    config = settings.section("report", ReportConfig)
    with Recorder(settings, out=args.out) as record:
        collected = collect(args.results, args.snapshot)
        drawn = [path for _, sources in with_pictures(collected, config) for path in sources.values()]
        for path in (*collected.read, *drawn):
            record.add_input(path)
        write_text(args.out, render(collected, config, settings.raw("project")))
        write_quarantine(args.results)
        record.add_output(layout.quarantine)
    print(f"{args.out}: {len(collected.scans)} scans, {len(collected.quarantine)} quarantined")
    return EXIT_OK
