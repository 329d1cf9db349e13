"""One BOLD run, raw to cleaned on the template grid: the workflow factory and the call of the `preprocess` command.

``process_volume_run`` is all the command needs: it builds :func:`init_bold_wf`, runs it in this process below a scratch
folder, moves the results to their BIDS-Derivatives names, writes sidecars, and returns files, QC and flags.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import atomic, read_json, write_json, write_text
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.confounds import read as read_confounds
from boldmill.preprocess.series_io import entity_prefix, load_series
from boldmill.preprocess.slicetiming import SliceTimes, slice_times

MIN_VOLUMES = 10
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpace:
    """Name, grid and brain of the output: ``shape`` and ``affine`` as :func:`boldmill.spaces.grid.output_grid`."""

    name: str
    shape: tuple[int, int, int]
    affine: Any


@dataclass(slots=True, kw_only=True)
class RunResult:
    """Paths by manifest key, QC numbers, flags in words, and what each step cost."""

    tr: float
    n_volumes: int
    space: str
    files: dict[str, Path] = field(default_factory=dict)
    qc: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)


def init_bold_wf(
    *,
    space: OutputSpace,
    preprocess: PreprocessConfig,
    clean: CleanConfig,
    tr: float,
    timing: SliceTimes | None,
    key: tuple[str, ...],
    where: str,
    name: str = "bold",
) -> Any:
    """Return the nipype workflow of one run.

    Parameters
    ----------
    space : OutputSpace
        Where the cleaned series goes.
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
    coreg = pe.Node(steps.Coregister(key=list(key)), name="coregister")
    once = pe.Node(
        steps.ResampleOnce(
            out_shape=[int(n) for n in space.shape],
            out_affine=np.asarray(space.affine, dtype=float).tolist(),
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


def process_volume_run(
    ticket: Mapping[str, Any],
    *,
    anat: AnatInputs,
    space: OutputSpace,
    derivatives: Path,
    preprocess: PreprocessConfig,
    clean: CleanConfig,
    seed: int,
    work: Path,
    template_mask: Path | None = None,
) -> RunResult:
    """Preprocess and clean one raw BOLD run.

    Parameters
    ----------
    ticket : mapping
        The scan's ticket (kind ``volume``).
    anat : AnatInputs
        Files of the anatomical workflow.
    space : OutputSpace
        Output grid.
    derivatives : Path
        Root of the data set's derivatives; files go below ``sub-X[/ses-Y]/func/``.
    preprocess, clean : sections
        Settings, with the data set's overrides applied.
    seed : int
        Base seed.
    work : Path
        Scratch folder of this run; the caller removes it.
    template_mask : Path, optional
        Template brain mask, for the covered share.

    Returns
    -------
    RunResult
        ``files``: clean, mask, confounds, boldref, boldref_native, hmc, coreg (and preproc if kept).

    Raises
    ------
    DataFault
        The run cannot be used; the reason and a fix are in the fault.
    """
    from boldmill.preprocess.nodes import run_workflow

    bold = Path(ticket["root"]) / ticket["bold"][0]["path"]
    metadata, scan = ticket["metadata"], str(ticket["scan_id"])
    tr = _tr(metadata, scan)
    timing = slice_times(metadata, _shape(bold), tr, fraction=preprocess.slice_time_ref, where=scan)
    wf = init_bold_wf(
        space=space, preprocess=preprocess, clean=clean, tr=tr, timing=timing, key=(scan, str(seed)), where=scan
    )
    given = {"bold": bold, "t1w": anat.t1w, "t1w_mask": anat.t1w_mask, "field": anat.field}
    for name, path in {**given, "gm": anat.gm, "wm": anat.wm, "csf": anat.csf}.items():
        setattr(wf.inputs.inputnode, name, str(Path(path).resolve()))
    made, costs = run_workflow(wf, work)
    facts = {k.removesuffix("_facts"): read_json(v) for k, v in made.items() if k.endswith("_facts")}
    table = read_confounds(made["confounds"])
    result = RunResult(tr=tr, n_volumes=table.n_rows, space=space.name, costs=costs)
    _publish(result, made, ticket, derivatives)
    result.qc = _quality(table.columns, facts)
    if template_mask is not None:
        result.qc["coverage"] = _coverage(result.files["mask"], template_mask)
    for part in facts.values():
        result.flags += part.get("flags", [])
    if result.qc["mean_fd"] > HUGE_FD:
        result.flags.append(f"large motion: mean FD {result.qc['mean_fd']:.2f} mm")
    if timing is None:
        result.flags.append("no slice timing correction: the sidecar gives no usable SliceTiming")
    _sidecar(result, ticket, timing, clean, facts)
    return result


def _tr(metadata: Mapping[str, Any], scan: str) -> float:
    from boldmill.errors import DataFault

    value = metadata.get("RepetitionTime")
    if not isinstance(value, int | float) or isinstance(value, bool) or not np.isfinite(value) or value <= 0:
        fix = "add RepetitionTime (s) to the JSON sidecar, or exclude the run"
        raise DataFault("cannot preprocess BOLD", scan, f"RepetitionTime is {value!r}", fix)
    return float(value)


def _shape(path: Path) -> tuple[int, ...]:
    """Return the shape of an image, or () where it cannot be read: reading the data will say why."""
    import zlib

    import nibabel

    try:
        image: Any = nibabel.load(path)
        return tuple(int(n) for n in image.shape)
    except (OSError, EOFError, zlib.error, nibabel.filebasedimages.ImageFileError):
        return (0, 0, 0, 0)


def _publish(result: RunResult, made: Mapping[str, Any], ticket: Mapping[str, Any], derivatives: Path) -> None:
    """Move the results from scratch to their BIDS-Derivatives names."""
    prefix = entity_prefix(ticket["entities"])
    session = ticket["entities"].get("ses")
    folder = derivatives / f"sub-{ticket['entities']['sub']}" / (f"ses-{session}" if session else "") / "func"
    there = f"{prefix}_space-{result.space}"
    names = {
        "clean": f"{there}_desc-clean_bold.nii.gz",
        "preproc": f"{there}_desc-preproc_bold.nii.gz",
        "mask": f"{there}_desc-brain_mask.nii.gz",
        "boldref": f"{there}_boldref.nii.gz",
        "boldref_native": f"{prefix}_desc-coreg_boldref.nii.gz",
        "confounds": f"{prefix}_desc-confounds_timeseries.tsv",
        "confounds_json": f"{prefix}_desc-confounds_timeseries.json",
        "coreg": f"{prefix}_from-T1w_to-boldref_mode-points_desc-coreg_xfm.txt",
    }
    for key, name in names.items():
        if made.get(key):
            _move(Path(made[key]), folder / name)
            result.files[key] = folder / name
    matrices = load_series(made["matrices"])
    rows = [" ".join(repr(float(v)) for v in matrix.ravel()) for matrix in matrices]
    result.files["hmc"] = folder / f"{prefix}_from-boldref_to-orig_mode-points_desc-hmc_xfm.txt"
    write_text(result.files["hmc"], "\n".join(rows) + "\n")


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
    from boldmill.preprocess.images import read_volume
    from boldmill.preprocess.transforms import sample

    run = read_volume(mask)
    brain = sample(read_volume(template_mask), run.grid.points(), order=0).reshape(run.data.shape) > 0.5
    return float((run.data[brain] > 0.5).mean()) if brain.any() else 0.0


def _sidecar(
    result: RunResult,
    ticket: Mapping[str, Any],
    timing: SliceTimes | None,
    clean: CleanConfig,
    facts: Mapping[str, Any],
) -> None:
    """Write the JSON beside the cleaned (and the kept uncleaned) series."""
    common = {
        "RepetitionTime": result.tr,
        "TaskName": ticket["task"],
        "Space": result.space,
        "SkullStripped": True,
        "SliceTimingCorrected": timing is not None,
        "Sources": [f"bids:raw:{entry['path']}" for entry in ticket["bold"]],
    }
    if timing is not None:
        common["StartTime"] = timing.reference
    cleaning = {
        "Strategy": clean.model_dump(mode="json"),
        "Regressors": facts["clean"]["regressors"],
        "DegreesOfFreedom": facts["clean"]["dof_words"],
        "Units": "arbitrary",
    }
    for key, more in (("clean", cleaning), ("preproc", {})):
        if key in result.files:
            path = result.files[key]
            target = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
            write_json(target, {**common, **more})
            result.files[f"{key}_json"] = target
