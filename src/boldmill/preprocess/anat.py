"""The anatomical workflow: raw T1w to bias-corrected T1w, brain mask, tissue maps and the warp to the template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface

from boldmill.paths import Layout
from boldmill.preprocess.anat_interfaces import (
    BiasField,
    BrainMask,
    BrainWarp,
    LoadT1w,
    StartAffine,
    Tissue,
    ToTemplate,
)
from boldmill.preprocess.anat_quality import anat_flags, rounded
from boldmill.preprocess.bold_outputs import move
from boldmill.preprocess.config import PreprocessConfig
from boldmill.preprocess.derivatives import sidecar_of
from boldmill.preprocess.images import Dtype, Grid, read_volume
from boldmill.preprocess.nodes import pe, run_workflow
from boldmill.preprocess.picture_interfaces import SaveAnatPictures
from boldmill.preprocess.subject import Job, StepResult
from boldmill.preprocess.transforms import read_affine, read_field, write_affine, write_field

OUTPUTS = (
    *("t1w", "mask", "gm_native", "wm_native", "csf_native", "dseg", "affine", "to_subject", "to_template"),
    *("t1w_template", "gm", "wm", "csf", "jacobian", "brain_mask", "figures", "volumes", "extracted", "zeros", "pictures"),
)


def init_anat_wf(*, settings: PreprocessConfig, template: Mapping[str, Path], grid: Grid, name: str = "anat_wf") -> Any:
    """Build the anatomical workflow.

    Inputs (``inputnode``): ``t1w``, a raw T1w file. Outputs (``outputnode``): :data:`OUTPUTS`.

    Parameters
    ----------
    settings : PreprocessConfig
        Iterations of N4 and SyN.
    template : mapping
        Files ``head``, ``brain_mask``, ``gm``, ``wm``, ``csf`` on one RAS grid.
    grid : Grid
        Output grid in template space.
    name : str
        Name of the workflow.

    Returns
    -------
    nipype.pipeline.engine.Workflow
    """
    files = {key: str(Path(path).resolve()) for key, path in template.items()}
    head = {"head": files["head"], "template_mask": files["brain_mask"]}
    inputs = pe.Node(IdentityInterface(fields=["t1w"]), name="inputnode")
    outputs = pe.Node(IdentityInterface(fields=list(OUTPUTS)), name="outputnode")
    load = pe.Node(LoadT1w(), name="load")
    bias = pe.Node(BiasField(iterations=list(settings.n4_iterations), grid=settings.n4_grid), name="bias")
    start = pe.Node(StartAffine(**head), name="start")
    mask = pe.Node(
        BrainMask(**head, iterations=list(settings.head_syn_iterations), sigma_diff=settings.syn_sigma_diff),
        name="mask",
    )
    warp = pe.Node(
        BrainWarp(**head, iterations=list(settings.brain_syn_iterations), sigma_diff=settings.syn_sigma_diff),
        name="warp",
    )
    tissue = pe.Node(Tissue(**{key: files[key] for key in ("gm", "wm", "csf")}), name="tissue")
    shown = pe.Node(SaveAnatPictures(**head), name="pictures")
    out = pe.Node(ToTemplate(grid_shape=list(grid.shape), grid_affine=grid.affine.tolist()), name="to_template")

    workflow = pe.Workflow(name=name)
    workflow.connect(
        [
            (inputs, load, [("t1w", "in_file")]),
            (load, bias, [("t1w", "t1w")]),
            (bias, start, [("t1w", "t1w")]),
            (load, start, [("extracted", "extracted")]),
            (bias, mask, [("t1w", "t1w")]),
            (load, mask, [("extracted", "extracted")]),
            (start, mask, [("affine", "affine")]),
            (bias, warp, [("t1w", "t1w")]),
            (load, warp, [("extracted", "extracted")]),
            (start, warp, [("affine", "affine")]),
            (mask, warp, [("mask", "mask")]),
            (bias, tissue, [("t1w", "t1w")]),
            (mask, tissue, [("mask", "mask")]),
            (warp, tissue, [("to_template", "to_template")]),
            (bias, out, [("t1w", "t1w")]),
            (mask, out, [("mask", "mask")]),
            (tissue, out, [("gm", "gm"), ("wm", "wm"), ("csf", "csf")]),
            (warp, out, [("to_subject", "to_subject"), ("jacobian", "jacobian")]),
            (bias, shown, [("t1w", "t1w")]),
            (mask, shown, [("mask", "mask")]),
            (tissue, shown, [("gm", "gm"), ("wm", "wm")]),
            (warp, shown, [("to_subject", "to_subject")]),
            (shown, outputs, [("figures", "pictures")]),
            (load, outputs, [("extracted", "extracted"), ("zeros", "zeros")]),
            (bias, outputs, [("t1w", "t1w")]),
            (mask, outputs, [("mask", "mask")]),
            (tissue, outputs, [("gm", "gm_native"), ("wm", "wm_native"), ("csf", "csf_native")]),
            (tissue, outputs, [("dseg", "dseg"), ("volumes", "volumes")]),
            (warp, outputs, [(key, key) for key in ("affine", "to_subject", "to_template", "figures")]),
            (out, outputs, [(k, k) for k in ("t1w_template", "gm", "wm", "csf", "jacobian", "brain_mask")]),
        ]
    )
    return workflow


def process_anat(job: Job, t1w: Path, entities: Mapping[str, str], source: str, work: Path) -> StepResult:
    """Run the anatomical workflow on one T1w and write its derivatives.

    Parameters
    ----------
    job : Job
        What the steps of the subject share.
    t1w : Path
        Raw T1w.
    entities : mapping
        BIDS entities of the output names (``sub``, and ``ses`` where the T1w has one).
    source : str
        Path of the raw T1w relative to the data set, for ``Sources``.
    work : Path
        Scratch folder.

    Returns
    -------
    StepResult
        Files as listed in the architecture notes, quality figures, flags, and ``facts["cost"]``.

    Raises
    ------
    DataFault
        The T1w cannot be used, with its reason.
    """
    workflow = init_anat_wf(settings=job.settings, template=job.template, grid=job.grid)
    workflow.inputs.inputnode.t1w = str(Path(t1w).resolve())
    out, cost = run_workflow(workflow, work)
    mask = read_volume(out["mask"])
    qc: dict[str, Any] = {
        **out["figures"],
        **out["volumes"],
        "mask_ml": float((mask.data > 0.5).sum()) * mask.grid.voxel_ml,
        "brain_extracted_input": bool(out["extracted"]),
        "zero_share": float(out["zeros"]),
        "syn_sigma_diff_set": float(job.settings.syn_sigma_diff),
    }
    flags = anat_flags(qc)
    del qc["syn_sigma_diff_set"]
    files, extra = _write(job, out, entities, [job.derivatives.uri_raw(source)])
    return StepResult(files=files, qc=rounded(qc), flags=flags, extra=extra, facts={"cost": cost})


def _write(
    job: Job, out: Mapping[str, Any], entities: Mapping[str, str], sources: list[str]
) -> tuple[dict[str, Path], list[Path]]:
    """Write images, transforms and sidecars under their BIDS names."""
    d, space = job.derivatives, job.space
    stripped = {"SkullStripped": bool(out["extracted"])}
    reference = {"SpatialReference": {"space": space, "grid": "output grid"}}
    native: list[tuple[str, str, str, dict[str, str], Dtype, dict[str, Any]]] = [
        # key, workflow output, suffix, entities, type, sidecar
        ("t1w", "t1w", "T1w", {"desc": "preproc"}, "float32", stripped),
        ("t1w_mask", "mask", "mask", {"desc": "brain"}, "uint8", {"Type": "Brain"}),
        ("dseg", "dseg", "dseg", {}, "uint8", {"LabelMap": {"CSF": 1, "GM": 2, "WM": 3}}),
    ]
    native += [
        (f"{k}_native", f"{k}_native", "probseg", {"label": k.upper()}, "float32", {}) for k in ("gm", "wm", "csf")
    ]
    standard: list[tuple[str, str, str, dict[str, str], Dtype, dict[str, Any]]] = [
        ("t1w_template", "t1w_template", "T1w", {"desc": "preproc"}, "float32", stripped),
        ("brain_mask", "brain_mask", "mask", {"desc": "brain"}, "uint8", {"Type": "Brain"}),
        ("jacobian", "jacobian", "T1w", {"desc": "jacobian"}, "float32", {
            "Description": "volume change from template to T1w, affine included; below 0: folded"}),
    ]  # fmt: skip
    standard += [(k, k, "probseg", {"label": k.upper()}, "float32", {}) for k in ("gm", "wm", "csf")]
    files: dict[str, Path] = {}
    for in_template, rows in ((False, native), (True, standard)):
        for key, name, suffix, more, kind, fields in rows:
            where = {"space": space} if in_template else {}
            volume = read_volume(out[name])
            path = d.path(entities, "anat", suffix, **where, **more)
            fields = {**fields, **(reference if in_template else {})}
            files[key] = d.image(
                path, volume.data, volume.affine, sources=sources, dtype=kind, template=in_template, **fields
            )
    for key, frm, to in (("to_subject", "T1w", space), ("to_template", space, "T1w")):
        path = d.path(entities, "anat", "xfm", from_=frm, to=to, mode="image")
        files[key] = write_field(path, read_field(out[key]), template=key == "to_subject")
        d.sidecar(path, sources=sources, Description=f"displacements in mm (RAS) that resample {frm} images to {to}")
    path = d.path(entities, "anat", "xfm", ".txt", from_="T1w", to=space, mode="image", desc="affine")
    files["affine"] = write_affine(path, read_affine(out["affine"]))
    d.sidecar(path, sources=sources, Description=f"4x4 matrix, {space} world to T1w world, mm, RAS")
    extra = [sidecar_of(path) for path in files.values()]
    files["figures"] = Layout.at(d.results).figures(d.dataset, f"sub-{entities['sub']}_anat")
    move(Path(out["pictures"]), files["figures"])
    return files, extra
