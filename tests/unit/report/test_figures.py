"""Pictures on arrays, the hard ones too: NaN parcels, constant images, histories with holes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from boldmill.report import figures

RNG = np.random.default_rng(0)
SERIES = RNG.standard_normal((40, 20))
FD = np.r_[np.nan, np.abs(RNG.standard_normal(39))]
BALL = (np.linalg.norm(np.indices((16, 18, 14)).T - [8, 9, 7], axis=-1).T < 5).astype(np.float32)


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    """A picture of odd data is drawn without a warning: logs of thousands of scans must stay readable."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    assert "Software" not in image.info
    return np.asarray(image.convert("RGB"), dtype=int)


def holed() -> Any:
    series = SERIES.copy()
    series[:, 3] = np.nan
    series[:, 5] = 2.0
    return series


WATCHED: list[dict[str, Any]] = [
    {"stage": s, "step": k, "loss": 1 / k, "grad_norm": k, **({"uniformity": -k, "alignment": 1 / k} if k > 3 else {})}
    for s in ("a", "b")
    for k in range(1, 9)
]

DRAWN: dict[str, Callable[[], bytes]] = {
    "overlay": lambda: figures.overlay(100 * BALL, [(BALL, "#ff4040")], 50, "a brain"),
    "overlay without contours": lambda: figures.overlay(100 * BALL, [], 50, "a brain"),
    "constant image": lambda: figures.overlay(np.full(BALL.shape, 7.0), [(BALL, "#ff4040")], 50, "flat"),
    "empty image and mask": lambda: figures.overlay(0 * BALL, [(0 * BALL, "#ff4040")], 50, "nothing"),
    "carpet": lambda: figures.motion_and_carpet(FD, FD, SERIES, 2.0, 50),
    "carpet with NaN and constant parcels": lambda: figures.motion_and_carpet(FD, FD, holed(), 2.0, 50),
    "carpet of NaN": lambda: figures.motion_and_carpet(FD, FD, np.full((40, 2), np.nan), 2.0, 50),
    "carpet without motion": lambda: figures.motion_and_carpet(np.full(40, np.nan), FD, SERIES, 2.0, 50),
    "fc": lambda: figures.fc_matrix(np.corrcoef(SERIES.T), ["a"] * 10 + ["b"] * 10, 50),
    "fc with NaN": lambda: figures.fc_matrix(np.where(np.eye(4) > 0, 1, np.nan), list("aabb"), 50),
    "fc of one parcel": lambda: figures.fc_matrix(np.ones((1, 1)), ["a"], 50),
    "curves": lambda: figures.curves([{"step": k, "loss": 1 / k} for k in range(1, 9)], 50, "m"),
    "curves with monitors": lambda: figures.curves(WATCHED, 50, "m"),
    "curves with one monitor": lambda: figures.curves([{"step": 1, "loss": 1.0, "grad_norm": 2.0}], 50, "m"),
    "curves of an empty history": lambda: figures.curves([], 50, "m"),
    "cohort of long and odd site names": lambda: figures.cohort(
        {"tsnr": {"A very long name of a hospital in a city": [1.0, 2.0], r"$\frac{": [1.0]}}, 50
    ),
    "cohort": lambda: figures.cohort({"tsnr": {"A": [1.0, 2.0], "B": []}, "mean_fd": {"B": [0.1]}}, 50),
}


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_every_picture_is_drawn_with_the_same_bytes_twice(name: str) -> None:
    data = DRAWN[name]()
    assert min(pixels(data).shape[:2]) > 40
    assert DRAWN[name]() == data


def test_the_contour_lies_on_the_edge_of_the_mask() -> None:
    plain, drawn = (pixels(figures.overlay(100 * BALL, c, 50, "x")) for c in ([], [(BALL, "#ff0000")]))
    red = (drawn[..., 0] > 120) & (drawn[..., 1] < 80)
    assert red.sum() > 50
    assert not ((plain[..., 0] > 120) & (plain[..., 1] < 80)).any()


def test_the_carpet_shows_volumes_from_left_to_right() -> None:
    series = np.tile(np.linspace(-2, 2, 40)[:, None], (1, 12))
    image = pixels(figures.motion_and_carpet(FD, FD, series, 2.0, 50))
    row = image[int(0.75 * len(image))].mean(axis=-1)
    middle = len(row) // 2
    assert row[middle - 60] < row[middle + 60] - 50


def test_fc_is_drawn_in_the_order_of_parcels_and_undefined_pairs_stay_white() -> None:
    fc = np.array([[1.0, -1.0], [np.nan, 1.0]])
    image = pixels(figures.fc_matrix(fc, ["a", "a"], 60))
    h, w = image.shape[:2]
    top_left, top_right, bottom_left = image[h // 4, w // 5], image[h // 4, w // 2 + w // 8], image[3 * h // 4, w // 5]
    assert top_left[0] > top_left[2] + 40  # red: positive
    assert top_right[2] > top_right[0] + 40  # blue: negative
    assert bottom_left.min() > 250


def test_losses_of_rows_with_missing_keys() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "loss": 2.0, "lr": 0.1},
        {"step": 2, "loss": 1.0, "validation_loss": 1.5, "note": "loss is fine"},
        {"loss": 0.5, "validation_loss": None},
        {"step": 4, "lr": 0.1},
    ]
    assert figures.losses(rows) == {"loss": [(1, 2.0), (2, 1.0), (2, 0.5)], "validation_loss": [(2, 1.5)]}


def test_each_stage_of_a_run_has_its_own_curve() -> None:
    """Steps are counted anew in every stage: one curve over both would run back to the left."""
    rows = [{"stage": stage, "step": k, "loss": float(k)} for stage in ("fmri", "t1w") for k in (1, 2, 3)]
    found = figures.losses(rows)
    assert set(found) == {"fmri: loss", "t1w: loss"}
    assert all([step for step, _ in points] == [1, 2, 3] for points in found.values())


def test_monitors_are_found_by_name_and_take_their_own_panels() -> None:
    found = figures.monitors([{"step": 1, "loss": 1.0, "lr": 0.1}, {"step": 2, "loss": 1.0, "effective_rank": 5.0}])
    assert found == {"effective_rank": {"effective_rank": [(2, 5.0)]}}
    assert list(figures.monitors(WATCHED)) == ["alignment", "uniformity", "grad_norm"]
    assert set(figures.monitors(WATCHED)["uniformity"]) == {"a: uniformity", "b: uniformity"}
    plain, watched = (pixels(figures.curves(rows, 50, "m")) for rows in ([{"step": 1, "loss": 1.0}], WATCHED))
    assert watched.shape[1] > 1.4 * plain.shape[1]  # two columns of panels beside the losses


def test_volumes_are_read_in_ras_and_series_as_their_mean(tmp_path: Path) -> None:
    data = np.zeros((4, 5, 6, 2), np.float32)
    data[0, 1, 2] = (1, 3)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    volume = figures.load_volume(tmp_path / "a.nii.gz")
    assert volume.shape == (4, 5, 6)
    assert np.argwhere(volume).tolist() == [[3, 1, 2]]
    assert volume.max() == 2
