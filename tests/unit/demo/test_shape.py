"""Head, warp and motion: contrasts, inverses, and the stated conventions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from boldmill.demo import anat, bold, geometry, motion, warp
from boldmill.demo.head import paint
from boldmill.rng import generator


def test_the_template_is_t1_weighted_and_a_head(head):
    t1w, t2s = paint(head)
    for image, order in ((t1w, ("csf", "gm", "wm")), (t2s, ("wm", "gm", "csf"))):
        means = [float((image * getattr(head, tissue)).sum() / getattr(head, tissue).sum()) for tissue in order]
        assert means == sorted(means) and means[0] < 0.9 * means[2]
    volume = (t1w > 0.05).sum() * 8e-6
    assert 2.5 < volume < 6.5, "litres of head and neck"
    inside = head.mask > 0
    assert inside.sum() * 8e-6 == pytest.approx(1.88, abs=0.02), "litres of brain"
    shell = (head.hull > 3.5) & (head.hull < 7) & (head.body > 12)
    assert np.median(t1w[shell & ~inside]) < 0.35, "a dark skull lies around the brain"
    assert_allclose(head.gm + head.wm + head.csf, head.mask, atol=1e-5)


def test_labels_cover_the_cortex(head):
    sizes = np.bincount(head.parcels.ravel(), minlength=101)[1:]
    assert len(sizes) == 100 and sizes.min() > 100
    ribbon = (head.gm > 0.6) & (head.parcels > 0)
    assert ribbon.sum() > 50_000
    assert (head.labels[head.parcels > 0] == head.parcels[head.parcels > 0]).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_warps_are_smooth_invertible_and_of_the_stated_size(head, seed):
    points = anat.brain_points(head)
    drawn = warp.draw_warp(generator("test warp", seed), points)
    assert np.linalg.norm(drawn.displacement(points), axis=1).mean() <= warp.MEAN_MM + 1e-3
    assert np.linalg.norm(drawn.displacement(points), axis=1).mean() > 0.7 * warp.MEAN_MM
    assert warp.jacobian(drawn.field, warp.GRID_MM).min() > 0.5
    assert_allclose(drawn.to_template(drawn.to_subject(points)), points, atol=1e-3)
    scale = np.linalg.svd(drawn.affine[:3, :3])[1]
    assert scale.min() > 0.88 and scale.max() < 1.12


def test_jacobian_of_a_known_field():
    axis = np.arange(8) * 2.0
    field = np.zeros((8, 8, 8, 3))
    field[..., 0] = 0.25 * axis[:, None, None]
    field[..., 1] = 0.5 * axis[None, :, None] + 0.3 * axis[:, None, None]
    assert_allclose(warp.jacobian(field, 2.0), 1.25 * 1.5)


def test_rotations_are_right_handed_and_ordered():
    quarter = np.pi / 2
    assert_allclose(geometry.rotation(np.array([quarter, 0, 0])) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    assert_allclose(geometry.rotation(np.array([0, quarter, 0])) @ [0, 0, 1], [1, 0, 0], atol=1e-12)
    assert_allclose(geometry.rotation(np.array([0, 0, quarter])) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    a, b, c = 0.1, 0.2, 0.3
    one = [geometry.rotation(np.array(v)) for v in ([a, 0, 0], [0, b, 0], [0, 0, c])]
    assert_allclose(geometry.rotation(np.array([a, b, c])), one[0] @ one[1] @ one[2])


def test_motion_has_the_stated_size_and_convention():
    moved = motion.simulate(generator("test motion"), 150, 2.0)
    size = motion.displacement(moved)
    assert size.mean() == pytest.approx(motion.MEAN_MM, rel=0.05)
    assert 0.8 < size.max() <= motion.LARGEST_MM + 1e-6
    centre = np.array([3.0, -20.0, 7.0])
    matrix = motion.matrices(moved, centre)
    assert_allclose(geometry.apply(matrix[5], centre), centre + moved[5, :3], atol=1e-12)
    # Displacement against brute force over a ball.
    ball = generator("ball").standard_normal((40_000, 3))
    radius = motion.BRAIN_RADIUS_MM * generator("radius").random((40_000, 1)) ** (1 / 3)
    ball = centre + radius * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    for volume in (0, int(size.argmax())):
        brute = np.sqrt(((geometry.apply(matrix[volume], ball) - ball) ** 2).sum(1).mean())
        assert size[volume] == pytest.approx(brute, rel=0.02)


def test_spikes_stand_out():
    moved = motion.simulate(generator("test motion"), 150, 2.0)
    step = np.abs(np.diff(moved, axis=0))
    fd = step[:, :3].sum(1) + 50 * step[:, 3:].sum(1)
    assert (fd > 0.5).sum() >= 2 and np.median(fd) < 0.3


@pytest.mark.parametrize(("slices", "bands"), [(44, 1), (44, 2), (30, 2)])
def test_slice_times(slices, bands):
    times = bold.slice_times(slices, 2.0, bands)
    assert len(times) == slices and times.min() == 0 and times.max() < 2.0
    shots = slices // bands
    assert len(np.unique(times)) == shots
    assert_allclose(np.sort(np.unique(times)), np.arange(shots) * 2.0 / shots, atol=6e-5)
    assert times[2] == pytest.approx(2.0 / shots, abs=6e-5), "even slices first"
    if bands == 2:
        assert (times[:shots] == times[shots:]).all()
