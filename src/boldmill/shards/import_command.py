r"""Make shards and a snapshot of flat maps that others published as tar files (WebDataset).

Nothing is extracted, and nothing is unpickled. Runs that cannot be used are listed in shards/quarantine.json with
their reasons; all else goes on. The second generation of the format (v2) says nothing about its pixels: name the grid.
A grid with another number of pixels, or other pixels than the mask in a sample (v1), is refused.

Example
-------
boldmill import webdataset hcp/hcpya-all-flat-00000.tar --name hcpya --out imported \
    --grid flat_pca_n8_224_560.npz --grid-name fsLR-published-224x560
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from boldmill.errors import EXIT_OK, EXIT_QUARANTINED, ConfigError

FORMATS = ("webdataset",)
PATCH = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("format", choices=FORMATS, help="what to read")
    parser.add_argument("tars", type=Path, nargs="+", metavar="TAR", help="tar files")
    parser.add_argument("--name", required=True, help="name of the data set and of the snapshot")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results folder to write")
    grid = "pixels of the grid: .npz with `mask` or `components`, or a snapshot manifest (needed for v2)"
    parser.add_argument("--grid", type=Path, metavar="FILE", help=grid)
    parser.add_argument("--grid-name", help="name of the grid (default: that of the file); checkpoints remember it")
    parser.add_argument("--tr", type=float, default=1.0, help="seconds between frames, where meta.json has no `tr`")
    parser.add_argument("--clip-frames", type=int, default=16, help="frames of one clip (default: 16)")
    parser.add_argument("--clip-stride", type=int, default=16, help="frames between starts of clips (default: 16)")
    parser.add_argument("--clip-dtype", choices=("float16", "int8"), default="float16", help="stored precision")
    parser.add_argument("--buckets", type=int, default=64, help="buckets of subjects (default: 64)")
    parser.add_argument("--heldout", type=float, default=0.3, help="share of subjects held out (default: 0.3)")
    parser.add_argument("--validation", type=float, default=0.1, help="share of the others to validate (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the splits (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Write the shards and the snapshot; exit 3 where runs are quarantined."""
    from tqdm import tqdm

    from boldmill.atomic import canonical_json, write_json
    from boldmill.paths import Layout
    from boldmill.provenance.record import Recorder
    from boldmill.quality.config import InclusionConfig
    from boldmill.shards.config import ShardsConfig, SnapshotConfig
    from boldmill.shards.snapshot_command import take
    from boldmill.shards.webdataset import is_tr
    from boldmill.shards.webdataset_import import check_grid, open_tars, read_grid, write_bucket
    from boldmill.shards.write import quarantine_entries
    from boldmill.stages import Settings

    if not is_tr(args.tr):
        raise ConfigError("unusable option", "--tr", f"it is {args.tr:g}", "give seconds above 0")
    chosen = {"n_buckets": args.buckets, "clip_frames": args.clip_frames, "clip_stride": args.clip_stride}
    shards = _valid(ShardsConfig, {**chosen, "clip_dtype": args.clip_dtype})
    split = _valid(SnapshotConfig, {"name": args.name, "heldout": args.heldout, "validation": args.validation})
    source = open_tars(args.tars, args.name)
    mask = check_grid(source, None if args.grid is None else read_grid(args.grid))
    grid = describe_grid(mask, args.grid_name or ("" if args.grid is None else args.grid.stem) or "from-the-tar-files")
    config = {"format": args.format, "name": args.name, "grid": grid, "tr": args.tr}
    config |= {"shards": shards.model_dump(mode="json"), "snapshot": split.model_dump(mode="json")}
    value = {"stage": "import", "version": 1, "config": config, "overrides": {}, "seed": args.seed}
    settings, layout = Settings(canonical_json(value)), Layout.at(args.out)
    out = layout.snapshot(args.name)
    if out.exists() or (args.out / "shards").exists():
        raise ConfigError("will not overwrite", args.out, "it holds shards or a snapshot", "choose another --out")
    inputs = [*args.tars, *([] if args.grid is None else [args.grid])]
    with Recorder(settings, out=out, inputs=inputs) as record:
        bar = tqdm(total=len(source.samples), desc="import", unit="run", disable=None)
        written = 0
        paths: list[Path] = []
        for number in range(shards.n_buckets):
            pair = (layout.shard("flat_clips", number), layout.shard("scans", number))
            written += write_bucket(source, number, pair, mask, grid, shards, args.tr, settings.digest, bar)
            paths += pair
        for path in paths:
            record.add_output(path, own_record=True)
        refused = args.out / "shards" / "quarantine.json"
        write_json(refused, {"schema": 1, "stage": "import", "scans": quarantine_entries(source.faults)})
        record.add_output(refused)
        manifest = take(paths, [], out.parent, split, lambda dataset: InclusionConfig(), args.seed)
        write_json(out, manifest)
        record.note(snapshot=manifest["id"], scans=written, quarantined=len(source.faults))
    print(f"import: {written} runs, {len(source.faults)} quarantined ({refused}); snapshot {out}")
    return EXIT_QUARANTINED if source.faults else EXIT_OK


def describe_grid(mask: Any, name: str) -> dict[str, Any]:
    """Return what shards say of a grid."""
    from boldmill.represent.flatgrid import mask_sha256

    height, width = mask.shape
    whole = mask[: height // PATCH * PATCH, : width // PATCH * PATCH]
    blocks = whole.reshape(height // PATCH, PATCH, width // PATCH, PATCH)
    return {
        "name": name,
        "mask_sha256": mask_sha256(mask),
        "n_pixels": int(mask.sum()),
        "n_patches_16": int(blocks.any(axis=(1, 3)).sum()),
        "shape": [height, width],
    }


def _valid(kind: Any, values: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "options"
        raise ConfigError("unusable option", key, str(first["msg"]), "see --help") from error
