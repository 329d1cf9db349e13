"""Site harmonisation inside each training fold, wrapped around a fit.

Axes: N scans, P features, C covariates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.bymask import by_mask
from boldmill.evaluate.combat import MIN_SCANS, apply_combat, fit_combat, harmonised_rows
from boldmill.evaluate.packed import pack, unpack

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Fit

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Harmonised:
    """A fit on features that ComBat harmonises with the training rows of each fold.

    Scans of a site without enough training scans stay as they are: :meth:`unharmonised` finds them.

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

    def __call__(self, features: Floats, truth: Floats, train: Mask) -> Floats:
        """Score packed features (N, 3 + C + P); see :data:`boldmill.evaluate.crossval.Fit`."""
        about, plain = unpack(features, self.covariates)
        out = np.full(truth.shape, np.nan)
        for mask, fits in by_mask(train):
            fitted = fit_combat(plain, about.site, about.covariates, mask)
            same = apply_combat(fitted, plain, about.site, about.covariates)
            out[fits] = self.fit(pack(about, same) if self.packed else same, truth[fits], train[fits])
        return out

    def unharmonised(self, features: Floats, train: Mask, test: Mask) -> Mask:
        """Return the scans (N,) that some fit (of B) tests without harmonisation (:func:`harmonised_rows`)."""
        about, _ = unpack(features, self.covariates)
        out = np.zeros(len(features), dtype=bool)
        for learnt, tested in zip(train, test, strict=True):
            out |= tested & ~harmonised_rows(about.site, learnt)
        return out


def unharmonised_note(fit: Any, features: Floats, train: Mask, test: Mask) -> str:
    """Return how many scans a fit tests without harmonisation, in words; nothing for a fit that harmonises none.

    Parameters
    ----------
    features : (N, P) array
        Features of the method.
    train, test : (B, N) bool array
        Training and tested scans of each fit.
    """
    if not isinstance(fit, Harmonised):
        return ""
    left = int(fit.unharmonised(features, train, test).sum())
    words = f"{left} of {int(test.any(axis=0).sum())} tested scans unharmonised"
    return words if not left else f"{words}: their site has fewer than {MIN_SCANS} training scans, or no other site has"
