"""Prepare the head template: T1w with skull, brain mask (closed, filled) and GM/WM/CSF priors in one space.

Every image goes to one RAS grid beside the manifest; moves between spaces are listed in it. Nothing is downloaded: a
TemplateFlow file that is not there stops with the command that fetches it.

example:
  boldmill templates --out results/templates/template.json --config-json "$(cat templates.settings.json)"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``boldmill templates``."""
    parser.add_argument("--out", required=True, type=Path, help="manifest to write (template.json)")
    parser.add_argument("--config-json", required=True, help="settings of the stage, as JSON text")


def run(args: argparse.Namespace) -> int:
    """Write the five images, those of further templates, and the manifest."""
    from boldmill.atomic import sha256_file, write_json
    from boldmill.preprocess.images import Dtype, Volume, write_volume
    from boldmill.preprocess.n4 import one_thread
    from boldmill.provenance.record import Recorder
    from boldmill.spaces.config import SpacesConfig
    from boldmill.spaces.flow_needs import further_templates
    from boldmill.spaces.further import load_further
    from boldmill.spaces.templates import load_template
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    with Recorder(settings, out=args.out) as record:
        one_thread()
        template = load_template(settings.section("spaces", SpacesConfig))
        for path in template.inputs:
            record.add_input(path)
        files, digests = {}, {}
        for key, volume in template.volumes().items():
            name = f"tpl-{template.space}_{key}.nii.gz"
            kind: Dtype = "uint8" if key == "brain_mask" else "float32"
            path = write_volume(args.out.parent / name, volume.data, volume.affine, dtype=kind, template=True)
            record.add_output(path)
            files[key], digests[key] = name, sha256_file(path)
        others: dict[str, Any] = {}
        asked = [name for names in settings.every("preprocess.output_spaces") for name in names]
        for space in further_templates(asked, template.space):
            brain, brain_mask, inputs = load_further(space)
            for path in inputs:
                record.add_input(path)
            others[space] = {"files": {}, "sha256": {}, "inputs": [path.name for path in inputs]}
            rows: list[tuple[str, Volume, Dtype]] = [("brain", brain, "float32"), ("brain_mask", brain_mask, "uint8")]
            for key, volume, kind in rows:
                name = f"tpl-{space}_{key}.nii.gz"
                path = write_volume(args.out.parent / name, volume.data, volume.affine, dtype=kind, template=True)
                record.add_output(path)
                others[space]["files"][key], others[space]["sha256"][key] = name, sha256_file(path)
        mask = template.mask
        manifest = {
            "space": template.space,
            "source": template.source,
            "files": files,
            "sha256": digests,
            "moves": template.moves,
            "brain_mask_ml": round(float((mask.data > 0).sum()) * mask.grid.voxel_ml, 1),
            "inputs": [path.name for path in template.inputs],
            **({"others": others} if others else {}),
        }
        write_json(args.out, manifest)
    print(f"{args.out}: {template.space} from {template.source}, brain mask {manifest['brain_mask_ml']} ml")
    return 0
