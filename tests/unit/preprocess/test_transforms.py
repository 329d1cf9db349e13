"""Fields and affines against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from boldmill.preprocess.images import Grid, Volume
from boldmill.preprocess.transforms import (
    apply_affine,
    dense_field,
    jacobian,
    map_points,
    read_affine,
    read_field,
    resample,
    sample,
    write_affine,
    write_field,
)

GRID = Grid((20, 22, 18), np.array([[2.0, 0, 0, -20], [0, 2, 0, -22], [0, 0, 2, -18], [0, 0, 0, 1]]))
AFFINE = np.array([[1.1, 0.05, 0, 3], [-0.04, 0.9, 0.02, -2], [0, 0.03, 1.2, 1], [0, 0, 0, 1]])


def test_affine_file_reads_back_exactly(tmp_path: Path) -> None:
    write_affine(tmp_path / "a.txt", AFFINE / 3)
    np.testing.assert_array_equal(read_affine(tmp_path / "a.txt"), AFFINE / 3)


def test_field_of_an_affine_maps_as_the_affine(tmp_path: Path) -> None:
    write_field(tmp_path / "f.nii.gz", dense_field(lambda x: apply_affine(AFFINE, x), GRID))
    field = read_field(tmp_path / "f.nii.gz")
    xyz = np.random.default_rng(0).uniform(-15, 13, (50, 3))
    np.testing.assert_allclose(map_points(field, xyz), apply_affine(AFFINE, xyz), atol=1e-3)
    np.testing.assert_allclose(jacobian(field), np.linalg.det(AFFINE[:3, :3]), atol=2e-3)


def test_jacobian_on_a_rotated_grid() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    field = dense_field(lambda x: apply_affine(AFFINE, x), Grid(GRID.shape, turn @ GRID.affine))
    np.testing.assert_allclose(jacobian(field), np.linalg.det(AFFINE[:3, :3]), atol=2e-3)


def test_folding_shows() -> None:
    def fold(x: np.ndarray) -> np.ndarray:
        out = x.copy()
        out[:, 0] += 12 * np.sin(x[:, 0] / 4)
        return out

    assert (jacobian(dense_field(fold, GRID)) < 0).any()


def test_outside_the_field_the_edge_value_holds() -> None:
    field = dense_field(lambda x: x + np.array([1.0, 2.0, 3.0]), GRID)
    np.testing.assert_allclose(map_points(field, [[500.0, 0, -500]]), [[501, 2, -497]], atol=1e-4)


def test_sampling_is_exact_for_linear_functions_and_zero_outside() -> None:
    x = GRID.points()
    volume = Volume((3 * x[:, 0] - 2 * x[:, 1] + x[:, 2] + 5).reshape(GRID.shape).astype(np.float32), GRID.affine)
    xyz = np.random.default_rng(1).uniform(-10, 8, (40, 3))
    for order in (1, 3):
        got = sample(volume, xyz, order=order)
        np.testing.assert_allclose(got, 3 * xyz[:, 0] - 2 * xyz[:, 1] + xyz[:, 2] + 5, atol=0.02)
    assert sample(volume, [[300.0, 0, 0]], outside=-1.0)[0] == -1
    np.testing.assert_array_equal(resample(volume, GRID, order=1).data, volume.data)
