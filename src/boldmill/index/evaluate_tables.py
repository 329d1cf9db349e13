"""Checks of the scans of a data set of tables, and their tickets.

The repetition time is what the data set's ``tr`` says, because no such file holds it; unknown, it is null and flagged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import canonical_json, sha256_file, sha256_text
from boldmill.errors import ConfigError, DataFault, nearest
from boldmill.index.checks import check_volumes, repetition_time
from boldmill.index.config import DatasetConfig, IndexConfig
from boldmill.index.parcel_tables import read_labels
from boldmill.index.scans import Scan
from boldmill.index.table_files import column_names
from boldmill.index.table_scans import SHOWN, TableSeries, base_folder
from boldmill.spaces.names import atlas_label


class TableEvaluator:
    """Checks the scans of one data set of tables.

    Parameters
    ----------
    dataset : DatasetConfig
    settings : IndexConfig
        Limits, with the overrides of this data set.
    scans : iterable of Scan
        All of its scans: most of them say how many columns there are, and which.

    Raises
    ------
    ConfigError
        The table of names is not there, or names another number of columns.
    """

    def __init__(self, dataset: DatasetConfig, settings: IndexConfig, scans: Iterable[Scan]) -> None:
        self.dataset, self.settings = dataset, settings
        good = [scan.table for scan in scans if scan.table and not scan.fault and not scan.table.facts.fault]
        self.n_columns = _most(Counter(one.facts.shape[1] for one in good)) if good else 0
        self.names: tuple[str, ...] = _most(Counter(one.file.names for one in good)) if good else ()
        self.labels: dict[str, str] | None = None
        if dataset.labels:
            path = Path(base_folder(dataset)) / dataset.labels
            where = f"datasets[{dataset.name}].labels"
            if not path.is_file():
                raise ConfigError("file not found", where, f"{path} is not there", "correct the path")
            try:
                names = read_labels(path, self.n_columns) if good else []
                self.names = tuple(column_names(np.array(names), dataset.labels) if names else ())
            except DataFault as fault:
                raise ConfigError(fault.what, where, fault.why, fault.fix) from fault
            self.labels = {"path": dataset.labels, "sha256": sha256_file(path)}

    def evaluate(self, scan: Scan, site: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the index row holds beyond identity, and the content part of the ticket.

        Raises
        ------
        DataFault
            The scan fails a check.
        """
        one = scan.table
        if scan.fault is not None or one is None:
            raise scan.fault or DataFault("no series", scan.scan_id, "it has none", "report this")
        if one.facts.fault:
            raise DataFault("cannot use series", one.where, one.facts.fault, one.facts.fix)
        names = self._names(one)
        n_volumes = check_volumes(one.facts.shape[0], one.where, self.settings.min_volumes)
        tr, flags = self._repetition_time(site, one.where)
        for columns, what in ((one.facts.empty, "without data"), (one.facts.constant, "constant")):
            if columns:
                which = ", ".join(names[i] if names else str(i + 1) for i in columns[:SHOWN])
                more = ", ..." if len(columns) > SHOWN else ""
                flags.append(f"{len(columns)} of {self.n_columns} columns {what}: {which}{more}")
        size = one.facts.size if one.member else one.file.size
        ticket = {
            "series": [{"path": one.path, "member": one.member, "size": size, "sha256": one.facts.sha256}],
            "bold": [],
            "t1w": [],
            "confounds": None,
            "metadata": {} if tr is None else {"RepetitionTime": tr},
            "sidecars": [],
            "layout": "tables",
            "atlas": atlas_label(self.dataset.atlas),
            "atlas_name": self.dataset.atlas,
            "name": one.name,
            "tr": tr,
            "n_volumes": n_volumes,
            "columns": {
                "n": self.n_columns,
                "named": bool(names),
                "sha256": sha256_text(canonical_json(list(names))),
                "labels": self.labels,
            },
            "flags": flags,
        }
        return {"tr": tr, "n_volumes": n_volumes, "flags": scan.flags + flags}, ticket

    def _names(self, one: TableSeries) -> tuple[str, ...]:
        """Return the names of the columns; refuse another number of them than most have, or names that do not fit."""
        n_columns = one.facts.shape[1]
        if n_columns != self.n_columns:
            hint = "; rows and columns look exchanged" if one.facts.shape[0] == self.n_columns else ""
            why = f"{n_columns} columns, most series of the data set have {self.n_columns}{hint}"
            raise DataFault("another number of columns", one.where, why, "give series of one atlas, volumes in rows")
        if self.labels is not None:
            return self.names
        fix = "correct the names, or point datasets[].labels to a table of them"
        if one.file.names_fault:
            raise DataFault("no column names", one.where, one.file.names_fault, fix)
        if one.file.names and len(one.file.names) != n_columns:
            why = f"{len(one.file.names)} names for {n_columns} columns"
            raise DataFault("names do not fit", one.where, why, fix)
        if self.dataset.atlas and one.file.names != self.names:
            why = "its columns have other names, or another order, than those of most series of the data set"
            raise DataFault("other columns", one.where, why, "give series of one atlas in one order")
        return one.file.names

    def _repetition_time(self, site: str, where: str) -> tuple[float | None, list[str]]:
        given = self.dataset.tr
        value = given.get(site) if isinstance(given, dict) else given
        if value is None:
            return None, ["repetition time unknown"]
        return repetition_time({"RepetitionTime": float(value)}, 0.0, where, self.settings.tr_range)


def check_sites(dataset: DatasetConfig, sites: Iterable[str]) -> None:
    """Refuse a repetition time of a site that nobody is of: most likely it is misspelt."""
    known = sorted(set(sites))
    for site in dataset.tr if isinstance(dataset.tr, dict) else ():
        if site not in known:
            why = f"'{site}' is no site of the data set{nearest(site, known)}; they are {', '.join(known)}"
            raise ConfigError("unknown site", f"datasets[{dataset.name}].tr", why, "correct or remove it")


def _most(counted: Counter[Any]) -> Any:
    """Return the commonest value; of several, the smallest."""
    return min(counted, key=lambda value: (-counted[value], value))
