"""Outliers of a cohort: the modified z of every figure, by median and MAD.

``z = 0.6745 (x - median) / MAD`` (Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers): 0.6745 is the MAD of a
normal distribution of unit SD. Where more than half of the values are equal the MAD is 0, and 1.2533 times the mean
absolute deviation takes the place of ``MAD / 0.6745``, as they propose.

Axes: N scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boldmill.quality.measures import MEASURES, Measure

Float = NDArray[np.float64]

MIN_SCANS = 5
"""Fewer values have no distribution to lie outside of."""
MIN_SITE = 8
"""Scans of a site from which on they are also compared within it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """One figure of one scan that lies outside: how far, and compared with whom (``cohort`` or ``site``)."""

    name: str
    z: float
    against: str

    @property
    def words(self) -> str:
        """The flag in words."""
        return f"{self.name}: z {self.z:+.1f} in the {self.against}"


def modified_z(values: Float) -> Float:
    """Return the modified z of each value (N,); NaN stays NaN, and all are 0 where the values are all equal.

    Parameters
    ----------
    values : array (N,)
        One figure of a cohort; NaN where a scan does not have it.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return np.full(values.shape, np.nan)
    away = values - np.median(known)
    spread = float(np.median(np.abs(known - np.median(known)))) / 0.6745
    if spread == 0:
        spread = 1.2533 * float(np.mean(np.abs(known - np.median(known))))
    return away / spread if spread > 0 else away * 0.0


def outliers(
    figures: Sequence[Mapping[str, float]],
    sites: Sequence[str],
    limit: float,
    measures: Sequence[Measure] = MEASURES,
) -> list[list[Outlier]]:
    """Return the outliers of every scan, in the order of ``measures``.

    Only the bad direction counts: a high FD, a low tSNR. A figure is compared with the whole cohort where at least
    :data:`MIN_SCANS` scans have it, and within its site where at least :data:`MIN_SITE` of the site have it; where both
    flag it, the larger one is named.

    Parameters
    ----------
    figures : sequence of mapping
        Figures of each scan by name (N).
    sites : sequence of str
        Site of each scan (N).
    limit : float
        Modified z above which a figure is flagged.
    measures : sequence of Measure
        The figures to look at.
    """
    found: list[list[Outlier]] = [[] for _ in figures]
    groups = [("cohort", np.arange(len(figures)), MIN_SCANS)]
    order = np.argsort(np.array(sites, dtype=str), kind="stable")
    _, starts = np.unique(np.array(sites, dtype=str)[order], return_index=True)
    groups += [("site", of_site, MIN_SITE) for of_site in np.split(order, starts[1:])]
    for measure in measures:
        values = np.array([one.get(measure.name, np.nan) for one in figures], dtype=np.float64)
        sign = 1.0 if measure.bad == "high" else -1.0
        best: dict[int, Outlier] = {}
        for against, members, least in groups:
            chosen = members[np.isfinite(values[members])]
            if len(chosen) < least:
                continue
            z = modified_z(values[chosen])
            for index, score in zip(chosen.tolist(), z.tolist(), strict=True):
                if sign * score > limit and (index not in best or abs(score) > abs(best[index].z)):
                    best[index] = Outlier(name=measure.name, z=score, against=against)
        for index, outlier in best.items():
            found[index].append(outlier)
    return found
