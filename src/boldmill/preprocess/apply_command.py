r"""Make the 4D images of runs again from their recipes, without estimating anything: the same bytes as if kept.

Preprocessing keeps transforms, masks, confounds and one recipe per run; images are temporary unless `preprocess.keep`
lists them. The raw file and the files of the fit must be those the recipe names.

example:
  boldmill apply --results results --scan pumi_sub-001_task-rest --what preproc --out exported
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``boldmill apply``."""
    parser.add_argument("--results", required=True, type=Path, help="results folder")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--recipe", nargs="+", type=Path, help="recipes (preprocess/DATASET/recipes/SCAN.json)")
    which.add_argument("--scan", nargs="+", metavar="SCAN_ID", help="scans, whose recipes are looked up in --results")
    parser.add_argument(
        "--what", choices=("clean", "preproc"), default="clean", help="cleaned series, or that before cleaning"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write below, with BIDS-Derivatives names")


def run(args: argparse.Namespace) -> int:
    """Write one image and its sidecar per recipe."""
    from boldmill.errors import ConfigError
    from boldmill.preprocess.recipe import Recipe

    if not args.results.is_dir():
        raise ConfigError("no results folder", args.results, "there is no such folder", "give --results of a run")
    paths = args.recipe or [_look_up(args.results, scan) for scan in args.scan]
    for path in dict.fromkeys(paths):
        written = _one(Recipe.read(path, args.results.resolve()), args.what, args.out.resolve())
        print(written)
    return 0


def _look_up(results: Path, scan: str) -> Path:
    from boldmill.errors import ConfigError, nearest

    known = {path.stem: path for path in sorted(results.glob("preprocess/*/recipes/*.json"))}
    if scan not in known:
        fix = "give a scan that preprocessing let through (`boldmill status`)"
        raise ConfigError("no recipe", scan, f"{len(known)} scans have one{nearest(scan, known)}", fix)
    return known[scan]


def _one(recipe: Any, what: str, out: Path) -> Path:
    from tqdm import tqdm

    from boldmill.atomic import canonical_json
    from boldmill.preprocess import apply
    from boldmill.preprocess.bold_outputs import image_path, write_image
    from boldmill.preprocess.derivatives import Derivatives
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings, stage

    def progress(blocks: range) -> Any:
        return tqdm(blocks, desc=recipe.scan, unit="block", disable=None)

    value = {"stage": "apply", "version": stage("preprocess").version, "config": {"what": what}, "overrides": {}}
    dataset, raw = str(recipe.value["dataset"]), Path(recipe.value["root"])
    d = Derivatives(results=out, root=out, raw=raw, dataset=dataset)
    settings = Settings(canonical_json(value))
    with Recorder(settings, out=image_path(recipe, d, what), inputs=[recipe.path]) as record:
        for source, known in recipe.inputs().items():
            record.add_input(source, known)
        make = apply.cleaned if what == "clean" else apply.preprocessed
        series, mask = make(recipe, progress=progress)
        path, sidecar = write_image(recipe, d, what, series, mask)
        record.add_output(sidecar)
        record.add_output(d.describe())
    return path
