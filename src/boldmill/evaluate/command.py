r"""Evaluate one model against its baselines: tasks by cross-validated probes, FM-APP also by its own predictions.

Protocols are those of `evaluate.protocols` or of the task (see `boldmill.evaluate.design`); FM-APP's own predictions
have the protocol `split`. A method that was pre-trained on anyone a protocol tests is not run under it, and its row
says so. A held-out subject found in the model's list of training subjects stops the command by name. Writes
metrics.tsv, comparison.md and predictions.parquet.

Example: boldmill evaluate --model brainmass --checkpoint results/models/brainmass/model.safetensors \
    --snapshot results/datasets/latest/manifest.json --out results/evaluate/brainmass/metrics.tsv \
    --config-json "$(cat settings.json)" --threads 2
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from boldmill.evaluate.prepared import add_arguments as options

if TYPE_CHECKING:
    from boldmill.evaluate.cohort import Cohort
    from boldmill.evaluate.config import EvaluateConfig, TaskConfig
    from boldmill.evaluate.design import Design
    from boldmill.evaluate.method import Method
    from boldmill.evaluate.table import Predictions, Row
    from boldmill.evaluate.tasks import Task
    from boldmill.shards.reader import Snapshot

PREDICTIONS, COMPARISON = "predictions.parquet", "comparison.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options(parser, "metrics.tsv")
    parser.add_argument("--methods", default="", help="run these methods only (names with commas)")


def run(args: argparse.Namespace) -> int:
    """Check for leakage, evaluate every task, write both tables and the provenance record."""
    import sys
    from dataclasses import replace

    from boldmill.atomic import write_text
    from boldmill.errors import ConfigError, nearest
    from boldmill.evaluate.cohort import HELDOUT, families, read_cohort
    from boldmill.evaluate.comparison import comparison
    from boldmill.evaluate.config import EvaluateConfig
    from boldmill.evaluate.leakage import pretraining_epochs, pretraining_subjects, refuse_overlap
    from boldmill.evaluate.rows import write_rows
    from boldmill.evaluate.table import Predictions, Row
    from boldmill.provenance.record import Recorder
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings
    from boldmill.train.checkpoint import CONFIG, HISTORY, SUBJECTS, checkpoint_note
    from boldmill.train.device import environment, pick_device
    from boldmill.train.protocol import load

    settings = Settings(args.config_json)
    config = settings.section("evaluate", EvaluateConfig)
    device = pick_device(args.device)
    only = {name for name in args.methods.split(",") if name}
    snapshot = Snapshot.load(args.snapshot)
    with Recorder(settings, out=args.out, inputs=[args.snapshot, args.checkpoint]) as record:
        cohort = read_cohort(snapshot)
        trained = pretraining_subjects(args.checkpoint)
        record.add_input(args.checkpoint.with_name(SUBJECTS))
        for beside in (args.checkpoint.with_name(CONFIG), args.checkpoint.with_name(HISTORY)):
            if beside.exists():
                record.add_input(beside)
        heldout = [subject for subject, split in snapshot.subjects.items() if split == HELDOUT]
        group_of = families(snapshot)
        refuse_overlap(heldout, trained, group_of, what=str(args.checkpoint))
        predictions = Predictions()
        with environment(device, args.threads):
            model = load(args.model, args.checkpoint, device=device)
            note = checkpoint_note(args.checkpoint)
            epochs = pretraining_epochs(args.checkpoint)
            progress = sys.stderr.isatty()
            inputs = _inputs(
                args.model,
                model,
                snapshot,
                cohort,
                device,
                seed=settings.seed,
                note=note,
                max_clips=config.max_clips,
                random="random" in config.baselines,
                progress=progress,
            )
            rows: list[Row] = []
            for task in config.tasks:
                rows += evaluate_task(
                    task,
                    cohort,
                    config,
                    settings.seed,
                    args.model,
                    inputs,
                    predictions,
                    trained=trained,
                    groups=group_of,
                    epochs=epochs,
                    only=only,
                    progress=progress,
                )
            if unknown := sorted(only - {row.method for row in rows}):
                why = f"no task has them{nearest(unknown[0], {row.method for row in rows})}"
                raise ConfigError("unknown methods", f"--methods {','.join(unknown)}", why, "correct the names")
            if args.model == "fm_app":
                own = _split(model, snapshot, group_of, config, settings.seed, device, predictions, note)
                rows += [replace(row, epochs=epochs) if row.model == args.model else row for row in own]
        write_rows(args.out, Row, rows)
        record.add_output(write_text(args.out.with_name(COMPARISON), comparison(rows)))
        record.add_output(predictions.write(args.out.with_name(PREDICTIONS)))
        record.note(device=device, snapshot=snapshot.id, n_scans=len(cohort), n_rows=len(rows))
    return 0


def evaluate_task(
    task_config: TaskConfig,
    cohort: Cohort,
    config: EvaluateConfig,
    seed: int,
    model: str,
    inputs: dict[str, Any],
    predictions: Predictions,
    *,
    trained: Collection[str] = frozenset(),
    groups: Mapping[str, str] | None = None,
    epochs: str = "n/a",
    only: Collection[str] = (),
    progress: bool = False,
) -> list[Row]:
    """Return the rows of one task: every method under every protocol that it may be tested by.

    Parameters
    ----------
    inputs : dict
        ``features``: name of a set of frozen features -> ``(features (N, D), note, pretrained)``; ``text_encoder``.
    trained : collection of str
        Subjects of the pre-training.
    groups : mapping, optional
        Subject -> family, of the cohort and of everybody in ``trained``; default: those of the cohort.
    epochs : str
        Its passes over them.
    only : collection of str
        Names of the methods to run; empty: all.
    """
    from tqdm import tqdm

    from boldmill.evaluate.design import PROTOCOLS
    from boldmill.evaluate.protocol import Context, evaluate_method
    from boldmill.evaluate.table import Row
    from boldmill.evaluate.tasks import CannotEvaluate, make_task

    asked = task_config.protocols or config.protocols

    def absent(protocol: str, method: str, of: str, why: str) -> Row:
        return Row(
            task=task_config.name, kind=task_config.kind, method=method, model=of, protocol=protocol, metric="n/a",
            note=f"n/a: {why}",
        )  # fmt: skip

    try:
        task = make_task(task_config, cohort)
    except CannotEvaluate as error:
        return [absent(asked[0], "n/a", model, str(error))]
    rows: list[Row] = []
    designs: dict[str, Design] = {}
    for protocol in (name for name in PROTOCOLS if name in asked):
        try:
            designs[protocol] = PROTOCOLS[protocol](task, config, seed)
        except CannotEvaluate as error:
            rows.append(absent(protocol, "n/a", model, str(error)))
    context = Context(
        task=task,
        designs=designs,
        cohort=cohort,
        config=config,
        seed=seed,
        predictions=predictions,
        trained=trained,
        group_of=groups or dict(zip(cohort.subjects, cohort.groups, strict=True)),
    )
    methods, missing = _methods(task, cohort, config, seed, model, inputs)
    chosen = [method for method in methods if not only or method.name in only]
    for number, method in enumerate(tqdm(chosen, disable=not progress, desc=task.name, unit="method"), start=1):
        started = time.monotonic()
        own = method.name.startswith(f"{model}_")
        rows += evaluate_method(
            context,
            method,
            model=model if own else "baseline",
            text_encoder=inputs["text_encoder"] if own else "n/a",
            # scales fitted to training scans make a twin with random weights no pre-trained one
            epochs=epochs if method.pretrained and not method.name.startswith(f"{model}_random") else "n/a",
        )
        if not progress:  # networks at many sites take an hour: a log must say where it stands
            took = f"{time.monotonic() - started:.0f} s"
            print(f"{task.name}: {method.name}, method {number} of {len(chosen)}: {took}", file=sys.stderr, flush=True)
    lacking = {name: why for name, why in missing.items() if not only or name in only}
    rows += [absent(protocol, name, "baseline", why) for name, why in lacking.items() for protocol in designs]
    return rows


def _methods(
    task: Task, cohort: Cohort, config: EvaluateConfig, seed: int, model: str, inputs: dict[str, Any]
) -> tuple[list[Method], dict[str, str]]:
    """Return the methods of a task in table order, the reference first, and why a configured one is not among them."""
    from boldmill.evaluate.methods import MethodInputs, methods_of, missing

    made = MethodInputs(
        cohort=cohort,
        task=task.name,
        column=task.column,
        kind="regression" if task.kind == "regression" else "classification",
        config=config,
        seed=seed,
        model=model,
        features=inputs["features"],
        network=inputs.get("network"),
        snapshot=inputs.get("snapshot"),
        device=inputs.get("device", "cpu"),
        note=inputs.get("note", ""),
    )
    return methods_of(made), missing(made)


def _inputs(
    name: str,
    model: Any,
    snapshot: Snapshot,
    cohort: Cohort,
    device: str,
    *,
    seed: int,
    note: str,
    max_clips: int,
    random: bool,
    progress: bool,
) -> dict[str, Any]:
    """Return the network and its frozen features, and those of its random twin where asked for."""
    from boldmill.evaluate.features import random_twin, scan_features, t1w_features, untrained_note

    read = partial(scan_features, name, max_clips=max_clips, progress=progress)
    features = {f"{name}_frozen": (read(model, snapshot, cohort, device), note, True)}
    if random:
        twin = random_twin(name, model, seed).to(device)
        # Twins of the other models keep scales or masks that were fitted to training scans.
        features[f"{name}_random"] = (
            read(twin, snapshot, cohort, device),
            untrained_note(name, note),
            name != "brainmass",
        )
    encoder = "n/a"
    if name == "fm_app":
        encoder = model.bank.fingerprint
        if model.has_t1w:
            features["fm_app_t1w_frozen"] = (t1w_features(model, snapshot, cohort, device), note, True)
    found = {"features": features, "text_encoder": encoder, "network": model, "snapshot": snapshot}
    return found | {"device": device, "note": note}


def _split(
    model: Any,
    snapshot: Snapshot,
    group_of: dict[str, str],
    config: EvaluateConfig,
    seed: int,
    device: str,
    table: Predictions,
    note: str,
) -> list[Row]:
    from boldmill.evaluate.split import split_rows
    from boldmill.models.fm_app.data import read_scans

    learn, test = read_scans(snapshot, "train"), read_scans(snapshot, "heldout")
    people = snapshot.scans(split="heldout").iloc[::-1]  # of two sites of a subject that of its first scan counts
    sites = zip(people["dataset"], people["subject"], people["site"], strict=True)
    places = {f"{dataset}/{subject}": f"{dataset}/{site}" for dataset, subject, site in sites}
    return split_rows(model, learn, test, group_of, places, config, seed, device, table, note)
