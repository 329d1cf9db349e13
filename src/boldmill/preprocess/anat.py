"""The anatomical workflow: raw T1w to bias-corrected T1w, brain mask, tissue maps and the warps to the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface

from boldmill.preprocess import engines
from boldmill.preprocess.anat_interfaces import LoadT1w, StartAffine, ToTemplate
from boldmill.preprocess.anat_outputs import write_anat
from boldmill.preprocess.anat_quality import anat_flags, further_flags, rounded
from boldmill.preprocess.config import PreprocessConfig
from boldmill.preprocess.imagefaults import form_flags
from boldmill.preprocess.images import Grid, read_volume
from boldmill.preprocess.merge import MergeT1w, merge_flags
from boldmill.preprocess.nodes import pe, run_workflow
from boldmill.preprocess.picture_interfaces import SaveAnatPictures
from boldmill.preprocess.scanquality import anat_quality
from boldmill.preprocess.subject import Job, StepResult

STEPS = ("denoise", "n4", "brain_mask", "normalise", "tissue")
"""Steps of ``preprocess.engines`` that belong to the anatomy."""
OUTPUTS = (
    *("t1w", "mask", "gm_native", "wm_native", "csf_native", "dseg", "affine", "to_subject", "to_template"),
    *("t1w_template", "gm", "wm", "csf", "jacobian", "brain_mask", "figures", "volumes", "extracted", "zeros"),
    "pictures",
)
FURTHER = ("to_subject", "to_template", "figures", "t1w_template", "gm", "wm", "csf", "jacobian", "brain_mask")
"""Outputs of each further template, as ``<key>_<space>``."""
SETTINGS = (
    *("denoise", "t1w", "n4_iterations", "n4_grid", "head_syn_iterations", "brain_syn_iterations", "syn_sigma_diff"),
    "deterministic",
)
"""Settings the anatomy depends on: a change of another one does not redo it."""


def anat_settings(job: Job) -> dict[str, Any]:
    """Return what the anatomy depends on beyond its images: settings, engines of its steps, further templates."""
    values = job.settings.model_dump(mode="json")
    return {
        **{key: values[key] for key in SETTINGS},
        "engines": {step: values["engines"][step] for step in STEPS},
        "others": sorted(job.others),
    }


def t1w_of(entries: Sequence[Mapping[str, Any]], mode: str) -> list[Mapping[str, Any]]:
    """Return the T1w entries of a ticket to use: the first, or (``merge``) all that differ in content."""
    from boldmill.preprocess.raw import identity

    different: dict[str, Mapping[str, Any]] = {}
    for entry in entries[:1] if mode == "first" else entries:
        different.setdefault(identity(entry), entry)
    return list(different.values())


def init_anat_wf(
    *,
    settings: PreprocessConfig,
    template: Mapping[str, Path],
    grid: Grid,
    key: Sequence[str] = (),
    names: Sequence[str] = ("T1w",),
    others: Mapping[str, Mapping[str, Path]] | None = None,
    name: str = "anat_wf",
) -> Any:
    """Build the anatomical workflow.

    Inputs (``inputnode``): ``t1w``, a list of raw T1w files. Outputs (``outputnode``): :data:`OUTPUTS`, for each
    further template those of :data:`FURTHER` as ``<key>_<space>``, and ``merged`` where there are several T1w.

    Parameters
    ----------
    settings : PreprocessConfig
        Engines; iterations of N4 and SyN.
    template : mapping
        Files ``head``, ``brain_mask``, ``gm``, ``wm``, ``csf`` on one RAS grid.
    grid : Grid
        Output grid in template space.
    key : sequence of str
        Key of the random choices (image and seed).
    names : sequence of str
        One per T1w; with more than one they are merged first.
    others : mapping
        Files ``brain`` and ``brain_mask`` of further templates by space.
    name : str
        Name of the workflow.

    Returns
    -------
    nipype.pipeline.engine.Workflow
    """
    files = {k: str(Path(path).resolve()) for k, path in template.items()}
    head = {"head": files["head"], "template_mask": files["brain_mask"]}
    use, others = settings.engines, others or {}
    syn = {"iterations": list(settings.brain_syn_iterations), "sigma_diff": settings.syn_sigma_diff}
    inputs = pe.Node(IdentityInterface(fields=["t1w"]), name="inputnode")
    fields = [*OUTPUTS, *(f"{k}_{space}" for space in others for k in FURTHER), *(["merged"] if len(names) > 1 else [])]
    outputs = pe.Node(IdentityInterface(fields=fields), name="outputnode")
    load = pe.Node(LoadT1w(), name="load")
    bias = engines.node("n4", use.n4, "bias", iterations=list(settings.n4_iterations), grid=settings.n4_grid)
    start = pe.Node(StartAffine(**head), name="start")
    mask = engines.node(
        "brain_mask", use.brain_mask, "mask", **head,
        iterations=list(settings.head_syn_iterations), sigma_diff=settings.syn_sigma_diff,
    )  # fmt: skip
    warp = engines.node("normalise", use.normalise, "warp", **head, **syn)
    tissue = engines.node("tissue", use.tissue, "tissue", key=list(key), **{k: files[k] for k in ("gm", "wm", "csf")})
    out = pe.Node(ToTemplate(grid_shape=list(grid.shape), grid_affine=grid.affine.tolist()), name="to_template")
    shown = pe.Node(SaveAnatPictures(**head), name="pictures")

    workflow = pe.Workflow(name=name)
    if len(names) > 1:
        merged = pe.Node(MergeT1w(names=list(names)), name="merge")
        workflow.connect([(inputs, merged, [("t1w", "in_files")]), (merged, load, [("t1w", "in_file")])])
        workflow.connect([(merged, outputs, [("about", "merged")])])
    else:
        workflow.connect([(inputs, load, [(("t1w", _only), "in_file")])])
    if settings.denoise:
        clean = engines.node("denoise", use.denoise, "denoise")
        workflow.connect([(load, clean, [("t1w", "t1w")]), (clean, bias, [("t1w", "t1w")])])
    else:
        workflow.connect([(load, bias, [("t1w", "t1w")])])
    workflow.connect(
        [
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
            (warp, outputs, [(k, k) for k in ("affine", "to_subject", "to_template", "figures")]),
            (out, outputs, [(k, k) for k in ("t1w_template", "gm", "wm", "csf", "jacobian", "brain_mask")]),
        ]
    )
    for number, (space, paths) in enumerate(sorted(others.items()), start=1):
        _add_template(workflow, space, paths, f"_{number}", use.normalise, syn)
    return workflow


def _only(paths: list[str]) -> str:
    """The one file of a list (nipype runs this in a connection)."""
    return paths[0]


def _add_template(
    workflow: Any, space: str, paths: Mapping[str, Path], label: str, engine: str, syn: Mapping[str, Any]
) -> None:
    """Register the brain with one more template, starting from the first template's affine, and resample to it."""
    brain, inside = (str(Path(paths[k]).resolve()) for k in ("brain", "brain_mask"))
    grid = read_volume(inside).grid
    warp = engines.node("normalise", engine, f"warp{label}", head=brain, template_mask=inside, extracted=False, **syn)
    out = pe.Node(ToTemplate(grid_shape=list(grid.shape), grid_affine=grid.affine.tolist()), name=f"to_template{label}")
    bias, mask, first, tissue, outputs = (
        workflow.get_node(name) for name in ("bias", "mask", "warp", "tissue", "outputnode")
    )
    workflow.connect(
        [
            (bias, warp, [("t1w", "t1w")]),
            (mask, warp, [("mask", "mask")]),
            (first, warp, [("affine", "affine")]),
            (bias, out, [("t1w", "t1w")]),
            (mask, out, [("mask", "mask")]),
            (tissue, out, [("gm", "gm"), ("wm", "wm"), ("csf", "csf")]),
            (warp, out, [("to_subject", "to_subject"), ("jacobian", "jacobian")]),
            (warp, outputs, [(k, f"{k}_{space}") for k in ("to_subject", "to_template", "figures")]),
            (out, outputs, [(k, f"{k}_{space}") for k in FURTHER[3:]]),
        ]
    )


def process_anat(
    job: Job,
    t1w: Path | Sequence[Path],
    entities: Mapping[str, str],
    source: str | Sequence[str],
    work: Path,
) -> StepResult:
    """Run the anatomical workflow on the T1w of one session and write its derivatives.

    Parameters
    ----------
    job : Job
        What the steps of the subject share.
    t1w : Path, or sequence of Path
        Raw T1w, the preferred one first; several are merged.
    entities : mapping
        BIDS entities of the output names (``sub``, and ``ses`` where the T1w has one).
    source : str, or sequence of str
        Their paths relative to the data set, for ``Sources``.
    work : Path
        Scratch folder.

    Returns
    -------
    StepResult
        Files as listed in the architecture notes, quality figures, flags, and ``facts``: ``cost``, ``engines``.

    Raises
    ------
    DataFault
        The T1w cannot be used, with its reason.
    """
    paths = [t1w] if isinstance(t1w, Path) else list(t1w)
    sources = [source] if isinstance(source, str) else list(source)
    workflow = init_anat_wf(
        settings=job.settings,
        template=job.template,
        grid=job.grid,
        key=(job.derivatives.dataset, sources[0], str(job.seed)),
        names=sources,
        others=job.others,
    )
    workflow.inputs.inputnode.t1w = [str(Path(path).resolve()) for path in paths]
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
    qc |= anat_quality(out["t1w"], out["mask"], {name: out[f"{name}_native"] for name in ("gm", "wm", "csf")})
    merged = out.get("merged", [])
    flags = anat_flags(qc) + merge_flags(merged) + [flag for path in paths for flag in form_flags(path, "T1w image")]
    del qc["syn_sigma_diff_set"]
    for space in sorted(job.others):
        further = out[f"figures_{space}"]
        qc.update({f"{k}_{space}": further[k] for k in ("template_correlation", "template_mask_dice", "jacobian_min")})
        flags += further_flags(space, further)
    if merged:
        qc["t1w_merged"] = 1 + sum(entry["used"] for entry in merged)
        qc["t1w_least_correlation"] = min(entry["correlation"] for entry in merged)
    left = {entry["name"] for entry in merged if not entry["used"]}
    uris = [job.derivatives.uri_raw(path) for path in sources if path not in left]
    files, extra = write_anat(job, out, entities, uris)
    used = engines.described(job.settings.engines, STEPS if job.settings.denoise else STEPS[1:])
    facts = {"cost": cost, "engines": used, "sources": uris}
    return StepResult(files=files, qc=rounded(qc), flags=flags, extra=extra, facts=facts)
