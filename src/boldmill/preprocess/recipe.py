"""Recipes: everything that makes the 4D images of a run again, from the raw file and the kept transforms.

``preprocess/<dataset>/recipes/<scan_id>.json``; paths are relative to the results folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.errors import MachineFault
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.images import Grid
from boldmill.preprocess.slicetiming import SliceTimes

SCHEMA = 1
AGAIN = "run the preprocess stage again (what did not change is reused)"
NEEDED = ("hmc", "coreg", "field", "t1w_mask", "mask", "confounds", "confounds_json")


def recipe_path(results: Path, dataset: str, scan_id: str) -> Path:
    """Return where the recipe of a scan lies."""
    return results / "preprocess" / dataset / "recipes" / f"{scan_id}.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recipe:
    """One recipe, with the results folder its paths are relative to."""

    results: Path
    path: Path
    value: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path, results: str | Path) -> Recipe:
        """Read a recipe.

        Raises
        ------
        MachineFault
            There is none, or another version wrote it.
        """
        if not Path(path).is_file():
            raise MachineFault("no recipe", path, "there is no such file", AGAIN)
        value = read_json(path)
        if value.get("schema") != SCHEMA:
            why = f"its schema is {value.get('schema')}, not {SCHEMA}"
            raise MachineFault("cannot use recipe", path, why, AGAIN)
        return cls(results=Path(results), path=Path(path), value=value)

    @property
    def scan(self) -> str:
        """Scan id."""
        return str(self.value["scan_id"])

    @property
    def tr(self) -> float:
        """Repetition time, s."""
        return float(self.value["tr"])

    @property
    def raw(self) -> Path:
        """The raw BOLD file."""
        return Path(self.value["root"]) / str(self.value["bold"]["path"])

    @property
    def grid(self) -> Grid:
        """The output grid."""
        x, y, z = self.value["grid"]["shape"]
        return Grid((x, y, z), np.asarray(self.value["grid"]["affine"], dtype=np.float64))

    @property
    def timing(self) -> SliceTimes | None:
        """Slice times, or None where there is no slice timing."""
        known = self.value["slice_timing"]
        if known is None:
            return None
        return SliceTimes(np.asarray(known["times"], dtype=np.float64), int(known["axis"]), float(known["reference"]))

    @property
    def clean(self) -> CleanConfig:
        """Cleaning settings."""
        return CleanConfig.model_validate({**self.value["clean"], "strategy": ""})

    def file(self, key: str) -> Path:
        """Return a file of the fit."""
        return self.results / str(self.value["files"][key])

    def has(self, key: str) -> bool:
        """Whether the fit left a file of that name."""
        return key in self.value["files"]

    def inputs(self) -> dict[Path, dict[str, Any] | None]:
        """Return every file the images are made from, raw run first, with what is known of it for a record."""
        bold = self.value["bold"]
        raw = {"path": str(self.raw), "size": bold["size"], "sha256": bold["sha256"]} if bold.get("sha256") else None
        return {self.raw: raw, **{self.file(key): None for key in sorted(self.value["files"])}}

    def verify(self) -> None:
        """Check that the raw run and the files of the fit are those the recipe was written with.

        Raises
        ------
        MachineFault
            A file is gone or changed; its name is in the fault.
        """
        bold = self.value["bold"]
        for path, size, digest in (
            (self.raw, bold["size"], bold.get("sha256")),
            *((self.file(key), None, digest) for key, digest in sorted(self.value["sha256"].items())),
        ):
            kind, fix = ("raw file", "restore it, or run `snakemake ingest` and the workflow again")
            if path != self.raw:
                kind, fix = "file of the fit", AGAIN
            if not path.is_file():
                raise MachineFault(f"{kind} vanished", path, f"recipe {self.path} needs it", fix)
            if size is not None and path.stat().st_size != size:
                why = f"it has {path.stat().st_size} bytes, {size} when it was preprocessed"
                raise MachineFault(f"{kind} changed", path, why, fix)
            if digest and sha256_file(path) != digest:
                raise MachineFault(f"{kind} changed", path, f"its sha256 is not that of recipe {self.path}", fix)


def write_recipe(path: Path, results: Path, files: Mapping[str, Path], **value: Any) -> Path:
    """Write a recipe; ``files`` are absolute and get their sha256 beside them."""
    missing = [key for key in NEEDED if key not in files]
    if missing:
        raise KeyError(f"a recipe needs {missing}")
    return write_json(
        path,
        {
            "schema": SCHEMA,
            **value,
            "files": {key: Path(os.path.relpath(file, results)).as_posix() for key, file in files.items()},
            "sha256": {key: sha256_file(file) for key, file in files.items()},
        },
    )


def rehome(path: Path, root: str) -> bool:
    """Name the root of the raw data set in a recipe anew where the data set moved; return whether it had."""
    value = read_json(path)
    if value["root"] == root:
        return False
    write_json(path, {**value, "root": root})
    return True
