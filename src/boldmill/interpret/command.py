r"""Explain a trained model: attention rollout and integrated gradients per task, with stability and drawings.

Only subjects held out from pre-training are explained, each by a probe fitted without it (the folds of `evaluate`). A
task that cannot be explained gets a line that says why. Writes regions.tsv, edges.tsv, summary.tsv and PNG pictures.

Example: boldmill interpret --model brainmass --checkpoint results/models/brainmass/model.safetensors \
    --snapshot results/datasets/latest/manifest.json --atlas results/atlas/Schaefer2018embedded/atlas.json \
    --out results/interpret/brainmass/regions.tsv --config-json "$(cat settings.json)" --threads 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.evaluate.prepared import add_arguments as options
from boldmill.interpret.config import INTERPRETABLE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from boldmill.evaluate.cohort import Cohort
    from boldmill.evaluate.config import EvaluateConfig, TaskConfig
    from boldmill.interpret.config import InterpretConfig
    from boldmill.interpret.explain import Map
    from boldmill.shards.reader import Snapshot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options(parser, "regions.tsv", models=INTERPRETABLE, verb="explain")
    parser.add_argument(
        "--atlas", type=Path, nargs="*", default=[], help="manifest of the snapshot's atlas, for pictures of the cortex"
    )


def run(args: argparse.Namespace) -> int:
    """Check for leakage, explain every task, write tables, pictures and the provenance record."""
    from boldmill.evaluate.cohort import HELDOUT, families, read_cohort
    from boldmill.evaluate.config import EvaluateConfig
    from boldmill.evaluate.leakage import pretraining_subjects, refuse_overlap
    from boldmill.evaluate.tasks import CannotEvaluate
    from boldmill.interpret.config import InterpretConfig
    from boldmill.interpret.regions import HOW_TO_DRAW, atlas_files, named
    from boldmill.interpret.tables import Tables
    from boldmill.provenance.record import Recorder
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings
    from boldmill.train.checkpoint import CONFIG, SUBJECTS, checkpoint_note
    from boldmill.train.device import environment, pick_device
    from boldmill.train.protocol import load

    settings = Settings(args.config_json)
    config = settings.section("interpret", InterpretConfig)
    protocol = settings.section("evaluate", EvaluateConfig)
    device = pick_device(args.device)
    snapshot = Snapshot.load(args.snapshot)
    inputs = [args.snapshot, args.checkpoint, args.checkpoint.with_name(SUBJECTS), *config.surface_labels]
    with Recorder(settings, out=args.out, inputs=inputs) as record, environment(device, args.threads):
        cohort = read_cohort(snapshot)
        trained = pretraining_subjects(args.checkpoint)
        heldout = [subject for subject, split in snapshot.subjects.items() if split == HELDOUT]
        refuse_overlap(heldout, trained, families(snapshot), what=str(args.checkpoint))
        for path in (file for manifest in args.atlas for file in atlas_files(manifest)):
            record.add_input(path)
        if args.checkpoint.with_name(CONFIG).exists():
            record.add_input(args.checkpoint.with_name(CONFIG))
        said = [checkpoint_note(args.checkpoint)]
        regions = named(snapshot.parcels())
        labels = _labels(args.atlas, config, regions)
        model: Any = load(args.model, args.checkpoint, device=device)
        tables = Tables()
        for task in explained(protocol, config):
            try:
                maps = explain_task(task, cohort, snapshot, args.model, model, device, protocol, config, settings.seed)
            except CannotEvaluate as error:
                tables.refuse(task.name, str(error))
                continue
            for found in maps:
                positive = task.positive or f"the last label of {task.column}"
                tables.add(task.name, found, regions, config.top, config.edges, positive)
                drawn = draw(args.out.parent, task.name, found, labels, regions, config)
                notes = [found.note, *said, HOW_TO_DRAW if labels is None else ""]
                tables.summary[-1]["note"] = "; ".join(note for note in notes if note)
                tables.summary[-1]["pictures"] = " ".join(path.name for path in drawn)
                for path in drawn:
                    record.add_output(path)
        for path in tables.write(args.out):
            record.add_output(path)
        record.note(device=device, snapshot=snapshot.id, n_maps=len(tables.summary))
    print(f"{args.out}: {len(tables.summary)} maps and refusals")
    return 0


def explained(protocol: EvaluateConfig, config: InterpretConfig) -> list[TaskConfig]:
    """Return the tasks to explain; an unknown name is refused with the nearest one."""
    from boldmill.errors import ConfigError, nearest

    known = {task.name: task for task in protocol.tasks}
    for name in config.tasks:
        if name not in known:
            why = f"evaluate.tasks has no such task{nearest(name, known)}"
            raise ConfigError("unknown task", f"interpret.tasks: {name}", why, "correct the name")
    if config.tasks:
        return [known[name] for name in config.tasks]
    return [task for task in protocol.tasks if task.kind == "classification"]


def explain_task(
    task_config: TaskConfig,
    cohort: Cohort,
    snapshot: Snapshot,
    name: str,
    model: Any,
    device: str,
    protocol: EvaluateConfig,
    config: InterpretConfig,
    seed: int,
) -> list[Map]:
    """Return both maps of a task.

    Raises
    ------
    CannotEvaluate
        The task has no two classes, or too few held-out subjects.
    """
    import numpy as np

    from boldmill.evaluate.crossval import make_folds
    from boldmill.evaluate.features import fc_input
    from boldmill.evaluate.tasks import CannotEvaluate, make_task
    from boldmill.interpret.explain import Inputs, chosen_scans, gradients_map, rollout_map

    if task_config.kind != "classification":
        why = f"it is a task of kind {task_config.kind}"
        raise CannotEvaluate("cannot explain", task_config.name, why, "maps are of the log-odds of two classes")
    task = make_task(task_config, cohort)
    folds = make_folds(task, protocol, seed)
    ids = [cohort.scan_ids[row] for row in task.rows]

    def fc(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return fc_input(name, model, snapshot, [ids[row] for row in rows])

    features = frozen_features(model, fc, len(ids), device)
    known = np.asarray(np.isfinite(features).all(axis=1))
    inputs = Inputs(model=model, device=device, fc=fc, features=features, regions=len(snapshot.parcels()))
    rows = chosen_scans(task, folds, ids, config.max_scans, known)
    return [
        rollout_map(inputs, task, rows, folds, config),
        gradients_map(inputs, task, rows, folds, config, seed),
    ]


def frozen_features(model: Any, fc: Any, count: int, device: str) -> NDArray[np.float64]:
    """Return the frozen features of every scan of a task, (N, F)."""
    import numpy as np
    import torch

    from boldmill.interpret.explain import PASS

    rows = np.arange(count)
    with torch.no_grad():
        parts = [
            model.features(torch.from_numpy(fc(rows[start : start + PASS])).to(device)).double().cpu().numpy()
            for start in range(0, count, PASS)
        ]
    return np.concatenate(parts)


def _labels(atlases: list[Path], config: InterpretConfig, regions: Any) -> NDArray[np.int64] | None:
    """Return which region each fsaverage5 vertex belongs to, or None where the atlas has no surface."""
    from boldmill.interpret.regions import of_atlas, read_labels

    if config.surface_labels:
        left, right = map(Path, config.surface_labels)
        return read_labels(left, right, len(regions))
    return of_atlas(atlases[0], regions) if atlases else None


def draw(
    folder: Path, task: str, found: Map, labels: NDArray[np.int64] | None, regions: Any, config: InterpretConfig
) -> list[Path]:
    """Draw one map: cortex and flat map, or bars where the atlas has no surface; and a connectogram."""
    import numpy as np

    from boldmill.interpret.connectogram import draw_bars, draw_connectogram
    from boldmill.interpret.cortex import draw_cortex, draw_flat
    from boldmill.interpret.explain import ROLLOUT

    signed = found.name == ROLLOUT
    words = "attention rollout" if signed else "integrated gradients"
    title = f"{task}: {words}, {found.subjects} held-out subjects"
    unit = "class difference (Cohen's d)" if signed else "mean absolute attribution (log-odds)"
    stem = f"{task}_{found.name}"
    # Rollout is coloured with its sign: red where the positive class attends more.
    values = np.copysign(found.value, found.positive - found.negative) if signed else found.value
    drawn = []
    if labels is None:
        bars = folder / f"{stem}_bars.png"
        drawn.append(draw_bars(bars, found.value, found.stable.sd, regions, title, unit, config.top))
    else:
        for name, make in (("cortex", draw_cortex), ("flat", draw_flat)):
            drawn.append(make(folder / f"{stem}_{name}.png", values, labels, title, unit, signed=signed))
    if signed:
        ring = ("attended more in the positive class (strongest: d = {high})", "attended less")
    else:
        ring = ("pulls the classes apart (strongest: {high} log-odds)", "pulls them together")
    path = folder / f"{stem}_connectogram.png"
    return [*drawn, draw_connectogram(path, found.edges, regions, title, ring, config.edges)]
