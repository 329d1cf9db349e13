"""One interpolation against an analytic field, the BOLD mask, the noise tissues and their components."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess import compcor
from boldmill.preprocess.boldmask import signal_mask
from boldmill.preprocess.images import Volume
from boldmill.preprocess.motion import matrix_of
from boldmill.preprocess.onestep import Distortion, brain_points, resample_series
from boldmill.preprocess.transforms import apply_affine, dense_field

from .bold_phantom import CENTRE, movements, oblique_las, radius, ras


def wave(points: np.ndarray) -> np.ndarray:
    """A smooth image known everywhere."""
    x, y, z = ((points - CENTRE) / 18.0).T
    return np.asarray(500 + 100 * np.sin(x) * np.cos(y) + 80 * np.sin(z + 0.5 * y))


def bend(points: np.ndarray) -> np.ndarray:
    """A smooth template-to-T1w mapping of some millimetres."""
    y = (points - CENTRE) / 40.0
    return np.asarray(points + 3.0 * np.stack([np.sin(y[:, 1]), np.cos(y[:, 2]), np.sin(y[:, 0])], axis=1))


def test_motion_coregistration_and_warp_are_one_interpolation() -> None:
    grid, out = oblique_las((40, 46, 38), 4.0), ras(6.0, (42, 48, 36))
    across = matrix_of(np.array([7.0, -4.0, 3.0, 0.05, -0.08, 0.04]), CENTRE)  # T1w to BOLD
    positions = movements(4, size=2.0)
    tissue = lambda p: wave(apply_affine(np.linalg.inv(across), p))  # noqa: E731  (the image, seen from BOLD world)
    volumes = [
        tissue(apply_affine(np.linalg.inv(w), grid.points())).reshape(grid.shape).astype(np.float32) for w in positions
    ]
    field = dense_field(bend, ras(3.0))
    brain = Volume(np.ones(ras(3.0).shape, dtype=np.float32), ras(3.0).affine)
    inside, points = brain_points(out, field, brain)
    assert inside.all()
    truth = wave(bend(out.points()))
    bold = apply_affine(across, points)
    cubic = resample_series(lambda t: volumes[t], grid.affine, positions, [bold])[0]
    assert cubic.seen.mean() > 0.9
    wrong = np.abs(cubic.series - truth)[:, cubic.seen]
    assert wrong.max() < 0.01 * truth.std()
    linear = resample_series(lambda t: volumes[t], grid.affine, positions, [bold], order=1)[0]
    assert np.abs(linear.series - truth)[:, cubic.seen].mean() > 5 * wrong.mean()
    still = resample_series(lambda t: volumes[t], grid.affine, np.tile(np.eye(4), (4, 1, 1)), [bold])[0]
    assert np.abs(still.series[1:] - truth)[:, cubic.seen].mean() > 20 * wrong.mean()  # motion was used
    again = resample_series(lambda t: volumes[t], grid.affine, positions, [bold, bold[:5]])
    assert again[0].series.tobytes() == cubic.series.tobytes()
    assert np.array_equal(again[1].series, cubic.series[:, :5])


def test_only_what_every_volume_saw_counts_as_seen() -> None:
    shape, affine = (10, 10, 10), np.eye(4)
    shift = np.tile(np.eye(4), (2, 1, 1))
    shift[1, 0, 3] = 3.0
    points = np.array([[5.0, 5, 5], [7.0, 5, 5], [9.4, 5, 5], [-0.4, 5, 5], [-0.6, 5, 5]])
    found = resample_series(lambda t: np.ones(shape, dtype=np.float32), affine, shift, [points])[0]
    assert found.seen.tolist() == [True, False, False, True, False]


def test_a_distorted_series_is_read_back_with_its_intensity() -> None:
    """A smooth image stretched along j by a known field: the shift finds it, the Jacobian restores the signal."""
    grid = oblique_las((36, 60, 30), 3.0)
    i, j, k = np.indices(grid.shape).astype(np.float64)

    def shift(i: np.ndarray, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        return np.asarray(2.5 * np.sin(i / 9.0) * np.cos(k / 8.0) * np.sin(j / 7.0) + 0.5)

    def image(points: np.ndarray) -> np.ndarray:
        return wave(points).reshape(grid.shape)

    def place(y: np.ndarray) -> np.ndarray:
        return np.stack([i.ravel(), y.ravel(), k.ravel()], axis=1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]

    source = j.copy()  # the undistorted voxel y that lands on distorted voxel j: y + shift(y) = j
    for _ in range(60):
        source = j - shift(i, source, k)
    step = 1e-4
    slope = (shift(i, source + step, k) - shift(i, source - step, k)) / (2 * step)
    distorted = (image(place(source)) / (1 + slope)).astype(np.float32)  # the same signal over a stretched voxel
    field = Distortion(Volume(shift(i, j, k).astype(np.float32), grid.affine), 1)
    inner = np.zeros(grid.shape, dtype=bool)
    inner[4:-4, 8:-8, 4:-4] = True
    points, truth = place(j)[inner.ravel()], image(place(j))[inner]
    positions = np.tile(np.eye(4), (2, 1, 1))
    found = resample_series(lambda t: distorted, grid.affine, positions, [points], distortion=field)[0]
    wrong = np.abs(found.series[0] - truth)
    assert wrong.mean() < 0.01 * truth.std() and found.seen.all()
    flat = resample_series(lambda t: distorted, grid.affine, positions, [points])[0]
    assert np.abs(flat.series[0] - truth).mean() > 20 * wrong.mean()
    assert np.array_equal(found.series[0], found.series[1])
    moved = positions.copy()
    moved[:, :3, 3] = 2 * grid.affine[:3, 1]  # the head moved two voxels along the phase encoding
    rolled = np.roll(distorted, 2, axis=1)
    again = resample_series(lambda t: rolled, grid.affine, moved, [points], distortion=field)[0]
    assert np.allclose(again.series, found.series, atol=0.02 * truth.std())


def test_the_field_of_view_is_that_of_the_moved_points() -> None:
    shape, affine = (6, 10, 6), np.eye(4)
    field = Distortion(Volume(np.full(shape, 3.0, dtype=np.float32), affine), 1)
    points = np.array([[2.0, 5, 2], [2.0, 7, 2], [2.0, -2.0, 2]])
    ones = np.ones(shape, dtype=np.float32)
    found = resample_series(lambda t: ones, affine, np.eye(4)[None], [points], distortion=field)[0]
    assert found.seen.tolist() == [True, False, True]
    folded = Distortion(Volume(-2.0 * np.indices(shape)[1].astype(np.float32), affine), 1)
    assert (folded.at(points)[1] == 0).all()


def test_the_mask_follows_field_of_view_and_signal() -> None:
    rng = np.random.default_rng(0)
    series = (1000 + rng.normal(0, 5, (20, 400))).astype(np.float32)
    series[:, :30] *= 0.1  # dropout
    series[:, 40] = 900.0  # does not vary
    seen = np.ones(400, dtype=bool)
    seen[390:] = False
    keep = signal_mask(series.mean(axis=0), np.ptp(series, axis=0) > 0, seen, fraction=0.2)
    assert not keep[:30].any() and not keep[390:].any() and not keep[40]
    assert keep.sum() == 400 - 30 - 10 - 1
    with pytest.raises(DataFault, match="field of view"):
        signal_mask(series.mean(axis=0), np.ptp(series, axis=0) > 0, np.arange(400) < 50)


def test_cosines_are_orthonormal_and_counted() -> None:
    basis = compcor.cosines(150, 2.0)
    assert basis.shape == (150, 4)  # floor(2 * 300 / 128)
    assert np.allclose(basis.T @ basis, np.eye(4))
    assert np.allclose(basis.sum(axis=0), 0)
    assert compcor.cosines(20, 2.52).shape == (20, 0)


def test_components_find_a_planted_signal() -> None:
    rng = np.random.default_rng(1)
    time = np.arange(200) * 2.0
    planted = np.sin(2 * np.pi * 0.07 * time)
    drift = np.linspace(0, 40, 200)[:, None]
    series = 500 + drift + 3 * planted[:, None] * rng.normal(1, 0.2, 80) + rng.normal(0, 1, (200, 80))
    found = compcor.components(series.astype(np.float32), 2.0, 5)
    assert abs(np.corrcoef(found.values[:, 0], planted)[0, 1]) > 0.98
    assert np.allclose(found.values.T @ found.values, np.eye(5))
    assert found.explained[0] > 0.7 and (np.diff(found.explained) <= 0).all()
    used = series - series.mean(axis=0)
    used -= compcor.cosines(200, 2.0) @ (compcor.cosines(200, 2.0).T @ used)
    singular = np.linalg.svd(used / used.std(axis=0), compute_uv=False)
    assert np.allclose(found.singular, singular[:5], rtol=1e-4)
    skipped = compcor.components(series.astype(np.float32), 2.0, 3, skip=2)
    assert not skipped.values[:2].any() and skipped.values.shape == (200, 3)
    assert compcor.components(np.zeros((30, 0), dtype=np.float32), 2.0, 3).values.shape == (30, 0)


def test_tissue_share_is_the_mean_over_the_voxel() -> None:
    fine = ras(1.0, (12, 12, 12))
    half = Volume((fine.points()[:, 0] > CENTRE[0] + 0.5).reshape(fine.shape).astype(np.float32), fine.affine)
    centres = np.stack([CENTRE, CENTRE + np.array([4.0, 0, 0]), CENTRE - np.array([4.0, 0, 0])])
    share = compcor.tissue_share(half, centres, np.eye(3) * 4.0, np.eye(4))
    assert share[0] == pytest.approx(1 / 3, abs=0.05)
    assert share[1] == pytest.approx(1.0) and share[2] == pytest.approx(0.0)


def test_the_ladder_takes_the_purest_rule_with_enough_voxels() -> None:
    share = np.linspace(0, 1, 101)
    deep = share > 0.95
    assert compcor.tissue_mask(share, deep, "csf").rule == "share > 0.6"  # 5 and 10 voxels are too few
    many = np.repeat(share, 10)
    assert "eroded" in compcor.tissue_mask(many, many > 0.95, "csf").rule
    none = compcor.tissue_mask(np.zeros(50), np.zeros(50, dtype=bool), "csf")
    assert not none.inside.any() and "no rule" in none.rule


def test_noise_voxels_stay_inside_their_tissue() -> None:
    anat, func = ras(2.0), oblique_las((40, 46, 38), 4.0)
    white = Volume((radius(anat.points())[0] < 0).reshape(anat.shape).astype(np.float32), anat.affine)
    brain = Volume((radius(func.points())[1] < 0).reshape(func.shape).astype(np.float32), func.affine)
    noise = compcor.noise_voxels(white, brain, np.eye(4), "wm")
    chosen = func.points()[brain.data.ravel() > 0.5][noise.inside]
    assert len(chosen) > 100 and (radius(chosen)[0] < 0).all()
