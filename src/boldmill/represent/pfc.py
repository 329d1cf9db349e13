"""Pseudo-functional connectivity (pFC): FC of a random subset of the time points of one scan.

Axes: T time, P parcels, K views, E = P (P - 1) / 2 edges, M dropped time points.

Which points a view drops follows from (scan id, view index, seed) alone, so that row ``k`` in the shards and view ``k``
made on the fly are the same network. Generator version 1, exactly:

- words: the Philox 4x64 stream keyed by ``("pfc", 1, scan id, seed)`` (:mod:`boldmill.rng`); view ``k`` owns the
  ``W = 4 ceil(T / 4)`` words from ``k W`` on and uses the first T of them, one 64-bit word per time point;
- ``M = floor(drop_rate T)`` in integers, the rate being the decimal fraction that the configuration shows;
- scattered: the M points with the smallest words are dropped, equal words by index;
- block: the M points from ``word[0] mod (T - M + 1)`` on are dropped.

The views of BrainMass (arXiv 2403.01433) are scattered, with a rate of 0.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from boldmill.errors import DataFault
from boldmill.represent.config import AugmentConfig
from boldmill.represent.fc import correlation, n_edges, standardise, vectorise
from boldmill.represent.parallel import each, one_blas_thread, pieces, workers
from boldmill.rng import generator

GENERATOR_VERSION = 1

BLOCK_BYTES = 1 << 20
"""Size of one block of (P, P) products: small enough to stay in cache on a CPU."""

GPU_BLOCK_BYTES = 1 << 28
"""The same on a GPU: large enough to fill it, small beside its memory."""

SMALL_VARIANCE = 1e-3
"""A view in which a parcel keeps less than this share of its variance is computed again, directly in float64."""

WORDS = 4
"""Words of one Philox counter step."""


def n_dropped(timepoints: int, drop_rate: float) -> int:
    """Return how many of ``timepoints`` a view drops, in integer arithmetic.

    >>> n_dropped(176, 0.2), n_dropped(100, 0.29)
    (35, 29)
    """
    rate = Fraction(str(drop_rate))
    return rate.numerator * timepoints // rate.denominator


def check_length(timepoints: int, cfg: AugmentConfig, scan_id: str) -> None:
    """Raise :class:`DataFault` where a view would keep fewer than ``min_timepoints``."""
    kept = timepoints - n_dropped(timepoints, cfg.drop_rate)
    if kept < cfg.min_timepoints:
        raise DataFault(
            "scan too short for pFC",
            scan_id,
            f"a view would keep {kept} of {timepoints} time points, fewer than {cfg.min_timepoints}",
            "leave the scan out, or lower augment.min_timepoints or augment.drop_rate",
        )


def view_words(timepoints: int, scan_id: str, views: Sequence[int], seed: int) -> npt.NDArray[np.uint64]:
    """Return the random words of views: (K, T). Neighbouring views are drawn in one call."""
    steps = -(-timepoints // WORDS)
    index = [int(view) for view in views]
    if min(index, default=0) < 0:
        raise ValueError(f"view indices are counted from 0, got {min(index)}")
    words = np.empty((len(index), timepoints), dtype=np.uint64)
    breaks = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(index)) if b != a + 1), len(index)]
    for start, stop in pairwise(breaks):
        if start == stop:
            continue
        stream = generator("pfc", GENERATOR_VERSION, scan_id, seed)
        bits: Any = stream.bit_generator
        bits.advance(index[start] * steps)  # one step of the Philox counter gives four words
        # integers over the whole range are the raw words, drawn twice as fast as by random_raw
        size = (stop - start, steps * WORDS)
        drawn = stream.integers(0, 2**64 - 1, size=size, dtype=np.uint64, endpoint=True)
        words[start:stop] = drawn[:, :timepoints]
    return words


def drop_smallest(words: npt.NDArray[np.uint64], m: int) -> npt.NDArray[np.intp]:
    """Return, in rising order, the indices of the ``m`` smallest words of each row; equal words by index: (K, M)."""
    if m == 0:
        return np.empty((len(words), 0), dtype=np.intp)
    threshold = np.partition(words, m - 1, axis=1)[:, m - 1 : m]
    dropped = words <= threshold
    for row in np.flatnonzero(dropped.sum(axis=1) != m):  # equal words at the threshold: practically never
        dropped[row] = False
        dropped[row, np.argsort(words[row], kind="stable")[:m]] = True
    flat = np.flatnonzero(dropped).reshape(len(words), m)  # six times as fast as nonzero of two axes
    return np.asarray(flat - words.shape[1] * np.arange(len(words))[:, None], np.intp)


def dropped_points(
    timepoints: int, scan_id: str, views: Sequence[int], seed: int, cfg: AugmentConfig
) -> npt.NDArray[np.intp]:
    """Return the time points each view drops, in rising order: (K, M)."""
    m = n_dropped(timepoints, cfg.drop_rate)
    words = view_words(timepoints, scan_id, views, seed)
    if cfg.mode == "block":
        start = (words[:, :1] % np.uint64(timepoints - m + 1)).astype(np.intp)
        return start + np.arange(m)
    return drop_smallest(words, m)


def view_masks(
    timepoints: int, scan_id: str, views: Sequence[int], seed: int, cfg: AugmentConfig
) -> npt.NDArray[np.bool_]:
    """Return which time points each view keeps: (K, T)."""
    dropped = dropped_points(timepoints, scan_id, views, seed, cfg)
    kept = np.ones((len(dropped), timepoints), dtype=bool)
    np.put_along_axis(kept, dropped, False, axis=1)
    return kept


def pfc_views(series: Any, scan_id: str, views: Sequence[int], seed: int, cfg: AugmentConfig) -> Any:
    """Return pFC views of one scan as upper triangles.

    Parameters
    ----------
    series : array or torch.Tensor (T, P)
        Parcel series. A tensor is worked on where it lies, CPU or GPU, and gives a tensor.
    scan_id : str
        Name of the scan.
    views : sequence of int (K,)
        Indices of the views, counted from 0 over the whole training run.
    seed : int
        Base seed of the run.
    cfg : AugmentConfig
        Drop rate, mode and shortest length.

    Returns
    -------
    array or torch.Tensor (K, E), float32
        Pearson correlation of the kept points; NaN for edges of NaN parcels and of parcels constant in that view.

    Raises
    ------
    DataFault
        The scan is too short for the settings.

    Notes
    -----
    Sums over the kept points are sums over all points, in float64, less sums over the dropped ones, in float32: a
    quarter of the work at a drop rate of 0.2. The series is z-scored first, so the difference loses no precision that
    counts, except where a parcel keeps almost none of its variance: such views are computed again, in float64, from
    the points kept.
    """
    check_length(len(series), cfg, scan_id)
    dropped = dropped_points(len(series), scan_id, views, seed, cfg)
    if isinstance(series, np.ndarray):
        z = standardise(series.astype(np.float64))
        edges = np.empty((len(dropped), n_edges(z.shape[1])), dtype=np.float32)
        with one_blas_thread():
            weak = _downdate(z.astype(np.float32), (z.mT @ z).astype(np.float32), dropped, edges)
        if len(rows := np.flatnonzero(weak)):
            edges[rows] = _direct(series, dropped[rows])
        return edges

    import torch

    with torch.no_grad():
        x = series.to(torch.float64)
        spread = torch.where(x.amax(0) == x.amin(0), torch.nan, x.std(0, correction=0))
        z = (x - x.mean(0)) / spread
        views_out = torch.empty((len(dropped), n_edges(z.shape[1])), dtype=torch.float32, device=z.device)
        gram = (z.mT @ z).float()
        weak = _downdate_torch(z.float(), gram, torch.as_tensor(dropped, device=z.device), views_out)
        if len(rows := np.flatnonzero(weak.cpu().numpy())):
            exact = torch.from_numpy(_direct(series.cpu().numpy(), dropped[rows]))
            views_out[torch.as_tensor(rows, device=z.device)] = exact.to(z.device)
        return views_out


# With o the dropped points (M, P) of a view and u their sum, the n kept points have the sum -u (the series is
# z-scored), hence n cov = gram - o'o - u u' / n. The last term is one more row of o: one product gives both.


def _downdate(
    z: npt.NDArray[np.float32],
    gram: npt.NDArray[np.float32],
    dropped: npt.NDArray[np.intp],
    edges: npt.NDArray[np.float32],
) -> npt.NDArray[np.bool_]:
    """Fill ``edges`` (K, E) and return which views (K,) need the direct way.

    Blocks of views go to the threads. Each thread works in arrays of its own, made once: fresh memory for every block
    of products would cost four times the products.
    """
    timepoints, parcels = z.shape
    m = dropped.shape[1]
    n = timepoints - m
    rows, cols = np.triu_indices(parcels, k=1)
    triangle = rows * parcels + cols
    padded = dropped[:, [*range(m), 0]] if m else dropped
    weak = np.zeros(len(dropped), bool)
    blocks = pieces(len(dropped), max(1, BLOCK_BYTES // (4 * parcels * parcels)))
    threads = min(workers(), len(blocks))

    todo = iter(blocks)

    def share(_: int) -> None:
        size = blocks[0].stop
        out_of = np.empty((size, padded.shape[1], parcels), np.float32)
        other = np.empty_like(out_of)
        product = np.empty((size, parcels, parcels), np.float32)
        for block in todo:  # whichever thread is free takes the next
            k = block.stop - block.start
            out, copy, r = out_of[:k], other[:k], product[:k]
            np.take(z, padded[block], axis=0, out=out, mode="clip")  # the mode spares a buffer
            if m:
                np.divide(out[:, :m].sum(1), n**0.5, out=out[:, m])
            np.multiply(out, out, out=copy)
            variance = timepoints - copy.sum(1)  # n times the variance: the z-scored series has T in all
            weak[block] = (variance < SMALL_VARIANCE * n).any(1)
            scale = variance.clip(1e-30, None) ** -0.5
            np.copyto(copy, out)
            np.matmul(copy.mT, out, out=r)  # of two arrays: numpy's way for x'x is slower at this size
            r -= gram
            r *= -scale[:, :, None]
            r *= scale[:, None, :]
            np.take(r.reshape(k, -1), triangle, axis=1, out=edges[block], mode="clip")
            np.clip(edges[block], -1.0, 1.0, out=edges[block])

    each(share, range(threads))
    return weak


def _downdate_torch(z: Any, gram: Any, dropped: Any, edges: Any) -> Any:
    """Do the same with tensors, on their device: few large blocks on a GPU, cache-sized ones on a CPU."""
    import torch

    timepoints, parcels = z.shape
    m = dropped.shape[1]
    n = timepoints - m
    triangle = torch.triu_indices(parcels, parcels, 1, device=z.device)
    triangle = triangle[0] * parcels + triangle[1]
    weak = torch.zeros(len(dropped), dtype=torch.bool, device=z.device)
    budget = BLOCK_BYTES if z.device.type == "cpu" else GPU_BLOCK_BYTES
    for block in pieces(len(dropped), max(1, budget // (4 * parcels * parcels))):
        out = z[dropped[block]]  # (K, M, P)
        out = torch.cat([out, out.sum(1, keepdim=True) / n**0.5], dim=1)
        variance = timepoints - out.square().sum(1)
        weak[block] = (variance < SMALL_VARIANCE * n).any(1)
        scale = variance.clamp(min=1e-30).rsqrt()
        r = torch.baddbmm(gram, out.mT, out, alpha=-1)
        r *= scale[:, :, None]
        r *= scale[:, None, :]
        edges[block] = r.reshape(len(r), -1).index_select(1, triangle).clamp_(-1.0, 1.0)
    return weak


def _direct(series: Any, dropped: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Return (K, E) correlations from the kept points themselves, in float64."""
    full = np.asarray(series, dtype=np.float64)
    exact = [vectorise(correlation(np.delete(full, points, axis=0))) for points in dropped]
    return np.stack(exact).astype(np.float32)
