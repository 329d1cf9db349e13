"""The workflow of one BOLD run, raw to cleaned on the template grid: which steps there are and what feeds what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.images import Grid
from boldmill.preprocess.slicetiming import SliceTimes

MIN_VOLUMES = 10
STEPS = ("motion", "distortion", "coreg", "resample", "confounds", "clean")
"""Steps that leave facts and flags."""
FIT = ("motion", "distortion", "coregister")
"""Nodes whose results are remembered: they do not depend on grids, cleaning or what is kept."""


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
