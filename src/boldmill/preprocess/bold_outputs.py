"""What a BOLD run leaves behind: derivative names, sidecars, and the QC numbers of the manifest."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boldmill.atomic import atomic, write_text
from boldmill.paths import Layout
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.images import read_volume
from boldmill.preprocess.series_io import load_series
from boldmill.preprocess.slicetiming import SliceTimes
from boldmill.preprocess.subject import Job
from boldmill.preprocess.transforms import sample


def publish(
    job: Job,
    ticket: Mapping[str, Any],
    made: Mapping[str, Any],
    timing: SliceTimes | None,
    tr: float,
    facts: Mapping[str, Any],
) -> tuple[dict[str, Path], list[Path]]:
    """Move the results from scratch to their BIDS-Derivatives names and write the sidecars."""
    d, entities = job.derivatives, ticket["entities"]
    names = {
        "clean": d.path(entities, "func", "bold", space=job.space, desc="clean"),
        "preproc": d.path(entities, "func", "bold", space=job.space, desc="preproc"),
        "mask": d.path(entities, "func", "mask", space=job.space, desc="brain"),
        "boldref": d.path(entities, "func", "boldref", space=job.space),
        "boldref_native": d.path(entities, "func", "boldref", desc="coreg"),
        "confounds": d.path(entities, "func", "timeseries", ".tsv", desc="confounds"),
        "confounds_json": d.path(entities, "func", "timeseries", ".json", desc="confounds"),
        "coreg": d.path(entities, "func", "xfm", ".txt", from_="T1w", to="boldref", mode="points", desc="coreg"),
        "hmc": d.path(entities, "func", "xfm", ".txt", from_="boldref", to="orig", mode="points", desc="hmc"),
        "figures": Layout.at(d.results).figures(d.dataset, str(ticket["scan_id"])),
    }
    files: dict[str, Path] = {}
    for key, target in names.items():
        if made.get(key):
            move(Path(made[key]), target)
            files[key] = target
    rows = [" ".join(repr(float(v)) for v in matrix.ravel()) for matrix in load_series(made["matrices"])]
    files["hmc"] = write_text(names["hmc"], "\n".join(rows) + "\n")
    extra = [files.pop("confounds_json")]
    sources = [d.uri_raw(entry["path"]) for entry in ticket["bold"]]
    series = {
        "RepetitionTime": tr,
        "TaskName": ticket["task"],
        "SkullStripped": True,
        "SliceTimingCorrected": timing is not None,
        "StartTime": timing.reference if timing else None,
    }
    cleaning = {
        "Strategy": job.clean.model_dump(mode="json"),
        "Regressors": facts["clean"]["regressors"],
        "DegreesOfFreedom": facts["clean"]["dof_words"],
        "Units": "arbitrary",
    }
    fields: dict[str, dict[str, Any]] = {
        "clean": {**series, **cleaning},
        "preproc": series,
        "mask": {"Type": "Brain"},
        "boldref": {"SkullStripped": True},
        "boldref_native": {"SkullStripped": False},
        "coreg": {"Description": "4x4 matrix: T1w world (RAS, mm) to BOLD-reference world"},
        "hmc": {"Description": "one 4x4 matrix per row and volume: BOLD-reference world (RAS, mm) to volume world"},
    }
    extra += [d.sidecar(files[key], sources=sources, **fields[key]) for key in sorted(fields) if key in files]
    return files, extra


def move(source: Path, target: Path) -> Path:
    """Move a scratch file to its place, which is whole or absent at any time; return the place."""
    with atomic(target) as temporary:
        try:
            source.replace(temporary)
        except OSError as error:
            if error.errno != errno.EXDEV:  # scratch on another disk
                raise
            shutil.copyfile(source, temporary)
    return target


def quality_of(columns: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the QC numbers of a run from its confounds and the facts of its steps."""
    mean_fd, max_fd = rigid.summary(columns["framewise_displacement"])
    coreg, cleaned = facts["coreg"], facts["clean"]
    return {
        "mean_fd": mean_fd,
        "max_fd": max_fd,
        "mean_fd_jenkinson": rigid.summary(columns["framewise_displacement_jenkinson"])[0],
        "mean_rmsd": rigid.summary(columns["rmsd"])[0],
        "mean_dvars": rigid.summary(columns["dvars"])[0],
        "mean_std_dvars": rigid.summary(columns["std_dvars"])[0],
        "tsnr": cleaned["tsnr"],
        "gcor": cleaned["gcor"],
        "residual_dof": cleaned["residual_dof"],
        "effective_dof": cleaned["effective_dof"],
        "n_regressors": cleaned["n_regressors"],
        "non_steady": facts["motion"]["non_steady"],
        "coreg_method": coreg["method"],
        "bbr_cost": coreg["cost"],
        "bbr_sign": coreg["sign"],
        "bbr_cost_header": coreg["cost_header"],
        "bbr_moved_mm": coreg["moved"],
        "coreg_from_header_mm": coreg["from_header"],
        "mask_ml": facts["resample"]["mask_ml"],
        "brain_covered": facts["resample"]["coverage"],
        "csf_voxels": facts["confounds"]["csf_voxels"],
        "wm_voxels": facts["confounds"]["wm_voxels"],
    }


def covered_share(mask: Path, template_mask: Path) -> float:
    """Return the share of the template brain inside the run's mask."""
    run = read_volume(mask)
    brain = sample(read_volume(template_mask), run.grid.points(), order=0).reshape(run.data.shape) > 0.5
    return float((run.data[brain] > 0.5).mean()) if brain.any() else 0.0
