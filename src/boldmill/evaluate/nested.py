"""Hyperparameters chosen by inner cross-validation: the outer test set is never looked at.

Axes: B fits, N scans, P features, K inner folds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.crossval import Fit
from boldmill.evaluate.folds import dealt, repeated_group_folds
from boldmill.evaluate.metrics import auc, pearson_r

Floats = NDArray[np.float64]


def nested(fits: Sequence[Fit], groups: Sequence[str], kind: str, folds: int, *key: str | int) -> Fit:
    """Return a fit that chooses among ``fits`` by inner folds of its own training rows, then fits the choice on all.

    Parameters
    ----------
    fits : sequence of callable
        The same method with different hyperparameters; of equals the first is taken.
    groups : sequence of N str
        Group of each scan; no inner fold splits one.
    kind : {"classification", "regression"}
        Choice by the AUC, or by Pearson's r, of the pooled inner test scores.
    folds : int
        Inner folds K; fewer where a class has fewer groups. With fewer than 2 the first of ``fits`` is taken.
    *key : str or int
        Key of the inner folds (seed, task name, ...).
    """
    if len(fits) == 1:
        return fits[0]
    metric = auc if kind == "classification" else pearson_r

    def choose(features: Floats, truth: Floats, train: NDArray[np.bool_]) -> Fit:
        """Return the best of ``fits`` for one training set (N,)."""
        rows = np.flatnonzero(train)
        own = [groups[i] for i in rows.tolist()]
        stratum, number = dealt(truth[rows], kind, own, folds)
        if number < 2:
            return fits[0]
        fold = np.full(len(train), -1)
        fold[rows] = repeated_group_folds(stratum, own, number, 1, "inner", *key)[0]
        inner = np.array([train & (fold != k) for k in range(number)])
        labels = np.where(inner, truth[None], 0.0)
        values = []
        for fit in fits:
            scores = np.asarray(fit(features, labels, inner))
            pooled = scores[fold[rows], rows]
            found = metric(truth[rows], pooled, np.ones((1, len(rows))))[0] if np.isfinite(pooled).all() else np.nan
            values.append(found if np.isfinite(found) else -np.inf)
        return fits[int(np.argmax(values))]

    def fitted(features: Floats, truth: Floats, train: NDArray[np.bool_]) -> Floats:
        out = np.full(truth.shape, np.nan)
        for b, (labels, mask) in enumerate(zip(truth, train, strict=True)):
            best = choose(features, labels, mask)
            out[b] = np.asarray(best(features, labels[None], mask[None]))[0]
        return out

    return fitted
