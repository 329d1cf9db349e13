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
from boldmill.index.parcel_tables import read_labels, read_parcels
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


def _tsv(names: list[str], values: Array) -> str:
    rows = ["\t".join(names)]
    rows += ["\t".join("n/a" if np.isnan(v) else f"{v:.9g}" for v in row) for row in values.tolist()]
    return "\n".join(rows) + "\n"
