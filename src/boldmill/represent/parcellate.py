"""Parcel means: one sparse product per block of volumes, for all atlases at once.

Axes: n elements (voxels or vertices), T volumes, P parcels in id order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.represent.project import Projector, columns_of
from boldmill.represent.series import Series


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParcelSeries:
    """Parcel time series.

    Parameters
    ----------
    values : (T, P) array of float32
        NaN where the parcel has too little coverage, never 0.
    coverage : (P,) array of float
        Share of the parcel's elements with data.
    """

    values: NDArray[np.float32]
    coverage: NDArray[np.float64]


def coverage_of(operator: Any, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of each parcel's elements that lie in a mask (0 for a parcel without elements)."""
    count = operator @ mask.astype(np.float64)
    size = np.asarray(operator.sum(axis=1), np.float64)
    share: NDArray[np.float64] = count / np.maximum(size, 1)
    return share


def parcel_series(operator: Any, series: Series, min_coverage: float) -> ParcelSeries:
    """Average a series over the parcels of one atlas (:func:`all_parcel_series`); its fault is raised."""
    found = all_parcel_series({"": operator}, series, min_coverage)[""]
    if isinstance(found, DataFault):
        raise found
    return found


def all_parcel_series(
    operators: Mapping[str, Any], series: Series, min_coverage: float
) -> dict[str, ParcelSeries | DataFault]:
    """Average a series over each parcel's elements that have data, for several atlases in one pass over the series.

    The parcels that have enough coverage, of all atlases, are the rows of one matrix, whose columns are the elements
    that any of them needs: a block of volumes is read once and multiplied once. Sums are float64, because a series that
    another pipeline made may keep its mean, thousands of times its changes.

    Parameters
    ----------
    operators : mapping
        Atlas label -> csr_array (P, n), membership (:func:`boldmill.represent.operators.membership`).
    series : Series
    min_coverage : float
        A parcel with a smaller share of its elements in the mask is NaN.

    Returns
    -------
    dict
        Atlas label -> series, or the fault of an atlas no parcel of which has enough coverage.

    Raises
    ------
    DataFault
        The data are not finite.
    """
    from scipy.sparse import vstack

    found: dict[str, ParcelSeries | DataFault] = {}
    rows: dict[str, NDArray[np.int64]] = {}
    for label, operator in operators.items():
        coverage = coverage_of(operator, series.mask)
        kept = np.flatnonzero((coverage >= min_coverage) & (coverage > 0))
        if not len(kept):
            why = f"no parcel has {min_coverage:.0%} of its elements in the mask (largest share {coverage.max():.0%})"
            fix = "check registration and field of view of this run"
            found[label] = DataFault("no parcel is covered", series.where, why, fix)
            continue
        rows[label] = kept
        values = np.full((series.n_volumes, operator.shape[0]), np.nan, np.float32)
        found[label] = ParcelSeries(values=values, coverage=coverage)
    if not rows:
        return found
    stacked = vstack([operators[label][kept] for label, kept in rows.items()], format="csr")
    columns = columns_of(stacked, series.mask, by_row=True)
    project = Projector(stacked, columns, exact=True)
    count = project(np.ones((len(columns), 1), np.float32))
    first = 0
    for block in series.blocks(columns):
        means = project(block) / count
        start = 0
        for label, kept in rows.items():
            one = found[label]
            assert isinstance(one, ParcelSeries)
            one.values[first : first + block.shape[1], kept] = means[start : start + len(kept)].T
            start += len(kept)
        first += block.shape[1]
    return found


def given_coverage(values: NDArray[np.float32], where: str) -> ParcelSeries:
    """Return given series (T, P) with coverage 1 where a parcel has data and 0 where it has none.

    Raises
    ------
    DataFault
        No parcel has data.
    """
    alive = np.asarray(np.isfinite(values).all(axis=0))
    if not alive.any():
        raise DataFault("no parcel is covered", where, "every given parcel is empty", "restore the table of the run")
    return ParcelSeries(values=np.where(alive, values, np.float32(np.nan)), coverage=alive.astype(np.float64))


def number(value: float) -> str:
    """Return a number with seven digits (float32), or ``n/a`` for NaN.

    >>> number(0.1), number(float("nan"))
    ('0.1', 'n/a')
    """
    return f"{value:.7g}" if value == value else "n/a"  # a table has millions: numpy's isnan takes three times as long


def series_tsv(names: list[str], values: NDArray[np.float32]) -> str:
    """Return time series as TSV text: a header of parcel names, one row per volume."""
    row = "\t".join(["%.7g"] * len(names))  # as `number`, a row at a time
    rows = [(row % tuple(one)).replace("nan", "n/a") for one in values.tolist()]
    return "\n".join(["\t".join(names), *rows]) + "\n"


def rows_tsv(first: str, names: list[str], columns: list[str], values: NDArray[Any]) -> str:
    """Return a table as TSV text: one row per parcel, its name in the column ``first``."""
    rows = ["\t".join([first, *columns])]
    rows += ["\t".join([name, *(number(v) for v in row)]) for name, row in zip(names, values.tolist(), strict=True)]
    return "\n".join(rows) + "\n"
