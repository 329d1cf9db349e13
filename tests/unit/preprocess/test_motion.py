"""Motion parameters and framewise displacement against published series and closed forms."""

from __future__ import annotations

import os
from pathlib import Path

import nipype
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill.preprocess.confounds import read
from boldmill.preprocess.motion import (
    AXES,
    displacement,
    expand,
    fd_jenkinson,
    fd_power,
    matrix_of,
    parameters_of,
    rotation,
    summary,
)

NIPYPE = Path(nipype.__file__).parent / "testing" / "data"
DATA = Path(os.environ.get("BOLDMILL_TEST_DATA", Path(__file__).parents[3] / "../shared/data"))

small = st.floats(-1.2, 1.2)


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.lists(small, min_size=3, max_size=3))
def test_parameters_round_trip(shift: list[float], angles: list[float]) -> None:
    parameters = np.array([*shift, *angles])
    centre = np.array([4.0, -20.0, 11.0])
    matrix = matrix_of(parameters, centre)
    assert np.allclose(parameters_of(matrix[None], centre)[0], parameters, atol=1e-9)
    assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3))
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1.0)


def test_rotation_is_right_handed_about_each_axis() -> None:
    assert np.allclose(rotation(np.array([np.pi / 2, 0, 0])) @ [0, 1, 0], [0, 0, 1])
    assert np.allclose(rotation(np.array([0, np.pi / 2, 0])) @ [0, 0, 1], [1, 0, 0])
    assert np.allclose(rotation(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0])


def test_pure_rotation_leaves_its_centre() -> None:
    centre = np.array([10.0, -30.0, 5.0])
    matrix = matrix_of(np.array([0, 0, 0, 0.1, 0.2, -0.3]), centre)
    assert np.allclose(matrix[:3, :3] @ centre + matrix[:3, 3], centre)


def test_fd_power_matches_fsl_motion_outliers() -> None:
    fsl = np.loadtxt(NIPYPE / "fsl_mcflirt_movpar.txt")  # rotations first
    published = np.loadtxt(NIPYPE / "fsl_motion_outliers_fd.txt")
    fd = fd_power(np.concatenate([fsl[:, 3:], fsl[:, :3]], axis=1))
    assert np.isnan(fd[0])
    assert np.abs(fd[1:] - published).max() < 1e-6


@pytest.mark.data
def test_fd_power_matches_fmriprep() -> None:
    tables = sorted(DATA.glob("derivatives/ds000030_halfpipe/derivatives/fmriprep/sub-*/func/*confounds*.tsv"))
    if not tables:
        assert not os.environ.get("CI"), "the real test data must be there in CI"
        pytest.skip(f"no real confounds below {DATA} (BOLDMILL_TEST_DATA)")
    assert len(tables) >= 5
    for path in tables:
        table = read(path)
        fd = fd_power(np.stack([table.columns[name] for name in AXES], axis=1))
        published = table.columns["framewise_displacement"]
        assert np.isnan(published[0])
        assert np.abs(fd[1:] - published[1:]).max() < 1e-6


def test_fd_jenkinson_of_a_translation_is_its_length() -> None:
    steps = np.array([[0, 0, 0], [3.0, 4.0, 0], [3.0, 4.0, 12.0]])
    matrices = np.tile(np.eye(4), (3, 1, 1))
    matrices[:, :3, 3] = steps
    assert np.allclose(fd_jenkinson(matrices)[1:], [5.0, 12.0])


def test_fd_jenkinson_is_the_rms_displacement_of_a_solid_sphere() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-80, 80, (400_000, 3))
    points = points[np.linalg.norm(points, axis=1) < 80]
    centre = np.array([5.0, -12.0, 20.0])
    first = matrix_of(np.array([0.4, -0.2, 0.1, 0.01, -0.03, 0.02]), centre)
    second = matrix_of(np.array([-0.3, 0.6, 0.9, -0.02, 0.01, 0.04]), centre)
    here = points + centre
    relative = second @ np.linalg.inv(first)
    moved = here @ relative[:3, :3].T + relative[:3, 3] - here
    expected = np.sqrt((moved**2).sum(axis=1).mean())
    assert fd_jenkinson(np.stack([first, second]), centre)[1] == pytest.approx(expected, rel=3e-3)


def test_fd_jenkinson_of_a_rotation_about_the_origin() -> None:
    angle = 0.02
    matrix = matrix_of(np.array([0, 0, 0, 0, 0, angle]), np.zeros(3))
    # tr((R - I)'(R - I)) = 4 (1 - cos a) for a rotation by a
    expected = np.sqrt(80.0**2 / 5.0 * 4.0 * (1.0 - np.cos(angle)))
    assert fd_jenkinson(np.stack([np.eye(4), matrix]))[1] == pytest.approx(expected)


def test_expand_names_and_first_rows() -> None:
    columns = expand({"rot_x": np.array([1.0, 3.0, 2.0])})
    assert list(columns) == ["rot_x", "rot_x_derivative1", "rot_x_power2", "rot_x_derivative1_power2"]
    assert np.isnan(columns["rot_x_derivative1"][0]) and np.isnan(columns["rot_x_derivative1_power2"][0])
    assert columns["rot_x_derivative1"][1:].tolist() == [2.0, -1.0]
    assert columns["rot_x_power2"].tolist() == [1.0, 9.0, 4.0]
    assert columns["rot_x_derivative1_power2"][1:].tolist() == [4.0, 1.0]


def test_displacement_and_summary() -> None:
    matrices = np.tile(np.eye(4), (2, 1, 1))
    matrices[1, :3, 3] = [0, 3, 4]
    assert displacement(matrices, np.random.default_rng(0).normal(size=(7, 3))).tolist() == pytest.approx([0.0, 5.0])
    assert summary(np.array([np.nan, 1.0, 3.0])) == (2.0, 3.0)
    assert summary(np.array([np.nan])) == (0.0, 0.0)
