r"""Evaluate one model against its baselines: tasks by cross-validated probes, FM-APP also by its own predictions.

Protocols: `cv` (all subjects; methods without pre-training), `heldout` (the same folds, scored on held-out subjects
only; all methods, so that rows compare), `split` (FM-APP: training split against held-out split). A held-out subject
found in the model's list of training subjects stops the command by name. Writes metrics.tsv and predictions.parquet.

Example: boldmill evaluate --model brainmass --checkpoint results/models/brainmass/model.safetensors \
    --snapshot results/datasets/latest/manifest.json --out results/evaluate/brainmass/metrics.tsv \
    --config-json "$(cat settings.json)" --threads 2
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.paths import MODELS

if TYPE_CHECKING:
    from boldmill.evaluate.cohort import Cohort
    from boldmill.evaluate.config import EvaluateConfig, TaskConfig
    from boldmill.evaluate.table import Predictions, Row
    from boldmill.shards.reader import Snapshot

PREDICTIONS = "predictions.parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, choices=MODELS, help="model to evaluate")
    parser.add_argument("--checkpoint", required=True, type=Path, help="its weights (`boldmill train`)")
    parser.add_argument("--snapshot", required=True, type=Path, help="snapshot manifest (`boldmill snapshot`)")
    parser.add_argument("--out", required=True, type=Path, help="table to write: .../metrics.tsv")
    parser.add_argument("--config-json", required=True, help="settings of the stage as JSON text")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, ...")


def run(args: argparse.Namespace) -> int:
    """Check for leakage, evaluate every task, write both tables and the provenance record."""
    import sys

    from boldmill.evaluate.cohort import HELDOUT, read_cohort
    from boldmill.evaluate.config import EvaluateConfig
    from boldmill.evaluate.leakage import pretraining_subjects, refuse_overlap
    from boldmill.evaluate.table import Predictions, write_metrics
    from boldmill.provenance.record import Recorder
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings
    from boldmill.train.checkpoint import CONFIG, SUBJECTS, checkpoint_note
    from boldmill.train.device import environment, pick_device
    from boldmill.train.protocol import load

    settings = Settings(args.config_json)
    config = settings.section("evaluate", EvaluateConfig)
    device = pick_device(args.device)
    snapshot = Snapshot.load(args.snapshot)
    with Recorder(settings, out=args.out, inputs=[args.snapshot, args.checkpoint]) as record:
        cohort = read_cohort(snapshot)
        trained = pretraining_subjects(args.checkpoint)
        record.add_input(args.checkpoint.with_name(SUBJECTS))
        if args.checkpoint.with_name(CONFIG).exists():
            record.add_input(args.checkpoint.with_name(CONFIG))
        heldout = [subject for subject, split in snapshot.subjects.items() if split == HELDOUT]
        group_of = dict(zip(cohort.subjects, cohort.groups, strict=True))
        refuse_overlap(heldout, trained, group_of, what=str(args.checkpoint))
        predictions = Predictions()
        with environment(device, args.threads):
            model = load(args.model, args.checkpoint, device=device)
            note = checkpoint_note(args.checkpoint)
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
                progress=progress,
            )
            rows: list[Row] = []
            for task in config.tasks:
                rows += evaluate_task(task, cohort, config, settings.seed, args.model, inputs, predictions)
            if args.model == "fm_app":
                rows += _split(model, snapshot, group_of, config, settings.seed, device, predictions, note)
        write_metrics(args.out, rows)
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
) -> list[Row]:
    """Return the rows of one task: baselines under ``cv`` and ``heldout``, frozen features under ``heldout``.

    Parameters
    ----------
    inputs : dict
        Name of a set of frozen features -> ``(features (N, D), note)``, and ``text_encoder``.
    """
    from dataclasses import replace

    from boldmill.evaluate import baselines
    from boldmill.evaluate.crossval import make_folds
    from boldmill.evaluate.protocol import CV, HELDOUT, Context, Scored, compare, evaluate_method
    from boldmill.evaluate.table import Row
    from boldmill.evaluate.tasks import CannotEvaluate, make_task

    kind = task_config.kind
    try:
        task = make_task(task_config, cohort)
        folds = make_folds(task, config, seed)
    except CannotEvaluate as error:
        empty = Row(task=task_config.name, kind=kind, method="n/a", model=model, protocol=CV, metric="n/a")
        return [replace(empty, note=f"n/a: {error}")]
    context = Context(task=task, folds=folds, cohort=cohort, config=config, seed=seed, predictions=predictions)
    fewer = "" if folds.number == config.folds else f"{folds.number} folds: a class has no more subjects or families"
    rows: list[Row] = []
    plain = baselines.fc_methods(cohort, kind, config)
    covariates = baselines.covariate_method(cohort, task.column, kind)
    reference: Scored | None = None
    for method in [*plain, *([covariates] if covariates else []), baselines.constant_method(cohort, kind)]:
        found, scored = evaluate_method(
            context, method, model="baseline", protocols=(CV, HELDOUT), text_encoder="n/a", note=fewer
        )
        reference = reference or scored
        rows += found
    if covariates is None:
        empty = Row(task=task.name, kind=kind, method="covariates", model="baseline", protocol=CV, metric="n/a")
        rows.append(replace(empty, note="n/a: no age, sex, site or mean FD that is not the target itself"))
    for name, (features, note) in inputs["features"].items():
        for probe, fit, permute in (
            ("logistic" if kind == "classification" else "ridge", baselines.linear_probe(kind), True),
            ("svm_rbf", baselines.svm_probe(kind), False),
        ):
            method = baselines.Method(name=f"{name}_{probe}", fit=fit, features=features, permute=permute, note=note)
            found, scored = evaluate_method(
                context, method, model=model, protocols=(HELDOUT,), text_encoder=inputs["text_encoder"], note=fewer
            )
            rows += found
            if reference is not None and found:
                rows.append(compare(context, found[0], scored, reference))
    return rows


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
    progress: bool,
) -> dict[str, Any]:
    """Return frozen features of the trained network and of its random twin."""
    from boldmill.evaluate.features import random_twin, scan_features, t1w_features

    untrained = "; ".join(part for part in ("same network, random weights", note) if part)
    twin = random_twin(name, model, seed).to(device)
    read = partial(scan_features, name, max_clips=max_clips, progress=progress)
    features = {
        f"{name}_frozen": (read(model, snapshot, cohort, device), note),
        f"{name}_random": (read(twin, snapshot, cohort, device), untrained),
    }
    encoder = "n/a"
    if name == "fm_app":
        encoder = model.bank.fingerprint
        if model.has_t1w:
            features["fm_app_t1w_frozen"] = (t1w_features(model, snapshot, cohort, device), note)
    return {"features": features, "text_encoder": encoder}


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
    return split_rows(model, learn, test, group_of, config, seed, device, table, note)
