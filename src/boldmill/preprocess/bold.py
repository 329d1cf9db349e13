"""One BOLD run, raw to cleaned on the template grid: the workflow factory and the call of the `preprocess` command.

``process_volume_run`` is all the command needs: it builds :func:`init_bold_wf`, runs it in this process below a scratch
folder, moves the results to their BIDS-Derivatives names, writes sidecars, and returns files, QC and flags::

    process_volume_run(job, ticket, AnatInputs(t1w=..., t1w_mask=..., gm=..., wm=..., csf=..., field=...), work)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import read_json
from boldmill.errors import DataFault
from boldmill.preprocess.bold_outputs import covered_share, publish, quality_of
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.confounds import read as read_confounds
from boldmill.preprocess.imagefaults import FEW_COVERED, form_flags
from boldmill.preprocess.images import Grid
from boldmill.preprocess.memory import Memory
from boldmill.preprocess.motion import motion_flags
from boldmill.preprocess.outputs import further_grids
from boldmill.preprocess.prepare import image_shape
from boldmill.preprocess.scanquality import run_quality
from boldmill.preprocess.slicetiming import SliceTimes, slice_times
from boldmill.preprocess.subject import Job, StepResult

MIN_VOLUMES = 10
STEPS = ("motion", "distortion", "coreg", "resample", "confounds", "clean")
"""Steps that leave facts and flags."""
FIT = ("motion", "distortion", "coregister")
"""Nodes whose results are remembered: they do not depend on grids, cleaning or what is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnatInputs:
    """What a run needs of the anatomy, all paths.

    ``t1w`` bias-corrected, ``t1w_mask``, ``gm``, ``wm``, ``csf`` (probabilities): on one grid in T1w space;
    ``field``: template-to-T1w displacement (``subject = x + u(x)``, :mod:`boldmill.preprocess.transforms`);
    ``other_fields``: those of further template spaces, by space.
    """

    t1w: Path
    t1w_mask: Path
    gm: Path
    wm: Path
    csf: Path
    field: Path
    other_fields: Mapping[str, Path] = dataclass_field(default_factory=dict)


def init_bold_wf(
    *,
    grid: Grid,
    preprocess: PreprocessConfig,
    clean: CleanConfig,
    tr: float,
    timing: SliceTimes | None,
    key: tuple[str, ...],
    where: str,
    space: str,
    spaces: Sequence[Mapping[str, Any]] = (),
    ticket: Mapping[str, Any] | None = None,
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
    space : str
        Name of the template space.
    spaces : sequence of mapping
        Further output grids (:func:`boldmill.preprocess.outputs.further_grids`).
    ticket : mapping, optional
        The scan's ticket: its ``fmap``, ``metadata`` and ``root`` serve the distortion.
    threads : int
        SimpleITK threads; 1 makes reruns identical.
    name : str
        Name of the workflow.

    Returns
    -------
    nipype Workflow
        ``inputnode``: bold, t1w, t1w_mask, gm, wm, csf, field. ``outputnode``: scratch series (clean, preproc,
        native), mask, boldref, native_mask, boldref_native, spaces, distortion (where corrected), confounds,
        confounds_json, matrices, coreg, and the facts of each step.
    """
    from nipype.interfaces.utility import IdentityInterface

    from boldmill.preprocess import bold_interfaces as steps
    from boldmill.preprocess import clean_interfaces as finish
    from boldmill.preprocess import engines
    from boldmill.preprocess.maps_interfaces import connect_maps
    from boldmill.preprocess.nodes import pe
    from boldmill.preprocess.picture_interfaces import SavePictures
    from boldmill.preprocess.sdc_interfaces import EstimateDistortion

    inputs = pe.Node(
        IdentityInterface(fields=["bold", "t1w", "t1w_mask", "gm", "wm", "csf", "field"]), name="inputnode"
    )
    fields = ["clean", "preproc", "mask", "boldref", "spaces", "native", "native_mask", "boldref_native"]
    fields += ["maps"] if preprocess.maps else []
    fields += ["distortion", "confounds", "confounds_json", "matrices", "coreg", "figures"]
    fields += [f"{step}_facts" for step in STEPS]
    outputs = pe.Node(IdentityInterface(fields=fields), name="outputnode")
    load = pe.Node(steps.LoadBold(tr=tr, min_volumes=MIN_VOLUMES), name="load")
    use = preprocess.engines
    start = engines.node("despike", use.despike, "despike") if preprocess.despike else load
    shift = engines.node(
        "slice_timing",
        use.slice_timing,
        "slicetiming",
        tr=tr,
        times=timing.times.tolist() if timing else [],
        axis=timing.axis if timing else 2,
        reference=timing.reference if timing else 0.0,
    )
    motion = engines.node("motion", use.motion, "motion", target=preprocess.motion_reference)
    known = ticket or {}
    unwarp = pe.Node(
        EstimateDistortion(
            maps=json.dumps(known.get("fmap", [])),
            metadata=json.dumps(known.get("metadata", {})),
            root=str(known.get("root", ".")),
            threads=threads,
            off=preprocess.distortion == "off",
        ),
        name="distortion",
    )
    coreg = engines.node("coregistration", use.coregistration, "coregister", key=list(key), threads=threads)
    once = pe.Node(
        steps.ResampleOnce(
            out_shape=list(grid.shape),
            out_affine=grid.affine.tolist(),
            spaces=[dict(one) for one in spaces],
            fraction=preprocess.bold_mask_fraction,
            intensity=clean.intensity,
        ),
        name="resample",
    )
    table = pe.Node(
        finish.ComputeConfounds(
            tr=tr,
            components=clean.compcor,
            cutoff=clean.cosine_cutoff,
            fd_radius=preprocess.fd_radius,
            outlier_fd=preprocess.outlier_fd,
            outlier_dvars=preprocess.outlier_dvars,
        ),
        name="confounds",
    )
    regress = pe.Node(finish.CleanSeries(tr=tr, settings=clean.model_dump_json(), where=where), name="clean")
    shown = pe.Node(SavePictures(tr=tr, settings=clean.model_dump_json(), where=where, space=space), name="pictures")
    wf = pe.Workflow(name=name)
    if start is not load:
        wf.connect([(load, start, [("series", "series")])])
    seen = start if preprocess.motion_before_slice_timing else shift
    wf.connect(
        [
            (inputs, load, [("bold", "bold")]),
            (start, shift, [("series", "series")]),
            (seen, motion, [("series", "series")]),
            (load, motion, [("grid", "grid")]),
            (motion, unwarp, [("boldref", "boldref"), ("mask", "mask")]),
            (unwarp, coreg, [("boldref", "boldref"), ("mask", "mask")]),
            (unwarp, once, [("distortion", "distortion")]),
            (inputs, coreg, [(k, k) for k in ("t1w", "t1w_mask", "wm", "gm")]),
            (shift, once, [("series", "series")]),
            (load, once, [("grid", "grid")]),
            (motion, once, [("matrices", "matrices")]),
            (coreg, once, [("matrix", "coreg")]),
            (inputs, once, [("field", "field"), ("t1w_mask", "t1w_mask")]),
            (once, table, [("native", "native"), ("native_mask", "native_mask"), ("crown", "crown")]),
            (motion, table, [("matrices", "matrices"), ("facts", "motion_facts")]),
            (coreg, table, [("matrix", "coreg")]),
            (inputs, table, [("wm", "wm"), ("csf", "csf")]),
            (once, regress, [("template", "template"), ("mask", "mask")]),
            (table, regress, [("tsv", "confounds")]),
            (once, shown, [("template", "template"), ("mask", "mask")]),
            (table, shown, [("tsv", "confounds")]),
            (unwarp, shown, [("boldref", "boldref"), ("distortion", "distortion")]),
            (motion, shown, [("boldref", "distorted")]),
            (coreg, shown, [("matrix", "coreg")]),
            (inputs, shown, [(k, k) for k in ("field", "t1w_mask", "gm", "wm", "csf")]),
            (shown, outputs, [("figures", "figures")]),
            (regress, outputs, [("clean", "clean"), ("facts", "clean_facts")]),
            (once, outputs, [(k, k) for k in ("mask", "boldref", "spaces", "native", "native_mask")]),
            (once, outputs, [("template", "preproc"), ("facts", "resample_facts")]),
            (table, outputs, [("tsv", "confounds"), ("json", "confounds_json"), ("facts", "confounds_facts")]),
            (motion, outputs, [("matrices", "matrices"), ("facts", "motion_facts")]),
            (unwarp, outputs, [("boldref", "boldref_native"), ("distortion", "distortion")]),
            (unwarp, outputs, [("facts", "distortion_facts")]),
            (coreg, outputs, [("matrix", "coreg"), ("facts", "coreg_facts")]),
        ]
    )
    if preprocess.maps:
        connect_maps(wf, preprocess, clean, tr, where)
    return wf


def process_volume_run(
    job: Job, ticket: Mapping[str, Any], anat: AnatInputs, work: Path, memory: Memory | None = None
) -> StepResult:
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
    memory : Memory, optional
        Motion, distortion and coregistration of an earlier run, where nothing they depend on changed.

    Returns
    -------
    StepResult
        ``files``: mask, confounds, boldref, boldref_native, hmc, coreg, recipe (clean and preproc where kept).
        ``facts``: tr, n_volumes, space, cost (by step).

    Raises
    ------
    DataFault
        The run cannot be used; the reason and a fix are in the fault.
    """
    from boldmill.preprocess import engines
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
        space=job.space,
        spaces=further_grids(job, anat),
        ticket=ticket,
        threads=1 if job.settings.deterministic else job.threads,
    )
    given = {"bold": bold, "t1w": anat.t1w, "t1w_mask": anat.t1w_mask, "field": anat.field}
    for name, path in {**given, "gm": anat.gm, "wm": anat.wm, "csf": anat.csf}.items():
        setattr(wf.inputs.inputnode, name, str(Path(path).resolve()))
    for step in FIT if memory else ():
        wf.get_node(step).interface.memory = memory
    made, costs = run_workflow(wf, work)
    facts = {name: read_json(made[f"{name}_facts"]) for name in STEPS}
    table = read_confounds(made["confounds"])
    quality = quality_of(table.columns, facts)
    quality["coverage"] = covered_share(Path(made["mask"]), job.template["brain_mask"])
    quality |= run_quality(made, anat.t1w_mask, table.columns, metadata, job.clean, tr)
    flags = [flag for name in STEPS for flag in facts[name].get("flags", [])]
    flags += motion_flags(quality["mean_fd"])
    if timing is None:
        flags.append("no slice timing: the sidecar gives no usable SliceTiming")
    flags += form_flags(bold, "BOLD run")
    if quality["coverage"] < FEW_COVERED:
        flags.append(
            f"{100 * quality['coverage']:.0f} % of the brain is covered: the rest is outside the field of view"
        )
    files, extra = publish(job, ticket, anat, made, timing, tr, facts)
    ran = ["motion", "coregistration", *(["despike"] if job.settings.despike else [])]
    ran += ["slice_timing"] if timing is not None else []
    by = engines.described(job.settings.engines, ran)
    described = {"engines": by, "tr": tr, "n_volumes": table.n_rows, "space": job.space, "cost": costs}
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
