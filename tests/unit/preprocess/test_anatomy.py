"""Anatomical steps against closed forms and a phantom whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess import anat_warp
from boldmill.preprocess.affine import refine, register_affine, start_matrices, to_matrix, to_transform
from boldmill.preprocess.anat_interfaces import LoadT1w
from boldmill.preprocess.anat_quality import anat_flags, overlap
from boldmill.preprocess.brainmask import close_and_fill, mask_from_nonzero
from boldmill.preprocess.foreground import block_mean, crop_to_head, is_brain_extracted, otsu, zero_share
from boldmill.preprocess.images import Grid, Volume, read_volume, write_volume
from boldmill.preprocess.n4 import n4, one_thread
from boldmill.preprocess.syn import register_syn
from boldmill.preprocess.tissue import fit, segment
from boldmill.preprocess.transforms import apply_affine, dense_field, jacobian, resample, write_affine

from . import phantom

one_thread()


def error_mm(found: np.ndarray, truth: np.ndarray) -> float:
    points = phantom.GRID.points()[(phantom.volume("brain").data > 0.5).ravel()]
    return float(np.linalg.norm(apply_affine(found, points) - apply_affine(truth, points), axis=1).mean())


def test_known_affine_is_recovered_from_a_wrong_header() -> None:
    truth = phantom.rigid((12, 4, -6), (14, -22, 18), 1.04)
    found = register_affine(phantom.volume("t1w"), phantom.moved(truth))
    assert error_mm(found.matrix, truth) < 1.5
    assert found.metric < 0
    assert len(found.starts) == 10


def test_registration_repeats_bit_by_bit() -> None:
    truth = phantom.rigid((3, 0, 2), (2, 4, -3))
    fixed, moving = phantom.volume("t1w"), phantom.moved(truth)
    start = start_matrices(fixed, moving, (0.0,))[0]
    first, second = (refine(fixed, moving, start, iterations=20) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_transform_and_matrix_are_inverse_of_each_other() -> None:
    matrix = phantom.rigid((10, -20, 5), (3, 4, 5), 1.1)
    transform = to_transform(matrix, np.array([7.0, -3.0, 2.0]))
    np.testing.assert_allclose(to_matrix(transform), matrix, atol=1e-9)
    x, y, z = transform.TransformPoint((-1.0, -2.0, 3.0))  # RAS (1, 2, 3)
    np.testing.assert_allclose([-x, -y, z], apply_affine(matrix, [[1, 2, 3]])[0], atol=1e-9)


def test_n4_flattens_a_known_bias() -> None:
    clean = phantom.volume("t1w")
    x = phantom.GRID.points().reshape(*phantom.GRID.shape, 3)
    bias = np.exp(0.35 * np.sin(x[..., 0] / 90 + 0.5) + 0.25 * np.sin(x[..., 2] / 110)).astype(np.float32)
    corrected, found = n4(clean.like(clean.data * bias), iterations=(50, 50, 50))
    np.testing.assert_allclose(corrected.data * found.data, clean.data * bias, rtol=1e-4, atol=1e-3)
    white = phantom.volume("wm").data > 0.95

    def spread(image: np.ndarray) -> float:
        return float(image[white].std() / image[white].mean())

    assert spread(corrected.data) < 0.5 * spread(clean.data * bias)
    again, _ = n4(clean.like(clean.data * bias), iterations=(50, 50, 50))
    np.testing.assert_array_equal(again.data, corrected.data)


def bulge(x: np.ndarray) -> np.ndarray:
    """A smooth warp with a maximum of about 7 mm; its inverse is known by fixed-point iteration."""
    weight = np.exp(-((x / np.array([45.0, 55, 45])) ** 2).sum(axis=1, keepdims=True))
    return np.asarray(x + weight * np.array([5.0, -4.0, 3.0]))


def test_syn_recovers_a_known_warp_and_its_inverse() -> None:
    points = phantom.GRID.points()
    back = points.copy()
    for _ in range(30):
        back -= bulge(back) - points
    subject = Volume(phantom.t1w(back).reshape(phantom.GRID.shape).astype(np.float32), phantom.GRID.affine)
    template = phantom.volume("t1w")
    warp = register_syn(template, subject, np.eye(4), iterations=(40, 40))
    brain = points[(phantom.volume("brain").data > 0.5).ravel()]
    before = np.linalg.norm(bulge(brain) - brain, axis=1).mean()
    after = np.linalg.norm(warp.to_subject(brain) - bulge(brain), axis=1).mean()
    assert after < 0.5 * before
    assert np.linalg.norm(warp.to_template(warp.to_subject(brain)) - brain, axis=1).mean() < 0.2
    assert (jacobian(dense_field(warp.to_subject, phantom.GRID)) > 0).all()
    again = register_syn(template, subject, np.eye(4), iterations=(40, 40))
    np.testing.assert_array_equal(again.forward.data, warp.forward.data)


def test_syn_field_moves_images_as_points() -> None:
    """The field must be read in the direction the architecture promises: template point to subject point."""
    shift = phantom.rigid((0, 0, 0), (9, 0, 0))
    subject, template = phantom.moved(shift), phantom.volume("t1w")
    warp = register_syn(template, subject, shift, iterations=(5,))
    aligned = resample(subject, phantom.GRID, warp.to_subject).data
    assert np.corrcoef(aligned.ravel(), template.data.ravel())[0, 1] > 0.99
    centre = warp.to_subject(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(centre, [9, 0, 0], atol=1.0)


@pytest.mark.parametrize(
    ("zeros", "ml", "expected"),
    [(0.86, 1250, True), (0.89, 1500, True), (0.57, 3000, False), (0.17, 3300, False), (0.9, 3000, False)],
)
def test_rule_of_extracted_brains(zeros: float, ml: float, expected: bool) -> None:
    assert is_brain_extracted(zeros, ml) is expected


def test_head_and_extracted_brain_of_the_phantom() -> None:
    head, brain = phantom.moved(np.eye(4)), phantom.volume("brain").data > 0.5
    _, size = crop_to_head(head)
    assert size > 2000
    assert not is_brain_extracted(zero_share(head), size)
    wide = Grid((60, 70, 60), np.array([[4.0, 0, 0, -118], [0, 4, 0, -138], [0, 0, 4, -110], [0, 0, 0, 1]]))
    stripped = resample(head.like(np.where(brain, head.data, 0)), wide, order=1)
    cut, size = crop_to_head(stripped)
    assert is_brain_extracted(zero_share(stripped), size)
    mask = mask_from_nonzero(cut)
    assert mask.sum() * 0.064 == pytest.approx(brain.sum() * 0.064, rel=0.1)


def test_crop_keeps_the_head_and_drops_the_neck() -> None:
    tall = Grid((46, 54, 90), np.array([[4.0, 0, 0, -90], [0, 4, 0, -106], [0, 0, 4, -258], [0, 0, 0, 1]]))
    image = phantom.volume("t1w", tall)
    x = tall.points().reshape(*tall.shape, 3)
    image.data[(np.hypot(x[..., 0], x[..., 1]) < 50) & (x[..., 2] < -40)] = 60.0  # a neck down to the edge
    crop, _ = crop_to_head(image)
    vertex = 74.0
    bottom = crop.affine[2, 3]
    top = bottom + (crop.data.shape[2] - 1) * 4
    assert abs(vertex - 180 - bottom) <= 8
    assert 0 <= top - vertex <= 16
    column = crop.data[:, :, -4:]
    assert column.max() < 1.0 or top > vertex


def test_nothing_in_view_is_a_fault() -> None:
    data = np.zeros((40, 40, 40), dtype=np.float32)
    data[18:22, 18:22, 18:22] = 100.0
    with pytest.raises(DataFault, match="foreground"):
        crop_to_head(Volume(data, np.diag([2.0, 2, 2, 1])))


def test_block_mean_keeps_the_mean_and_the_world() -> None:
    x = phantom.GRID.points()
    ramp = Volume((x[:, 0] + 2 * x[:, 2]).reshape(phantom.GRID.shape).astype(np.float32), phantom.GRID.affine)
    small = block_mean(ramp, 8.0)
    assert small.data.shape == (23, 27, 23)
    y = small.grid.points()
    np.testing.assert_allclose(small.data.ravel(), y[:, 0] + 2 * y[:, 2], atol=1e-3)


def test_otsu_splits_two_classes() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 2, 5000), rng.normal(50, 4, 3000)])
    assert 15 < otsu(values) < 40


def test_mask_holes_are_closed_at_the_edge_too() -> None:
    mask = np.zeros((30, 30, 30), bool)
    mask[0:26, 4:26, 4:26] = True  # touches the edge of the grid
    mask[10:14, 10:14, 10:14] = False  # a ventricle: enclosed
    mask[20:26, 14:16, 14:16] = False  # a cistern: open to the outside, 2 voxels wide
    closed = close_and_fill(mask, 4)
    assert closed[12, 12, 12]
    assert closed[22, 15, 15]
    assert closed[0, 10, 10]
    assert not closed[28, 15, 15]
    np.testing.assert_array_equal(close_and_fill(mask, 0)[20:26, 14:16, 14:16], False)


def test_mixture_finds_known_means_and_volumes() -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(3, 40_000, p=[0.15, 0.5, 0.35])
    mean, sd = np.array([20.0, 60, 100]), np.array([8.0, 7, 6])
    values = rng.normal(mean[truth], sd[truth])
    priors = np.full((len(truth), 3), 0.2)
    priors[np.arange(len(truth)), truth] = 0.6
    probability, mixture = segment(values, priors)
    np.testing.assert_allclose(mixture.mean, mean, atol=1.5)
    np.testing.assert_allclose(mixture.sd, sd, atol=1.5)
    assert (probability.argmax(axis=1) == truth).mean() > 0.98
    np.testing.assert_allclose(probability.sum(axis=0) / len(truth), [0.15, 0.5, 0.35], atol=0.01)


def test_inverted_contrast_is_refused() -> None:
    rng = np.random.default_rng(4)
    truth = rng.choice(3, 20_000)
    values = rng.normal(np.array([100.0, 60, 20])[truth], 5.0)
    priors = np.full((len(truth), 3), 0.02)
    priors[np.arange(len(truth)), truth] = 0.96
    with pytest.raises(DataFault, match="T1"):
        fit(values, priors)


def test_flags_name_what_is_off() -> None:
    good = {
        "brain_extracted_input": False,
        "mask_ml": 1400.0,
        "template_mask_dice": 0.99,
        "template_correlation": 0.82,
        "template_correlation_affine": 0.6,
        "jacobian_min": 0.2,
        "folded_voxels": 0,
        "syn_sigma_diff": 2.0,
        "syn_sigma_diff_set": 2.0,
    }
    assert anat_flags(good) == []
    for key, value, name in [
        ("brain_extracted_input", True, "brain_extracted_input"),
        ("mask_ml", 2100.0, "mask_volume"),
        ("mask_ml", 900.0, "mask_volume"),
        ("template_mask_dice", 0.96, "mask_overlap"),
        ("template_correlation", 0.7, "template_correlation"),
        ("template_correlation_affine", 0.78, "warp_gain"),
        ("jacobian_min", 0.05, "jacobian"),
        ("folded_voxels", 3, "folding"),
        ("syn_sigma_diff", 3.0, "smooth_retry"),
    ]:
        assert [flag.split(":")[0] for flag in anat_flags({**good, key: value})] == [name]


def test_overlap() -> None:
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert overlap(a, b) == 0.5
    assert overlap(a, a) == 1.0
    assert overlap(a & b & ~a, a & ~a) == 0.0


def test_a_crushed_voxel_makes_the_warp_smoother(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit and smoothing are raised, so that a small warp triggers the second attempt."""
    inside = phantom.volume("brain").data > 0.5
    points = phantom.GRID.points()
    back = points.copy()
    for _ in range(30):
        back -= bulge(back) - points
    shape = phantom.GRID.shape
    images = {
        "head": phantom.volume("t1w").data, "template_mask": inside, "t1w": phantom.t1w(back).reshape(shape),
        "mask": (phantom.parts(back)["brain"] > 0.5).reshape(shape),
    }  # fmt: skip
    given = {k: str(write_volume(tmp_path / f"{k}.nii", v, phantom.GRID.affine)) for k, v in images.items()}
    affine = str(write_affine(tmp_path / "affine.txt", np.eye(4)))

    def figures(limit: float, sigma: float) -> dict[str, Any]:
        monkeypatch.setattr(anat_warp, "RETRY_JACOBIAN", limit)
        node = anat_warp.BrainWarp(**given, affine=affine, extracted=True, iterations=[20, 10], sigma_diff=sigma)
        return dict(node.step(tmp_path)["figures"])

    first, again = figures(0.1, 1.0), figures(0.99, 1.0)
    assert (first["syn_sigma_diff"], again["syn_sigma_diff"]) == (1.0, 3.0)
    assert again["jacobian_min"] > first["jacobian_min"] and again["jacobian_max"] < first["jacobian_max"]
    assert figures(0.99, 3.0) == again  # as smooth already: nothing is repeated


def test_storage_order_and_type_change_nothing(tmp_path: Path) -> None:
    head = phantom.moved(np.eye(4))
    plain = nibabel.Nifti1Image(np.rint(head.data).astype(np.float32), head.affine)
    turns = {
        "plain": plain,
        "flipped": plain.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]])),
        "left-handed": plain.as_reoriented(np.array([[0, -1], [1, 1], [2, 1]])),
        "permuted": plain.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]])),
        "float64": nibabel.Nifti1Image(np.asarray(plain.dataobj, dtype=np.float64), head.affine),
    }
    loaded = {}
    for name, image in turns.items():
        folder = tmp_path / name
        folder.mkdir()
        nibabel.save(image, folder / "in.nii.gz")
        out = LoadT1w(in_file=str(folder / "in.nii.gz")).step(folder)
        loaded[name] = (Path(out["t1w"]).read_bytes(), out["extracted"], out["zeros"])
    assert all(value == loaded["plain"] for value in loaded.values())


def test_an_oblique_head_is_cropped_to_the_same_voxels(tmp_path: Path) -> None:
    head, turn = phantom.moved(np.eye(4)), phantom.rigid((8, -6, 10), (3, 2, 1))
    made = []
    for affine in (head.affine, turn @ head.affine):
        path = write_volume(tmp_path / "in.nii", head.data, affine)
        made.append(read_volume(LoadT1w(in_file=str(path)).step(tmp_path)["t1w"]))
    np.testing.assert_array_equal(made[0].data, made[1].data)
    np.testing.assert_allclose(turn @ made[0].affine, made[1].affine, atol=1e-4)


def test_the_voxel_sample_of_the_mixture_belongs_to_image_and_seed() -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(3, 70_000)
    values = rng.normal(np.array([20.0, 60, 100])[truth], 7.0)
    priors = np.full((len(truth), 3), 0.2)
    priors[np.arange(len(truth)), truth] = 0.6
    one, same, other = (fit(values, priors, key=key).mean for key in (("a", "1"), ("a", "1"), ("a", "2")))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_allclose(one, other, atol=0.5)
