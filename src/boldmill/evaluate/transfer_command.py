r"""Apply what one task taught to another without any of its labels, and write one table.

Each transfer by nearest class prototypes and by the source's classifier unchanged, on the frozen encoder, the same
network with random weights, and FC. A transfer whose target was seen in training is refused in its row.

Example: boldmill zero-shot --model brainmass --checkpoint results/models/brainmass/model.safetensors \
    --snapshot results/datasets/latest/manifest.json --out results/evaluate/brainmass/zero_shot.tsv \
    --config-json "$(cat settings.json)" --threads 2
"""

from __future__ import annotations

import argparse

from boldmill.evaluate import prepared as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_arguments(parser, "zero_shot.tsv")


def run(args: argparse.Namespace) -> int:
    """Write the table and its provenance record."""
    import sys

    from tqdm import tqdm

    from boldmill.evaluate.config import EvaluateConfig
    from boldmill.evaluate.rows import write_rows
    from boldmill.evaluate.transfer import TransferRow, transfer_rows
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    config = settings.section("evaluate", EvaluateConfig)
    named = {name for one in config.transfers for name in (one.source, one.target)}
    with shared.prepared(args, settings, max_clips=config.max_clips) as ready:
        tasks = shared.make_tasks([task for task in config.tasks if task.name in named], ready.cohort)
        rows: list[TransferRow] = []
        for one in tqdm(config.transfers, disable=not sys.stderr.isatty(), desc="zero-shot", unit="transfer"):
            source, target = tasks[one.source], tasks[one.target]
            if isinstance(source, str) or isinstance(target, str):
                why = next(f"{n}: {t}" for n, t in ((one.source, source), (one.target, target)) if isinstance(t, str))
                rows.append(
                    TransferRow(
                        task=one.name, source=one.source, target=one.target, method="n/a", metric="n/a", note=why
                    )
                )
                continue
            rows += transfer_rows(
                one.name,
                source,
                target,
                ready.cohort,
                ready.sets,
                ready.trained,
                families=ready.families,
                bootstrap=config.bootstrap,
                permutations=config.permutations,
                seed=settings.seed,
            )
        write_rows(args.out, TransferRow, rows)
        ready.record.note(n_rows=len(rows))
    return 0
