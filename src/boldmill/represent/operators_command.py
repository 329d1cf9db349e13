r"""Build the sparse operators once: parcel means, volume to fsaverage5, fsaverage5 to the flat grid.

Example
-------
boldmill operators --atlas results/atlas/atlas.json --template results/templates/template.json \
    --out results/operators/operators.json --config-json "$JSON"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boldmill operators`."""
    parser.add_argument("--atlas", type=Path, required=True, help="manifest of the atlas")
    parser.add_argument("--template", type=Path, required=True, help="manifest of the template")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of stage `operators` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Write the operators and their manifest."""
    import nibabel as nib
    import numpy as np

    from boldmill.atomic import read_json, sha256_file, write_json
    from boldmill.errors import ConfigError
    from boldmill.provenance.record import Recorder
    from boldmill.represent.flatgrid import BOX, PIXEL, fsaverage5_flat_grid
    from boldmill.represent.operators import membership, save_arrays, save_operator, trilinear
    from boldmill.spaces.config import SpacesConfig
    from boldmill.spaces.grid import grid_file, output_grid
    from boldmill.spaces.moves import MNI305, path_between
    from boldmill.spaces.ribbon import ribbon_files, ribbon_points
    from boldmill.spaces.surfaces import HEMISPHERES, flat_files, fsaverage5_scalar
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    config = settings.section("spaces", SpacesConfig)
    depths = int(settings.raw("flatmap.depths"))
    atlas = read_json(args.atlas)
    space = str(atlas["space"])
    files = {key: args.atlas.parent / name for key, name in atlas["files"].items()}
    inputs = [args.atlas, args.template, grid_file(args.template), *files.values(), *ribbon_files(), *flat_files()]
    with Recorder(settings, out=args.out, inputs=inputs) as record:
        affine, shape = output_grid(args.template, config.resolution)
        if not np.allclose(atlas["grid"]["affine"], affine) or tuple(atlas["grid"]["shape"]) != shape:
            raise ConfigError(
                "atlas and output grid differ", args.atlas, "it is on another grid", "rerun the atlas stage"
            )
        table = [line.split("\t") for line in files["parcels"].read_text(encoding="utf-8").splitlines()[1:]]
        ids = [int(row[0]) for row in table]
        volume: Any = nib.load(files["volume"])
        halves: list[Any] = [nib.load(files[f"labels_{side}"]) for side in ("lh", "rh")]
        surface = np.concatenate([half.agg_data() for half in halves])
        flat = {"fsaverage5": fsaverage5_flat_grid}[config.flat]()
        built = {
            "parcels": membership(np.asarray(volume.dataobj).ravel(order="F"), ids),
            "surface_parcels": membership(surface, ids),
            "volume_to_fsaverage5": trilinear(ribbon_points(space, depths), affine, shape),
            "flat": flat.operator,
        }
        entries = {}
        for name, matrix in built.items():
            path = save_operator(args.out.parent / f"{name}.npz", matrix)
            record.add_output(path)
            entries[name] = {
                "file": path.name,
                "shape": list(matrix.shape),
                "nnz": int(matrix.nnz),
                "sha256": sha256_file(path),
                "how": _HOW[name].format(depths=depths, space=space),
            }
        folds = flat.operator @ np.concatenate([fsaverage5_scalar("sulc", h) for h in HEMISPHERES]).astype(np.float32)
        mask = save_arrays(args.out.parent / "flat_mask.npz", mask=flat.mask, sulc=folds)
        record.add_output(mask)
        manifest = {
            "schema": 1,
            "space": space,
            "atlas": atlas["atlas"],
            "grid": {"affine": affine.tolist(), "shape": list(shape)},
            "parcels": [{"id": int(r[0]), "name": r[1], "network": r[2], "hemisphere": r[3]} for r in table],
            "operators": entries,
            "flat": {
                "name": flat.name,
                "mask": mask.name,
                "mask_sha256": flat.mask_sha256,
                "n_pixels": int(flat.mask.sum()),
                "n_patches_16": flat.n_patches,
                "shape": list(flat.mask.shape),
                "pixel_mm": PIXEL,
                "box_mm": list(BOX),
                "surface": "nilearn fsaverage5 flat (FreeSurfer fsaverage flattening)",
            },
            "moves": [m.describe() for m in path_between(MNI305, space)],
        }
        write_json(args.out, manifest)
    shapes = ", ".join(f"{name} {entry['shape']}" for name, entry in entries.items())
    print(f"operators: {shapes}; {int(flat.mask.sum())} pixels")
    return 0


_HOW = {
    "parcels": "sum over a parcel's voxels on the output grid (i fastest)",
    "surface_parcels": "sum over a parcel's fsaverage5 vertices (left, then right)",
    "volume_to_fsaverage5": "trilinear samples of {space} at {depths} depths between white and pial (MNI305, moved)",
    "flat": "barycentric in the Delaunay triangulation of the flat vertices, pixels of the mask row by row",
}
