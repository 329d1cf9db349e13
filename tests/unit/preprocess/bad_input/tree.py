"""A small BIDS tree of phantom heads, and how the cases break it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.config.model import Config
from boldmill.preprocess.images import Grid, write_volume
from boldmill.stages import stage_json

from .. import phantom  # noqa: TID252 (tests are no installed package)

COARSE = Grid((26, 31, 26), np.array([[7.0, 0, 0, -88], [0, 7, 0, -105], [0, 0, 7, -88], [0, 0, 0, 1]]))
VOLUMES = 24
TR = 2.0
RAW: dict[str, Any] = {
    "spaces": {"resolution": 4.0, "template": "PHANTOM"},
    "preprocess": {"n4_iterations": [5], "head_syn_iterations": [6], "brain_syn_iterations": [6]},
    "clean": {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None, "min_dof_flag": 1},
    "shards": {"n_buckets": 4},
}
HEAD = phantom.moved(phantom.rigid((4, 2, -3), (5, -8, 6), 1.03))


def still(grid: Grid = COARSE) -> NDArray[np.float64]:
    """EPI contrast of the head at rest, (X, Y, Z)."""
    part = phantom.parts(grid.points())
    return (90 * part["csf"] + 70 * part["gm"] + 50 * part["wm"] + 15 * part["scalp"]).reshape(grid.shape)


def series(grid: Grid = COARSE) -> NDArray[np.float32]:
    """A run (X, Y, Z, T): the head at rest, a global fluctuation and noise; the same for every subject."""
    rng = np.random.default_rng(1)
    image = still(grid)[..., np.newaxis]
    data = image * (1 + 0.01 * rng.standard_normal(VOLUMES)) + rng.normal(0, 1, (*grid.shape, VOLUMES))
    return data.astype(np.float32)


class Tree:
    """A BIDS folder `raw`; every subject has the same T1w and the same run ``acq-good``; bad runs lie beside it."""

    def __init__(self, base: Path) -> None:
        self.base, self.root = base, base / "raw"
        self.labels: list[str] = []
        self.root.mkdir(parents=True)
        write_json(self.root / "dataset_description.json", {"Name": "bad", "BIDSVersion": "1.10.0"})

    def subject(self, label: str) -> None:
        """Add a healthy subject."""
        self.labels.append(label)
        write_volume(self.t1w(label), HEAD.data, HEAD.affine)
        self.run(label, "good")

    def run(self, label: str, name: str) -> None:
        """Add a healthy run."""
        write_volume(self.bold(label, name), series(), COARSE.affine, tr=TR)
        self.sidecar(label, name, {"RepetitionTime": TR, "TaskName": "rest"})

    def t1w(self, label: str) -> Path:
        return self.root / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz"

    def bold(self, label: str, name: str) -> Path:
        return self.root / f"sub-{label}" / "func" / f"sub-{label}_task-rest_acq-{name}_bold.nii.gz"

    def sidecar(self, label: str, name: str, values: Any) -> None:
        path = self.bold(label, name).with_suffix("").with_suffix(".json")
        path.write_text(values if isinstance(values, str) else json.dumps(values))

    def replace(self, path: Path, data: Any, affine: Any = None, tr: float = TR, **header: Any) -> None:
        """Write an image as another program might: any type, any header."""
        image = nib.Nifti1Image(np.asarray(data), COARSE.affine if affine is None else affine)
        if image.ndim == 4:
            image.header.set_xyzt_units("mm", "sec")
            image.header.set_zooms((*image.header.get_zooms()[:3], tr))
        raw = image.to_bytes()
        if header:  # nibabel would make the header agree with itself again
            fields = nib.Nifti1Header(raw[:348], check=False)
            for key, value in header.items():
                fields[key] = value
            raw = fields.binaryblock + raw[348:]
        path.write_bytes(gzip.compress(raw, 1, mtime=0) if path.suffix == ".gz" else raw)

    def image(self, name: str, data: Any, affine: Any, tr: float | None = None, **sidecar: Any) -> None:
        """Add an image ``name``, relative to the data set and without extension, with its sidecar."""
        write_volume(self.root / f"{name}.nii.gz", np.asarray(data, dtype=np.float32), affine, tr=tr)
        (self.root / f"{name}.json").write_text(json.dumps(sidecar))

    def participants(self, without: tuple[str, ...] = ()) -> None:
        rows = [f"sub-{label}\t30" for label in sorted(self.labels) if label not in without]
        (self.root / "participants.tsv").write_text("\n".join(["participant_id\tage", *rows]) + "\n")


class Results:
    """What ingest and preprocess make of a tree."""

    def __init__(self, tree: Tree, name: str, raw: Mapping[str, Any] = RAW) -> None:
        self.tree, self.folder = tree, tree.base / name
        self.configure(raw)
        files = {}
        for key, part in (("head", "t1w"), ("brain_mask", "brain"), ("gm", "gm"), ("wm", "wm"), ("csf", "csf")):
            volume = phantom.volume(part)
            data = volume.data > 0.5 if key == "brain_mask" else volume.data
            files[key] = f"{key}.nii.gz"
            write_volume(self.folder / "templates" / files[key], data, volume.affine, template=True)
        manifest = {"space": "PHANTOM", "source": "demo", "files": files, "moves": []}
        write_json(self.folder / "templates" / "template.json", manifest)

    def configure(self, raw: Mapping[str, Any]) -> Config:
        """Set what the next jobs are told; the folder and what lies in it stay."""
        given = {"results": str(self.folder), "datasets": [{"name": "bad", "root": str(self.tree.root)}]}
        config = parse({**raw, **given})
        self.ingest_settings, self.settings = stage_json(config, "ingest"), stage_json(config, "preprocess", {"bad"})
        return config

    def ingest(self) -> int:
        return main(["ingest", "--results", str(self.folder), "--config-json", self.ingest_settings])

    def words(self, label: str, scan: str = "*") -> list[str]:
        """The command line of one subject's job; empty where ingest let none of its scans through."""
        tickets = sorted(str(p) for p in (self.folder / "index" / "tickets").glob(f"bad_sub-{label}_{scan}.json"))
        if not tickets:
            return []
        words = ["preprocess", "--tickets", *tickets, "--template", str(self.folder / "templates" / "template.json")]
        words += ["--results", str(self.folder), "--out", str(self.manifest_path(label))]
        return [*words, "--config-json", self.settings]

    def preprocess(self, label: str, scan: str = "*") -> int:
        words = self.words(label, scan)
        return main(words) if words else 0

    def manifest_path(self, label: str) -> Path:
        return self.folder / "preprocess" / "bad" / f"sub-{label}.json"

    def manifest(self, label: str) -> dict[str, Any]:
        path = self.manifest_path(label)
        return dict(read_json(path)) if path.is_file() else {"scans": {}, "anat": {"flags": []}}

    def digests(self, label: str) -> dict[str, str]:
        """Content of everything derived of one subject, by path: images, tables, sidecars, tickets, manifest."""
        wanted = [*(self.folder / "derivatives").rglob(f"sub-{label}_*"), self.manifest_path(label)]
        wanted += (self.folder / "index" / "tickets").glob(f"bad_sub-{label}_*.json")
        files = [path for path in wanted if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): sha256_file(path) for path in sorted(files)}
