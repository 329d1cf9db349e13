"""How many degrees of freedom cleaning leaves, from volumes and repetition time alone (no data): for `boldmill init`.

Counted as the preprocessing counts them (:mod:`boldmill.preprocess.freedom`), for regressors that are all independent
and no censored volume: the rank of real regressors may be lower.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.freedom import band, count_freedom, filter_padding, model_size


def residual_dof(n_volumes: int, tr: float, clean: CleanConfig) -> int:
    """Return the estimated residual degrees of freedom of a run, -1 where the filter does not fit into it.

    Parameters
    ----------
    n_volumes : int
        Volumes T.
    tr : float
        Repetition time, s.
    clean : CleanConfig
        Regressors and band.

    Examples
    --------
    >>> residual_dof(200, 2.0, CleanConfig())
    45
    """
    low, high = band(clean, tr)
    if n_volumes <= filter_padding(clean, low, high):
        return -1
    size = model_size(clean, n_volumes, tr)
    return count_freedom(n_volumes, tr, low, high, clean.drift, size, order=clean.order).residual


def _ladder() -> Iterator[dict[str, Any]]:
    """Yield confound sets from the default downwards: fewer regressors first, the band-pass given up last."""
    yield {}
    yield {"motion": "12", "compcor": 5}
    yield {"motion": "6", "compcor": 5}
    yield {"motion": "6", "compcor": 0, "tissue": "wm_csf"}
    yield {"motion": "6", "compcor": 0, "tissue": "wm_csf", "drift": "linear", "band_low": None, "band_high": None}
    yield {"motion": "6", "compcor": 0, "drift": "linear", "band_low": None, "band_high": None}


def suggest_clean(n_volumes: int, tr: float, base: CleanConfig | None = None) -> tuple[dict[str, Any], int]:
    """Return overrides of ``clean`` for a run this short, and the degrees of freedom they leave.

    The default is kept while it leaves ``min_dof_flag``. Otherwise the first set of the ladder that leaves three times
    ``min_dof`` wins, else the first that leaves twice as much, else the one that leaves most.
    """
    base = base or CleanConfig()
    sets = [(over, residual_dof(n_volumes, tr, base.model_copy(update=over))) for over in _ladder()]
    if sets[0][1] >= base.min_dof_flag:
        return sets[0]
    for factor in (3, 2):
        for over, left in sets[1:]:
            if left >= factor * base.min_dof:
                return over, left
    return max(sets[1:], key=lambda item: item[1])
