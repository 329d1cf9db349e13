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
