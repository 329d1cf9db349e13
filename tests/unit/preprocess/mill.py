"""A data set of derivatives, and the stages run on it: what the tests of ready-made data share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from boldmill.atomic import read_json, write_json
from boldmill.config.load import parse
from boldmill.index.command import ingest
from boldmill.preprocess import command
from boldmill.represent import parcellate_command
from boldmill.stages import Settings, stage_json

from . import pipelines as made

CLEAN = {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None, "min_dof_flag": 1}


class Mill:
    """A data set of derivatives, and the stages run on it."""

    def __init__(self, base: Path, root: Path | None = None, **config: Any) -> None:
        self.base, self.root, self.results = base, root or base / "ds", base / "results"
        entry = {"name": "ds", "root": str(self.root), "kind": "derivative", **config.pop("dataset", {})}
        given = {"datasets": [entry], "spaces": {"resolution": 6.0}, "clean": CLEAN, **config}
        self.config = parse(given)

    def ingest(self) -> dict[str, Any]:
        rows = ingest(Settings(stage_json(self.config, "ingest")), self.results)
        return {row.scan_id.removeprefix("ds_"): row for row in rows}

    def ignored(self) -> dict[str, str]:
        lines = (self.results / "index" / "ignored.tsv").read_text().splitlines()[1:]
        return {line.split("\t")[1]: line.split("\t")[2] for line in lines}

    def ticket(self, scan: str) -> dict[str, Any]:
        return dict(read_json(self.results / "index" / "tickets" / f"ds_{scan}.json"))

    def template(self, shape: tuple[int, ...] = made.SHAPE, affine: np.ndarray = made.AFFINE) -> Path:
        folder = self.results / "templates"
        files = {key: f"{key}.nii.gz" for key in ("head", "brain_mask", "gm", "wm", "csf")}
        for name in files.values():
            made.write(folder, name, made.image(made.brain(shape), affine))
        content = {"space": made.SPACE, "source": "test", "files": files, "moves": []}
        return write_json(folder / "template.json", content)

    def preprocess(self, subject: str, template: Path | None = None) -> dict[str, Any]:
        """Run the command on one subject and return the manifest's scans, without the data set's name."""
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        tickets = sorted((self.results / "index" / "tickets").glob(f"ds_sub-{subject}_*.json"))
        out = self.results / "preprocess" / "ds" / f"sub-{subject}.json"
        words = ["--tickets", *map(str, tickets), "--template", str(template or self.template())]
        words += ["--results", str(self.results), "--out", str(out)]
        words += ["--config-json", stage_json(self.config, "preprocess", {"ds"})]
        assert command.run(parser.parse_args(words)) == 0
        manifest = read_json(out)
        assert manifest["anat"]["status"] == "absent"
        return {name.removeprefix("ds_"): entry for name, entry in manifest["scans"].items()}

    def one(self, subject: str = "01", **more: Any) -> dict[str, Any]:
        """Ingest, preprocess one subject, and return its only scan."""
        self.ingest()
        (entry,) = self.preprocess(subject, **more).values()
        return dict(entry)

    def parcellate(self, subject: str, names: list[str], atlas: str) -> dict[str, Any]:
        parser = argparse.ArgumentParser()
        parcellate_command.add_arguments(parser)
        operators = made.operators(self.results / "operators", names, atlas)
        out = self.results / "parcellate" / "bucket-000.json"
        words = ["--subjects", str(self.results / "preprocess" / "ds" / f"sub-{subject}.json")]
        words += ["--operators", str(operators), "--results", str(self.results)]
        words += ["--out", str(out), "--config-json", stage_json(self.config, "parcellate")]
        assert parcellate_command.run(parser.parse_args(words)) == 0
        (entry,) = read_json(out)["scans"].values()
        (only,) = entry["atlases"].values()
        return {**entry, **only}

    def image(self, entry: dict[str, Any], key: str) -> Any:
        return nib.load(self.results / entry["files"][key])  # type: ignore[attr-defined]


def residual(series: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """Least squares, the independent reference: mean, trend and regressors out."""
    x = np.column_stack([np.ones(len(series)), np.linspace(-1, 1, len(series)), regressors])
    return series - x @ np.linalg.lstsq(x, series, rcond=None)[0]


def table(path: Path) -> tuple[list[str], np.ndarray]:
    lines = path.read_text().splitlines()
    values = [[np.nan if v == "n/a" else float(v) for v in line.split("\t")] for line in lines[1:]]
    return lines[0].split("\t"), np.array(values)
