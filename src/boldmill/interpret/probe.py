"""The probe that is explained: L2 logistic regression on z-scored frozen features, as in the evaluation's table.

Where sites are harmonised there, they are not here: a map is of the features that the model gives.

Axes: N scans, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """A fitted probe written on unscaled features: log-odds = ``weights . features + intercept``."""

    weights: Floats
    intercept: float

    def log_odds(self, features: Floats) -> Floats:
        """Return the log-odds of the positive class, (N, F) -> (N,)."""
        return np.asarray(features @ self.weights + self.intercept)


def fit_direction(features: Floats, truth: Floats, train: NDArray[np.bool_]) -> Direction:
    """Fit on training scans: scaling, class weights and penalty (C = 1) as the probe ``logistic`` of the evaluation.

    Parameters
    ----------
    features : (N, F) array
        Finite in the training rows.
    truth : (N,) array
        0/1 labels; only training rows are looked at.
    train : (N,) bool array

    Raises
    ------
    ValueError
        The training rows hold a single class.
    """
    from sklearn.linear_model import LogisticRegression

    x, labels = features[train], truth[train] > 0.5
    centre, spread = x.mean(axis=0), x.std(axis=0)
    usable = spread > 1e-7 * (1 + np.abs(centre))
    scale = np.where(usable, 1 / np.where(usable, spread, 1.0), 0.0)
    solver = "newton-cholesky" if len(x) > x.shape[1] else "lbfgs"
    machine = LogisticRegression(C=1.0, class_weight="balanced", solver=solver, tol=1e-8, max_iter=5000)
    machine.fit((x - centre) * scale, labels)
    weights = machine.coef_[0] * scale
    return Direction(weights=weights, intercept=float(machine.intercept_[0] - weights @ centre))
