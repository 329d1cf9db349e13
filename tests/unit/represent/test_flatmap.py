from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array

from boldmill.errors import DataFault
from boldmill.represent.flatmap import fill_vertices, flat_run, vertex_series, zscore
from boldmill.represent.operators import trilinear
from boldmill.represent.pictures import colour, write_movie, write_still
from boldmill.represent.series import Series
from boldmill.represent.timeresample import resample

RNG = np.random.default_rng(0)


def _series(values: np.ndarray, mask: np.ndarray) -> Series:
    return Series(
        where=Path("x"), n_volumes=values.shape[1], mask=mask, read=lambda c: iter([values[c, :3], values[c, 3:]])
    )


def test_zscore_has_population_sd_and_zero_variance_gives_zero() -> None:
    values = RNG.standard_normal((50, 4)).astype(np.float32) * 3 + 1000
    values[:, 2] = 7
    scaled, mean, std = zscore(values)
    assert np.allclose(scaled[:, [0, 1, 3]].mean(0), 0, atol=1e-5) and np.allclose(
        scaled[:, [0, 1, 3]].std(0), 1, atol=1e-5
    )
    assert (scaled[:, 2] == 0).all() and std[2] == 0 and mean[2] == 7


def test_a_vertex_averages_only_what_lies_in_the_mask() -> None:
    shape = (4, 4, 4)
    operator = trilinear(np.array([[[0.5, 1, 1], [1.25, 1, 1], [2.75, 1, 1]]]), np.eye(4), shape)
    values = RNG.standard_normal((64, 6)).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[1] = True
    found, covered = vertex_series(_series(values, mask.ravel(order="F")), operator)
    voxel = 1 + 4 * 1 + 16 * 1
    assert covered.tolist() == [True, True, False]  # weights inside: 0.5, 0.75, 0
    assert np.allclose(found[0], values[voxel], atol=1e-6) and np.allclose(found[1], values[voxel], atol=1e-6)


def test_gaps_take_the_nearest_covered_vertex_of_their_hemisphere() -> None:
    sphere = np.array([[np.cos(a), np.sin(a), 0] for a in np.linspace(0, 1, 5)])
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    covered = np.array([1, 0, 0, 0, 1, 0, 1, 1, 1, 1], bool)
    filled = fill_vertices(values, covered, [sphere, sphere])
    assert (filled[covered] == values[covered]).all()
    assert filled[1].tolist() == values[0].tolist() and filled[3].tolist() == values[4].tolist()
    assert filled[5].tolist() == values[6].tolist()
    with pytest.raises(DataFault, match="right"):
        fill_vertices(values, np.array([True] * 5 + [False] * 5), [sphere, sphere])


def test_the_first_generation_scales_vertices_then_resamples_then_projects() -> None:
    vertices = (RNG.standard_normal((30, 40)) * np.linspace(1, 9, 30)[:, None] + 50).astype(np.float32)
    vertices[3] = 4  # constant: 0 in the published order
    flat = csr_array(RNG.dirichlet(np.ones(30), 12).astype(np.float32))
    covered = np.ones(30, bool)
    found = flat_run(vertices, covered, flat, 0.8, 1.0, preset="v1")
    scaled, mean, std = zscore(vertices.T)
    assert (scaled[:, 3] == 0).all()
    expected = resample(scaled, 0.8, 1.0) @ flat.toarray().T
    assert np.abs(found.frames - expected).max() < 5e-3  # float16
    assert np.allclose(found.mean, flat @ mean, rtol=1e-5) and np.allclose(found.std, flat @ std, rtol=1e-5)
    # the two orders are not the same: an interpolated pixel of unit-variance vertices has less variance
    other = flat_run(vertices, covered, flat, 0.8, 1.0, preset="v2")
    assert found.frames.astype(float).std() < 0.6 * other.frames.astype(float).std()


def test_order_is_project_then_zscore_then_resample() -> None:
    vertices = (RNG.standard_normal((30, 40)) * np.linspace(1, 9, 30)[:, None]).astype(np.float32)
    weights = RNG.dirichlet(np.ones(30), 5000).astype(np.float32)  # more pixels than one block
    flat = csr_array(weights)
    found = flat_run(vertices, np.ones(30, bool), flat, 1.0, 1.0)
    pixels = weights.astype(np.float64) @ vertices
    expected = (pixels - pixels.mean(1, keepdims=True)) / pixels.std(1, keepdims=True)
    assert found.frames.dtype == np.float16 and np.abs(found.frames.T - expected).max() < 5e-3
    assert np.allclose(found.std, pixels.std(1), rtol=1e-4) and found.covered.all()
    slower = flat_run(vertices, np.ones(30, bool), flat, 2.0, 1.0)
    assert slower.frames.shape == (79, 5000)
    assert np.abs(slower.frames[::2].astype(float) - found.frames).max() < 5e-3  # PCHIP passes through the samples


def test_too_little_cortex_is_quarantined() -> None:
    with pytest.raises(DataFault, match="40%"):
        flat_run(
            np.ones((5, 4), np.float32), np.array([1, 1, 0, 0, 0], bool), csr_array(np.eye(5, dtype=np.float32)), 1, 1
        )


def test_pictures_have_the_grid_and_the_right_colours(tmp_path: Path) -> None:
    mask = np.zeros((32, 48), bool)
    mask[4:28, 4:20] = True
    values = np.linspace(-3, 3, int(mask.sum())).astype(np.float16)
    painted = colour(values, mask, None, -2.5, 2.5, "RdBu_r")
    assert (painted[~mask] == 255).all()
    assert painted[4, 4, 2] > painted[4, 4, 0] and painted[27, 19, 0] > painted[27, 19, 2]  # blue is low, red is high
    frames = np.stack([values, -values, values])
    for name in ("a", "b"):
        write_still(tmp_path / f"{name}.png", frames, np.abs(values).astype(np.float32), mask, values, 1.0)
        write_movie(tmp_path / f"{name}.webp", frames, mask, None, 2, 1.0)
    assert Image.open(tmp_path / "a.png").size == (48, 64)
    with Image.open(tmp_path / "a.webp") as movie:
        assert movie.n_frames == 2  # type: ignore[attr-defined]
    for suffix in (".png", ".webp"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
