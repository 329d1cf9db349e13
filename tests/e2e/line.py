"""Run the whole line on a generated cohort, and read back what it made and what is true."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
Floats = NDArray[np.float64]


class Line:
    """A project folder: a cohort below ``resources/demo``, a configuration, and what Snakemake made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        shutil.copy(ROOT / "config.yaml", folder / "config.yaml")

    def run(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one command in the project folder with this Python's programs first on the path."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path, "XDG_CONFIG_HOME": str(self.folder / ".xdg"), **environment}
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False, env=variables)
        if check and done.returncode:
            logs = "\n".join(f"{p}:\n{p.read_text()[-2000:]}" for p in self.results.glob("logs/**/*.log"))
            raise AssertionError(
                f"{words} exited {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{logs}"
            )
        return done

    def cohort(self, *words: str) -> None:
        self.run("boldmill", "demo-data", "--out", "resources/demo", *words)

    def snakemake(self, *words: str, profile: str = "test", **environment: str) -> subprocess.CompletedProcess[str]:
        snakefile, profiles = str(ROOT / "Snakefile"), str(ROOT / "profiles" / profile)
        return self.run("snakemake", *words[:1], "-s", snakefile, "--profile", profiles, *words[1:], **environment)

    def json(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())

    @property
    def demo(self) -> dict[str, Any]:
        return self.json("resources/demo/demo.json")

    def scans(self) -> dict[str, dict[str, Any]]:
        """Every scan of every subject manifest, by scan id, with its subject."""
        found = {}
        for path in sorted(self.results.glob("preprocess/*/sub-*.json")):
            if not path.name.endswith(".prov.json"):
                manifest = json.loads(path.read_text())
                anat = manifest["anat"]
                found |= {
                    k: {**scan, "subject": manifest["subject"], "anat": anat} for k, scan in manifest["scans"].items()
                }
        return found

    def truth(self, scan_id: str, what: str) -> Path:
        """Path of one truth file of a scan, e.g. ``desc-motion_truth.tsv``."""
        name = scan_id.removeprefix("demo_")
        return self.folder / "resources" / "demo" / "truth" / name.split("_")[0] / f"{name}_{what}"

    def series(self, scan_id: str) -> Floats:
        """Parcel series (T, P) of a scan in the first atlas, NaN where not covered."""
        for manifest in sorted(self.results.glob("parcellate/bucket-*[0-9].json")):
            content = json.loads(manifest.read_text())
            if scan_id in content["scans"]:
                files = content["scans"][scan_id]["atlases"][content["configured"][0]]["files"]
                return np.genfromtxt(self.results / files["timeseries"], skip_header=1, delimiter="\t")
        raise KeyError(scan_id)


def true_motion(line: Line, scan_id: str) -> tuple[Floats, Floats]:
    """Return the true motion (T, 4, 4), rest to volume in BOLD world, and the rotation centre (3,)."""
    table = np.genfromtxt(line.truth(scan_id, "desc-motion_truth.tsv"), names=True, delimiter="\t")
    centre = np.array(json.loads(line.truth(scan_id, "desc-pose_truth.json").read_text())["centre"])
    matrices = np.tile(np.eye(4), (len(table), 1, 1))
    for t, row in enumerate(table):
        a, b, c = row["rot_x"], row["rot_y"], row["rot_z"]
        rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        matrices[t, :3, :3] = rx @ ry @ rz
        shift = np.array([row["trans_x"], row["trans_y"], row["trans_z"]])
        matrices[t, :3, 3] = centre + shift - matrices[t, :3, :3] @ centre
    return matrices, centre


def motion_error(estimated: Floats, true: Floats, centre: Floats) -> Floats:
    """Return the mean displacement error (mm) of each volume over a ball of 55 mm.

    The estimate is relative to a reference pose of its own, so one constant rigid motion is taken out first: the
    rotation nearest to the mean of ``true^-1 estimated``.
    """
    offset = np.mean(np.linalg.inv(true) @ estimated, axis=0)
    u, _, vt = np.linalg.svd(offset[:3, :3])
    offset[:3, :3] = u @ vt
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(400, 3))
    ball *= (55 * rng.random((400, 1)) ** (1 / 3)) / np.linalg.norm(ball, axis=1, keepdims=True)
    points = np.c_[ball + centre, np.ones(400)].T
    difference = (estimated @ points - true @ offset @ points)[:, :3]
    return np.linalg.norm(difference, axis=1).mean(axis=1)


def displaced(field: Path, points: Floats) -> Floats:
    """Move world points (N, 3) by a displacement field of either layout, (X, Y, Z, 3) or (X, Y, Z, 1, 3)."""
    import nibabel as nib
    from scipy.ndimage import map_coordinates

    image = nib.load(field)
    values = np.asarray(image.dataobj, dtype=np.float64).reshape(*image.shape[:3], 3)
    index = nib.affines.apply_affine(np.linalg.inv(image.affine), points).T
    shift = [map_coordinates(values[..., axis], index, order=1, mode="nearest") for axis in range(3)]
    return np.asarray(points + np.transpose(shift))
