r"""Fold the evaluations of all variants of an ablation into one table, with each variant's gain over the full model.

Example: boldmill ablation --metrics results/ablation/full/metrics.tsv results/ablation/mrm-only/metrics.tsv \
    --snapshot results/datasets/latest/manifest.json --out results/ablation/table.tsv \
    --config-json "$(cat settings.json)"
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--metrics", required=True, nargs="+", type=Path, help="metrics.tsv of every variant, in a folder of its name"
    )
    parser.add_argument("--snapshot", required=True, type=Path, help="snapshot manifest (`boldmill snapshot`)")
    parser.add_argument("--out", required=True, type=Path, help="table to write")
    parser.add_argument("--config-json", required=True, help="settings of the stage as JSON text")


def run(args: argparse.Namespace) -> int:
    """Write the table and its provenance record."""
    from boldmill.ablation.config import AblationConfig
    from boldmill.ablation.table import AblationRow, ablation_rows, read_evaluated
    from boldmill.evaluate.cohort import families
    from boldmill.evaluate.rows import write_rows
    from boldmill.provenance.record import Recorder
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings
    from boldmill.train.checkpoint import CONFIG, HISTORY

    settings = Settings(args.config_json)
    config = settings.section("ablation", AblationConfig)
    groups = families(Snapshot.load(args.snapshot))
    beside = [path.with_name(name) for path in args.metrics for name in ("predictions.parquet", CONFIG, HISTORY)]
    with Recorder(settings, out=args.out, inputs=[args.snapshot, *args.metrics, *beside]) as record:
        found = {path.parent.name: read_evaluated(path) for path in args.metrics}
        rows = ablation_rows(config, found, groups, settings.raw("evaluate.bootstrap"), settings.seed)
        write_rows(args.out, AblationRow, rows)
        record.note(n_rows=len(rows))
    return 0
