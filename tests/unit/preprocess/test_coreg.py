"""Coregistration: a known offset is found, a hopeless search is refused, reruns agree."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess import bbr, coreg
from boldmill.preprocess.images import Volume
from boldmill.preprocess.motion import displacement, matrix_of
from boldmill.preprocess.transforms import apply_affine

from .bold_phantom import CENTRE, bold, draw, oblique_las, radius, ras, t1w, tissues

ANAT = ras(2.5)
WHITE = draw(ANAT, lambda p: tissues(p)["wm"])
GREY = draw(ANAT, lambda p: tissues(p)["gm"])
FUNC = oblique_las((42, 50, 40), 4.0)
SURFACE = ANAT.points()[(np.abs(radius(ANAT.points())[0]) < 1.5)]


def offset(shift: float, degrees: float) -> np.ndarray:
    return matrix_of(np.array([shift, -shift, 0.7 * shift, *np.radians([degrees, -0.6 * degrees, degrees])]), CENTRE)


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(displacement((np.linalg.inv(truth) @ found)[None], SURFACE)[0])


def test_boundary_lies_between_white_and_grey() -> None:
    edge = bbr.boundary(WHITE, GREY, key=("test",))
    assert np.allclose(np.linalg.norm(edge.outside - edge.inside, axis=1), 2 * bbr.STEP)
    inside, outside = radius(edge.inside)[0], radius(edge.outside)[0]
    assert (inside < 0).mean() > 0.99 and (outside > 0).mean() > 0.99
    again = bbr.boundary(WHITE, GREY, key=("test",))
    assert again.inside.tobytes() == edge.inside.tobytes()


def test_boundary_normals_on_a_flipped_anisotropic_grid() -> None:
    affine = np.array([[0, 0, -3.0, 90], [-2.0, 0, 0, 80], [0, 2.5, 0, -70], [0, 0, 0, 1]])
    shape = (90, 60, 60)
    points = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    t = tissues(points)
    white = Volume(t["wm"].reshape(shape).astype(np.float32), affine)
    grey = Volume(t["gm"].reshape(shape).astype(np.float32), affine)
    edge = bbr.boundary(white, grey, key=("flip",))
    assert (radius(edge.outside)[0] > radius(edge.inside)[0]).mean() > 0.99


@pytest.mark.parametrize(("shift", "degrees"), [(2.0, 2.0), (4.0, 4.0)])
def test_boundary_registration_recovers_an_offset(shift: float, degrees: float) -> None:
    truth = offset(3.0, 2.0)
    reference = draw(FUNC, bold, truth)
    edge = bbr.boundary(WHITE, GREY, key=("test",))
    start = truth @ offset(shift, degrees)
    assert error(start, truth) > 2.0
    found, contrast = bbr.refine(reference, edge, start)
    assert error(found, truth) < 0.2
    assert contrast.cost < 0.9 and contrast.sign > 0.9
    assert bbr.contrast(reference, edge, start).cost > contrast.cost + 0.05


def test_chance_is_one_and_out_of_view_counts_as_chance() -> None:
    rng = np.random.default_rng(0)
    reference = draw(FUNC, bold)
    noise = reference.like((1000 + rng.normal(0, 200, FUNC.shape)).astype(np.float32))
    edge = bbr.boundary(WHITE, GREY, key=("test",))
    assert bbr.contrast(noise, edge, np.eye(4)).cost == pytest.approx(1.0, abs=0.05)
    far = np.eye(4)
    far[:3, 3] = 1000.0
    assert bbr.contrast(reference, edge, far).cost == pytest.approx(1.0)


def test_the_search_stays_within_its_bounds() -> None:
    reference = draw(FUNC, bold, offset(30.0, 20.0))
    edge = bbr.boundary(WHITE, GREY, key=("test",))
    found, _ = bbr.refine(reference, edge, np.eye(4))
    relative = apply_affine(found, edge.centre[None])[0] - edge.centre
    assert np.abs(relative).max() <= bbr.BOUND + 1e-6


def test_no_white_matter_is_a_fault() -> None:
    empty = WHITE.like(np.zeros_like(WHITE.data))
    with pytest.raises(DataFault, match="white matter"):
        bbr.boundary(empty, GREY, key=("test",))
    with pytest.raises(DataFault, match="grey matter outside"):
        bbr.boundary(WHITE, empty, key=("test",))


def test_a_displaced_header_is_survived_and_reruns_agree() -> None:
    truth = offset(18.0, 5.0)
    reference = draw(FUNC, bold, truth)
    mask = reference.like((reference.data > 200).astype(np.float32))
    brain = draw(ANAT, t1w)
    found = coreg.coregister(reference, mask, brain, WHITE, GREY, key=("scan", "1"))
    assert found.method == "boundary" and found.flags == []
    assert error(found.matrix, truth) < 0.3
    assert found.cost < 0.9 < found.cost_header
    assert found.from_header == pytest.approx(displacement(truth[None], SURFACE)[0], abs=1.0)
    again = coreg.coregister(reference, mask, brain, WHITE, GREY, key=("scan", "1"))
    assert again.matrix.tobytes() == found.matrix.tobytes()


def test_without_contrast_the_boundary_result_is_refused() -> None:
    rng = np.random.default_rng(5)
    head = draw(FUNC, lambda p: 1000 * tissues(p)["brain"])
    reference = head.like(head.data + rng.normal(0, 20, FUNC.shape).astype(np.float32))
    mask = reference.like((head.data > 200).astype(np.float32))
    found = coreg.coregister(reference, mask, draw(ANAT, t1w), WHITE, GREY, key=("scan", "1"))
    assert found.method == "mutual_information"
    assert "refused" in found.flags[0]
