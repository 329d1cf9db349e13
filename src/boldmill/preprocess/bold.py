"""One BOLD run, raw to cleaned on the template grid: what the `preprocess` command calls.

``process_volume_run`` builds the workflow (:mod:`boldmill.preprocess.bold_flow`), runs it in this process below a
scratch folder, moves the results to their BIDS-Derivatives names, writes sidecars, and returns files, QC and flags::

    process_volume_run(job, ticket, AnatInputs(t1w=..., t1w_mask=..., gm=..., wm=..., csf=..., field=...), work)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import read_json
from boldmill.errors import DataFault
from boldmill.preprocess.bold_flow import FIT, STEPS, init_bold_wf
from boldmill.preprocess.bold_outputs import covered_share, publish, quality_of
from boldmill.preprocess.confounds import read as read_confounds
from boldmill.preprocess.imagefaults import FEW_COVERED, form_flags
from boldmill.preprocess.memory import Memory
from boldmill.preprocess.motion import motion_flags
from boldmill.preprocess.outputs import further_grids
from boldmill.preprocess.prepare import image_shape
from boldmill.preprocess.scanquality import run_quality
from boldmill.preprocess.slicetiming import slice_times
from boldmill.preprocess.subject import Job, StepResult


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
