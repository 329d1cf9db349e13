"""Parcel series of another pipeline: read, named, and passed to the parcellate stage.

Axes: T time, C columns of the given table.

A column without data stays NaN (``n/a``), never 0: it is a parcel outside the field of view. Which columns are the
parcels of the configured atlas is the parcellate stage's business (:mod:`boldmill.represent.given_parcels`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import write_text
from boldmill.errors import DataFault
from boldmill.index.headers import cells, delimiter, is_header
from boldmill.preprocess.bold import repetition_time
from boldmill.preprocess.ready import about, other_motion, publish_table
from boldmill.preprocess.scanquality import run_summary
from boldmill.preprocess.subject import Job, StepResult

Array = NDArray[Any]


def process_parcels(job: Job, ticket: Mapping[str, Any]) -> StepResult:
    """Read one ready-made table of parcel series.

    Returns
    -------
    StepResult
        ``files``: timeseries_ready, and confounds where the run has a motion table. ``facts``: kind, tr, n_volumes,
        atlas, named (whether the columns have names).

    Raises
    ------
    DataFault
        Not a table of numbers, no column with data, or labels that do not fit.
    """
    scan, root, files = str(ticket["scan_id"]), Path(ticket["root"]), ticket["files"]
    tr = repetition_time(ticket["metadata"], scan)
    names, values = read_parcels(root / files["timeseries"]["path"])
    if not names and "labels" in files:
        names = read_labels(root / files["labels"]["path"], values.shape[1])
    values[:, ~np.isfinite(values).all(axis=0)] = np.nan
    values[:, (values == 0).all(axis=0)] = np.nan
    live = np.isfinite(values).all(axis=0)
    if not live.any() or not (np.ptp(values[:, live], axis=0) > 0).any():
        raise DataFault("cannot use parcel series", scan, "no column of it varies over time", "restore the table")
    flags = [f"ready-made data of {ticket['layout']}, entering at parcellate"]
    if lost := int((~live).sum()):
        flags.append(f"{lost} of {values.shape[1]} given columns are without data")
    table, qc, said = other_motion(ticket, len(values), job.settings.fd_radius)
    qc |= run_summary(table.columns if table else {}, job.clean, tr)
    values -= values.mean(axis=0)
    d = job.derivatives
    path = d.path(ticket["entities"], "func", "timeseries", ".tsv", desc="given")
    header = names or [f"column_{index:03d}" for index in range(1, values.shape[1] + 1)]
    write_text(path, _tsv(header, values))
    atlas = str(ticket.get("atlas") or "")
    done = f"cleaned by {ticket['layout']}; its mean was taken off"
    fields = about(ticket, tr, Atlas=atlas, Named=bool(names), Strategy=done)
    extra = [d.sidecar(path, sources=[d.uri_raw(entry["path"]) for entry in ticket["bold"]], **fields)]
    made = {"timeseries_ready": path}
    if table is not None:
        made["confounds"], json = publish_table(job, ticket, table)
        extra.append(json)
    facts = {"kind": "parcels", "layout": ticket["layout"], "tr": tr, "n_volumes": len(values), "space": ""}
    facts |= {"atlas": atlas, "named": bool(names)}
    return StepResult(files=made, qc=qc, flags=flags + said, extra=extra, facts=facts)


def read_parcels(path: Path) -> tuple[list[str], Array]:
    """Return names (none: an empty list) and series (T, C) float64 of a TSV, CSV or C-PAC 1D table; NaN where missing.

    Raises
    ------
    DataFault
        Not a table of numbers.
    """
    fix = "restore the table: one row per volume, one column per parcel"
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataFault("cannot read parcel series", path, "it is not text", fix) from error
    heads = [line.lstrip("# ") for line in lines if line.startswith("#")]
    rows = [line for line in lines if not line.startswith("#")]
    mark = delimiter(rows[0]) if rows else None
    words = [cells(row, mark) for row in rows]
    names = cells(heads[-1], mark) if heads else []
    if words and is_header(words[0]):
        names = words.pop(0)
    if not words or len({len(row) for row in words}) != 1:
        raise DataFault("cannot read parcel series", path, "rows have different lengths or there are none", fix)
    try:
        values = np.array([[_number(word) for word in row] for row in words])
    except ValueError as error:
        raise DataFault("cannot read parcel series", path, str(error), fix) from error
    if names and len(names) == values.shape[1] + 1:  # an index column without values is not a parcel
        names = names[1:]
    if names and len(names) != values.shape[1]:
        why = f"{len(names)} names for {values.shape[1]} columns"
        raise DataFault("cannot read parcel series", path, why, fix)
    return names, values


def _number(word: str) -> float:
    return float("nan") if word.lower() in ("n/a", "na", "") else float(word)


def read_labels(path: Path, n_columns: int) -> list[str]:
    """Return the parcel names of a label table (id, then name; with or without a header) in id order.

    Raises
    ------
    DataFault
        It names another number of parcels than the series has columns.
    """
    found: dict[int, str] = {}
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        words = line.split("\t") if "\t" in line else line.split(None, 1)
        if len(words) > 1 and words[0].strip().isdigit() and int(words[0]) > 0:
            found[int(words[0])] = words[1].strip()
    if len(found) != n_columns:
        why = f"{path.name} names {len(found)} parcels, the series has {n_columns} columns"
        raise DataFault("labels do not fit", path, why, "give the label table of the atlas the series was made with")
    return [found[key] for key in sorted(found)]


def _tsv(names: list[str], values: Array) -> str:
    rows = ["\t".join(names)]
    rows += ["\t".join("n/a" if np.isnan(v) else f"{v:.9g}" for v in row) for row in values.tolist()]
    return "\n".join(rows) + "\n"
