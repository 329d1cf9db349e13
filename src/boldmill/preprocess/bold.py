"""One BOLD run, raw to cleaned on the template grid: the workflow factory and the call of the `preprocess` command.

``process_volume_run`` is all the command needs: it builds :func:`init_bold_wf`, runs it in this process below a scratch
folder, moves the results to their BIDS-Derivatives names, writes sidecars, and returns files, QC and flags::

    process_volume_run(job, ticket, AnatInputs(t1w=..., t1w_mask=..., gm=..., wm=..., csf=..., field=...), work)
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import atomic, read_json, write_text
from boldmill.errors import DataFault
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.confounds import read as read_confounds
from boldmill.preprocess.images import Grid, read_volume
from boldmill.preprocess.series_io import load_series
from boldmill.preprocess.slicetiming import SliceTimes, slice_times
from boldmill.preprocess.subject import Job, StepResult
from boldmill.preprocess.transforms import sample

MIN_VOLUMES = 10
STEPS = ("motion", "coreg", "resample", "confounds", "clean")
"""Steps that leave facts and flags."""
HUGE_FD = 0.5
"""Mean FD (Power) above which a run is flagged, mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnatInputs:
    """What a run needs of the anatomy, all paths.

    ``t1w`` bias-corrected, ``t1w_mask``, ``gm``, ``wm``, ``csf`` (probabilities): on one grid in T1w space;
    ``field``: template-to-T1w displacement (``subject = x + u(x)``, :mod:`boldmill.preprocess.transforms`).
    """

    t1w: Path
    t1w_mask: Path
    gm: Path
    wm: Path
    csf: Path
    field: Path


def init_bold_wf(
    *,
    grid: Grid,
    preprocess: PreprocessConfig,
    clean: CleanConfig,
    tr: float,
    timing: SliceTimes | None,
    key: tuple[str, ...],
    where: str,
    threads: int = 1,
    name: str = "bold",
) -> Any:
    """Return the nipype workflow of one run.

    Parameters
    ----------
    grid : Grid
        Output grid of the cleaned series.
    preprocess, clean : sections
        Settings.
    tr : float
        Repetition time, s.
    timing : SliceTimes or None
        Slice times; None skips slice timing.
    key : tuple of str
        Key of the random choices (scan id and seed).
    where : str
        Scan, for messages.
    threads : int
        SimpleITK threads; 1 makes reruns identical.
    name : str
        Name of the workflow.

    Returns
    -------
    nipype Workflow
        ``inputnode``: bold, t1w, t1w_mask, gm, wm, csf, field. ``outputnode``: clean, preproc (if kept), mask,
        boldref, boldref_native, confounds, confounds_json, matrices, coreg, and the facts of each step.
    """
    from nipype.interfaces.utility import IdentityInterface

    from boldmill.preprocess import bold_interfaces as steps
    from boldmill.preprocess.nodes import pe

    inputs = pe.Node(
        IdentityInterface(fields=["bold", "t1w", "t1w_mask", "gm", "wm", "csf", "field"]), name="inputnode"
    )
    fields = ["clean", "mask", "boldref", "boldref_native", "confounds", "confounds_json", "matrices", "coreg"]
    fields += ["motion_facts", "coreg_facts", "resample_facts", "confounds_facts", "clean_facts"]
    fields += ["preproc"] if preprocess.keep_preproc else []
    outputs = pe.Node(IdentityInterface(fields=fields), name="outputnode")
    load = pe.Node(steps.LoadBold(tr=tr, min_volumes=MIN_VOLUMES), name="load")
    shift = pe.Node(
        steps.CorrectSliceTiming(
            tr=tr,
            times=timing.times.tolist() if timing else [],
            axis=timing.axis if timing else 2,
            reference=timing.reference if timing else 0.0,
        ),
        name="slicetiming",
    )
    motion = pe.Node(steps.EstimateMotion(), name="motion")
    coreg = pe.Node(steps.Coregister(key=list(key), threads=threads), name="coregister")
    once = pe.Node(
        steps.ResampleOnce(
            out_shape=list(grid.shape),
            out_affine=grid.affine.tolist(),
            fraction=preprocess.bold_mask_fraction,
            intensity=clean.intensity,
        ),
        name="resample",
    )
    table = pe.Node(
        steps.ComputeConfounds(
            tr=tr, components=clean.compcor, cutoff=clean.cosine_cutoff, fd_radius=preprocess.fd_radius
        ),
        name="confounds",
    )
    regress = pe.Node(
        steps.CleanSeries(tr=tr, settings=clean.model_dump_json(), where=where, keep_preproc=preprocess.keep_preproc),
        name="clean",
    )
    wf = pe.Workflow(name=name)
    first, second = (load, shift) if preprocess.motion_before_slice_timing else (shift, shift)
    wf.connect(
        [
            (inputs, load, [("bold", "bold")]),
            (load, shift, [("series", "series")]),
            (first, motion, [("series", "series")]),
            (load, motion, [("grid", "grid")]),
            (motion, coreg, [("boldref", "boldref"), ("mask", "mask")]),
            (inputs, coreg, [(k, k) for k in ("t1w", "t1w_mask", "wm", "gm")]),
            (second, once, [("series", "series")]),
            (load, once, [("grid", "grid")]),
            (motion, once, [("matrices", "matrices")]),
            (coreg, once, [("matrix", "coreg")]),
            (inputs, once, [("field", "field"), ("t1w_mask", "t1w_mask")]),
            (once, table, [("native", "native"), ("native_mask", "native_mask")]),
            (motion, table, [("matrices", "matrices"), ("facts", "motion_facts")]),
            (coreg, table, [("matrix", "coreg")]),
            (inputs, table, [("wm", "wm"), ("csf", "csf")]),
            (once, regress, [("template", "template"), ("mask", "mask")]),
            (table, regress, [("tsv", "confounds")]),
            (regress, outputs, [("clean", "clean"), ("facts", "clean_facts")]),
            (once, outputs, [("mask", "mask"), ("boldref", "boldref"), ("facts", "resample_facts")]),
            (table, outputs, [("tsv", "confounds"), ("json", "confounds_json"), ("facts", "confounds_facts")]),
            (motion, outputs, [("matrices", "matrices"), ("boldref", "boldref_native"), ("facts", "motion_facts")]),
            (coreg, outputs, [("matrix", "coreg"), ("facts", "coreg_facts")]),
        ]
    )
    if preprocess.keep_preproc:
        wf.connect([(regress, outputs, [("preproc", "preproc")])])
    return wf


def process_volume_run(job: Job, ticket: Mapping[str, Any], anat: AnatInputs, work: Path) -> StepResult:
    """Preprocess and clean one raw BOLD run.

    Parameters
    ----------
    job : Job
        What all steps of the subject share; ``template["brain_mask"]`` serves the covered share.
    ticket : mapping
        The scan's ticket (kind ``volume``).
    anat : AnatInputs
        Files of the anatomical workflow.
    work : Path
        Scratch folder of this run; the caller removes it.

    Returns
    -------
    StepResult
        ``files``: clean, mask, confounds, boldref, boldref_native, hmc, coreg (and preproc if kept).
        ``facts``: tr, n_volumes, space.

    Raises
    ------
    DataFault
        The run cannot be used; the reason and a fix are in the fault.
    """
    from boldmill.preprocess.nodes import run_workflow

    bold = Path(ticket["root"]) / ticket["bold"][0]["path"]
    metadata, scan = ticket["metadata"], str(ticket["scan_id"])
    tr = repetition_time(metadata, scan)
    timing = slice_times(metadata, image_shape(bold), tr, fraction=job.settings.slice_time_ref, where=scan)
    wf = init_bold_wf(
        grid=job.grid,
        preprocess=job.settings,
        clean=job.clean,
        tr=tr,
        timing=timing,
        key=(scan, str(job.seed)),
        where=scan,
        threads=1 if job.settings.deterministic else job.threads,
    )
    given = {"bold": bold, "t1w": anat.t1w, "t1w_mask": anat.t1w_mask, "field": anat.field}
    for name, path in {**given, "gm": anat.gm, "wm": anat.wm, "csf": anat.csf}.items():
        setattr(wf.inputs.inputnode, name, str(Path(path).resolve()))
    made, costs = run_workflow(wf, work)
    facts = {name: read_json(made[f"{name}_facts"]) for name in STEPS}
    table = read_confounds(made["confounds"])
    quality = _quality(table.columns, facts)
    quality["coverage"] = _coverage(Path(made["mask"]), job.template["brain_mask"])
    quality["cost_cpu_s"] = {name: cost["cpu_s"] for name, cost in costs.items()}
    flags = [flag for name in STEPS for flag in facts[name].get("flags", [])]
    if quality["mean_fd"] > HUGE_FD:
        flags.append(f"large motion: mean FD {quality['mean_fd']:.2f} mm")
    if timing is None:
        flags.append("no slice timing: the sidecar gives no usable SliceTiming")
    files, extra = _publish(job, ticket, made, timing, tr, facts)
    described = {"tr": tr, "n_volumes": table.n_rows, "space": job.space}
    return StepResult(files=files, qc=quality, flags=flags, extra=extra, facts=described)


def repetition_time(metadata: Mapping[str, Any], scan: str) -> float:
    """Return the repetition time of a sidecar, s.

    Raises
    ------
    DataFault
        Missing, not a number, or not positive.
    """
    value = metadata.get("RepetitionTime")
    if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value) or value <= 0:
        fix = "add RepetitionTime (s) to the JSON sidecar, or exclude the run"
        raise DataFault("cannot preprocess BOLD", scan, f"RepetitionTime is {value!r}", fix)
    return float(value)


def image_shape(path: Path) -> tuple[int, ...]:
    """Return the shape of an image from its header.

    Raises
    ------
    DataFault
        The header cannot be read.
    """
    import zlib

    import nibabel

    try:
        image: Any = nibabel.load(path)
        return tuple(int(n) for n in image.shape)
    except (
        EOFError,
        zlib.error,
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
    ) as error:
        fix = "replace the file with an intact copy and run `snakemake ingest` again"
        raise DataFault("cannot read BOLD run", path, f"the header is broken ({error})", fix) from error


def _publish(
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
    }
    files: dict[str, Path] = {}
    for key, target in names.items():
        if made.get(key):
            _move(Path(made[key]), target)
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


def _move(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        try:
            source.replace(temporary)
        except OSError:  # scratch is on another disk
            shutil.copyfile(source, temporary)


def _quality(columns: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
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


def _coverage(mask: Path, template_mask: Path) -> float:
    """Share of the template brain inside the run's mask."""
    run = read_volume(mask)
    brain = sample(read_volume(template_mask), run.grid.points(), order=0).reshape(run.data.shape) > 0.5
    return float((run.data[brain] > 0.5).mean()) if brain.any() else 0.0
