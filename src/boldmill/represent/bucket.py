"""What the bucket stages share: operators read once, series opened against their grid, faults written as entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import read_json
from boldmill.errors import DataFault, MachineFault
from boldmill.preprocess.recipe import Recipe
from boldmill.provenance.record import Recorder
from boldmill.represent.given_parcels import Matched, given_series
from boldmill.represent.operators import load_operator
from boldmill.represent.series import Series, files_of, open_series
from boldmill.spaces.names import atlas_label

ANATOMY = {"t1w": "t1w_template", "gm": "gm", "wm": "wm", "csf": "csf", "jacobian": "jacobian"}
"""Names of the morphometry's images -> keys of the subject manifest."""


def quarantined(stage: str, fault: DataFault) -> dict[str, Any]:
    """Return the manifest entry of a scan with a fault of its own."""
    return {"status": "quarantined", "stage": stage, "reason": f"{fault.what}: {fault.why}", "fix": fault.fix}


def series_of(subject: dict[str, Any], *, parcels: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """Return the good scans of a subject manifest that have a time series, by scan id (a T1w alone has none).

    ``parcels`` includes those that come as parcel series: there is nothing of them to map.
    """
    scans: dict[str, dict[str, Any]] = subject["scans"]
    kinds = ("volume", "surface", "parcels") if parcels else ("volume", "surface")
    return [(k, s) for k, s in sorted(scans.items()) if s["status"] == "ok" and s["kind"] in kinds]


class Bench:
    """The operators of one run, read when first needed.

    Parameters
    ----------
    path : Path
        ``operators/operators.json``.
    results : Path
        Results folder; paths in manifests are relative to it.
    record : Recorder
        Every file read is added to its inputs.
    """

    def __init__(self, path: Path, results: Path, record: Recorder) -> None:
        self.manifest: dict[str, Any] = read_json(path)
        self.folder, self.results, self.record = path.parent, results, record
        self.affine: NDArray[np.float64] = np.array(self.manifest["grid"]["affine"], np.float64)
        self.shape: tuple[int, ...] = tuple(self.manifest["grid"]["shape"])
        self._operators: dict[str, Any] = {}

    @property
    def atlases(self) -> list[str]:
        """Labels of the configured atlases, the one models read first."""
        return [atlas_label(self.manifest["atlas"])]

    def atlas_name(self, label: str) -> str:
        """Return the name of an atlas, as its manifest gives it."""
        return str(self.manifest["atlas"])

    def parcels(self, label: str) -> list[str]:
        """Return the parcel names of an atlas, in id order."""
        return [str(parcel["name"]) for parcel in self.manifest["parcels"]]

    def membership(self, label: str, kind: str = "volume", space: str = "") -> Any:
        """Return the operator (P, n) that sums a parcel's voxels (``volume``), or vertices of the mesh ``space``."""
        return self.operator("surface_parcels" if kind == "surface" else "parcels")

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel of the output grid, mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def operator(self, name: str) -> Any:
        """Return an operator by name."""
        if name not in self._operators:
            path = self.folder / self.manifest["operators"][name]["file"]
            self.record.add_input(path)
            self._operators[name] = load_operator(path)
        return self._operators[name]

    def flat_mask(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return the pixel mask of the flat grid (H, W) and the sulcal depth of its pixels (N,)."""
        path = self.folder / self.manifest["flat"]["mask"]
        self.record.add_input(path)
        with np.load(path, allow_pickle=False) as stored:
            return stored["mask"], stored["sulc"]

    def open(self, scan: dict[str, Any]) -> Series:
        """Open the cleaned series of a scan."""
        for key in files_of(scan, self.results):
            self._need(self.results / scan["files"][key])
            if key == "recipe":
                recipe = Recipe.read(self.results / scan["files"][key], self.results)
                for path, known in recipe.inputs().items():
                    self.record.add_input(path, known)
        return open_series(scan, self.results, self.affine, self.shape)

    def anatomy(self, files: dict[str, str]) -> dict[str, NDArray[np.float64]]:
        """Read the anatomical images (X,), i fastest."""
        import nibabel as nib

        images = {}
        for name, key in ANATOMY.items():
            path = self.results / files[key]
            self._need(path)
            image: Any = nib.load(path)
            if tuple(image.shape) != self.shape or not np.allclose(image.affine, self.affine, atol=1e-3):
                why = f"its grid {image.shape} is not the operators' {self.shape}, or it lies elsewhere"
                raise MachineFault("T1w and operators differ", path, why, "rerun the preprocess and operators stages")
            images[name] = np.asarray(image.dataobj, np.float64).ravel(order="F")
        return images

    def given(self, label: str, scan_id: str, scan: dict[str, Any]) -> tuple[NDArray[np.float32], Matched]:
        """Return the series (T, P) of a scan that comes as parcel series, in a configured atlas."""
        path = self.results / scan["files"]["timeseries_ready"]
        self._need(path)
        return given_series(path, scan["named"], scan["atlas"], self.parcels(label), self.atlas_name(label), scan_id)

    def _need(self, path: Path) -> None:
        if not path.is_file():
            fix = "snakemake -R preprocess_subject (what is still there is reused)"
            raise MachineFault("missing derivative", path, "the subject manifest names it", fix)
        self.record.add_input(path)
