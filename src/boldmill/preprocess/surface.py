"""Ready-made surface series (fsaverage5): drift, filter and regression with the confounds they come with.

Axes: T time, V vertices, K regressors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import write_json
from boldmill.errors import DataFault
from boldmill.preprocess import clean as cleaning
from boldmill.preprocess import design, dvars
from boldmill.preprocess.bold import MIN_VOLUMES, RunResult, _tr
from boldmill.preprocess.compcor import cosines
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table, read, write
from boldmill.preprocess.series_io import entity_prefix, read_surface, write_surface

Array = NDArray[Any]
SPACE = "fsaverage5"
VERTICES = 10242


def process_surface_run(ticket: Mapping[str, Any], *, derivatives: Path, clean: CleanConfig) -> RunResult:
    """Clean one ready-made surface run.

    All given confounds are regressed, whatever their names, with the drift and the pass band of the settings. Motion
    is unknown, so framewise displacement is not available.

    Parameters
    ----------
    ticket : mapping
        The scan's ticket (kind ``surface``): left and right series, a confounds table or none.
    derivatives : Path
        Root of the data set's derivatives; files go below ``sub-X[/ses-Y]/func/``.
    clean : CleanConfig
        Settings, with the data set's overrides applied.

    Returns
    -------
    RunResult
        ``files``: clean_lh, clean_rh, confounds.

    Raises
    ------
    DataFault
        Hemispheres or confounds that do not fit together, not fsaverage5, constant data, too few degrees of freedom.
    """
    scan, root = str(ticket["scan_id"]), Path(ticket["root"])
    tr = _tr(ticket["metadata"], scan)
    series = [read_surface(root / entry["path"]) for entry in ticket["bold"]]
    count = _check(series, scan)
    flags = ["ready-made surface series: head motion is not known, framewise displacement is n/a"]
    given = Table({}, {})
    if ticket.get("confounds"):
        given = read(root / ticket["confounds"]["path"])
        if given.n_rows != count:
            why = f"the confounds have {given.n_rows} rows, the series {count} volumes"
            raise DataFault("cannot clean", scan, why, "give one row of confounds per volume")
    else:
        flags.append("no confounds were given: only drift and filter were applied")
    columns = dict(given.columns)
    for index, values in enumerate(cosines(count, tr, clean.cosine_cutoff).T):
        columns.setdefault(f"cosine_{index:02d}", values)
    columns.setdefault("framewise_displacement", np.full(count, np.nan))
    table = Table(columns, {})
    chosen = [name for name in design.wanted_columns(clean, columns) if name.startswith("cosine_")]
    plan = design.plan(clean, table, tr, where=scan, names=[*given.columns, *chosen])
    flags += plan.facts["flags"]
    both = np.concatenate(series, axis=1)
    live = np.isfinite(both).all(axis=0) & (np.ptp(np.nan_to_num(both), axis=0) > 0)
    quality = {
        "tsnr": float(np.median(dvars.tsnr(both[:, live]))),
        "mean_fd": None,
        "max_fd": None,
        "live_vertices": float(live.mean()),
    }
    cleaned = cleaning.apply(plan.operator, both)
    quality |= {
        "gcor": dvars.gcor(cleaned[:, live]),
        **{name: plan.facts[name] for name in ("residual_dof", "effective_dof", "n_regressors")},
    }
    result = RunResult(tr=tr, n_volumes=count, space=SPACE, qc=quality, flags=flags)
    _publish(result, ticket, table, np.split(cleaned, [series[0].shape[1]], axis=1), derivatives)
    settings = {
        "RepetitionTime": tr,
        "Space": SPACE,
        "Strategy": clean.model_dump(mode="json"),
        "Regressors": plan.names,
        "DegreesOfFreedom": plan.facts["dof_words"],
        "Sources": [f"bids:raw:{entry['path']}" for entry in ticket["bold"]],
    }
    for key in ("clean_lh", "clean_rh"):
        path = result.files[key]
        result.files[f"{key}_json"] = path.with_name(path.name.removesuffix(".func.gii") + ".json")
        write_json(result.files[f"{key}_json"], settings)
    return result


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
    result: RunResult, ticket: Mapping[str, Any], table: Table, halves: list[Array], derivatives: Path
) -> None:
    session = ticket["entities"].get("ses")
    folder = derivatives / f"sub-{ticket['entities']['sub']}" / (f"ses-{session}" if session else "") / "func"
    prefix = entity_prefix(ticket["entities"])
    for side, half in zip("LR", halves, strict=True):
        path = folder / f"{prefix}_hemi-{side}_space-{SPACE}_desc-clean_bold.func.gii"
        result.files[f"clean_{side.lower()}h"] = write_surface(path, half, side, result.tr, {"Space": SPACE})
    result.files["confounds"] = folder / f"{prefix}_desc-confounds_timeseries.tsv"
    result.files["confounds_json"] = folder / f"{prefix}_desc-confounds_timeseries.json"
    write(table, result.files["confounds"], result.files["confounds_json"])
