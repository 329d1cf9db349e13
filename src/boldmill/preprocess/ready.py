"""Ready-made runs of other pipelines: what all their forms share.

Axes: T time, V elements (voxels of a mask, or vertices).

A run with ``stage: clean`` is regressed and filtered by the configured strategy, with the confounds it comes with. A
run with ``stage: parcellate`` is clean already: its mean is taken off and nothing else is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess import clean as cleaning
from boldmill.preprocess import confounds, design, dvars
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.given import completed, require
from boldmill.preprocess.motion import Float
from boldmill.preprocess.ready_tables import afni_motion, given_table, hcp_motion
from boldmill.preprocess.scanquality import run_summary
from boldmill.preprocess.series_io import write_surface
from boldmill.preprocess.subject import Job, StepResult

Array = NDArray[Any]
KINDS = frozenset(("volume_ready", "cifti", "parcels"))
CENTRED = 1e-3
"""A series whose mean is below this share of its SD comes without its mean."""
QC_FACTS = ("residual_dof", "effective_dof", "n_regressors")
"""Figures of the plan of cleaning that are kept."""
CORTEX = "fsaverage5"
"""Space of surface series of the generic layout."""
DENSITY = {"fsLR": {"den": "32k"}}
"""Entities that a space needs beside its name."""


def is_ready(ticket: Mapping[str, Any]) -> bool:
    """Return whether a ticket is of ready-made data of a known pipeline (the generic surface pair is not)."""
    return ticket["kind"] in KINDS or ticket.get("layout", "generic") != "generic"


def process_ready_run(job: Job, ticket: Mapping[str, Any]) -> StepResult:
    """Bring one ready-made run to what later stages read.

    Parameters
    ----------
    job : Job
        What all steps of the subject share.
    ticket : mapping
        The scan's ticket: kind ``volume_ready``, ``surface``, ``cifti`` or ``parcels``.

    Returns
    -------
    StepResult
        ``facts["kind"]`` is what later stages take it for: ``volume``, ``surface`` or ``parcels``.

    Raises
    ------
    DataFault
        The run cannot be used; the reason and a fix are in the fault.
    """
    from boldmill.preprocess.ready_cifti import process_cortex
    from boldmill.preprocess.ready_parcels import process_parcels
    from boldmill.preprocess.ready_volume import process_volume_ready

    steps = {
        "volume_ready": process_volume_ready,
        "surface": process_cortex,
        "cifti": process_cortex,
        "parcels": process_parcels,
    }
    return steps[ticket["kind"]](job, ticket)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cleaned:
    """Cleaned series (T, V) float32 of mean zero, the table it was cleaned with, figures, flags, sidecar fields."""

    series: Array
    table: Table | None
    qc: dict[str, Any]
    flags: list[str]
    fields: dict[str, Any]


def clean_ready(job: Job, ticket: Mapping[str, Any], series: Array, tr: float) -> Cleaned:
    """Clean a series as its ticket says, and measure it.

    Parameters
    ----------
    job : Job
    ticket : mapping
    series : array (T, V)
        Overwritten.
    tr : float
        Repetition time, s.

    Raises
    ------
    DataFault
        No usable confounds, or too few degrees of freedom.
    """
    scan, layout = str(ticket["scan_id"]), str(ticket["layout"])
    live = np.isfinite(series).all(axis=0) & (np.ptp(np.nan_to_num(series), axis=0) > 0)
    if not live.any():
        raise DataFault("cannot use series", scan, "no element of it varies over time", "restore the file")
    qc: dict[str, Any] = {"tsnr": tsnr_of(series[:, live])}
    flags = [f"ready-made data of {layout}, entering at {ticket['stage']}"]
    table: Table | None
    if ticket["stage"] == "clean":
        given, radius = given_table(ticket, len(series)), job.settings.fd_radius
        table = completed(given, len(series), tr, job.clean, radius=radius)
        require(job.clean, table, scan, f"the confounds of {layout}")
        plan = design.plan(job.clean, table, tr, where=scan)
        flags += plan.facts["flags"]
        qc |= motion_figures(table.columns)
        cleaned = cleaning.apply(plan.operator, series)
        qc |= {name: plan.facts[name] for name in QC_FACTS}
        fields = {
            "Strategy": job.clean.model_dump(mode="json"),
            "Regressors": plan.facts["regressors"],
            "DegreesOfFreedom": plan.facts["dof_words"],
        }
    else:
        table, moved, said = other_motion(ticket, len(series), job.settings.fd_radius)
        qc |= moved
        flags += said
        cleaned = np.nan_to_num(series.astype(np.float32, copy=False))
        cleaned -= cleaned.mean(axis=0, dtype=np.float64).astype(np.float32)
        fields = {"Strategy": f"cleaned by {layout}; its mean was taken off"}
    qc |= run_summary(table.columns if table else {}, job.clean, tr)
    flags += rigid.motion_flags(qc["mean_fd"])
    qc["gcor"] = dvars.gcor(cleaned[:, live])
    return Cleaned(series=cleaned, table=table, qc=qc, flags=flags, fields=fields)


def tsnr_of(series: Array) -> float | None:
    """Return the median tSNR, or None where the series come without their mean: there is no signal level to relate."""
    centred = np.abs(series.mean(axis=0)) < CENTRED * series.std(axis=0)
    return None if centred.mean() > 0.5 else float(np.median(dvars.tsnr(series)))


def motion_figures(columns: Mapping[str, Float]) -> dict[str, Any]:
    """Return mean and largest FD, and mean DVARS, of a table; None where it does not have them."""
    out: dict[str, Any] = {"mean_fd": None, "max_fd": None}
    fd = columns.get("framewise_displacement")
    if fd is not None and np.isfinite(fd).any():
        out["mean_fd"], out["max_fd"] = rigid.summary(fd)
    for name in ("dvars", "std_dvars", "rmsd"):
        if name in columns and np.isfinite(columns[name]).any():
            out[f"mean_{name}"] = rigid.summary(columns[name])[0]
    return out


def other_motion(
    ticket: Mapping[str, Any], count: int, fd_radius: float
) -> tuple[Table | None, dict[str, Any], list[str]]:
    """Return the motion table, figures and flags of a run that was cleaned elsewhere.

    A censored series is shorter than its motion table; then the outlier table must say which volumes are gone, and the
    figures are those of the volumes kept.

    Raises
    ------
    DataFault
        The motion table is longer than the series, and no outlier table explains it.
    """
    root, files, scan = Path(ticket["root"]), ticket["files"], str(ticket["scan_id"])
    role = "motion" if "motion" in files else "confounds"
    if role not in files:
        share = ticket["metadata"].get("FDMean")  # HALFpipe counts the undefined first volume as 0
        mean = float(share) * count / (count - 1) if isinstance(share, int | float) else None
        known = {"mean_fd": mean, "max_fd": None}
        return None, known, [] if mean is not None else ["head motion is not known, framewise displacement is n/a"]
    path = root / files[role]["path"]
    readers = {"hcp": hcp_motion, "cpac": afni_motion}
    found = readers[str(ticket["layout"])](path) if ticket["layout"] in readers else confounds.read(path).columns
    columns = dict(found)
    if "framewise_displacement" not in columns and all(name in columns for name in rigid.AXES):
        parameters = np.stack([columns[name] for name in rigid.AXES], axis=1)
        columns["framewise_displacement"] = rigid.fd_power(parameters, fd_radius)
    rows = len(next(iter(columns.values())))
    flags = []
    if rows != count:
        kept = _kept(root, files, rows)
        if kept is None or int(kept.sum()) != count:
            left = "unknown" if kept is None else str(int(kept.sum()))
            why = f"the {role} table has {rows} rows, the series {count} volumes; the outlier table leaves {left}"
            raise DataFault(f"{role} do not fit", scan, why, "restore the tables of this run")
        columns = {name: values[kept] for name, values in columns.items()}
        flags.append(f"censored elsewhere: {rows - count} of {rows} volumes are gone, time is not even")
    return Table(columns, {}), motion_figures(columns), flags


def _kept(root: Path, files: Mapping[str, Any], rows: int) -> NDArray[np.bool_] | None:
    """Return which volumes the outlier table keeps, or None without a table that fits."""
    if "outliers" not in files:
        return None
    columns = confounds.read(root / files["outliers"]["path"]).columns
    marks = np.stack(list(columns.values()), axis=1)
    return (np.nan_to_num(marks) == 0).all(axis=1) if len(marks) == rows else None


def publish_table(job: Job, ticket: Mapping[str, Any], table: Table) -> tuple[Path, Path]:
    """Write the confounds under fMRIPrep's names; return the TSV and its JSON."""
    d = job.derivatives
    tsv = d.path(ticket["entities"], "func", "timeseries", ".tsv", desc="confounds")
    json = d.path(ticket["entities"], "func", "timeseries", ".json", desc="confounds")
    confounds.write(table, tsv, json)
    return tsv, json


def publish_cortex(
    job: Job, ticket: Mapping[str, Any], series: Array, tr: float, fields: Mapping[str, Any], space: str = CORTEX
) -> tuple[dict[str, Path], list[Path]]:
    """Write a cleaned series (T, V) of a mesh, left hemisphere first, with sidecars of ``fields``; TR in s."""
    d, entities = job.derivatives, ticket["entities"]
    sources = [d.uri_raw(entry["path"]) for entry in ticket["bold"]]
    files: dict[str, Path] = {}
    extra: list[Path] = []
    for side, half in zip("LR", np.split(series, 2, axis=1), strict=True):
        named = {"space": space, **DENSITY.get(space, {}), "desc": "clean"}
        path = d.path(entities, "func", "bold", ".func.gii", hemi=side, **named)
        files[f"clean_{side.lower()}h"] = write_surface(path, half, side, tr, {"Space": space})
        extra.append(d.sidecar(path, sources=sources, **fields))
    return files, extra


def about(ticket: Mapping[str, Any], tr: float, **more: Any) -> dict[str, Any]:
    """Return the sidecar fields every ready-made series has."""
    return {"RepetitionTime": tr, "TaskName": ticket["task"], "SourcePipeline": ticket["layout"], **more}
