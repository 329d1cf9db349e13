"""Prepare the atlas: label volume on the output grid, fsaverage5 labels, parcel table, and what agrees with what.

Example
-------
boldmill atlas --template results/templates/template.json --out results/atlas/atlas.json --config-json "$JSON"
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boldmill atlas`."""
    parser.add_argument("--template", type=Path, required=True, help="manifest of the template")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write, e.g. results/atlas/atlas.json")
    parser.add_argument("--config-json", required=True, help="settings of stage `atlas` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Write the atlas and its manifest."""
    import numpy as np

    from boldmill.atomic import read_json, write_json, write_text
    from boldmill.provenance.record import Recorder
    from boldmill.spaces.atlas import atlas_volume, surface_labels, surface_moves, volume_agreement
    from boldmill.spaces.config import SpacesConfig
    from boldmill.spaces.grid import grid_file, output_grid
    from boldmill.spaces.images import write_labels_gifti, write_nifti
    from boldmill.spaces.parcels import table_tsv
    from boldmill.spaces.ribbon import ribbon_files
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    config = settings.section("spaces", SpacesConfig)
    space = str(read_json(args.template)["space"])
    with Recorder(settings, out=args.out, inputs=[args.template]) as record:
        affine, shape = output_grid(args.template, config.resolution)
        volume = atlas_volume(config, space, affine, shape)
        surface = surface_labels(config, volume, space, affine)
        folder = args.out.parent
        written = {
            "volume": write_nifti(folder / "dseg.nii.gz", volume.labels, affine),
            "parcels": write_text(folder / "parcels.tsv", table_tsv(volume.table)),
        }
        names = {0: "medial_wall", **{p.id: p.name for p in volume.table}}
        for key, side, part in zip(("lh", "rh"), ("Left", "Right"), np.split(surface.labels, 2), strict=True):
            path = folder / f"fsaverage5.{key}.label.gii"
            written[f"labels_{key}"] = write_labels_gifti(path, part, names, f"Cortex{side}")
        voxels = np.bincount(volume.labels.ravel())
        vertices = np.bincount(surface.labels, minlength=max(names) + 1)
        manifest = {
            "schema": 1,
            "atlas": volume.name,
            "n_parcels": len(volume.table),
            "release": volume.release,
            "source": volume.source,
            "space": space,
            "grid": {"affine": affine.tolist(), "shape": list(shape)},
            "surface": {"mesh": "fsaverage5", "how": surface.how, "sources": surface.sources},
            "moves": [*volume.moves, *(m for m in surface_moves(space) if m not in volume.moves)],
            "agreement": {
                "surface_round_trip": surface.round_trip,
                "volume_on_surface": volume_agreement(volume.labels, affine, space, surface.labels),
            },
            "smallest_parcel": {
                "voxels": int(min(voxels[p.id] for p in volume.table)),
                "vertices": int(min(vertices[p.id] for p in volume.table)),
            },
            "files": {key: path.name for key, path in sorted(written.items())},
        }
        write_json(args.out, manifest)
        for path in (grid_file(args.template), *volume.files, *surface.files, *ribbon_files()):
            record.add_input(path)
        for path in written.values():
            record.add_output(path)
    print(f"atlas {volume.name}: {len(volume.table)} parcels in {space}; {manifest['agreement']}")
    return 0
