"""Slices, carpets, spectra and labels of the subject page, against closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldmill.preprocess import pictures
from boldmill.preprocess.images import Volume
from boldmill.represent.operators import save_arrays


def box(zoom: float = 2.0) -> Volume:
    """A brain of 20 x 24 x 16 voxels in a RAS grid; the values grow to the right, front and top."""
    data = np.zeros((40, 44, 36), np.float32)
    data[10:30, 10:34, 10:26] = 1
    return Volume(data, np.array([[zoom, 0, 0, -30], [0, zoom, 0, -40], [0, 0, zoom, -20], [0, 0, 0, 1.0]]))


def test_slices_are_upright_and_left_is_left() -> None:
    mask = box()
    x, y, z = (mask.grid.points()[:, axis].reshape(mask.grid.shape) for axis in range(3))
    for name, values, plane, axis, grows in (
        ("x", x, "axial", 2, 1), ("y", y, "axial", 1, -1), ("z", z, "coronal", 1, -1), ("y", y, "sagittal", 2, 1),
    ):  # fmt: skip
        shapes = pictures.panels(mask, 2.0)
        volume = mask.like((values - values.min() + 1).astype(np.float32))
        shown = pictures.slices(name, volume, {p: one.points for p, one in shapes.items()}, shapes, mask)
        steps = np.diff(shown[f"{name}_{plane}"].astype(int), axis=axis) * grows
        inside = steps[:, 8:-8, 8:-8]
        assert (inside >= 0).all() and inside.max() > 0, (name, plane)


def test_panels_cut_the_mask_where_they_say() -> None:
    mask = box()
    found = pictures.panels(mask, 2.0)
    heights = np.unique(found["axial"].points[:, 2])
    low, high = -20 + 2 * 9.5, -20 + 2 * 25.5
    assert np.allclose(heights, low + (high - low) * np.array(pictures.PLANES["axial"][1]))
    assert {p: one.shape[0] for p, one in found.items()} == {"axial": 6, "coronal": 6, "sagittal": 5}
    shown = pictures.maps("mask", mask, found)["mask_axial"]
    assert (shown == 255).sum(axis=(1, 2)) == pytest.approx([20 * 24] * 6, rel=0.1)


def test_edges_follow_the_coregistration() -> None:
    mask = box()
    matrix = np.eye(4)
    matrix[:3, 3] = [7, -4, 3]
    there = Volume(mask.data, matrix @ mask.affine)  # the same head where the coregistration says it lies
    moved = pictures.edge_arrays(there, mask, matrix, zoom=2.0)
    still = pictures.edge_arrays(mask, mask, np.eye(4), zoom=2.0)
    assert all(np.abs(moved[k].astype(int) - still[k]).max() <= 1 for k in still)
    wrong = pictures.edge_arrays(there, mask, np.eye(4), zoom=2.0)
    assert np.abs(wrong["bold_axial"].astype(int) - still["bold_axial"]).max() > 100


def test_labels() -> None:
    points = np.array([[0, 0, 20.0], [20, -60, -45], [20, -60, -20], [20, -60, -45], [0, 0, 0]])
    shares = {
        "gm": np.array([0.9, 0.8, 0.8, 0.0, 0.4]),
        "wm": np.array([0, 0, 0, 0.95, 0.3]),
        "csf": np.array([0, 0, 0, 0, 0.3]),
    }
    assert pictures.tissue_labels(shares, points, "MNI152NLin6Asym").tolist() == [1, 4, 1, 2, 0]
    assert pictures.tissue_labels(shares, points, "PHANTOM").tolist() == [1, 1, 1, 2, 0]


def test_carpet_sorts_rows_by_likeness_within_tissues() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(80)
    wave = np.sin(time / 3)
    weights = np.array([0.2, 6.0, 1.0, 0.1, 2.0])
    series = 100 + wave[:, None] * weights + rng.normal(0, 1, (80, 5)) + 0.5 * time[:, None]
    drawn, order = pictures.carpet(series, np.array([1, 1, 1, 2, 2]))
    assert order.tolist()[:2] == [1, 2] and sorted(order[3:].tolist()) == [3, 4]
    z = drawn / 127.5 - 1
    assert np.corrcoef(z[0], wave)[0, 1] > 0.9  # the trend is gone
    constant, _ = pictures.carpet(np.ones((30, 2)), np.array([1, 1]))
    assert np.ptp(constant) == 0


def test_rows_are_spread_and_limited() -> None:
    labels = np.repeat(np.array([1, 0, 3], np.uint8), [1000, 50, 7])
    rows = pictures.carpet_rows(labels)
    assert len(rows) == pictures.ROWS["gm"] + 7 and rows[0] == 0 and rows[pictures.ROWS["gm"] - 1] == 999
    assert (labels[rows] != 0).all()


def test_spectrum_has_the_power_of_a_sine() -> None:
    tr, n = 2.0, 200
    time = np.arange(n) * tr
    hz, power = pictures.spectrum(3.0 * np.sin(2 * np.pi * 0.05 * time)[:, None] + time[:, None], tr)
    assert hz[power.argmax()] == pytest.approx(0.05)
    assert power.sum() * (hz[1] - hz[0]) == pytest.approx(4.5, rel=0.02)  # A^2 / 2


def test_run_arrays_and_bytes(tmp_path: Path) -> None:
    mask = box()
    n, t = int(mask.data.sum()), 40
    rng = np.random.default_rng(1)
    series = (1000 + rng.normal(0, 10, (t, n))).astype(np.float32)
    labels = np.ones(n, np.uint8)
    keep_low = np.zeros((t, t))  # an operator that removes everything
    tsnr = np.linspace(0, 100, n)
    made = pictures.run_arrays(series, labels, tsnr, mask, keep_low, 2.0)
    assert made["carpet"].shape == (150, t) and np.ptp(made["carpet_clean"]) == 0
    assert made["spectrum_after"].max() == 0 < made["spectrum_before"].min()
    assert made["tsnr"].shape[0] == 7 and made["tsnr"][~made["tsnr_inside"]].max() == 0
    assert float(made["tsnr_top"]) == pytest.approx(98, abs=0.5)
    assert made["tsnr_mm"][0] < made["tsnr_mm"][-1]
    one, two = (save_arrays(tmp_path / name, **made).read_bytes() for name in ("a.npz", "b.npz"))
    assert one == two and len(one) < 200_000
