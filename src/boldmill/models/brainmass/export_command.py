r"""Write a BrainMass model.safetensors as a torch file with the names of the published code.

The file has the keys the published code saves: model, online_network_state_dict, target_network_state_dict; and the
architecture, from which `boldmill import-weights` builds the same module again, bit for bit. What the published code
would compute otherwise with these weights is said; weights of a learned projection have no place there and are refused.

Example: boldmill export-weights brainmass results/models/brainmass/model.safetensors --out brainmass.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from boldmill.errors import EXIT_OK, ConfigError

MODELS = ("brainmass",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", choices=MODELS, help="whose weights")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="model.safetensors of a trained model")
    parser.add_argument("--out", required=True, type=Path, help="torch file to write (.pth)")


def run(args: argparse.Namespace) -> int:
    """Write the file and its provenance record."""
    import torch

    from boldmill.atomic import atomic, canonical_json
    from boldmill.models.brainmass.official import official_names, unlike_published
    from boldmill.models.brainmass.start import load_module
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings

    value = {"stage": "export-weights", "version": 1, "config": {"model": args.model}, "overrides": {}}
    with Recorder(Settings(canonical_json(value)), out=args.out, inputs=[args.checkpoint]):
        module = load_module(args.checkpoint)
        arch = module.arch
        if arch.width != arch.rois:
            why = f"a learned projection carries its {arch.rois} ROIs to {arch.width} channels; the published has none"
            raise ConfigError(
                "cannot export", args.checkpoint, why, "train with models.brainmass.width = number of ROIs"
            )
        whole = official_names(module.state_dict())
        content: dict[str, object] = {"model": whole, "architecture": arch.as_dict()}
        for network in ("online_network", "target_network"):
            own = {name.removeprefix(f"{network}."): v for name, v in whole.items() if name.startswith(f"{network}.")}
            content[f"{network}_state_dict"] = own
        with atomic(args.out) as temporary, temporary.open("wb") as handle:
            torch.save(content, handle)
    print(f"export-weights: {args.out} ({len(whole)} tensors; FC {arch.estimator}, {arch.heads} heads)")
    for reason in unlike_published(arch):
        print(f"  unlike the published model: {reason}")
    return EXIT_OK
