"""pFC views beside one numpy.corrcoef per view, and beside their own arithmetic at the rate of a large product.

Axes: T time, P parcels, K views.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.bench.representations_case import Size
from boldmill.bench.table import Row, side_by_side
from boldmill.represent.config import AugmentConfig
from boldmill.represent.parallel import each, one_blas_thread, pieces
from boldmill.represent.pfc import n_dropped, pfc_views, view_masks
from boldmill.rng import generator

GOAL, GPU_GOAL = 5.0, 50.0
SQUARE = 2048
"""Size of the product that gives the machine's arithmetic rate."""


def rows(size: Size, repeats: int) -> list[Row]:
    """Return the rows: numpy, torch on the CPU, torch on a GPU where there is one, and the arithmetic floor."""
    import torch

    rng = generator("bench", "pfc")
    shared = rng.standard_normal((size.timepoints, 5)) @ rng.standard_normal((5, size.parcels))
    series = (shared + rng.standard_normal((size.timepoints, size.parcels))).astype(np.float32)
    made = [_row("numpy", series, size, repeats, GOAL), _row("torch, CPU", torch.from_numpy(series), size, repeats)]
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        made.append(_row(device, torch.from_numpy(series).cuda(), size, repeats, GPU_GOAL, torch.cuda.synchronize))
    return [*made, _floor(series, size, repeats)]


def _row(
    name: str, series: Any, size: Size, repeats: int, goal: float | None = None, wait: Callable[[], object] = int
) -> Row:
    """One row; the peer holds BLAS to one thread, which is the faster way for its small products."""
    cfg = AugmentConfig()
    plain = np.asarray(series.cpu() if hasattr(series, "cpu") else series)
    upper = np.triu_indices(size.parcels, k=1)

    def ours() -> Any:
        found = pfc_views(series, "bench", range(size.views), 1, cfg)
        wait()
        return found

    def peer() -> NDArray[np.float64]:
        masks = view_masks(size.timepoints, "bench", range(size.views), 1, cfg)
        with one_blas_thread():
            return np.stack([np.corrcoef(plain[mask], rowvar=False)[upper] for mask in masks])

    found = ours()
    error = float(np.abs(np.asarray(found.cpu() if hasattr(found, "cpu") else found) - peer()).max())
    ours_s, peer_s = side_by_side(ours, peer, repeats=repeats)
    what = f"{size.views} views, {size.parcels} parcels, {size.timepoints} frames"
    return Row(
        name=f"pFC, {what}, {name} (peer: numpy.corrcoef per view; max difference {error:.0e})",
        ours=size.views / ours_s,
        peer=size.views / peer_s,
        unit="views/s",
        ratio=peer_s / ours_s,
        goal=f"ratio >= {goal:g}" if goal else "",
        met=peer_s / ours_s >= goal if goal else None,
    )


def _floor(series: NDArray[np.float32], size: Size, repeats: int) -> Row:
    """Our time beside that of the products alone, 2 P^2 (M + 1) operations a view, at the rate of a large product."""
    cfg = AugmentConfig()
    matrix = generator("bench", "square").standard_normal((SQUARE, SQUARE), np.float32)
    out = np.empty_like(matrix)
    work = size.views * 2 * size.parcels**2 * (n_dropped(size.timepoints, cfg.drop_rate) + 1)

    def square() -> None:  # on threads of ours: those of BLAS would go on spinning into our time
        with one_blas_thread():
            each(lambda part: np.matmul(matrix[part], matrix, out=out[part]), pieces(SQUARE, SQUARE // 4))

    ours_s, square_s = side_by_side(
        lambda: pfc_views(series, "bench", range(size.views), 1, cfg), square, repeats=repeats
    )
    rate = 2 * SQUARE**3 / square_s
    floor = f"{work / 1e9:.2f} GFLOP at {rate / 1e9:.0f} GFLOP/s, the rate of a product of {SQUARE} x {SQUARE}"
    return Row(
        name=f"pFC, {size.views} views, numpy (floor: {floor})",
        ours=1e3 * ours_s,
        peer=1e3 * work / rate,
        unit="ms",
        ratio=work / rate / ours_s,
    )
