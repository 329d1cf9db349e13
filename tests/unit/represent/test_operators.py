from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from boldmill.errors import MachineFault
from boldmill.represent.operators import load_operator, membership, save_operator, trilinear
from boldmill.spaces.ribbon import depths_between, ribbon_points, vote


def test_membership_sums_each_parcel() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 500)
    values = rng.standard_normal((500, 4))
    ids = [1, 3, 6]  # id 2, 4, 5 are not in the table
    ours = membership(labels, ids) @ values
    for row, label in enumerate(ids):
        assert np.allclose(ours[row], values[labels == label].sum(0), atol=1e-5)


def test_trilinear_is_scipys_linear_interpolation_averaged_over_depths() -> None:
    rng = np.random.default_rng(1)
    shape = (9, 11, 7)
    affine = np.array([[2.0, 0, 0, -8], [0, 2.5, 0, -12], [0, 0, 3.0, -9], [0, 0, 0, 1]])
    volume = rng.standard_normal(shape)
    voxel = rng.uniform(0, 1, (3, 40, 3)) * (np.array(shape) - 1.001)
    points = voxel @ affine[:3, :3].T + affine[:3, 3]
    expected = np.mean([map_coordinates(volume, layer.T, order=1) for layer in voxel], axis=0)
    operator = trilinear(points, affine, shape)
    assert np.abs(operator @ volume.ravel(order="F") - expected).max() < 1e-6
    assert np.allclose(operator.sum(axis=1), 1, atol=1e-6)


def test_outside_the_grid_the_weights_vanish() -> None:
    operator = trilinear(np.array([[[-100.0, 0, 0], [0.0, 0, 0]]]), np.eye(4), (3, 3, 3))
    assert operator.sum(axis=1).tolist() == [0.0, 1.0]


def test_depths_are_the_middles_of_equal_layers() -> None:
    assert depths_between(1).tolist() == [0.5]
    assert np.allclose(np.diff(depths_between(5)), 0.2) and np.isclose(depths_between(5).mean(), 0.5)


def test_vote_takes_the_majority_and_ignores_background() -> None:
    volume = np.zeros((4, 1, 1), int)
    volume[1:, 0, 0] = [5, 5, 2]
    points = np.array([[[1.0, 0, 0], [0.0, 0, 0]], [[3.0, 0, 0], [0.0, 0, 0]], [[2.0, 0, 0], [3.0, 0, 0]]])
    assert vote(volume, np.eye(4), points).tolist() == [5, 2]


def test_operators_survive_the_disk_byte_for_byte(tmp_path: Path) -> None:
    matrix = membership(np.random.default_rng(0).integers(0, 9, 300), list(range(1, 9)))
    save_operator(tmp_path / "a.npz", matrix)
    save_operator(tmp_path / "b.npz", matrix)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = load_operator(tmp_path / "a.npz")
    assert again.shape == matrix.shape and (again != matrix).nnz == 0
    (tmp_path / "c.npz").write_bytes(b"not an archive")
    with pytest.raises(MachineFault, match=r"c\.npz"):
        load_operator(tmp_path / "c.npz")


@pytest.mark.data
def test_published_volume_on_the_surface_agrees_with_published_surface_labels(data: Path) -> None:
    folder = data / "templateflow" / "tpl-MNI152NLin6Asym"
    image: Any = nib.as_closest_canonical(nib.load(next(folder.glob("*_dseg.nii.gz"))))
    published = []
    for index, side in enumerate("lr"):
        path = data / f"surfaces/fsaverage5/{side}h.Schaefer2018_100Parcels_7Networks.annot"
        ids = nib.freesurfer.read_annot(path)[0]
        published.append(np.where(ids > 0, ids + 50 * index, 0))
    labels = np.concatenate(published)
    affine = np.asarray(image.affine, float)
    sample = trilinear(ribbon_points("MNI152NLin6Asym", 5), affine, image.shape)
    weight = sample @ membership(np.asarray(image.dataobj).astype(int).ravel(order="F"), list(range(1, 101))).T
    best = weight.toarray().argmax(1) + 1
    met = weight.sum(axis=1) > 0
    for name, part in (("left", slice(0, 10242)), ("right", slice(10242, None))):
        both = met[part] & (labels[part] > 0)
        agreement = (best[part] == labels[part])[both].mean()
        covered = met[part][labels[part] > 0].mean()
        print(f"{name}: agreement {agreement:.3f}, covered {covered:.3f}")
        assert agreement >= 0.85 and covered > 0.97
    # without the move from MNI305 it would be worse
    unmoved = trilinear(ribbon_points("MNI305", 5), affine, image.shape)
    raw = unmoved @ membership(np.asarray(image.dataobj).astype(int).ravel(order="F"), list(range(1, 101))).T
    assert (raw.toarray().argmax(1) + 1 == labels)[labels > 0].mean() < (best == labels)[labels > 0].mean()


@pytest.mark.data
@pytest.mark.parametrize("mesh", ["fsLR", "fsaverage5"])
@pytest.mark.parametrize("space", ["MNI152NLin6Asym", "MNI152NLin2009cAsym"])
def test_the_published_volume_sampled_in_the_ribbon_meets_the_published_surface_labels(
    data: Path, mesh: str, space: str
) -> None:
    """Share of all labelled cortical vertices of a hemisphere that get their own label; unlabelled ones count as wrong.

    Trilinear samples of each parcel's indicator, the largest wins: what the stage's operator does to a series.
    """
    name = f"tpl-{space}_res-02_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
    load: Any = nib.load
    image = load(data / "templateflow" / f"tpl-{space}" / name)
    labels = np.asarray(image.dataobj).astype(int).ravel(order="F")
    operator = trilinear(ribbon_points(space, 5, mesh), image.affine, image.shape)
    score = (operator @ membership(labels, list(range(1, 101))).T).toarray()
    found = np.where(score.max(1) > 0, score.argmax(1) + 1, 0)
    for side, half in zip("LR", np.split(found, 2), strict=True):
        truth = published_labels(data, mesh, side)
        cortex = truth > 0
        share = (half == truth)[cortex].mean()
        assert share >= 0.85, (side, share)
    mirrored = np.roll(found, len(found) // 2)
    assert (mirrored == np.concatenate([published_labels(data, mesh, s) for s in "LR"]))[found > 0].mean() < 0.1


def published_labels(data: Path, mesh: str, side: str) -> np.ndarray:
    if mesh == "fsLR":
        load: Any = nib.load
        path = data / "surfaces/fsLR-32k" / f"{side}.Schaefer2018_7Networks_100.32k_fs_LR.label.gii"
        labels: np.ndarray = np.asarray(load(path).agg_data())
        return labels
    path = data / "surfaces/fsaverage5" / f"{side.lower()}h.Schaefer2018_100Parcels_7Networks.annot"
    labels = nib.freesurfer.read_annot(path)[0]
    return np.where((labels > 0) & (side == "R"), labels + 50, np.maximum(labels, 0))


def test_vertices_without_a_position_have_empty_rows() -> None:
    points = np.array([[[1.0, 1, 1], [np.nan] * 3]])
    assert trilinear(points, np.eye(4), (3, 3, 3)).sum(axis=1).tolist() == [1.0, 0.0]


def test_registration_fusion_coordinates_are_read_and_their_wall_is_not_sampled(tmp_path: Path) -> None:
    from boldmill.errors import ConfigError
    from boldmill.spaces.moves import move_points
    from boldmill.spaces.ribbon import fusion_points

    rng = np.random.default_rng(3)
    halves = [np.round(rng.uniform(-60, 60, (10242, 3)), 3) for _ in "LR"]
    halves[0][5] = 0
    paths = [tmp_path / f"{side}.txt" for side in "LR"]
    for path, half in zip(paths, halves, strict=True):
        np.savetxt(path, half, fmt="%.3f")
    found = fusion_points(paths, "MNI152NLin2009cAsym", "fsaverage5")
    assert found.shape == (1, 20484, 3) and np.isnan(found[0, 5]).all() and np.isfinite(found).sum() == 3 * 20483
    expected = move_points(halves[1], "MNI152NLin6Asym", "MNI152NLin2009cAsym")
    assert np.abs(found[0, 10242:] - expected).max() < 1e-9
    with pytest.raises(ConfigError, match="fsLR has 32492"):
        fusion_points(paths, "MNI152NLin6Asym", "fsLR")
    paths[0].write_text("no numbers")
    with pytest.raises(ConfigError, match=r"L\.txt"):
        fusion_points(paths, "MNI152NLin6Asym", "fsaverage5")
