r"""Prepare an atlas: label volume on the output grid, labels on both meshes, parcel table, and what agrees with what.

Example
-------
boldmill atlas --template results/templates/template.json \
    --out results/atlas/Schaefer2018-100Parcels7Networks/atlas.json --config-json "$JSON"
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boldmill atlas`."""
    parser.add_argument("--template", type=Path, required=True, help="manifest of the template")
    parser.add_argument(
        "--out", type=Path, required=True, help="manifest to write, e.g. results/atlas/LABEL/atlas.json"
    )
    parser.add_argument("--config-json", required=True, help="settings of stage `atlas` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Write the atlas and its manifest."""
    import numpy as np

    from boldmill.atomic import read_json, sha256_file, write_json, write_text
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
        surfaces = surface_labels(config, volume, space, affine)
        folder = args.out.parent
        written = {
            "volume": write_nifti(folder / "dseg.nii.gz", volume.labels, affine),
            "parcels": write_text(folder / "parcels.tsv", table_tsv(volume.table)),
        }
        names = {0: "medial_wall", **{p.id: p.name for p in volume.table}}
        for mesh, found in surfaces.items():
            for key, side, part in zip(("lh", "rh"), ("Left", "Right"), np.split(found.labels, 2), strict=True):
                path = folder / f"{mesh}.{key}.label.gii"
                written[f"{mesh}_{key}"] = write_labels_gifti(path, part, names, f"Cortex{side}")
        voxels = np.bincount(volume.labels.ravel(), minlength=max(names) + 1)
        vertices = {mesh: np.bincount(found.labels, minlength=max(names) + 1) for mesh, found in surfaces.items()}
        manifest = {
            "schema": 1,
            "atlas": volume.name,
            "n_parcels": len(volume.table),
            "release": volume.release,
            "source": volume.source,
            "space": space,
            "grid": {"affine": affine.tolist(), "shape": list(shape)},
            "surfaces": {mesh: {"how": found.how, "sources": found.sources} for mesh, found in surfaces.items()},
            "moves": [*volume.moves, *(m for m in surface_moves(space) if m not in volume.moves)],
            "agreement": {
                "surface_round_trip": surfaces["fsaverage5"].round_trip,
                "volume_on_surface": {
                    mesh: volume_agreement(volume.labels, affine, space, found.labels, mesh)
                    for mesh, found in surfaces.items()
                },
            },
            "smallest_parcel": {
                "voxels": int(min(voxels[p.id] for p in volume.table)),
                **{mesh: int(min(count[p.id] for p in volume.table)) for mesh, count in vertices.items()},
            },
            "files": {key: path.name for key, path in sorted(written.items())},
            "sha256": {key: sha256_file(path) for key, path in sorted(written.items())},
        }
        write_json(args.out, manifest)
        for path in (grid_file(args.template), *volume.files):
            record.add_input(path)
        for mesh, found in surfaces.items():
            for path in (*found.files, *ribbon_files(mesh)):
                record.add_input(path)
        for path in written.values():
            record.add_output(path)
    print(f"atlas {volume.name}: {len(volume.table)} parcels in {space}; {manifest['agreement']}")
    return 0
