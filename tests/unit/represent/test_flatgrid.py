from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator

from boldmill.represent.flatgrid import FlatGrid, fsaverage5_flat_grid, kept_triangles, layout, sample_points
from boldmill.spaces.surfaces import fsaverage5, fsaverage5_cortex


@cache
def grid() -> FlatGrid:
    return fsaverage5_flat_grid()


def test_geometry_of_the_published_layout() -> None:
    mask = grid().mask
    assert mask.shape == (224, 560)
    assert abs(int(mask.sum()) - 77_763) < 400 and abs(grid().n_patches - 364) <= 1
    left, right = np.nonzero(mask[:, :280].any(0))[0], 280 + np.nonzero(mask[:, 280:].any(0))[0]
    # published: left columns 15..273, right 287..553; a gap of 16 mm is 13 pixels
    assert abs(left[0] - 15) <= 1 and left[-1] == 273 and right[0] == 287 and abs(right[-1] - 553) <= 1


def test_without_the_cut_the_mesh_covers_the_known_number_of_pixels() -> None:
    from boldmill.represent.flatgrid import flat_grid

    whole = flat_grid(fsaverage5("flat", "L"), fsaverage5("flat", "R"), np.ones(20484, bool), "uncut")
    assert int(whole.mask.sum()) == 80_007
    assert whole.mask_sha256 != grid().mask_sha256


def test_the_medial_wall_is_freesurfers() -> None:
    left, right = np.split(~fsaverage5_cortex(), 2)
    assert (left.sum(), right.sum()) == (888, 881)


@pytest.mark.skipif(find_spec("cortex_mae") is None, reason="the cortex_mae wheel (published mask) is not installed")
def test_overlap_with_the_published_mask() -> None:
    from pathlib import Path

    root = Path(next(iter(find_spec("cortex_mae").submodule_search_locations)))  # type: ignore[union-attr,arg-type]
    with np.load(next(root.rglob("flat_pca_n8_224_560.npz")), allow_pickle=False) as stored:
        published = (stored["components"] != 0).any(0).reshape(224, 560)
    assert (published & grid().mask).sum() / (published | grid().mask).sum() >= 0.98


def test_weights_are_those_of_the_linear_interpolator() -> None:
    points, faces = layout(fsaverage5("flat", "L"), fsaverage5("flat", "R"))
    used = np.zeros(len(points), bool)
    used[kept_triangles(points, faces, fsaverage5_cortex())] = True
    values = np.random.default_rng(1).standard_normal((len(points), 3))
    targets = sample_points()[grid().mask]
    reference = LinearNDInterpolator(points[used], values[used])(targets)
    ours = grid().operator @ values
    assert np.isfinite(reference).all()
    assert np.abs(ours - reference).max() / np.abs(reference).max() < 1e-6


def test_rows_sum_to_one_and_junk_vertices_are_not_used() -> None:
    operator = grid().operator
    assert np.abs(operator.sum(axis=1) - 1).max() < 1e-6 and operator.data.min() >= 0
    flat = np.vstack([fsaverage5("flat", h).coords for h in "LR"])
    assert np.abs(flat[grid().vertices, 2]).max() < 1e-5  # z = 0 on the patch
    assert np.abs(flat[:, 2]).max() > 1  # while unused vertices carry junk
    assert not grid().vertices[~fsaverage5_cortex()].any()


def test_left_is_left_and_posterior_meets_in_the_middle() -> None:
    x = np.concatenate([fsaverage5("white", h).coords[:, 0] for h in "LR"])
    y = np.concatenate([fsaverage5("white", h).coords[:, 1] for h in "LR"])
    image = np.full((224, 560), np.nan)
    image[grid().mask] = grid().operator @ x
    assert np.nanmax(image[:, :280]) < 6 and np.nanmin(image[:, 280:]) > -6
    image[grid().mask] = grid().operator @ y
    columns = np.nansum(image, axis=0) / np.maximum(grid().mask.sum(0), 1)
    assert np.nanmean(columns[250:274]) < -50 and np.nanmean(columns[287:310]) < -50
    assert np.nanmean(columns[30:60]) > 30 and np.nanmean(columns[510:540]) > 30


def test_no_seams_neighbouring_pixels_are_neighbours_on_the_cortex() -> None:
    position = np.full((224, 560, 3), np.nan)
    position[grid().mask] = grid().operator @ np.vstack([fsaverage5("white", h).coords for h in "LR"])
    for axis in (0, 1):
        step = np.linalg.norm(np.diff(position, axis=axis), axis=2)  # mm on the cortex per pixel of 1.2 mm
        assert 0.5 < np.nanmean(step) < 1.5 and np.nanmax(step) < 6
