"""Site harmonisation inside each training fold, wrapped around a fit.

Axes: N scans, P features, C covariates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.bymask import by_mask
from boldmill.evaluate.combat import apply_combat, fit_combat
from boldmill.evaluate.packed import pack, unpack

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Fit

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(kw_only=True)
class Harmonised:
    """A fit on features that ComBat harmonises with the training rows of each fold.

    Scans of a site without enough training scans stay as they are; :meth:`note` counts them once everything is scored.

    Parameters
    ----------
    fit : callable
        The fit on harmonised features.
    covariates : int
        C: columns of covariates in the packed features.
    packed : bool
        Whether ``fit`` takes packed features (:mod:`boldmill.evaluate.packed`) itself.
    """

    fit: Fit
    covariates: int
    packed: bool = False
    _scored: set[int] = field(default_factory=set, repr=False)
    _unseen: set[int] = field(default_factory=set, repr=False)

    def __call__(self, features: Floats, truth: Floats, train: Mask) -> Floats:
        """Score packed features (N, 3 + C + P); see :data:`boldmill.evaluate.crossval.Fit`."""
        about, plain = unpack(features, self.covariates)
        out = np.full(truth.shape, np.nan)
        for mask, fits in by_mask(train):
            fitted = fit_combat(plain, about.site, about.covariates, mask)
            same = apply_combat(fitted, plain, about.site, about.covariates)
            tested = ~mask & (about.scan >= 0)
            self._scored.update(about.scan[tested].tolist())
            changed = np.isin(about.site, fitted.sites) & (len(fitted.sites) > 1)
            self._unseen.update(about.scan[tested & ~changed].tolist())
            out[fits] = self.fit(pack(about, same) if self.packed else same, truth[fits], train[fits])
        return out

    def note(self) -> str:
        """Return how many of the scans scored were, in some fold, of a site unseen in training."""
        return (
            f"ComBat by site in the training fold: {len(self._unseen)} of {len(self._scored)} scans are of a site "
            "unseen in training in some fold and stay unharmonised there"
        )
