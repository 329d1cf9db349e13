"""Regions of a snapshot: their names, networks and sides, and which fsaverage5 vertices they cover, where known.

Axes: V vertices of fsaverage5 (left, then right), N regions in column order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import read_json
from boldmill.errors import ConfigError
from boldmill.spaces.meshes import N_VERTICES
from boldmill.spaces.parcels import Parcel, parse_name

HOW_TO_DRAW = (
    "regions by code: no surface of this atlas is known; to draw it on the cortex, give its left and right fsaverage5 "
    "label files as interpret.surface_labels"
)
MESH = "fsaverage5"


def named(names: Sequence[str]) -> list[Parcel]:
    """Return the regions in column order; ``id`` is the column, from 1. Codes tell neither network nor side."""
    return [parse_name(place, name) for place, name in enumerate(names, start=1)]


def atlas_files(manifest: Path) -> list[Path]:
    """Return the files of an atlas that :func:`of_atlas` reads."""
    files = read_json(manifest)["files"]
    return [manifest, *(manifest.parent / files[key] for key in ("parcels", f"{MESH}_lh", f"{MESH}_rh"))]


def of_atlas(manifest: Path, regions: Sequence[Parcel]) -> NDArray[np.int64]:
    """Return the column (from 1; 0 is none) of each vertex (V,) from a prepared atlas (`boldmill atlas`).

    Raises
    ------
    ConfigError
        The atlas names other regions than the snapshot.
    """
    _, table, left, right = atlas_files(manifest)
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    column = {region.name: region.id for region in regions}
    unknown = sorted({line[1] for line in lines} ^ set(column))
    if unknown:
        why = f"its regions are not those of the snapshot: {', '.join(unknown[:5])}"
        fix = "rebuild the atlas and the shards, and set snapshot.name to a new name, so that training follows"
        raise ConfigError("atlas and snapshot differ", manifest, why, fix)
    columns = np.zeros(max(int(line[0]) for line in lines) + 1, np.int64)
    for line in lines:
        columns[int(line[0])] = column[line[1]]
    return columns[read_labels(left, right, len(columns) - 1)]


def read_labels(left: Path, right: Path, highest: int) -> NDArray[np.int64]:
    """Return the labels (V,) of two fsaverage5 label files.

    Raises
    ------
    ConfigError
        A file cannot be read, has another number of vertices, or a key above ``highest``.
    """
    import nibabel as nib

    fix = "give two fsaverage5 label GIFTI files whose keys are the columns of the series, from 1"
    parts = []
    for path in (left, right):
        try:
            image: Any = nib.load(path)
            part = np.asarray(image.agg_data()).astype(np.int64)
        except Exception as error:  # nibabel's readers raise whatever their parser does
            raise ConfigError("cannot read the labels", path, " ".join(str(error).split()), fix) from error
        if part.shape != (N_VERTICES[MESH],):
            why = f"its shape is {part.shape}, not one label for each of {N_VERTICES[MESH]} vertices"
            raise ConfigError("not labels of fsaverage5", path, why, fix)
        if part.max(initial=0) > highest:
            raise ConfigError("unknown label", path, f"key {part.max()} of {highest} regions", fix)
        parts.append(np.maximum(part, 0))
    return np.concatenate(parts)


def on_vertices(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the value of each vertex's region, (N,) -> (V,); NaN where there is none."""
    return np.append(np.nan, values)[labels]
