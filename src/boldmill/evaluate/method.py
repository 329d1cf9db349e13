"""A method: a fit and the features it works on. Baselines, probes and deep networks are all of this form.

Axes: N scans of the cohort, P features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Fit

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row group of the table.

    Parameters
    ----------
    name : str
        Name in the table.
    fit : callable
        (features (N, P), truth (B, N), train (B, N)) -> scores (B, N); see :data:`boldmill.evaluate.crossval.Fit`.
    features : (N, P) array
        One row per scan of the cohort.
    pretrained : bool
        The features or the weights were learnt on other scans: only subjects outside those may be tested.
    permute : {"refit", "fixed"}
        Null of the permutation test: fit again for every draw (cheap fits), or keep the predictions and permute the
        labels of the tested subjects (slow fits).
    grid : tuple of callable
        The same fit with other hyperparameters; under the protocol ``nested`` inner folds choose among them.
    note : str
        Said in the table.
    """

    name: str
    fit: Fit
    features: Floats
    pretrained: bool = False
    permute: Literal["refit", "fixed"] = "fixed"
    grid: tuple[Fit, ...] = ()
    note: str = ""
