r"""Train one model on a snapshot: split `train` fits it, split `validation` watches it, `heldout` is never read.

Beside the weights go `config.json` (settings, architecture, snapshot, data digest), `history.jsonl` (losses per step)
and `subjects.json` (everyone seen, for the leakage check). SIGTERM, SIGUSR1 or --max-seconds ends the run after the
step under way with exit status 143; the same command then goes on from there, bit for bit. On several ranks every
batch is shared out: the same training as with one rank, each rank on a GPU of its own or on the CPU.

Example: boldmill train --model brainmass --snapshot results/datasets/latest/manifest.json \
    --out results/models/brainmass/model.safetensors --config-json "$(cat settings.json)" --threads 2
On two GPUs: python -m boldmill.train.torchrun --nproc-per-node 2 -m boldmill train --model brainmass ...
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import EXIT_FAILURE, EXIT_OK, BoldmillError, ConfigError
from boldmill.paths import MODELS
from boldmill.train import machine

if TYPE_CHECKING:
    from boldmill.stages import Settings
    from boldmill.train.protocol import TrainResult

EXIT_INTERRUPTED = 143
"""128 + SIGTERM: the run was asked to stop and can go on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", required=True, choices=MODELS, help="model to train")
    parser.add_argument("--snapshot", required=True, type=Path, help="snapshot manifest (`boldmill snapshot`)")
    parser.add_argument("--out", required=True, type=Path, help="weights to write: .../model.safetensors")
    parser.add_argument("--config-json", required=True, help="settings of the stage as JSON text")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, ...")
    machine.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train, then write config, history, subjects and the provenance record."""
    import os

    from boldmill.train.stop import stop_signals

    # before torch is loaded: waiting OpenMP threads sleep; spinning ones cost ten times the run where cores are shared
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with stop_signals():  # from here on: a signal that comes during the imports below is not lost
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    import sys
    from functools import partial

    from boldmill.provenance.record import Recorder
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings
    from boldmill.train.checkpoint import WEIGHTS
    from boldmill.train.device import environment, pick_device
    from boldmill.train.distributed import Elsewhere, is_first, launched, ranks
    from boldmill.train.loop import Interrupted, discard_resume
    from boldmill.train.protocol import trainer

    settings = Settings(args.config_json)
    if settings.stage != f"train_{args.model}":
        raise ConfigError("wrong settings", "--config-json", f"they are those of stage {settings.stage}",
                          f"give the settings of train_{args.model}")  # fmt: skip
    if args.out.name != WEIGHTS:
        raise ConfigError("wrong output name", args.out, f"weights are always called {WEIGHTS}", f"use .../{WEIGHTS}")
    out_dir: Path = args.out.parent
    snapshot = Snapshot.load(args.snapshot)
    init = settings.raw("models")[args.model].get("init")  # BrainMass may start from given weights
    inputs = [args.snapshot, *([init] if init else [])]
    how = machine.from_args(args)
    first = True
    try:
        with ranks(pick_device(args.device)) as device, environment(device, args.threads):
            first = is_first()
            train = partial(trainer(args.model), snapshot, settings, out_dir, device, args.threads,
                            sys.stderr.isatty(), how)  # fmt: skip
            if not first:
                train()
                return EXIT_OK
            with Recorder(settings, out=args.out, inputs=inputs) as record:
                for path in write_side_files(out_dir, args.model, settings, snapshot.id, train()):
                    record.add_output(path)
                record.note(device=device, threads=args.threads, ranks=launched(), micro_batch=how.micro_batch,
                            snapshot=snapshot.id)  # fmt: skip
            discard_resume(out_dir)  # not before all is written: a fault until here costs no more than some minutes
    except Interrupted as stop:  # nothing is recorded: there is no output yet
        if first:
            print(f"boldmill train: {stop}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Elsewhere:
        return EXIT_FAILURE
    return EXIT_OK


def write_side_files(
    out_dir: Path, model: str, settings: Settings, snapshot_id: str, result: TrainResult
) -> list[Path]:
    """Write ``config.json``, ``history.jsonl`` and ``subjects.json``; return their paths."""
    from boldmill.atomic import canonical_json, write_json, write_text
    from boldmill.train.checkpoint import CONFIG, HISTORY, SUBJECTS

    missing = {"architecture", "subjects"} - set(result.metadata)
    if missing:
        raise BoldmillError("incomplete training result", model, f"its metadata lack {sorted(missing)}", "report it")
    config: dict[str, Any] = {key: value for key, value in result.metadata.items() if key != "subjects"}
    config |= {"schema": 1, "model": model, "snapshot": snapshot_id, "settings": settings.raw("models")[model]}
    config |= {"settings_digest": settings.digest, "stage_version": settings.version, "seed": settings.seed}
    return [
        write_json(out_dir / CONFIG, config),
        write_text(out_dir / HISTORY, "".join(canonical_json(row) + "\n" for row in result.history)),
        write_json(out_dir / SUBJECTS, {"schema": 1, "subjects": sorted(result.metadata["subjects"])}),
    ]
