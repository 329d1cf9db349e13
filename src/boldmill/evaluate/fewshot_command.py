r"""Learn each classification task from k subjects per class, test on all held-out subjects, and write the curves.

Feature sets: the frozen encoder, the same network with random weights, and FC. k = 0 is chance, k = all the ceiling.

Example: boldmill few-shot --model brainmass --checkpoint results/models/brainmass/model.safetensors \
    --snapshot results/datasets/latest/manifest.json --out results/evaluate/brainmass/few_shot.tsv \
    --config-json "$(cat settings.json)" --threads 2
"""

from __future__ import annotations

import argparse

from boldmill.evaluate import prepared as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_arguments(parser, "few_shot.tsv")


def run(args: argparse.Namespace) -> int:
    """Write the table and its provenance record."""
    import sys

    from tqdm import tqdm

    from boldmill.evaluate.config import EvaluateConfig
    from boldmill.evaluate.fewshot import CHANCE, FewShotRow, few_shot_rows
    from boldmill.evaluate.rows import write_rows
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    config = settings.section("evaluate", EvaluateConfig)
    few = config.few_shot
    with shared.prepared(args, settings, max_clips=config.max_clips) as ready:
        rows: list[FewShotRow] = []
        chosen = [task for task in config.tasks if task.kind != "regression"]
        tasks = shared.make_tasks(chosen, ready.cohort).items()
        for name, task in tqdm(tasks, disable=not sys.stderr.isatty(), desc="few-shot", unit="task"):
            if isinstance(task, str):
                rows.append(FewShotRow(task=name, method="n/a", k=CHANCE, metric="n/a", note=task))
                continue
            sets = {key: (features[task.rows], note) for key, (features, note) in ready.sets.items()}
            rows += few_shot_rows(task, sets, few.shots, few.draws, config.bootstrap, settings.seed)
        write_rows(args.out, FewShotRow, rows)
        ready.record.note(n_rows=len(rows))
    return 0
