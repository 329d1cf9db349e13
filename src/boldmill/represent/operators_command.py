r"""Build sparse operators once: parcel means, ribbon sampling, the flat grid, and the way between the two meshes.

Each is a job of its own and writes a manifest beside its `.npz` files:

  parcels   sums over each parcel's voxels and vertices, of one atlas
  ribbon    volume to the mesh of the flat surface
  flat      that mesh to the pixels of the flat grid
  meshes    the other standard mesh to that mesh (needs TemplateFlow's fsLR spheres)

Example
-------
boldmill operators flat --out results/operators/flat.json --config-json "$JSON"
boldmill operators parcels --atlas results/atlas/LABEL/atlas.json --out results/operators/parcels-LABEL.json \
    --config-json "$JSON"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boldmill operators`."""
    parser.add_argument("what", choices=[*_BUILDERS], help="which operators")
    parser.add_argument("--atlas", type=Path, help="manifest of the atlas (parcels)")
    parser.add_argument("--template", type=Path, help="manifest of the template (ribbon)")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of stage `operator_<what>` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Write the operators and their manifest."""
    from boldmill.atomic import write_json
    from boldmill.errors import ConfigError
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings

    for needs, option in (("parcels", "atlas"), ("ribbon", "template")):
        if args.what == needs and getattr(args, option) is None:
            raise ConfigError(
                "missing option", f"boldmill operators {needs}", f"it needs --{option}", "name its manifest"
            )
    settings = Settings(args.config_json)
    with Recorder(settings, out=args.out) as record:
        manifest = {"schema": 2, "what": args.what, **_BUILDERS[args.what](args, settings, record)}
        write_json(args.out, manifest)
    shapes = ", ".join(f"{name} {entry['shape']}" for name, entry in manifest["operators"].items())
    print(f"operators {args.what}: {shapes or manifest.get('missing')}")
    return 0


def _save(args: argparse.Namespace, record: Recorder, matrix: Any, file: str, how: str) -> dict[str, Any]:
    """Write one operator beside the manifest and return its entry."""
    from boldmill.atomic import sha256_file
    from boldmill.represent.operators import save_operator

    path = save_operator(args.out.parent / file, matrix)
    record.add_output(path)
    size = {"shape": list(matrix.shape), "nnz": int(matrix.nnz)}
    return {"file": path.name, **size, "sha256": sha256_file(path), "how": how}


def _parcels(args: argparse.Namespace, settings: Settings, record: Recorder) -> dict[str, Any]:
    """Sums over each parcel's voxels on the output grid and its vertices on both meshes."""
    import nibabel as nib
    import numpy as np

    from boldmill.atomic import read_json
    from boldmill.represent.operators import membership
    from boldmill.spaces.meshes import N_VERTICES

    atlas = read_json(args.atlas)
    files = {key: args.atlas.parent / name for key, name in atlas["files"].items()}
    for path in (args.atlas, *files.values()):
        record.add_input(path)
    table = [line.split("\t") for line in files["parcels"].read_text(encoding="utf-8").splitlines()[1:]]
    ids = [int(row[0]) for row in table]
    load: Any = nib.load
    labels = {"volume": np.asarray(load(files["volume"]).dataobj).ravel(order="F")}
    for mesh in N_VERTICES:
        labels[mesh] = np.concatenate([load(files[f"{mesh}_{side}"]).agg_data() for side in ("lh", "rh")])
    how = {
        "volume": f"sum over a parcel's voxels on the output grid in {atlas['space']} (i fastest)",
        **{mesh: f"sum over a parcel's {mesh} vertices (left, then right)" for mesh in N_VERTICES},
    }
    stem = args.out.stem
    return {
        "label": args.atlas.parent.name,
        "atlas": atlas["atlas"],
        "space": atlas["space"],
        "grid": atlas["grid"],
        "parcels": [{"id": int(r[0]), "name": r[1], "network": r[2], "hemisphere": r[3]} for r in table],
        "operators": {
            name: _save(args, record, membership(values, ids), f"{stem}-{name}.npz", how[name])
            for name, values in labels.items()
        },
    }


def _ribbon(args: argparse.Namespace, settings: Settings, record: Recorder) -> dict[str, Any]:
    """Trilinear samples of the output grid at the vertices of the flat surface's mesh, mean over the depths."""
    import numpy as np

    from boldmill.atomic import read_json
    from boldmill.represent.operators import trilinear
    from boldmill.spaces.flats import MESH_OF
    from boldmill.spaces.grid import grid_file, output_grid
    from boldmill.spaces.meshes import cortex, cortex_and_fold_files
    from boldmill.spaces.moves import NLIN6, path_between
    from boldmill.spaces.ribbon import fusion_points, ribbon_files, ribbon_points, ribbon_space

    mesh, sampling = MESH_OF[settings.raw("spaces.flat")], settings.raw("flatmap.sampling")
    depths, given = int(settings.raw("flatmap.depths")), [Path(p) for p in settings.raw("flatmap.regfusion")]
    space = str(read_json(args.template)["space"])
    affine, shape = output_grid(args.template, float(settings.raw("spaces.resolution")))
    if sampling == "regfusion":
        points, files, source = fusion_points(given, space, mesh), given, NLIN6
        how = f"trilinear samples of {space} at the registration-fusion coordinates of {mesh}"
    else:
        points, files, source = ribbon_points(space, depths, mesh), ribbon_files(mesh), ribbon_space(mesh)
        how = f"trilinear samples of {space} at {depths} depths between white and pial of {mesh} ({source}, moved)"
    for path in (args.template, grid_file(args.template), *files, *cortex_and_fold_files(mesh)):
        record.add_input(path)
    points = np.where(cortex(mesh)[:, None], points, np.nan)
    matrix = trilinear(points, affine, shape)
    return {
        "mesh": mesh,
        "space": space,
        "grid": {"affine": affine.tolist(), "shape": list(shape)},
        "operators": {f"volume_to_{mesh}": _save(args, record, matrix, f"{args.out.stem}-{mesh}.npz", how)},
        "moves": [m.describe() for m in path_between(source, space)],
    }


def _flat(args: argparse.Namespace, settings: Settings, record: Recorder) -> dict[str, Any]:
    """Barycentric weights of the mesh's vertices at the pixels, and the pixel mask with the folds for pictures."""
    import numpy as np

    from boldmill.represent.flatgrid import PIXEL, flat_grid
    from boldmill.represent.operators import save_arrays
    from boldmill.represent.pictures import write_map
    from boldmill.spaces.flats import flat_surface
    from boldmill.spaces.meshes import cortex_and_fold_files, folds

    surface = flat_surface(settings.raw("spaces.flat"), settings.raw("spaces.flat_files"))
    for path in dict.fromkeys([*surface.files, *cortex_and_fold_files(surface.mesh)]):
        record.add_input(path)
    grid = flat_grid(surface)
    depth = (grid.operator @ folds(surface.mesh).astype(np.float32)).astype(np.float32)
    mask = save_arrays(args.out.with_name("flat_mask.npz"), mask=grid.mask, sulc=depth)
    record.add_output(mask)
    picture = write_map(args.out.with_suffix(".png"), depth, grid.mask, f"{grid.name}: sulcal depth, sulci dark")
    record.add_output(picture)
    how = "barycentric in the Delaunay triangulation of the flat vertices, pixels of the mask row by row"
    return {
        "flat": {
            "name": grid.name,
            "mesh": grid.mesh,
            "mask": mask.name,
            "mask_sha256": grid.mask_sha256,
            "n_pixels": int(grid.mask.sum()),
            "n_patches_16": grid.n_patches,
            "shape": list(grid.mask.shape),
            "pixel_mm": PIXEL,
            "box_mm": list(grid.frame.box),
            "surface": surface.about,
        },
        "operators": {"flat": _save(args, record, grid.operator, "flat.npz", how)},
    }


def _meshes(args: argparse.Namespace, settings: Settings, record: Recorder) -> dict[str, Any]:
    """The other mesh to the flat surface's; without TemplateFlow's spheres none, and what is missing."""
    from boldmill.errors import MachineFault
    from boldmill.spaces.flats import MESH_OF
    from boldmill.spaces.meshes import N_VERTICES, between, cortex_and_fold_files, registered_files

    mesh = MESH_OF[settings.raw("spaces.flat")]
    (other,) = (name for name in N_VERTICES if name != mesh)
    try:
        files = [*registered_files(other), *registered_files(mesh), *cortex_and_fold_files(other)]
    except MachineFault as fault:
        return {"mesh": mesh, "operators": {}, "missing": f"{fault.where}: {fault.why}", "fix": fault.fix}
    for path in files:
        record.add_input(path)
    how = f"adaptive barycentric weights from {other} to {mesh} on the fsaverage sphere (TemplateFlow fsLR 32k)"
    entry = _save(args, record, between(other, mesh), f"{other}-{mesh}.npz", how)
    return {"mesh": mesh, "operators": {f"{other}_to_{mesh}": entry}}


_BUILDERS = {"parcels": _parcels, "ribbon": _ribbon, "flat": _flat, "meshes": _meshes}
