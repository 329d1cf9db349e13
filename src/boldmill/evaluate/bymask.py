"""Fits that share a training fold share the work: grouped by their training rows, transformed once per fold.

Axes: B fits, G fits of one fold, N samples (scans), P features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Fit

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Transform = Callable[[Floats, Mask], Floats]
"""(features (N, P), training rows (N,)) -> features (N, P'), fitted on the training rows only and on no label."""


def by_mask(train: Mask) -> list[tuple[Mask, NDArray[np.int64]]]:
    """Return every distinct training fold (N,) of fits (B, N) with the fits that have it, in order of appearance."""
    found: dict[bytes, list[int]] = {}
    for fit, packed in enumerate(np.packbits(train, axis=1)):
        found.setdefault(packed.tobytes(), []).append(fit)
    return [(train[fits[0]], np.array(fits, dtype=np.int64)) for fits in found.values()]


def in_fold(transform: Transform, fit: Fit) -> Fit:
    """Return a fit on features that are first transformed inside each training fold; NaN for one without rows."""
    return partial(_in_fold, transform, fit)


def _in_fold(transform: Transform, fit: Fit, features: Floats, truth: Floats, train: Mask) -> Floats:
    out = np.full(truth.shape, np.nan)
    for mask, fits in by_mask(train):
        if not mask.any():
            continue
        out[fits] = fit(transform(features, mask), truth[fits], train[fits])
    return out
