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
from boldmill.preprocess.bold import MIN_VOLUMES, repetition_time
from boldmill.preprocess.confounds import Table, read, write
from boldmill.preprocess.given import chosen_names, completed
from boldmill.preprocess.motion import summary
from boldmill.preprocess.series_io import read_surface, write_surface
from boldmill.preprocess.subject import Job, StepResult

Array = NDArray[Any]
SPACE = "fsaverage5"
VERTICES = 10242
QC_FACTS = ("residual_dof", "effective_dof", "n_regressors", "censored_share", "minutes_kept")


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
    mean_fd, max_fd = displacement(table)
    if mean_fd is None:
        flags.insert(0, "ready-made surface series: head motion is not known, framewise displacement is n/a")
    plan = design.plan(clean, table, tr, where=scan, names=chosen_names(given, table, clean, where=scan))
    flags += plan.facts["flags"]
    both = np.concatenate(series, axis=1)
    live = np.isfinite(both).all(axis=0) & (np.ptp(np.nan_to_num(both), axis=0) > 0)
    quality = {
        "tsnr": _tsnr(both[:, live]),
        "mean_fd": mean_fd,
        "max_fd": max_fd,
        "live_vertices": float(live.mean()),
    }
    cleaned = cleaning.apply(plan.operator, both)
    quality |= {
        "gcor": dvars.gcor(cleaned[:, live]),
        **{name: plan.facts[name] for name in QC_FACTS},
    }
    facts = {"tr": tr, "n_volumes": count, "space": SPACE}
    halves = np.split(cleaned, [series[0].shape[1]], axis=1)
    files, extra = _publish(job, ticket, table, halves, tr, plan.facts)
    return StepResult(files=files, qc=quality, flags=flags, extra=extra, facts=facts)


def displacement(table: Table) -> tuple[float, float] | tuple[None, None]:
    """Return mean and maximum of FD (Power), mm; None where it is not known."""
    values = table.columns["framewise_displacement"]
    return summary(values) if np.isfinite(values).any() else (None, None)


def _tsnr(series: Array) -> float | None:
    """Return the median tSNR, or None where the series come without their mean: there is no signal level to relate."""
    centred = np.abs(series.mean(axis=0)) < 1e-3 * series.std(axis=0)
    return None if centred.mean() > 0.5 else float(np.median(dvars.tsnr(series)))


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


def _publish(
    job: Job, ticket: Mapping[str, Any], table: Table, halves: list[Array], tr: float, facts: Mapping[str, Any]
) -> tuple[dict[str, Path], list[Path]]:
    d, entities = job.derivatives, ticket["entities"]
    sources = [d.uri_raw(entry["path"]) for entry in ticket["bold"]]
    settings = {
        "RepetitionTime": tr,
        "TaskName": ticket["task"],
        "Strategy": job.clean.model_dump(mode="json"),
        "Regressors": facts["regressors"],
        "DegreesOfFreedom": facts["dof_words"],
    }
    files: dict[str, Path] = {}
    extra: list[Path] = []
    for side, half in zip("LR", halves, strict=True):
        path = d.path(entities, "func", "bold", ".func.gii", hemi=side, space=SPACE, desc="clean")
        files[f"clean_{side.lower()}h"] = write_surface(path, half, side, tr, {"Space": SPACE})
        extra.append(d.sidecar(path, sources=sources, **settings))
    files["confounds"] = d.path(entities, "func", "timeseries", ".tsv", desc="confounds")
    extra.append(d.path(entities, "func", "timeseries", ".json", desc="confounds"))
    write(table, files["confounds"], extra[-1])
    return files, extra
