r"""Cortical flat maps of one bucket's runs: frames for training, a still and a movie for the eye.

Example
-------
boldmill flatmap --subjects results/preprocess/demo/sub-01.json \
    --operators results/operators/ribbon.json results/operators/flat.json results/operators/meshes.json \
    --results results --frames results/flatmap/bucket-000.frames --out results/flatmap/bucket-000.json \
    --config-json "$JSON"
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boldmill.provenance.record import Recorder
    from boldmill.represent.bucket import Bench
    from boldmill.represent.config import FlatmapConfig


METHODS = {
    "v2": "projection, z-score per pixel, then Chebyshev I anti-alias (downsampling only) and PCHIP",
    "v1": "z-score per vertex, Chebyshev I anti-alias (downsampling only) and PCHIP, then projection",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `boldmill flatmap`."""
    parser.add_argument("--subjects", type=Path, nargs="*", default=[], help="subject manifests, or lists of them")
    parser.add_argument("--operators", type=Path, nargs="*", default=[], help="manifests: ribbon, flat, meshes")
    parser.add_argument("--results", type=Path, required=True, help="results folder")
    parser.add_argument("--frames", type=Path, help="folder of the frames, written anew (default: <out>.frames)")
    parser.add_argument("--out", type=Path, required=True, help="bucket manifest to write")
    parser.add_argument("--config-json", required=True, help="settings of stage `flatmap` (JSON text)")


def run(args: argparse.Namespace) -> int:
    """Map every good scan of the bucket; a scan with a fault of its own is quarantined."""
    from tqdm import tqdm

    from boldmill.atomic import read_json, write_json
    from boldmill.errors import DataFault
    from boldmill.index.buckets import listed
    from boldmill.provenance.record import Recorder
    from boldmill.represent.bucket import Bench, quarantined, series_of
    from boldmill.represent.config import FlatmapConfig
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    scans: dict[str, Any] = {}
    subjects = listed(args.subjects, args.results)
    with Recorder(settings, out=args.out, inputs=[*args.subjects, *subjects]) as record:
        bench = Bench(args.operators, args.results, record)
        frames = args.frames or args.out.with_suffix(".frames")
        shutil.rmtree(frames, ignore_errors=True)
        frames.mkdir(parents=True)
        for path in tqdm(sorted(subjects), desc="flatmap", unit="subject", disable=None):
            subject = read_json(path)
            config = settings.section("flatmap", FlatmapConfig, subject["dataset"])
            for scan_id, scan in series_of(subject):
                try:
                    scans[scan_id] = _one_scan(bench, record, subject["dataset"], scan_id, scan, config, frames)
                except DataFault as fault:
                    scans[scan_id] = quarantined("flatmap", fault)
        keys = ("name", "mesh", "surface", "mask_sha256", "n_pixels", "n_patches_16", "shape")
        grid = (
            {**{key: bench.flat[key] for key in keys}, "preset": settings.raw("flatmap.preset")}
            if args.operators
            else {}
        )
        write_json(args.out, {"schema": 1, "scans": scans, "grid": grid})
    bad = sum(s["status"] != "ok" for s in scans.values())
    print(f"flatmap: {len(scans) - bad} scans, {bad} quarantined")
    return 0


def _one_scan(
    bench: Bench,
    record: Recorder,
    dataset: str,
    scan_id: str,
    scan: dict[str, Any],
    config: FlatmapConfig,
    frames: Path,
) -> dict[str, Any]:
    import numpy as np

    from boldmill.atomic import sha256_file
    from boldmill.paths import Layout
    from boldmill.represent.flatmap import fill_vertices, flat_run, vertex_series
    from boldmill.represent.operators import save_raw
    from boldmill.represent.pictures import write_movie, write_still
    from boldmill.represent.series import space_of
    from boldmill.spaces.meshes import surface
    from boldmill.spaces.surfaces import HEMISPHERES

    series = bench.open(scan)
    values, covered = vertex_series(series, bench.to_flat_mesh(space_of(scan)))
    spheres = [surface(bench.flat["mesh"], "sphere", hemisphere) for hemisphere in HEMISPHERES]
    for sphere in spheres:
        record.add_input(sphere.path)
    filled = fill_vertices(values, covered, [sphere.coords for sphere in spheres])
    tr = float(scan["tr"])
    found = flat_run(filled, covered, bench.operator("flat"), tr, config.target_tr, preset=config.preset)
    mask, folds = bench.flat_mask()
    layout = Layout.at(bench.results)
    paths = {"frames": frames / f"{scan_id}.npz"}
    paths |= {
        key: layout.flat_scan(dataset, scan_id, suffix) for key, suffix in (("still", ".png"), ("movie", ".webp"))
    }
    save_raw(
        paths["frames"],
        frames=found.frames,
        mean=found.mean,
        std=found.std,
        mask=mask,
        covered=found.covered,
        tr=np.float64(config.target_tr),
        tr_in=np.float64(tr),
    )
    write_still(paths["still"], found.frames, found.std, mask, folds, config.target_tr)
    if config.movie_frames:
        write_movie(paths["movie"], found.frames, mask, folds, config.movie_frames, config.target_tr)
    else:
        del paths["movie"]
    for key, path in paths.items():
        record.add_output(path, temporary=key == "frames")
    return {
        "status": "ok",
        "kind": scan["kind"],
        "tr": config.target_tr,
        "tr_in": tr,
        "n_frames": len(found.frames),
        "method": METHODS[config.preset],
        "files": {key: path.relative_to(bench.results).as_posix() for key, path in paths.items()},
        "sha256": {key: sha256_file(path) for key, path in paths.items() if key != "frames"},  # in the report
        "qc": {
            "pixels_covered": round(float(found.covered.mean()), 4),
            "pixels_constant": int((found.std <= 1e-6).sum()),
            "largest_z": round(float(np.abs(found.frames).max()), 2),
        },
    }
