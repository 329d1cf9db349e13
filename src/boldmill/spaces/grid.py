"""The output grid: one definition for the atlas, the preprocessed images and the operators.

Axes: i to the right, j to the front, k up (RAS+), mm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import read_json
from boldmill.errors import ConfigError

MARGIN = 6.0
"""Space around the brain mask's box, mm: room for smoothing and motion at the edge."""

Affine = NDArray[np.float64]
Shape = tuple[int, int, int]


def covering_grid(
    mask: NDArray[Any], affine: NDArray[Any], resolution: float, margin: float = MARGIN
) -> tuple[Affine, Shape]:
    """Return the RAS grid that covers a mask's box plus a margin.

    Parameters
    ----------
    mask : (I, J, K) array of bool
    affine : (4, 4) array
        Voxel to mm of the mask; any axis order and sign.
    resolution : float
        Edge of the cubic voxels, mm. The origin is a whole multiple of it, so that grids of one resolution align.
    margin : float
        Added on each side, mm.

    Returns
    -------
    affine : (4, 4) array
    shape : tuple of 3 int
    """
    index = np.argwhere(np.asarray(mask, bool))
    low, high = index.min(0) - 0.5, index.max(0) + 0.5
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1).T
    points = corners @ np.asarray(affine, float)[:3, :3].T + np.asarray(affine, float)[:3, 3]
    first = np.floor((points.min(0) - margin) / resolution) * resolution
    count = np.ceil((points.max(0) + margin - first) / resolution).astype(int) + 1
    grid = np.diag([resolution, resolution, resolution, 1.0])
    grid[:3, 3] = first
    return grid, (int(count[0]), int(count[1]), int(count[2]))


def grid_file(template_manifest: str | Path) -> Path:
    """Return the image :func:`output_grid` reads: the template's brain mask."""
    manifest = Path(template_manifest)
    return manifest.parent / str(read_json(manifest)["files"]["brain_mask"])


def output_grid(template_manifest: str | Path, resolution: float) -> tuple[Affine, Shape]:
    """Return affine and shape of the grid every template-space image is written on.

    The template's own grid where it is RAS with cubic voxels of ``resolution`` mm; otherwise a RAS grid of that
    resolution that covers the template's brain mask plus a margin of 6 mm.

    Parameters
    ----------
    template_manifest : str or Path
        ``templates/template.json``.
    resolution : float
        ``spaces.resolution``, mm.

    Raises
    ------
    ConfigError
        The template's brain mask is empty.
    """
    import nibabel as nib

    path = grid_file(template_manifest)
    image: Any = nib.load(path)
    affine = np.asarray(image.affine, np.float64)
    if np.allclose(affine[:3, :3], np.eye(3) * resolution, atol=1e-3):
        shape = image.shape
        return affine, (int(shape[0]), int(shape[1]), int(shape[2]))
    mask = np.asarray(image.dataobj) > 0
    if not mask.any():
        raise ConfigError(
            "cannot lay the output grid", path, "the template's brain mask is empty", "use another template"
        )
    return covering_grid(mask, affine, resolution)
