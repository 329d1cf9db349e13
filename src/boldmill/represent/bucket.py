"""What the bucket stages share: operators read once, series opened against their grid, faults written as entries."""

from __future__ import annotations

from collections.abc import Sequence
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
    paths : sequence of Path
        Manifests of operators (``operators/*.json``); those of atlases in the order of the configuration.
    results : Path
        Results folder; paths in manifests are relative to it.
    record : Recorder
        Every file read is added to its inputs.

    Raises
    ------
    MachineFault
        The manifests are of different grids.
    """

    def __init__(self, paths: Sequence[Path], results: Path, record: Recorder) -> None:
        self.results, self.record = results, record
        self._parcels: dict[str, dict[str, Any]] = {}
        self._other: dict[str, dict[str, Any]] = {}
        self._files: dict[str, Path] = {}
        self._operators: dict[str, Any] = {}
        grids: list[tuple[Path, str, dict[str, Any]]] = []
        for path in paths:
            record.add_input(path)
            manifest = read_json(path)
            of_atlas = manifest["what"] == "parcels"
            prefix = f"{manifest['label']} " if of_atlas else ""
            self._files |= {prefix + name: path.parent / e["file"] for name, e in manifest["operators"].items()}
            if of_atlas:
                self._parcels[manifest["label"]] = manifest
            else:
                self._other[manifest["what"]] = manifest
            if "grid" in manifest:
                grids.append((path, manifest["space"], manifest["grid"]))
        for path, space, grid in grids:
            if (space, grid) != grids[0][1:]:
                why = f"its grid is not that of {grids[0][0].name}"
                raise MachineFault("operators do not fit", path, why, "rerun the operators of both")
        first: dict[str, Any] = grids[0][2] if grids else {"affine": np.eye(4).tolist(), "shape": [0, 0, 0]}
        self.affine: NDArray[np.float64] = np.array(first["affine"], np.float64)
        self.shape: tuple[int, ...] = tuple(first["shape"])

    @property
    def atlases(self) -> list[str]:
        """Labels of the configured atlases, the one models read first."""
        return list(self._parcels)

    def atlas_name(self, label: str) -> str:
        """Return the name of an atlas, as its manifest gives it."""
        return str(self._parcels[label]["atlas"])

    def parcels(self, label: str) -> list[str]:
        """Return the parcel names of an atlas, in id order."""
        return [str(parcel["name"]) for parcel in self._parcels[label]["parcels"]]

    def membership(self, label: str, kind: str = "volume", space: str = "") -> Any:
        """Return the operator (P, n) that sums a parcel's voxels (``volume``), or vertices of the mesh ``space``."""
        return self.operator(f"{label} {(space or 'fsaverage5') if kind == 'surface' else 'volume'}")

    @property
    def flat(self) -> dict[str, Any]:
        """The flat grid, as its manifest describes it."""
        if "flat" not in self._other:
            fix = "name operators/flat.json in --operators"
            raise MachineFault("missing operator", "flat", "none of the manifests has the flat grid", fix)
        found: dict[str, Any] = self._other["flat"]["flat"]
        return found

    def to_flat_mesh(self, source: str) -> Any | None:
        """Return the operator from the output grid (``volume``) or a mesh to the flat surface's mesh; None: it is that.

        Raises
        ------
        MachineFault
            The spheres that carry one mesh to the other were missing when the operators were built.
        """
        mesh = self.flat["mesh"]
        if source == mesh:
            return None
        name = f"{source}_to_{mesh}"
        if name not in self._files and (lacking := self._other.get("meshes", {}).get("missing")):
            fix = f"{self._other['meshes']['fix']}; then snakemake -R operator_meshes"
            raise MachineFault(f"cannot carry {source} to {mesh}", "operators/meshes.json", lacking, fix)
        return self.operator(name)

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel of the output grid, mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def operator(self, name: str) -> Any:
        """Return an operator by name (those of an atlas: its label, a space, ``volume`` or a mesh).

        Raises
        ------
        MachineFault
            No manifest at hand has it, e.g. those of two flat surfaces were named together.
        """
        if name not in self._files:
            why = f"none of the manifests has it, they have {', '.join(self._files) or 'none'}"
            raise MachineFault("missing operator", name, why, "name the operators of one configuration in --operators")
        if name not in self._operators:
            path = self._files[name]
            self.record.add_input(path)
            self._operators[name] = load_operator(path)
        return self._operators[name]

    def flat_mask(self) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return the pixel mask of the flat grid (H, W) and the sulcal depth of its pixels (N,)."""
        path = self._files["flat"].with_name(self.flat["mask"])
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
            fix = "snakemake -R preprocess_bucket (what is still there is reused)"
            raise MachineFault("missing derivative", path, "the subject manifest names it", fix)
        self.record.add_input(path)
