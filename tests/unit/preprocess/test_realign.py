"""Realignment against known rigid motion on an oblique LAS grid; the reference; non-steady volumes; early faults."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess import reference
from boldmill.preprocess.motion import displacement, fd_power, matrix_of, parameters_of
from boldmill.preprocess.realign import realign

from .bold_phantom import CENTRE, bold, draw, movements, oblique_las, radius, run

GRID = oblique_las()
BRAIN = (radius(GRID.points())[1] < 0).reshape(GRID.shape)
POINTS = GRID.points()[BRAIN.ravel()]


def errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean distance (mm) over the brain between two sets of matrices."""
    return np.array([displacement((np.linalg.inv(t) @ f)[None], POINTS)[0] for f, t in zip(found, truth, strict=True)])


def test_known_motion_is_found_on_an_oblique_grid() -> None:
    truth = movements(12)
    assert displacement(truth, POINTS).mean() > 0.8
    series = run(GRID, truth)
    found = reference.estimate(series, GRID.affine)
    expected = truth @ np.linalg.inv(truth[found.index])
    wrong = errors(found.motion.matrices, expected)
    assert wrong.mean() <= 0.1 and wrong.max() <= 0.25
    assert found.non_steady == 0 and 0 < found.repeated < 12  # some moved more than 1 mm
    assert np.nanmax(np.abs(fd_power(parameters_of(found.motion.matrices, CENTRE))
                            - fd_power(parameters_of(expected, CENTRE)))) < 0.6  # fmt: skip


def test_the_mean_in_two_passes_finds_the_same_motion_and_is_sharper_than_the_raw_mean() -> None:
    truth = movements(12)
    series = run(GRID, truth)
    found = reference.estimate_to_mean(series, GRID.affine)
    assert found.index is None and found.repeated == 12
    # where the mean lies is not known: positions are compared with each other
    matrices = found.motion.matrices @ np.linalg.inv(found.motion.matrices[4])
    wrong = errors(matrices, truth @ np.linalg.inv(truth[4]))
    assert wrong.mean() <= 0.15 and wrong.max() <= 0.3
    still = draw(GRID, bold).data
    edges = [np.linalg.norm(np.gradient(image)) for image in (found.image, series.mean(axis=3), still)]
    assert edges[1] < edges[0] < 1.05 * edges[2]


@pytest.mark.parametrize("size", [5.0, 12.0])
def test_large_offsets_converge(size: float) -> None:
    offset = matrix_of(np.array([size, -0.5 * size, 0.6 * size, *np.radians([0.6 * size, -size, 0.5 * size])]), CENTRE)
    moved = draw(GRID, bold, offset).data
    still = draw(GRID, bold).data
    found = realign(lambda t: moved, 1, still, GRID.affine, BRAIN)
    assert errors(found.matrices, offset[None])[0] < 0.15


def test_gain_and_offset_do_not_move_the_head() -> None:
    still = draw(GRID, bold).data
    found = realign(lambda t: 1.7 * still + 200.0, 1, still, GRID.affine, BRAIN)
    assert errors(found.matrices, np.eye(4)[None])[0] < 1e-3
    assert found.gain[0] == pytest.approx(1.7, rel=1e-4)


def test_same_bytes_twice() -> None:
    series = run(GRID, movements(3))
    one, two = (reference.estimate(series, GRID.affine) for _ in range(2))
    assert one.motion.matrices.tobytes() == two.motion.matrices.tobytes()
    assert one.image.tobytes() == two.image.tobytes()


def test_an_empty_mask_is_refused() -> None:
    still = draw(GRID, bold).data
    with pytest.raises(DataFault, match="look like brain"):
        realign(lambda t: still, 1, still, GRID.affine, np.zeros(GRID.shape, dtype=bool))


def steady(count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(2)
    return (1000 + rng.normal(0, 10, (6, 6, 6, count))).astype(np.float32)


MASK = np.ones((6, 6, 6), dtype=bool)


def test_bright_first_volumes_are_marked() -> None:
    series = steady()
    assert reference.count_non_steady(series, MASK) == 0
    series[..., 0] *= 1.3
    series[..., 1] *= 1.1
    assert reference.count_non_steady(series, MASK) == 2


def test_a_changing_pattern_is_marked_by_its_intensity_steps() -> None:
    series = steady()
    pattern = np.random.default_rng(4).choice([-60.0, 60.0], (6, 6, 6))
    series[..., 0] += pattern - pattern.mean()
    assert reference.count_non_steady(series, MASK) == 1


def test_a_later_spike_is_motion() -> None:
    series = steady()
    series[..., 4] += np.random.default_rng(4).choice([-60.0, 60.0], (6, 6, 6))
    assert reference.count_non_steady(series, MASK) == 0
    series[..., 20] *= 1.5
    assert reference.count_non_steady(series, MASK) == 0


@pytest.mark.parametrize("tr", [None, 0.0, -1.0, float("nan")])
def test_no_repetition_time(tr: float | None) -> None:
    with pytest.raises(DataFault, match="repetition time"):
        reference.check_series(steady(), tr, where="x")


def test_short_and_empty_series_are_refused() -> None:
    with pytest.raises(DataFault, match="5 volumes, at least 10"):
        reference.check_series(steady(5), 2.0, where="x")
    series = steady()
    series[..., 7] = 0
    with pytest.raises(DataFault, match="1 of 40 volumes hold no signal"):
        reference.check_series(series, 2.0, where="x")
    reference.check_series(steady(), 2.0, where="x")


def test_an_image_without_a_head_is_refused() -> None:
    with pytest.raises(DataFault, match="mask BOLD"):
        reference.epi_mask(np.random.default_rng(0).normal(100, 1, (5, 5, 5)), np.eye(4))
