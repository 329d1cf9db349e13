from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from boldmill.errors import ConfigError
from boldmill.spaces.grid import covering_grid, output_grid


def _template(folder: Path, mask: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), folder / "mask.nii.gz")
    manifest = folder / "template.json"
    manifest.write_text(json.dumps({"space": "test", "files": {"brain_mask": "mask.nii.gz"}}))
    return manifest


def test_the_templates_own_grid_where_the_resolution_matches(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-11, -7, 3]
    manifest = _template(tmp_path, np.ones((5, 6, 7)), affine)
    grid, shape = output_grid(manifest, 2.0)
    assert shape == (5, 6, 7) and np.array_equal(grid, affine)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_another_resolution_covers_every_voxel_of_the_mask_with_the_margin(
    tmp_path: Path, signs: tuple[int, int, int]
) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((12, 14, 10)) > 0.97
    affine = np.diag([2.0 * signs[0], 2.0 * signs[1], 2.0 * signs[2], 1.0])
    affine[:3, 3] = [13, -9, 4]
    grid, shape = output_grid(_template(tmp_path, mask, affine), 3.0)
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    voxel = (points - grid[:3, 3]) / 3.0
    assert (voxel > 1).all() and (voxel < np.array(shape) - 2).all()  # 6 mm of margin are two voxels
    assert np.allclose(np.diag(grid)[:3], 3.0) and np.allclose(grid[:3, 3] % 3.0, 0)


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty"):
        output_grid(_template(tmp_path, np.zeros((4, 4, 4)), np.diag([1.0, 1, 1, 1])), 3.0)


def test_one_voxel() -> None:
    grid, shape = covering_grid(np.ones((1, 1, 1), bool), np.eye(4), 1.0, margin=0.0)
    assert shape == (3, 3, 3) and np.allclose(grid[:3, 3], -1.0)
