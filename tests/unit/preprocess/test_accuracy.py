"""The goals of the bench on a small form of its phantom: motion, coregistration, mask, warp, slice timing.

Every bound is the value measured when the test was written (in the comment beside it) with a margin for other versions
of the libraries; the goals themselves hold at the bench's resolution (docs/preprocessing.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from boldmill.bench import phantom, phantom_bold
from boldmill.bench import preprocess_truth as against
from boldmill.preprocess import bbr, coreg, reference, slicetiming
from boldmill.preprocess.affine import refine, register_affine
from boldmill.preprocess.brainmask import mask_from_template
from boldmill.preprocess.foreground import block_mean
from boldmill.preprocess.images import Volume, bounding_box, crop_volume
from boldmill.preprocess.n4 import n4, one_thread
from boldmill.preprocess.syn import register_syn
from boldmill.preprocess.transforms import apply_affine, sample

SPEC = phantom.Spec(t1w_mm=3.0, bold_mm=4.0, bold_shape=(48, 48, 32), volumes=24)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The small phantom: shape, run with truth, T1w, true mask and true tissue maps on the T1w grid."""

    shape: phantom.Shape
    truth: phantom_bold.RunTruth
    series: np.ndarray
    t1w: Volume
    mask: Volume
    head: Volume
    template_mask: Volume
    white: Volume
    grey: Volume


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    one_thread(1)
    shape = phantom.build_shape(SPEC)
    truth = phantom_bold.run_truth(SPEC, shape)
    series = np.stack(list(phantom_bold.volumes(SPEC, shape, truth)), axis=-1)
    t1w, mask, affine = phantom.draw_t1w(SPEC, shape)
    image = Volume(t1w.astype(np.float32), affine)
    own = shape.warp.to_template(image.grid.points())
    head = shape.head

    def pulled(field: Any) -> Volume:
        return image.like(sample(Volume(field, head.affine), own).reshape(t1w.shape))

    painted = phantom.paint(head)[0]
    return Drawn(
        shape=shape,
        truth=truth,
        series=np.asfortranarray(series, dtype=np.float32),
        t1w=image,
        mask=image.like(mask),
        head=Volume(painted, head.affine),
        template_mask=Volume((head.mask > 0).astype(np.float32), head.affine),
        white=pulled(head.wm),
        grey=pulled(head.gm),
    )


@pytest.fixture(scope="module")
def motion(drawn: Drawn) -> reference.Reference:
    return reference.estimate(drawn.series, drawn.truth.affine)


def test_the_phantom_is_as_hard_as_stated(drawn: Drawn) -> None:
    points = against.rest_points(drawn.shape, drawn.truth)
    moved = against.displacement(drawn.truth.motion, points)
    assert 1.0 < moved.mean() < 1.7 and 2.4 < moved.max() < 4.0
    assert against.displacement(drawn.truth.pose[None], points)[0] > 7.0
    warp = np.linalg.norm(drawn.shape.warp.displacement(drawn.shape.brain), axis=1)
    assert warp.mean() == pytest.approx(3.5, abs=0.01) and warp.max() > 8.0
    assert 1300 < drawn.mask.data.sum() * drawn.mask.grid.voxel_ml < 2100


def test_motion(drawn: Drawn, motion: reference.Reference) -> None:
    points = against.rest_points(drawn.shape, drawn.truth)
    matrices = motion.motion.matrices
    start = against.reference_volume(matrices, points)
    assert start == motion.index
    wrong = against.motion_errors(matrices, drawn.truth, points, start)
    still = against.motion_errors(np.tile(np.eye(4), (SPEC.volumes, 1, 1)), drawn.truth, points, start)
    assert still.mean() > 1.2  # 1.72 without realignment
    assert wrong.mean() <= 0.08  # 0.060
    assert wrong.max() <= 0.18  # 0.129


def test_coregistration(drawn: Drawn, motion: reference.Reference) -> None:
    brain = drawn.t1w.like(np.where(drawn.mask.data, drawn.t1w.data, 0).astype(np.float32))
    image = Volume(motion.image, drawn.truth.affine)
    found = coreg.coregister(image, image.like(motion.mask), brain, drawn.white, drawn.grey, key=("accuracy",))
    wrong = against.coregistration_error(found.matrix, drawn.truth, drawn.shape, motion.index)
    assert found.method == "boundary"
    assert wrong <= 0.13  # 0.058; 0.077 with a smoother surface


def test_boundary_points_come_from_both_sides(drawn: Drawn) -> None:
    """Vertices are ordered along x: taking the first of them once left out one side, and moved the result."""
    edge = bbr.boundary(drawn.white, drawn.grey, key=("sides",), points=4000)
    whole = bbr.boundary(drawn.white, drawn.grey, key=("sides",), points=1_000_000)
    assert len(edge.inside) == 4000 < len(whole.inside)
    share = [np.mean(e.surface[:, 0] > drawn.shape.centre[0]) for e in (edge, whole)]
    assert share[0] == pytest.approx(share[1], abs=0.03)


def test_brain_mask_and_warp(drawn: Drawn) -> None:
    t1w, _ = n4(drawn.t1w, iterations=(20, 20, 10), grid=6.0)
    head, template_mask = drawn.head, drawn.template_mask
    start = register_affine(head, t1w, pitches=(0.0,), fine=4.0).matrix
    outer = register_syn(block_mean(head, 4.0), t1w, start, iterations=(40, 20))
    mask = mask_from_template(outer, template_mask, t1w)
    overlap = against.dice(t1w.like(mask.astype(np.float32)), drawn.mask)
    fixed = head.like(np.where(template_mask.data > 0, head.data, 0).astype(np.float32))
    fixed = crop_volume(fixed, *bounding_box(template_mask.data > 0, 4))
    brain = t1w.like(np.where(mask, t1w.data, 0).astype(np.float32))
    affine = refine(fixed, brain, start)[0]
    inner = register_syn(fixed, brain, affine, iterations=(50, 30, 0))
    before = against.normalisation_errors(lambda x: apply_affine(affine, x), drawn.shape)
    after = against.normalisation_errors(inner.to_subject, drawn.shape)
    assert overlap >= 0.975  # 0.985
    assert before.mean() > 2.5  # 3.40 after the affine
    assert after.mean() <= 1.05  # 0.891, without iterations on the finest grid


def test_slice_timing(drawn: Drawn) -> None:
    times = drawn.truth.times
    middle = float(times.max() / 2)
    series, at = against.band_limited(SPEC.tr, 100, times, realisations=6)
    data = series[:, None].astype(np.float32)
    found = slicetiming.correct(data, slicetiming.SliceTimes(times, 2, middle), SPEC.tr)[:, 0]
    every, inner = against.timing_error(found, at(middle))
    untouched = against.timing_error(series, at(middle))[1]
    assert untouched > 15.0  # 22.1 without correction
    assert inner <= 0.1  # 0.047
    assert every <= 1.8  # 1.22
