"""Ready-made surface series (fsaverage5): drift, filter and regression with the confounds they come with.

Axes: T time, V vertices, K regressors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess import clean as cleaning
from boldmill.preprocess import design, dvars
from boldmill.preprocess.bold import repetition_time
from boldmill.preprocess.bold_flow import MIN_VOLUMES
from boldmill.preprocess.confounds import Table, read
from boldmill.preprocess.given import chosen_names, completed
from boldmill.preprocess.motion import motion_flags
from boldmill.preprocess.ready import CORTEX, QC_FACTS, motion_figures, publish_cortex, publish_table, tsnr_of
from boldmill.preprocess.scanquality import run_summary
from boldmill.preprocess.series_io import read_surface
from boldmill.preprocess.subject import Job, StepResult

Array = NDArray[Any]
VERTICES = 10242


def process_surface_run(job: Job, ticket: Mapping[str, Any]) -> StepResult:
    """Clean one ready-made surface run.

    Confounds with fMRIPrep's names are chosen by the strategy (:mod:`boldmill.preprocess.given`). Of other tables every
    column is regressed, with the drift and the pass band of the settings; framewise displacement is not known then.

    Parameters
    ----------
    job : Job
        What all steps of the subject share.
    ticket : mapping
        The scan's ticket (kind ``surface``): left and right series, a confounds table or none.

    Returns
    -------
    StepResult
        ``files``: clean_lh, clean_rh, confounds. ``facts``: tr, n_volumes, space.

    Raises
    ------
    DataFault
        Hemispheres or confounds that do not fit together, not fsaverage5, constant data, too few degrees of freedom.
    """
    scan, root, clean = str(ticket["scan_id"]), Path(ticket["root"]), job.clean
    tr = repetition_time(ticket["metadata"], scan)
    series = [read_surface(root / entry["path"]) for entry in ticket["bold"]]
    count = _check(series, scan)
    flags: list[str] = []
    given = Table({}, {})
    if ticket.get("confounds"):
        given = read(root / ticket["confounds"]["path"])
        if given.n_rows != count:
            why = f"the confounds have {given.n_rows} rows, the series {count} volumes"
            raise DataFault("cannot clean", scan, why, "give one row of confounds per volume")
    else:
        flags.append("no confounds were given: only drift and filter were applied")
    table = completed(given, count, tr, clean, radius=job.settings.fd_radius)
    moved = motion_figures(table.columns)
    if moved["mean_fd"] is None:
        flags.insert(0, "ready-made surface series: head motion is not known, framewise displacement is n/a")
    plan = design.plan(clean, table, tr, where=scan, names=chosen_names(given, table, clean, where=scan))
    flags += plan.facts["flags"]
    both = np.concatenate(series, axis=1)
    live = np.isfinite(both).all(axis=0) & (np.ptp(np.nan_to_num(both), axis=0) > 0)
    quality: dict[str, Any] = {
        "tsnr": tsnr_of(both[:, live]),
        **moved,
        **run_summary(table.columns, clean, tr),
        "live_vertices": float(live.mean()),
    }
    flags += motion_flags(moved["mean_fd"])
    cleaned = cleaning.apply(plan.operator, both)
    quality |= {"gcor": dvars.gcor(cleaned[:, live]), **{name: plan.facts[name] for name in QC_FACTS}}
    fields = {
        "RepetitionTime": tr,
        "TaskName": ticket["task"],
        "Strategy": clean.model_dump(mode="json"),
        "Regressors": plan.facts["regressors"],
        "DegreesOfFreedom": plan.facts["dof_words"],
    }
    files, extra = publish_cortex(job, ticket, cleaned, tr, fields)
    files["confounds"], json = publish_table(job, ticket, table)
    extra.append(json)
    facts = {"tr": tr, "n_volumes": count, "space": CORTEX}
    return StepResult(files=files, qc=quality, flags=flags, extra=extra, facts=facts)


def _check(series: list[Array], scan: str) -> int:
    """Refuse what is not two hemispheres of one fsaverage5 run; return the number of volumes."""
    fix = "give a left and a right fsaverage5 series of the same run"
    if len(series) != 2 or len({len(one) for one in series}) != 1:
        why = f"{len(series)} hemispheres with {[len(one) for one in series]} volumes"
        raise DataFault("cannot use surface series", scan, why, fix)
    sizes = [one.shape[1] for one in series]
    if sizes != [VERTICES, VERTICES]:
        raise DataFault("cannot use surface series", scan, f"it has {sizes} vertices, not {VERTICES} each", fix)
    if len(series[0]) < MIN_VOLUMES:
        why = f"it has {len(series[0])} volumes, at least {MIN_VOLUMES} are needed"
        raise DataFault("cannot use surface series", scan, why, "exclude the run")
    for one in series:
        if not (np.ptp(np.nan_to_num(one), axis=0) > 0).any():
            raise DataFault("cannot use surface series", scan, "a hemisphere is constant", "restore the file")
    return len(series[0])
