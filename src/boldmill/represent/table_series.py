"""Parcel series of a data set of tables, read from the file a ticket names.

Axes: T volumes, C columns as given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import canonical_json, sha256_text
from boldmill.errors import DataFault, MachineFault
from boldmill.index.parcel_tables import read_labels
from boldmill.index.table_files import check_series, column_names, read_series


def table_series(ticket: Mapping[str, Any]) -> tuple[list[str], NDArray[np.float32]]:
    """Return the names of the columns and the series (T, C) of a ticket of kind ``table``.

    Only the one member is read. A column without data (zero throughout, or anywhere not finite) is NaN, never 0: it is
    a parcel outside the field of view. Columns without names are ``column_001``, ``column_002``, ...

    Raises
    ------
    MachineFault
        The file is gone, or it is not what ingest saw: then the ticket must be made again.
    """
    entry = ticket["series"][0]
    path, member = Path(ticket["root"]) / entry["path"], str(entry["member"])
    again = "snakemake ingest, then run again"
    try:
        values, given, sha256 = read_series(path, member)
        check_series(values, ticket["scan_id"])
        names = _names(ticket, given, values.shape[1])
    except (DataFault, OSError) as error:
        why = error.why if isinstance(error, DataFault) else str(error)
        raise MachineFault("cannot read series", path, f"{why} (it passed ingest)", again) from error
    if sha256 != entry["sha256"]:
        what = f"'{member}'" if member else "it"
        raise MachineFault("source changed", path, f"{what} is not what ingest saw", again)
    series = np.array(values, np.float32)
    series[:, ~np.isfinite(series).all(axis=0) | (series == 0).all(axis=0)] = np.nan
    return names, series


def _names(ticket: Mapping[str, Any], given: NDArray[Any] | None, n_columns: int) -> list[str]:
    columns = ticket["columns"]
    if columns["labels"]:
        path = Path(ticket["root"]) / columns["labels"]["path"]
        names = column_names(np.array(read_labels(path, n_columns)), path.name)
    elif columns["named"] and given is not None:
        names = column_names(given, ticket["scan_id"])
    else:
        return [f"column_{index:03d}" for index in range(1, n_columns + 1)]
    if sha256_text(canonical_json(names)) != columns["sha256"]:
        raise DataFault("names changed", ticket["scan_id"], "its columns have other names now", "snakemake ingest")
    return names
