"""What few-shot and zero-shot evaluation start from: cohort, leakage check, and three sets of features.

Axes: N scans of the cohort.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.paths import MODELS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from boldmill.evaluate.cohort import Cohort
    from boldmill.evaluate.config import TaskConfig
    from boldmill.evaluate.tasks import Task
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Cohort, features by name (N, P) with what to say of them, the subjects of pre-training, and everyone's family."""

    cohort: Cohort
    sets: dict[str, tuple[NDArray[np.float64], str]]
    trained: frozenset[str]
    families: dict[str, str]
    record: Recorder


def add_arguments(
    parser: argparse.ArgumentParser, table: str, *, models: Sequence[str] = MODELS, verb: str = "evaluate"
) -> None:
    """Declare the options of every command that tests or explains a trained model."""
    parser.add_argument("--model", required=True, choices=models, help=f"model to {verb}")
    parser.add_argument("--checkpoint", required=True, type=Path, help="its weights (`boldmill train`)")
    parser.add_argument("--snapshot", required=True, type=Path, help="snapshot manifest (`boldmill snapshot`)")
    parser.add_argument("--out", required=True, type=Path, help=f"table to write: .../{table}")
    parser.add_argument("--config-json", required=True, help="settings of the stage as JSON text")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, ...")


@contextmanager
def prepared(args: argparse.Namespace, settings: Settings, *, max_clips: int) -> Iterator[Prepared]:
    """Read the cohort, refuse a held-out subject the model has seen, and make the features.

    The sets are ``<model>_frozen``, ``<model>_random`` (the same network, random weights) and ``fc`` (all edges).
    """
    import sys
    from functools import partial

    from boldmill.evaluate.cohort import HELDOUT, families, read_cohort
    from boldmill.evaluate.features import random_twin, scan_features, untrained_note
    from boldmill.evaluate.leakage import pretraining_subjects, refuse_overlap
    from boldmill.provenance.record import Recorder
    from boldmill.shards.reader import Snapshot
    from boldmill.train.checkpoint import CONFIG, SUBJECTS, checkpoint_note
    from boldmill.train.device import environment, pick_device
    from boldmill.train.protocol import load

    device = pick_device(args.device)
    snapshot = Snapshot.load(args.snapshot)
    with Recorder(settings, out=args.out, inputs=[args.snapshot, args.checkpoint]) as record:
        beside = [args.checkpoint.with_name(name) for name in (SUBJECTS, CONFIG)]
        for path in beside:
            if path.exists():
                record.add_input(path)
        cohort = read_cohort(snapshot)
        trained = pretraining_subjects(args.checkpoint)
        heldout = [subject for subject, split in snapshot.subjects.items() if split == HELDOUT]
        group_of = families(snapshot)
        refuse_overlap(heldout, trained, group_of, what=str(args.checkpoint))
        with environment(device, args.threads):
            model: Any = load(args.model, args.checkpoint, device=device)
            twin = random_twin(args.model, model, settings.seed).to(device)
            read = partial(scan_features, args.model, max_clips=max_clips, progress=sys.stderr.isatty())
            note = checkpoint_note(args.checkpoint)
            yield Prepared(
                cohort=cohort,
                sets={
                    f"{args.model}_frozen": (read(model, snapshot, cohort, device), note),
                    f"{args.model}_random": (
                        read(twin, snapshot, cohort, device),
                        untrained_note(args.model, note),
                    ),
                    "fc": (cohort.fc, "all edges"),
                },
                trained=trained,
                families=group_of,
                record=record,
            )
        record.note(device=device, snapshot=snapshot.id, n_scans=len(cohort))


def make_tasks(configured: Sequence[TaskConfig], cohort: Cohort) -> dict[str, Task | str]:
    """Return the tasks with two classes by name; in place of one that cannot be evaluated, why."""
    from boldmill.evaluate.tasks import CannotEvaluate, make_task

    found: dict[str, Task | str] = {}
    for one in configured:
        if one.kind == "regression":
            found[one.name] = "n/a: the task is no classification"
            continue
        try:
            task = make_task(one, cohort)
        except CannotEvaluate as error:
            found[one.name] = f"n/a: {error}"
            continue
        found[one.name] = task if one.kind == "classification" else "n/a: the task has more than two classes"
    return found
