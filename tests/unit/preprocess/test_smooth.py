"""Smoothing inside a mask: width, constants, and no leak over the edge."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.preprocess.smooth import smooth_masked


def test_the_kernel_has_the_stated_width_in_mm() -> None:
    mask = np.ones((33, 25, 17), dtype=bool)
    image = np.zeros(mask.shape, dtype=np.float32)
    image[16, 12, 8] = 1.0
    out = smooth_masked(image[mask][None], mask, np.array([1.5, 2.0, 3.0]), 6.0)[0].reshape(mask.shape)
    half = out[16, 12, 8] / 2
    assert out[18, 12, 8] == pytest.approx(half, rel=1e-4)  # 3 mm along x: half the width
    for axis, zoom in enumerate((1.5, 2.0, 3.0)):
        place = np.arange(mask.shape[axis]) - (16, 12, 8)[axis]
        profile = out.sum(axis=tuple(a for a in range(3) if a != axis))
        width = np.sqrt((profile * (place * zoom) ** 2).sum() / profile.sum())
        assert width * 2.3548 == pytest.approx(6.0, rel=0.02)


def test_constants_stay_and_nothing_comes_from_outside() -> None:
    rng = np.random.default_rng(0)
    mask = np.linalg.norm(np.indices((20, 20, 20)) - 10, axis=0) < 7
    series = np.full((2, mask.sum()), 5.0, dtype=np.float32)
    assert np.allclose(smooth_masked(series.copy(), mask, np.full(3, 2.0), 6.0), 5.0, atol=1e-5)
    noise = rng.normal(size=(3, mask.sum())).astype(np.float32)
    assert np.array_equal(smooth_masked(noise.copy(), mask, np.full(3, 2.0), 0.0), noise)
    assert smooth_masked(noise.copy(), mask, np.full(3, 2.0), 6.0).std() < 0.4 * noise.std()
