"""Features with the facts about a scan that a fit needs besides its features, in one array.

A fit sees rows of one array and nothing else, so that rows can never be misaligned, whoever picks them. Facts are
columns in front of the features: which scan, group and site (codes), then covariates to keep through harmonisation.

Axes: N scans, P features, C covariates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CODES = 3
"""Columns that are codes: scan, group, site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The columns in front.

    Parameters
    ----------
    scan, group, site : (N,) int array
        Codes; a site is shared by data sets only where its name and theirs are equal.
    covariates : (N, C) array
        NaN where unknown.
    """

    scan: NDArray[np.int64]
    group: NDArray[np.int64]
    site: NDArray[np.int64]
    covariates: Floats


def facts(groups: Sequence[str], sites: Sequence[str], covariates: Floats) -> Facts:
    """Return the facts of scans from names."""
    group, site = (np.unique(np.asarray(names, dtype=str), return_inverse=True)[1] for names in (groups, sites))
    return Facts(scan=np.arange(len(groups)), group=group, site=site, covariates=covariates)


def pack(about: Facts, features: Floats) -> Floats:
    """Return facts and features as one array (N, 3 + C + P); a scan without features stays a row of NaN."""
    packed = np.column_stack([about.scan, about.group, about.site, about.covariates, features])
    packed[~np.isfinite(features).any(axis=1)] = np.nan
    return packed


def unpack(packed: Floats, covariates: int) -> tuple[Facts, Floats]:
    """Return the facts and the features of :func:`pack`; codes of a scan without features are -1."""
    codes = np.nan_to_num(packed[:, :CODES], nan=-1.0).astype(np.int64)
    end = CODES + covariates
    about = Facts(scan=codes[:, 0], group=codes[:, 1], site=codes[:, 2], covariates=packed[:, CODES:end])
    return about, packed[:, end:]
