"""How many degrees of freedom cleaning leaves, from volumes and repetition time alone (no data): for `boldmill init`.

Counted as the preprocessing counts them: the mean takes one, a band-pass keeps the sine and the cosine of each Fourier
frequency ``k / (T TR)`` inside the band, and each regressor takes one more. The rank of real regressors may be lower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from boldmill.preprocess.config import CleanConfig

FILTER_PADDING = 33  # volumes the edge padding of a fifth-order band-pass needs (3 x (2 x 5 sections + 1))
MOTION = {"none": 0, "6": 6, "12": 12, "24": 24, "24lag": 24}
TISSUE = {"none": 0, "csf": 1, "wm_csf": 2}


def residual_dof(n_volumes: int, tr: float, clean: CleanConfig) -> int:
    """Return the estimated residual degrees of freedom of a run.

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
    low, high = clean.band_low or None, clean.band_high
    if high is not None and high >= 0.5 / tr:
        high = None
    if (low is not None or high is not None) and n_volumes <= FILTER_PADDING:
        return -1
    kept = 0
    for k in range(1, n_volumes // 2 + 1):
        frequency = k / (n_volumes * tr)
        if (low is None or frequency >= low - 1e-12) and (high is None or frequency <= high + 1e-12):
            kept += 1 if 2 * k == n_volumes else 2
    spent = MOTION[clean.motion] + clean.compcor + TISSUE[clean.tissue] + clean.global_signal
    if low is None:  # a high-pass removes every drift by itself
        if clean.drift == "linear":
            spent += 1
        if clean.drift == "cosine":
            spent += math.floor(2 * n_volumes * tr / clean.cosine_cutoff)
    return kept - int(spent)


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
