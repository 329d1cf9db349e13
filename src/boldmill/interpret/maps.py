"""From edges to regions, from subjects to a map, and how stable the map is from fold to fold.

Axes: S subjects, N regions, E = N (N - 1) / 2 edges (upper triangle, row by row), K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How far the maps of disjoint test folds agree.

    Parameters
    ----------
    mean, sd : (N,) array
        Over folds.
    share : (N,) array
        Share of the folds that count the region among their top.
    spearman, jaccard : float
        Mean over pairs of folds of one repeat: rank correlation of the maps, overlap of their tops. NaN for fewer than
        two folds.
    folds : int
        How many folds have a map.
    """

    mean: Floats
    sd: Floats
    share: Floats
    spearman: float
    jaccard: float
    folds: int


def region_sums(edges: Floats, regions: int) -> Floats:
    """Return half the sum of the edges of each region, (..., E) -> (..., N): both add up to the same total."""
    from scipy.sparse import csr_array

    ends = np.stack(np.triu_indices(regions, k=1), axis=1).ravel()
    touch = csr_array((np.full(len(ends), 0.5), ends, np.arange(0, len(ends) + 1, 2)), shape=(len(ends) // 2, regions))
    return np.asarray(edges.reshape(-1, edges.shape[-1]) @ touch).reshape(*edges.shape[:-1], regions)


def effect_size(values: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Return Cohen's d of the positive class less the other, (S, ...) -> (...), with the pooled SD.

    NaN where a class has fewer than two subjects, or where nothing varies.
    """
    sizes = [int(positive.sum()), int((~positive).sum())]
    if min(sizes) < 2:
        return np.full(values.shape[1:], np.nan)
    ours, others = values[positive], values[~positive]
    squares = ((ours - ours.mean(0)) ** 2).sum(0) + ((others - others.mean(0)) ** 2).sum(0)
    pooled = np.sqrt(squares / (sum(sizes) - 2))
    gain = ours.mean(0) - others.mean(0)
    return np.asarray(np.divide(gain, pooled, out=np.full_like(gain, np.nan), where=pooled > 1e-12))


def ranking(values: Floats) -> NDArray[np.int64]:
    """Return regions from the largest value down, (N,); ties keep the order of the atlas, NaN comes last."""
    return np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")


def stability(maps: Floats, top: int, repeat: Sequence[int] | NDArray[np.int64] | None = None) -> Stability:
    """Return how far fold maps (K, N) agree; folds without a map (NaN) are left out.

    ``repeat`` is the repeat each fold belongs to (default: all the same one). Only folds of one repeat are compared:
    those of two share subjects.
    """
    of = np.zeros(len(maps), dtype=np.int64) if repeat is None else np.asarray(repeat)
    known = np.isfinite(maps).all(axis=1)
    maps, of = maps[known], of[known]
    count, regions = maps.shape
    tops = [frozenset(ranking(one)[:top].tolist()) for one in maps]
    share = np.array([sum(i in chosen for chosen in tops) for i in range(regions)], dtype=np.float64)
    missing = np.full(regions, np.nan)
    pairs = [(i, j) for i, j in combinations(range(count), 2) if of[i] == of[j]]
    overlap = [len(tops[i] & tops[j]) / len(tops[i] | tops[j]) for i, j in pairs]
    return Stability(
        mean=maps.mean(axis=0) if count else missing,
        sd=maps.std(axis=0, ddof=1) if count > 1 else missing,
        share=share / count if count else missing,
        spearman=float(np.mean([rank_correlation(maps[i], maps[j]) for i, j in pairs])) if pairs else float("nan"),
        jaccard=float(np.mean(overlap)) if pairs else float("nan"),
        folds=count,
    )


def chance_jaccard(regions: int, top: int) -> float:
    """Return the expected overlap of two random tops: sum over the hypergeometric number of shared regions."""
    from scipy.stats import hypergeom

    top = min(top, regions)
    shared = np.arange(top + 1)
    return float((hypergeom(regions, top, top).pmf(shared) * shared / (2 * top - shared)).sum())


def rank_correlation(first: Floats, second: Floats) -> float:
    """Return Spearman's correlation of two maps (N,); NaN where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (first, second)]
    if min(rank.std() for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
