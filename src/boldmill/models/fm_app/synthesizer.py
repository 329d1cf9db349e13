"""Weights of an unseen phenotype from its text: ridge hypernetwork or kernel smoother over the seen weights.

Axes: K seen phenotypes, E width of text vectors, D width of a weight vector.

Both are fitted on the seen phenotypes' weights only; their one setting is chosen by leaving one seen phenotype out.
Where the texts say nothing about the weights, both fall back to the mean of the seen weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

RIDGE_GRID = tuple(10.0 ** np.arange(-3, 4))
TAU_GRID = (0.05, 0.1, 0.2, 0.5, 1.0, 100.0)
"""Temperatures of the kernel smoother; the largest is the plain mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesizer:
    """A fitted synthesiser: ``mix(t)`` gives one coefficient per seen phenotype, the weights are their combination.

    Parameters
    ----------
    kind : {"ridge", "kernel"}
        Ridge regression of W on the texts, or softmax(cosine / tau) smoothing.
    text : (K, E) array
        Centred unit vectors of the seen phenotypes.
    weights : (K, D) array
        Their head weights.
    setting : float
        Ridge penalty or temperature.
    """

    kind: str
    text: Floats
    weights: Floats
    setting: float

    @classmethod
    def fit(cls, kind: str, text: Floats, weights: Floats) -> Synthesizer:
        """Choose the setting by leaving one seen phenotype out (squared error of its weights)."""
        if kind not in ("ridge", "kernel"):
            raise ValueError(f"synthesiser {kind!r} is neither ridge nor kernel")
        text, weights = np.asarray(text, np.float64), np.asarray(weights, np.float64)
        grid = RIDGE_GRID if kind == "ridge" else TAU_GRID
        chosen, least = grid[-1], np.inf
        if len(text) > 2:
            for setting in reversed(grid):  # the more cautious setting wins a tie
                error = 0.0
                for k in range(len(text)):
                    rest = np.arange(len(text)) != k
                    coefficients = _mix(kind, text[rest], text[k], setting)
                    error += float(((coefficients @ weights[rest] - weights[k]) ** 2).sum())
                if error < least * (1 - 1e-9):
                    chosen, least = setting, error
        return cls(kind=kind, text=text, weights=weights, setting=float(chosen))

    def mix(self, text: Floats) -> NDArray[np.float64]:
        """Return the K coefficients of a centred text (E,); they sum to 1."""
        return _mix(self.kind, self.text, np.asarray(text, np.float64), self.setting)

    def weight(self, text: Floats) -> NDArray[np.float64]:
        """Return the weight vector (D,) of a phenotype with this centred text (E,)."""
        return np.asarray(self.mix(text) @ self.weights)


def _mix(kind: str, seen: Floats, text: Floats, setting: float) -> NDArray[np.float64]:
    """Return coefficients of the seen weights; ridge regresses deviations from the mean weight on centred texts."""
    k = len(seen)
    if kind == "kernel":
        logits = seen @ text / setting
        weight = np.exp(logits - logits.max())
        return np.asarray(weight / weight.sum())
    mean = seen.mean(axis=0)
    centred = seen - mean
    dual = np.linalg.solve(centred @ centred.T + setting * np.eye(k), centred @ (text - mean))
    return np.asarray(1 / k + dual - dual.mean())
