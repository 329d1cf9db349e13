from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.tri import Triangulation
from scipy.interpolate import LinearNDInterpolator

from boldmill.errors import ConfigError
from boldmill.represent.flatgrid import (
    HCP,
    PUBLISHED,
    FlatGrid,
    Frame,
    covered_pixels,
    flat_grid,
    kept_triangles,
    layout,
    sample_points,
)
from boldmill.spaces.flats import FlatSurface, flat_surface, schaefer1000_cortex
from boldmill.spaces.images import write_labels_gifti
from boldmill.spaces.meshes import folds, surface
from boldmill.spaces.surfaces import fsaverage5, fsaverage5_cortex


@cache
def flat(name: str) -> FlatSurface:
    return flat_surface(name)


@cache
def grid(name: str = "fsaverage5") -> FlatGrid:
    return flat_grid(flat(name))


@pytest.fixture
def spheres(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the spheres of the flat surface ``rebuilt`` come from the test data."""
    from boldmill.spaces import meshes

    folder = data / "templateflow" / "tpl-fsLR"
    paths = [folder / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii" for side in "LR"]
    monkeypatch.setattr(meshes, "sphere_files", lambda: paths)


def published_mask() -> np.ndarray:
    spec = find_spec("cortex_mae")
    if spec is None or not spec.submodule_search_locations:
        pytest.fail("the cortex_mae wheel holds the published mask: pip install --no-deps cortex_mae==0.1.1")
    (path,) = Path(next(iter(spec.submodule_search_locations))).rglob("flat_pca_n8_224_560.npz")
    with np.load(path, allow_pickle=False) as stored:
        mask: np.ndarray = (stored["components"] != 0).any(0).reshape(224, 560)
    return mask


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_geometry_of_the_published_layout() -> None:
    mask = grid().mask
    assert mask.shape == (224, 560)
    assert abs(int(mask.sum()) - 77_763) < 400 and abs(grid().n_patches - 364) <= 1
    left, right = np.nonzero(mask[:, :280].any(0))[0], 280 + np.nonzero(mask[:, 280:].any(0))[0]
    # published: left columns 15..273, right 287..553; a gap of 16 mm is 13 pixels
    assert abs(left[0] - 15) <= 1 and left[-1] == 273 and right[0] == 287 and abs(right[-1] - 553) <= 1


def test_without_the_cut_the_mesh_covers_the_known_number_of_pixels() -> None:
    points, faces = layout(fsaverage5("flat", "L"), fsaverage5("flat", "R"))
    whole = covered_pixels(points, kept_triangles(points, faces, np.ones(20484, bool)), PUBLISHED)
    assert int(whole.sum()) == 80_007 and not (grid().mask & ~whole).any()


def test_the_medial_wall_is_freesurfers() -> None:
    left, right = np.split(~fsaverage5_cortex(), 2)
    assert (left.sum(), right.sum()) == (888, 881)


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [("fsaverage5", 0.98), ("rebuilt", 0.98)])
def test_overlap_with_the_published_mask(spheres: None, name: str, least: float) -> None:
    """The issue asks for 0.95 and 0.975; measured 0.984 and 0.981."""
    published = published_mask()
    assert published.sum() == 77_763
    assert overlap(published, grid(name).mask) >= least
    shifted = [overlap(published, np.roll(grid(name).mask, step, axis)) for step in (-1, 1) for axis in (0, 1)]
    assert overlap(published, grid(name).mask) > max(shifted)  # no shift, no mirror


@pytest.mark.data
def test_the_rebuilt_grid_is_of_fslr(spheres: None) -> None:
    ours = grid("rebuilt")
    assert (ours.name, ours.mesh) == ("fsLR-rebuilt-224x560", "fsLR")
    assert (int(ours.mask.sum()), ours.n_patches) == (77_653, 363)
    assert ours.operator.shape == (77_653, 64_984) and ours.operator.data.min() >= 0
    assert not ours.vertices[~flat("rebuilt").usable].any()
    assert schaefer1000_cortex().sum() == 58_606 and np.split(schaefer1000_cortex(), 2)[0].sum() == 29_299  # published
    # fsaverage5's own picture of sulcal depth, and fsLR's, drawn from two packages on two meshes
    both = grid().mask & ours.mask
    images = []
    for one, mesh in ((grid(), "fsaverage5"), (ours, "fsLR")):
        image = np.full(one.mask.shape, np.nan)
        image[one.mask] = one.operator @ folds(mesh)
        images.append(image[both])
    assert np.corrcoef(images)[0, 1] > 0.95


def test_the_hcp_flat_has_a_box_of_its_own() -> None:
    ours = grid("hcp")
    assert (ours.name, ours.mesh, ours.mask.shape) == ("fsLR-hcp-320x768", "fsLR", (320, 768))
    assert HCP.height % 16 == 0 and HCP.width % 16 == 0
    assert (int(ours.mask.sum()), ours.n_patches) == (127_935, 594)
    assert not ours.mask[:, 378:390].any() and not ours.mask[[0, -1]].any() and not ours.mask[:, [0, -1]].any()
    x = np.concatenate([surface("fsLR", "white", h).coords[:, 0] for h in "LR"])
    image = np.full(ours.mask.shape, np.nan)
    image[ours.mask] = ours.operator @ x
    assert np.nanmax(image[:, :384]) < 6 and np.nanmin(image[:, 384:]) > -6  # left is left


def test_a_surface_that_leaves_its_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="outside the image"):
        flat_grid(replace(flat("hcp"), name="published"))


def _write_flat(path: Path, coords: np.ndarray, faces: np.ndarray) -> str:
    import nibabel as nib

    arrays = [
        nib.gifti.GiftiDataArray(coords.astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
        nib.gifti.GiftiDataArray(faces.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nib.save(nib.gifti.GiftiImage(darrays=arrays), path)
    return str(path)


@pytest.mark.data
def test_a_supplied_surface_is_cut_by_the_plane_and_schaefer_1000(spheres: None, tmp_path: Path) -> None:
    """The rebuilt surface, saved as pycortex saves its own: out of the plane where it is cut."""
    rebuilt = flat("rebuilt")
    files = []
    for half, usable, side in zip((rebuilt.left, rebuilt.right), np.split(rebuilt.usable, 2), "LR", strict=True):
        coords = half.coords.copy()
        coords[:, 2] = np.where(usable, 0, 5)
        files.append(_write_flat(tmp_path / f"flat_{side}.gii", coords, half.faces))
    ours = flat_grid(flat_surface("published", files))
    assert ours.name == "fsLR-published-224x560"
    assert overlap(ours.mask, grid("rebuilt").mask) > 0.999


def test_a_surface_without_a_usable_triangle_is_refused() -> None:
    whole = flat("hcp")
    with pytest.raises(ConfigError, match="no triangle"):
        flat_grid(replace(whole, usable=np.zeros_like(whole.usable)))


def test_one_hemisphere_given_twice_is_refused(tmp_path: Path) -> None:
    left = flat("hcp").left
    file = _write_flat(tmp_path / "left.gii", left.coords * [1, 1, 0], left.faces)
    with pytest.raises(ConfigError, match="twice"):
        flat_surface("published", [file, file])


def test_points_without_triangles_are_no_flat_surface(tmp_path: Path) -> None:
    import nibabel as nib

    points = nib.gifti.GiftiDataArray(flat("hcp").left.coords.astype(np.float32), "NIFTI_INTENT_POINTSET")
    nib.save(nib.gifti.GiftiImage(darrays=[points]), tmp_path / "points.gii")
    with pytest.raises(ConfigError, match=r"points\.gii"):
        flat_surface("published", [str(tmp_path / "points.gii")] * 2)


def test_files_that_are_not_the_published_surface_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 files, not two"):
        flat_surface("published")
    half = fsaverage5("flat", "L")
    small = _write_flat(tmp_path / "small.gii", half.coords, half.faces)
    with pytest.raises(ConfigError, match="10242 vertices"):
        flat_surface("published", [small, small])
    (tmp_path / "text.gii").write_text("no surface")
    with pytest.raises(ConfigError, match=r"text\.gii"):
        flat_surface("published", [str(tmp_path / "text.gii"), small])
    labels = write_labels_gifti(tmp_path / "labels.gii", np.zeros(32492, int), {0: "x"}, "CortexLeft")
    with pytest.raises(ConfigError, match=r"labels\.gii"):
        flat_surface("published", [str(labels), str(labels)])
    with pytest.raises(ConfigError, match="known are"):
        flat_surface("inflated")


def test_covered_pixels_are_those_of_the_trifinder() -> None:
    points, faces = layout(fsaverage5("flat", "L"), fsaverage5("flat", "R"))
    faces = kept_triangles(points, faces, fsaverage5_cortex())
    used = np.unique(faces)
    compact = np.zeros(len(points), int)
    compact[used] = np.arange(len(used))
    finder = Triangulation(points[used, 0], points[used, 1], compact[faces]).get_trifinder()
    targets = sample_points()
    assert np.array_equal(covered_pixels(points, faces, PUBLISHED), finder(targets[..., 0], targets[..., 1]) >= 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=3, max_size=3))
def test_a_single_triangle_is_rasterised_by_the_sides_of_its_edges(corners: list[tuple[float, float]]) -> None:
    points = np.array(corners)
    frame = Frame(left=-10.2, top=9.6, height=16, width=17)
    a, b, c = points
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    found = covered_pixels(points, np.array([[0, 1, 2]]), frame)
    for (i, j), (x, y) in zip(np.ndindex(16, 17), sample_points(frame).reshape(-1, 2), strict=True):
        cross = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        share = np.array(cross) / area if abs(area) > 1e-6 else np.array([np.nan])
        if np.isfinite(share).all() and np.abs(share).min() > 1e-6:  # not on an edge
            assert found[i, j] == (share > 0).all()


def test_folded_and_long_triangles_are_dropped() -> None:
    points = np.array([[0.0, 0], [2, 0], [0, 2], [2, 2], [40, 0]])
    faces = np.array([[0, 1, 2], [1, 3, 2], [0, 2, 1], [1, 4, 3], [0, 1, 1]])  # two good, turned, long, without area
    assert kept_triangles(points, faces, np.ones(5, bool)).tolist() == [[0, 1, 2], [1, 3, 2]]
    assert kept_triangles(points, faces, np.array([0, 1, 1, 1, 1], bool)).tolist() == [[1, 3, 2]]


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
