from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from boldmill.bench import (
    representations,
    representations_maps,
    representations_memory,
    representations_pfc,
    representations_shards,
)
from boldmill.bench.representations_case import QUICK, Case, Size, draw, frame_of, read_once
from boldmill.bench.table import Row
from boldmill.represent import project
from boldmill.shards.rows import TableRows

TINY = dataclasses.replace(QUICK, mm=8.0, volumes=5, peer_frames=1, views=9, clips=3, pixels=64, long_volumes=34)


@pytest.fixture(scope="module")
def case() -> Case:
    return draw(TINY)


def test_the_grid_is_the_one_of_the_goals() -> None:
    assert Size().shape == (91, 109, 91) and Size().volumes == 300
    corner = np.diag([2.0, 2.0, 2.0, 1.0])
    corner[:3, 3] = (-90, -126, -72)
    assert np.array_equal(Size().affine, corner)


def test_the_run_is_like_a_real_one(case: Case) -> None:
    """A mean of hundreds, fluctuation shared within a parcel, noise, and atlas voxels outside of the mask."""
    assert len(set(case.labels)) == 101 and ((case.labels > 0) & ~case.mask).any() and case.mask.mean() < 0.5
    long = np.stack([frame_of(TINY, case.labels, t) for t in range(200)])
    assert np.array_equal(long[:5], case.frames)
    inside = case.labels == np.bincount(case.labels[case.labels > 0]).argmax()
    assert 700 < long.mean() < 900 and 15 < long.std(0).mean() < 30
    r = np.corrcoef(long[:, inside].T)[np.triu_indices(inside.sum(), 1)]
    assert 0.05 < r.mean() < 0.3  # 8^2 / (8^2 + 20^2) = 0.14


def test_an_image_shows_the_run_without_a_copy(case: Case) -> None:
    image = case.image(case.frames)
    assert image.shape == (*TINY.shape, 5) and np.shares_memory(image.dataobj, case.frames)
    i, j, k = 3, 5, 7
    x = i + TINY.shape[0] * (j + TINY.shape[1] * k)
    assert np.array_equal(image.dataobj[i, j, k], case.frames[:, x])


def test_floors_read_every_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boldmill.bench.representations_case.CHUNK", 7)
    seen: list[np.ndarray] = []
    monkeypatch.setattr(np, "copyto", lambda to, piece: seen.append(piece.copy()))
    read_once([np.arange(500.0).reshape(20, 25), np.arange(3)])
    assert sorted(np.concatenate(seen)) == sorted([*range(500), 0, 1, 2])


def _spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every product wrong: parcels by 10 divided by their size, pixels by 10."""
    true = project.Projector.__call__

    def wrong(self: project.Projector, block: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        found: np.ndarray = true(self, block, out)
        found += 10
        return found

    monkeypatch.setattr(project.Projector, "__call__", wrong)


def test_parcels_equal_nilearn_and_a_wrong_result_misses_the_goal(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    against, floor = representations_maps.parcel_rows(case, 1)
    assert "nilearn" in against.name and against.peer and against.ratio
    assert "max difference 0e+00" in against.name and floor.met is None and "floor" in floor.name
    _spoil(monkeypatch)
    assert representations_maps.parcel_rows(case, 1)[0].met is False


def test_flat_maps_equal_scipy_and_a_wrong_result_misses_the_goal(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    against, path, stage = representations_maps.flat_rows(case, 1)
    assert "64984 vertices x 5 frames" in against.name and against.ratio and against.unit == "frames/s"
    assert float(against.name.split("max difference ")[1].rstrip(")")) <= 1e-4
    assert path.goal == "within 3x of the floor" and path.met == (path.ours <= 3 * (path.peer or 0))
    assert stage.goal == "" and stage.ours > 0
    _spoil(monkeypatch)
    assert (
        representations_maps._interpolation(
            case, np.zeros((64984, 5), np.float32), project.Projector(case.grid.operator), None, 1
        ).met
        is False
    )


def test_pfc_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy_row, torch_row, floor = representations_pfc.rows(TINY, 1)
    for row in (numpy_row, torch_row):
        assert row.unit == "views/s" and float(row.name.split("max difference ")[1].rstrip(")")) < 1e-5
    assert numpy_row.goal and not torch_row.goal
    assert "2048" in floor.name and floor.peer and floor.ratio == pytest.approx(floor.peer / floor.ours)


def test_the_memory_row_is_that_of_the_child(case: Case, tmp_path) -> None:
    (row,) = representations_memory.rows(case)
    assert row.unit == "GiB" and row.met and 0.05 < row.ours < 1.5
    representations_memory.write_run(tmp_path, TINY, case.mask, case.labels)
    import nibabel as nib

    image = nib.load(tmp_path / "clean.nii")
    assert image.shape == (*TINY.shape, 34) and image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj)[..., 4].ravel(order="F"), case.frames[4])
    assert np.allclose(image.affine, TINY.affine)


def test_clips_come_back_from_the_shard_and_the_tar(tmp_path) -> None:
    clips = np.random.default_rng(0).standard_normal((5, 16, 40)).astype(np.float16)
    representations_shards.write_shard(tmp_path / "bucket-000.parquet", clips)
    assert np.array_equal(TableRows([tmp_path / "bucket-000.parquet"]).read(range(5), "values"), clips)
    representations_shards.write_tar(tmp_path / "clips.tar", clips)
    total = representations_shards.webdataset_total(tmp_path / "clips.tar")
    assert total == pytest.approx(float(clips[:, 0, 0].astype(np.float64).sum()), abs=1e-6)
    with pytest.raises(AssertionError, match="clip 0"):
        representations_shards._check(TableRows([tmp_path / "bucket-000.parquet"]), clips + np.float16(1))


def test_reading_rows_and_a_webdataset_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = representations_shards.rows(TINY, 1)
    assert len(made) == 3 and all(row.unit == "GB/s" and row.goal and row.ratio for row in made)
    monkeypatch.setattr(representations_shards, "find_spec", lambda name: None)
    absent = representations_shards.rows(TINY, 1)[2]
    assert absent.peer is None and absent.met is None and "not installed" in absent.name


def test_quick_has_no_goals_and_long_adds_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row(name="x", ours=1.0, peer=2.0, unit="ms", ratio=2.0, goal="ratio >= 1", met=True)
    for module, name in (
        (representations_maps, "parcel_rows"),
        (representations_maps, "flat_rows"),
        (representations_pfc, "rows"),
        (representations_memory, "rows"),
        (representations_shards, "rows"),
    ):
        monkeypatch.setattr(module, name, lambda *a: [row])
    monkeypatch.setattr("boldmill.bench.representations_case.draw", lambda size: size)
    quick = representations.measure(1, quick=True)
    assert len(quick) == 4 and all(one.goal == "" and one.met is None for one in quick)
    assert [one.met for one in representations.measure(1, long=True)] == [True] * 5
