r"""Turn published BrainMass weights into a model.safetensors of `preset: paper`.

FILE is what the published code saves (keys model, online_network_state_dict, target_network_state_dict, any of them),
or a bare state_dict. It is read without running anything from it. Depth, widths and heads of the masked-ROI tasks come
from the shapes; the number of attention heads no shape shows (--heads; by depth 8, 16, 32: 5, 10, 20). Parts the file
lacks are named, and fresh. Say whom the weights were trained on (--subjects), or vouch that it was nobody of your data
(--unseen-data): without either they can be used, but no evaluation can rule out leakage, and none runs.

To use them: `models: {brainmass: {preset: paper, init: weights/model.safetensors, epochs: 0}}`; with epochs above 0
training goes on from them.

Example: boldmill import-weights brainmass best_model.pth --out weights/model.safetensors --unseen-data
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_OK, ConfigError

MODELS = ("brainmass",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", choices=MODELS, help="whose weights")
    parser.add_argument("file", type=Path, metavar="FILE", help="checkpoint of the published code (.pth)")
    parser.add_argument("--out", required=True, type=Path, help="weights to write: .../model.safetensors")
    parser.add_argument("--heads", type=int, help="attention heads, where the depth is not that of a published size")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--subjects", type=Path, metavar="LIST",
                     help="who was trained on: a text file, one <dataset>/<subject> per line")  # fmt: skip
    who.add_argument("--unseen-data", action="store_true",
                     help="you vouch that nobody of your data was trained on; the tables say so")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write weights, config.json and, where it is known, subjects.json."""
    from boldmill.atomic import canonical_json, sha256_file, write_json
    from boldmill.models.brainmass.architecture import Architecture
    from boldmill.models.brainmass.model import BrainMass
    from boldmill.models.brainmass.official import complete, flatten, published_architecture, rename
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings
    from boldmill.train.checkpoint import CONFIG, SUBJECTS, UNSEEN, WEIGHTS, save_weights
    from boldmill.train.device import seed_step

    if args.out.name != WEIGHTS:
        raise ConfigError("wrong output name", args.out, f"weights are always called {WEIGHTS}", f"use .../{WEIGHTS}")
    subjects = read_subjects(args.subjects) if args.subjects else []
    content = read_torch(args.file)
    given = flatten(content, args.file)
    state = rename(given)
    unknown = sorted(name for name in given if not rename({name: given[name]}))
    own = content.get("architecture") if isinstance(content, dict) else None
    if isinstance(own, dict):
        try:
            arch = Architecture(**own)
        except TypeError as error:
            raise ConfigError(
                "cannot read the architecture", args.file, str(error), "export the weights again"
            ) from error
    else:
        arch = published_architecture(state, args.heads, args.file)
    seed_step("init", args.model, 0)
    whole, lacking = complete(state, BrainMass(arch).state_dict(), args.file)

    config: dict[str, Any] = {"schema": 1, "model": args.model, "architecture": arch.as_dict(), "size": arch.size}
    config |= {"estimator": arch.estimator, **({UNSEEN: True} if args.unseen_data else {})}
    config["imported"] = {"file": args.file.name, "sha256": sha256_file(args.file), "lacking": lacking}
    config["imported"]["unknown"] = unknown
    options = {"heads": args.heads, "unseen_data": args.unseen_data}
    value = {"stage": "import-weights", "version": 1, "config": {"model": args.model, **options}, "overrides": {}}
    inputs = [args.file, *([args.subjects] if args.subjects else [])]
    beside = args.out.with_name(SUBJECTS)
    beside.unlink(missing_ok=True)  # whoever it names, it was not said of these weights
    with Recorder(Settings(canonical_json(value)), out=args.out, inputs=inputs) as record:
        if args.subjects or args.unseen_data:
            record.add_output(write_json(beside, {"schema": 1, "subjects": subjects}))
        record.add_output(write_json(args.out.with_name(CONFIG), config))
        save_weights(args.out, whole, model=args.model, architecture=arch.as_dict())
    shape = f"{arch.depth} blocks, {arch.heads} heads, feed-forward {arch.ffn}, {arch.rois} ROIs"
    print(f"import-weights: {args.out} (size {arch.size}: {shape}; FC {arch.estimator})")
    if lacking:
        print(f"  not in the file, hence fresh (target: a copy of online): {', '.join(lacking)}")
    if unknown:
        print(f"  in the file, but of no part of BrainMass, left out: {', '.join(unknown)}")
    if not (args.subjects or args.unseen_data):
        print("  nobody says whom it was trained on: evaluation will refuse it; see --subjects and --unseen-data")
    return EXIT_OK


def read_torch(path: Path) -> Any:
    """Return the content of a torch file: tensors and plain containers only, nothing in it is run.

    Raises
    ------
    ConfigError
        It is absent, cut short, no torch file, or holds anything else.
    """
    import pickle
    import struct

    import torch

    odd = (OSError, EOFError, RuntimeError, pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (*odd, struct.error) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError("cannot read the weights", path, why, "give a whole torch file of plain tensors") from error


def read_subjects(path: Path) -> list[str]:
    """Return the sorted subjects of a list, one ``<dataset>/<subject>`` per line; lines that start with # are left out.

    Raises
    ------
    ConfigError
        No file, a line of another form, or no line at all.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError("cannot read the subjects", path, str(error), "give a text file") from error
    found: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        dataset, _, subject = line.partition("/")
        if not dataset or not subject or "/" in subject:
            raise ConfigError("cannot read the subjects", f"{path}:{number}", f"'{line}' is not <dataset>/<subject>",
                              "write one a line, as in participants of the data set: abide/0050002")  # fmt: skip
        found.add(f"{dataset}/{subject.removeprefix('sub-')}")
    if not found:
        raise ConfigError("cannot read the subjects", path, "it names nobody", "name them, or use --unseen-data")
    return sorted(found)
