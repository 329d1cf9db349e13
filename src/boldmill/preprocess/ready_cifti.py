"""Ready-made cortex: grayordinates (CIFTI) and surface pairs, carried from fsLR to fsaverage5, and cleaned.

Axes: T time, V vertices.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.index.cifti_header import CORTEX
from boldmill.preprocess.bold import repetition_time
from boldmill.preprocess.imagefaults import reading
from boldmill.preprocess.ready import CORTEX as CORTEX_SPACE
from boldmill.preprocess.ready import about, clean_ready, publish_cortex, publish_table
from boldmill.preprocess.series_io import read_surface
from boldmill.preprocess.subject import Job, StepResult

Array = NDArray[Any]
FSLR_VERTICES = 32492
HOW = "adaptive barycentric weights on the fsaverage sphere (TemplateFlow fsLR 32k registered to fsaverage)"


def process_cortex(job: Job, ticket: Mapping[str, Any]) -> StepResult:
    """Bring one ready-made cortical run (kind ``cifti`` or ``surface``) to a cleaned fsaverage5 pair.

    Returns
    -------
    StepResult
        ``files``: clean_lh, clean_rh, and confounds where the run has a motion table. ``facts``: kind (``surface``),
        tr, n_volumes, space.

    Raises
    ------
    DataFault
        Not fsLR 91k or fsaverage5, a constant hemisphere, or a run that cannot be cleaned.
    MachineFault
        The spheres that carry fsLR to fsaverage are missing.
    """
    scan, root, files = str(ticket["scan_id"]), Path(ticket["root"]), ticket["files"]
    tr = repetition_time(ticket["metadata"], scan)
    if ticket["kind"] == "cifti":
        halves, used = read_cifti(root / files["dtseries"]["path"])
    else:
        halves = [read_surface(root / files[side]["path"]) for side in ("left", "right")]
        used = [np.isfinite(half).all(axis=0) & (np.ptp(np.nan_to_num(half), axis=0) > 0) for half in halves]
    if len({len(half) for half in halves}) != 1:
        why = f"{len(halves[0])} volumes on the left, {len(halves[1])} on the right"
        raise DataFault("cannot use cortex", scan, why, "restore the shorter file")
    how, sources = "none: the series is on fsaverage5", []
    if ticket["space"] == "fsLR":
        how, paths = HOW, sphere_files()
        sources = [path.name for path in paths]
        halves = [carry(half, mask, side) for half, mask, side in zip(halves, used, "LR", strict=True)]
    for half, side in zip(halves, ("left", "right"), strict=True):
        if not (np.ptp(np.nan_to_num(half), axis=0) > 0).any():
            raise DataFault("cannot use cortex", scan, f"the {side} hemisphere is constant", "restore the file")
    series = np.concatenate(halves, axis=1).astype(np.float32, copy=False)
    live = np.isfinite(series).all(axis=0) & (np.ptp(np.nan_to_num(series), axis=0) > 0)
    cleaned = clean_ready(job, ticket, series, tr)
    fields = about(ticket, tr, Resampling=how, ResamplingFiles=sources or None, **cleaned.fields)
    made, extra = publish_cortex(job, ticket, cleaned.series, tr, fields)
    if cleaned.table is not None:
        made["confounds"], json = publish_table(job, ticket, cleaned.table)
        extra.append(json)
    facts = {"kind": "surface", "source_kind": ticket["kind"], "layout": ticket["layout"]}
    facts |= {"tr": tr, "n_volumes": len(series), "space": CORTEX_SPACE}
    qc = {**cleaned.qc, "live_vertices": float(live.mean())}
    flags = cleaned.flags + ([f"carried from fsLR: {HOW}"] if sources else [])
    return StepResult(files=made, qc=qc, flags=flags, extra=extra, facts=facts)


def read_cifti(path: Path) -> tuple[list[Array], list[NDArray[np.bool_]]]:
    """Return both cortices of a dense series (T, 32,492 each), zero where a vertex has no data, and where it has.

    Raises
    ------
    DataFault
        Not a CIFTI series, or not on the fsLR 32k mesh.
    """
    import nibabel

    fix = "give the 91k series (.dtseries.nii) of the pipeline"
    try:
        with reading(path, "grayordinates"):
            image: Any = nibabel.load(path)
        axis = image.header.get_axis(1)
        structures = {name: (part, model) for name, part, model in axis.iter_structures()}
    except (ValueError, AttributeError) as error:
        raise DataFault("cannot read grayordinates", path, " ".join(str(error).split()), fix) from error
    halves, used = [], []
    for name in CORTEX:
        if name not in structures or structures[name][1].nvertices[name] != FSLR_VERTICES:
            raise DataFault("cannot read grayordinates", path, f"{name} is not on the fsLR 32k mesh", fix)
        part, model = structures[name]
        half = np.zeros((image.shape[0], FSLR_VERTICES), np.float32)
        half[:, model.vertex] = np.asarray(image.dataobj[:, part], np.float32)
        mask = np.zeros(FSLR_VERTICES, bool)
        mask[model.vertex] = True
        halves.append(half)
        used.append(mask)
    return halves, used


def sphere_files() -> list[Path]:
    """Return TemplateFlow's fsLR spheres registered to fsaverage, left and right.

    Raises
    ------
    MachineFault
        A file is missing; the message says how to fetch it.
    """
    from boldmill.spaces.flow import flow_file

    wanted = {"space": "fsaverage", "density": "32k", "suffix": "sphere", "extension": ".surf.gii"}
    return [flow_file("fsLR", hemi=side, **wanted) for side in "LR"]


def carry(half: Array, used: NDArray[np.bool_], side: str) -> Array:
    """Return a hemisphere's series (T, 10,242) on fsaverage5, 0 where there are no data.

    Parameters
    ----------
    half : array (T, 32,492)
    used : (32,492,) array of bool
        Vertices with data.
    side : {"L", "R"}
    """
    operator = _operator(side, used.tobytes())
    return np.ascontiguousarray((operator @ np.nan_to_num(half).T).T.astype(np.float32))


@lru_cache(maxsize=8)
def _operator(side: str, used: bytes) -> Any:
    from boldmill.spaces.spheres import adaptive
    from boldmill.spaces.surfaces import fsaverage5
    from boldmill.spaces.surfaces import read_surface as read_mesh

    path = sphere_files()["LR".index(side)]
    there = read_mesh(path, name=f"fsLR32k.{side}.sphere", space="sphere", source="templateflow")
    here = fsaverage5("sphere", side)
    mask = np.frombuffer(used, dtype=bool)
    return adaptive(there.coords, there.faces, here.coords, here.faces, mask).astype(np.float32)
