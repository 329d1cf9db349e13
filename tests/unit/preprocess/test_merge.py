"""Several T1w of one session: known positions, outliers left out, one T1w untouched; ticket entries that are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldmill.preprocess.anat import anat_settings, init_anat_wf, t1w_of
from boldmill.preprocess.config import CleanConfig, EnginesConfig, PreprocessConfig
from boldmill.preprocess.denoise import denoise, noise_sigma
from boldmill.preprocess.derivatives import Derivatives
from boldmill.preprocess.images import Grid, Volume, read_volume, write_volume
from boldmill.preprocess.merge import MergeT1w, align, average, merge, merge_flags
from boldmill.preprocess.motion import displacement
from boldmill.preprocess.n4 import one_thread
from boldmill.preprocess.subject import Job

from . import phantom

one_thread()

FINE = Grid((60, 70, 60), np.array([[3.0, 0, 0, -90], [0, 3, 0, -106], [0, 0, 3, -82], [0, 0, 0, 1]]))


def scan(matrix: np.ndarray, seed: int, noise: float = 6.0, gain: float = 1.0) -> Volume:
    """The head at a position, with its own noise, gain and bias field."""
    inverse = np.linalg.inv(matrix)
    points = FINE.points()
    image = phantom.t1w(points @ inverse[:3, :3].T + inverse[:3, 3]).reshape(FINE.shape)
    bias = 1 + 0.1 * np.linspace(-1, 1, FINE.shape[0])[:, None, None]
    rng = np.random.default_rng(seed)
    return Volume(np.abs(gain * bias * image + gain * rng.normal(0, noise, FINE.shape)).astype(np.float32), FINE.affine)


@pytest.fixture(scope="module")
def scans() -> tuple[list[Volume], np.ndarray]:
    move = phantom.rigid((5, -3, 4), (6, -8, 5))
    stranger = scan(np.diag([0.8, 1.0, 1.0, 1.0]), 5)
    other = Volume(
        np.ascontiguousarray(np.transpose(stranger.data[::-1], (0, 1, 2))).max() - stranger.data, FINE.affine
    )
    return [scan(np.eye(4), 1), scan(move, 2, gain=1.7), other], move


def test_another_position_and_gain_are_found_and_averaged(scans: tuple[list[Volume], np.ndarray]) -> None:
    (first, second, stranger), move = scans
    found = align(first, second)
    inside = (phantom.parts(FINE.points())["brain"] > 0.5).ravel()
    points = FINE.points()[inside]
    assert displacement((np.linalg.inv(move) @ found.matrix)[None], points)[0] < 0.3
    merged, about = merge([first, second, stranger], ["a", "b", "c"])
    assert [entry["used"] for entry in about] == [True, False]
    assert merge_flags(about)[0].startswith("t1w_left_out: c correlates")
    white = phantom.parts(FINE.points())["wm"].reshape(FINE.shape) > 0.98
    assert merged.grid.same_as(first.grid)
    assert noise_sigma(merged.data, white) < 0.85 * noise_sigma(first.data, white)  # two images: 0.71
    assert merged.data[white].mean() == pytest.approx(first.data[white].mean(), rel=0.02)


def test_zeros_of_the_first_stay_and_gaps_of_the_others_do_not_darken() -> None:
    first = scan(np.eye(4), 1)
    first.data[:20] = 0
    second = Volume(first.data[:, :60].copy(), first.affine)  # a shorter field of view
    second.data[:20] = 50
    made = average(first, [(second, np.eye(4))])
    assert not made.data[:20].any()
    np.testing.assert_allclose(made.data[25:, 70:], first.data[25:, 70:], rtol=1e-5)


def test_the_node_repeats_bit_by_bit(scans: tuple[list[Volume], np.ndarray], tmp_path: Path) -> None:
    paths = [str(write_volume(tmp_path / f"{k}.nii", v.data, v.affine)) for k, v in zip("ab", scans[0], strict=False)]
    made = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        out = MergeT1w(in_files=paths, names=["a", "b"]).step(folder)
        made.append(Path(out["t1w"]).read_bytes())
    assert made[0] == made[1]


def job(**settings: object) -> Job:
    root = Path("x")
    return Job(
        derivatives=Derivatives(results=root, root=root, raw=root, dataset="d"), space="S", grid=phantom.GRID,
        template={}, settings=PreprocessConfig.model_validate(settings), clean=CleanConfig(), seed=1,
    )  # fmt: skip


def test_one_t1w_goes_the_same_way_as_before(tmp_path: Path) -> None:
    """No node is added, so that nothing is interpolated."""
    image = phantom.volume("t1w")
    paths = {
        k: write_volume(tmp_path / f"{k}.nii", image.data, image.affine)
        for k in ("head", "brain_mask", "gm", "wm", "csf")
    }
    names = [
        init_anat_wf(settings=PreprocessConfig(), template=paths, grid=phantom.GRID, names=n).list_node_names()
        for n in (("a",), ("a", "b"))
    ]
    assert set(names[1]) - set(names[0]) == {"merge"}


def test_entries_that_are_used() -> None:
    entries = [{"path": p, "sha256": s} for p, s in (("a", "1"), ("b", "2"), ("c", "1"))]
    assert [e["path"] for e in t1w_of(entries, "first")] == ["a"]
    assert [e["path"] for e in t1w_of(entries, "merge")] == ["a", "b"]  # c is a copy of a


def test_the_anatomy_is_redone_for_its_own_settings_only() -> None:
    base = anat_settings(job())
    assert anat_settings(job(engines=EnginesConfig(motion="fsl"), despike=True, output_spaces=["T1w"])) == base
    for change in ({"engines": EnginesConfig(n4="ants")}, {"denoise": True}, {"t1w": "first"}, {"n4_grid": 5.0}):
        assert anat_settings(job(**change)) != base


def test_denoising_finds_the_noise_and_takes_it_away(tmp_path: Path) -> None:
    truth = phantom.volume("t1w", FINE)
    rng = np.random.default_rng(4)
    noisy = np.hypot(truth.data + rng.normal(0, 5, FINE.shape), rng.normal(0, 5, FINE.shape)).astype(np.float32)
    clean, sigma = denoise(truth.like(noisy))
    assert sigma == pytest.approx(5.0, rel=0.05)
    brain = phantom.volume("brain", FINE).data > 0.5

    def error(data: np.ndarray) -> float:
        return float(np.sqrt(np.mean((data - truth.data)[brain] ** 2)))

    assert error(clean.data) < 0.5 * error(noisy)
    flat, none = denoise(truth.like(np.where(truth.data > 30, np.float32(70), np.float32(0))))
    assert none == 0 and flat.data.max() == 70
    assert read_volume(write_volume(tmp_path / "c.nii", clean.data, clean.affine)).data.dtype == np.float32
