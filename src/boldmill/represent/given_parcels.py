"""Parcel series that another pipeline made: which of their columns are the parcels of the configured atlas.

Axes: T volumes, C given columns, P parcels in id order.

Names differ between releases of one atlas, ids and order do not, and three names stand for other parcels in another
release. So names are joined only where all of them agree; else the order is, where hemisphere and network of every
parcel agree one by one. Columns that bear ids only are joined on them where the label of their atlas names the
configured one in parcels and networks. Anything else is another atlas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault

_PREFIX = re.compile(r"^(?:schaefer\d*_?)?(?:\d+parcels_)?(?:(?:7|17)networks_)?", re.IGNORECASE)
_SIDE = {"lh": "l", "rh": "r", "left": "l", "right": "r", "l": "l", "r": "r"}
_ID = re.compile(r"(?:mean[_ ])?(\d+)", re.IGNORECASE)
_VARIANT = re.compile(r"(?:p|\b|[^0-9])(\d+)(?:n|parcels)(\d+)(?:networks)?", re.IGNORECASE)
MIN_SAME = 0.5
"""Share of names that agree at their place within one atlas (81 of 100 do between Schaefer's releases)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matched:
    """``columns`` (P,): index of each parcel's column; ``how``; ``dropped``: given columns that are no parcel."""

    columns: NDArray[np.int64]
    how: str
    dropped: int


def plain(name: str) -> str:
    """Return a parcel name without its atlas and number of networks, in lower case.

    >>> plain("Schaefer2018_17Networks_LH_VisCent_ExStr_1"), plain("7Networks_LH_Vis_1")
    ('lh_viscent_exstr_1', 'lh_vis_1')
    """
    return _PREFIX.sub("", name.strip()).replace("-", "_").lower()


def family(name: str) -> tuple[str, str] | None:
    """Return hemisphere and network of a parcel name, or None where it does not begin with a hemisphere.

    >>> family("7Networks_LH_SalVentAttn_FrOper_1"), family("FreeSurfer_Left-Caudate")
    (('l', 'salventattn'), None)
    """
    words = plain(name).split("_")
    return (_SIDE[words[0]], words[1]) if len(words) > 1 and words[0] in ("lh", "rh") else None


def variant(atlas: str) -> tuple[int, int] | None:
    """Return parcels and networks that the label of a Schaefer atlas names, or None.

    >>> variant("Schaefer2018 400Parcels17Networks"), variant("Schaefer2018p400n17"), variant("schaefer400")
    ((400, 17), (400, 17), None)
    """
    found = _VARIANT.search(atlas)
    return (int(found[1]), int(found[2])) if found and "schaefer" in atlas.lower() else None


def by_id(given: list[str], atlas: str, n_parcels: int, configured: str) -> Matched | None:
    """Return the columns of ids 1 to P, or None where the columns bear no ids or the atlas is not named."""
    ids = [int(found[1]) if (found := _ID.fullmatch(name.strip())) else 0 for name in given]
    asked = variant(configured)
    if asked is None or variant(atlas) != asked or not set(range(1, n_parcels + 1)) <= set(ids):
        return None
    columns = np.array([ids.index(number) for number in range(1, n_parcels + 1)], np.int64)
    return Matched(columns=columns, how="by id", dropped=len(given) - n_parcels)


def match(given: list[str], atlas: str, parcels: list[str], configured: str, where: str) -> Matched:
    """Return the columns of the configured parcels.

    Parameters
    ----------
    given : list of str
        Names of the given columns.
    atlas : str
        Label of the atlas they come from.
    parcels : list of str
        Names of the configured parcels, in id order.
    configured : str
        Name of the configured atlas.
    where : str
        Scan, for messages.

    Raises
    ------
    DataFault
        Another atlas; both are named.
    """
    fix = f"set spaces.atlas and spaces.atlas_desc to the atlas of the series, or give series of {configured}"
    known = [plain(name) for name in given]
    wanted = [plain(name) for name in parcels]
    if len(set(wanted)) == len(wanted) and all(known.count(name) == 1 for name in wanted):
        columns = np.array([known.index(name) for name in wanted], np.int64)
        return Matched(columns=columns, how="by name", dropped=len(given) - len(parcels))
    if (numbered := by_id(given, atlas, len(parcels), configured)) is not None:
        return numbered
    cortex = [index for index, name in enumerate(given) if family(name) is not None]
    what = f"the series are of {atlas or 'an unnamed atlas'} ({len(given)} columns, {len(cortex)} of them cortical)"
    if len(cortex) != len(parcels):
        why = f"{what}, the configured atlas is {configured} ({len(parcels)} parcels)"
        raise DataFault("another atlas", where, why, fix)
    differ = [i for i, index in enumerate(cortex) if family(given[index]) != family(parcels[i])]
    if differ:
        first = differ[0]
        why = (
            f"{what}, the configured atlas is {configured}: {len(differ)} of {len(parcels)} parcels lie in another "
            f"network or hemisphere, the first is {given[cortex[first]]} for {parcels[first]}"
        )
        raise DataFault("another atlas", where, why, fix)
    same = sum(known[index] == name for index, name in zip(cortex, wanted, strict=True))
    if same < MIN_SAME * len(parcels):
        why = f"{what}, the configured atlas is {configured}: only {same} of {len(parcels)} names agree at their place"
        raise DataFault("another atlas", where, why, fix)
    how = f"by order ({same} of {len(parcels)} names agree, hemispheres and networks all do)"
    return Matched(columns=np.array(cortex, np.int64), how=how, dropped=len(given) - len(parcels))


def unnamed(n_columns: int, atlas: str, parcels: list[str], configured: str, where: str) -> Matched:
    """Return the columns of a series without names, in order: only where it is said to be of the configured atlas.

    Raises
    ------
    DataFault
        No atlas is named for the series, or it has another number of columns.
    """
    if not atlas:
        why = f"its {n_columns} columns have no names; they could be of any atlas, the configured one is {configured}"
        fix = "name their atlas in datasets[].atlas, or give a table of their names in datasets[].labels"
        raise DataFault("unnamed parcels", where, why, fix)
    if n_columns != len(parcels):
        why = f"the series has {n_columns} columns, {configured} has {len(parcels)} parcels"
        raise DataFault("another atlas", where, why, "give the data set its own datasets[].atlas")
    how = "by order (they have no names)"
    return Matched(columns=np.arange(n_columns, dtype=np.int64), how=how, dropped=0)


def read_given(path: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Return names and series (T, C) of the table that preprocessing wrote; ``n/a`` is NaN."""
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    values = [[float("nan") if word == "n/a" else float(word) for word in row.split("\t")] for row in rows]
    return header.split("\t"), np.array(values, np.float32)


def given_series(
    path: Path, named: bool, atlas: str, parcels: list[str], configured: str, where: str
) -> tuple[NDArray[np.float32], Matched]:
    """Return the series (T, P) of the configured parcels from a given table.

    Raises
    ------
    DataFault
        Columns without names (they could be of any atlas), or of another atlas.
    """
    names, values = read_given(path)
    if not named:
        raise DataFault(
            "unnamed parcels",
            where,
            f"the series of {atlas or 'an unnamed atlas'} have {len(names)} columns without names; the configured "
            f"atlas is {configured}",
            "put the label table of their atlas (id, name) into a folder `atlas` of the data set, as <name>_dseg.tsv",
        )
    found = match(names, atlas, parcels, configured, where)
    return values[:, found.columns], found
