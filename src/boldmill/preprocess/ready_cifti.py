"""Ready-made cortex: grayordinates (CIFTI) and surface pairs, cleaned on the mesh they come on.

Axes: T time, V vertices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.index.cifti_header import CORTEX
from boldmill.preprocess.bold import repetition_time
from boldmill.preprocess.imagefaults import reading
from boldmill.preprocess.ready import about, clean_ready, publish_cortex, publish_table
from boldmill.preprocess.series_io import read_surface
from boldmill.preprocess.subject import Job, StepResult
from boldmill.spaces.meshes import N_VERTICES

Array = NDArray[Any]


def process_cortex(job: Job, ticket: Mapping[str, Any]) -> StepResult:
    """Bring one ready-made cortical run (kind ``cifti`` or ``surface``) to a cleaned pair on its own mesh.

    Returns
    -------
    StepResult
        ``files``: clean_lh, clean_rh, and confounds where the run has a motion table. ``facts``: kind (``surface``),
        tr, n_volumes, space (``fsLR`` or ``fsaverage5``).

    Raises
    ------
    DataFault
        Not fsLR 91k or fsaverage5, a constant hemisphere, or a run that cannot be cleaned.
    """
    scan, root, files = str(ticket["scan_id"]), Path(ticket["root"]), ticket["files"]
    tr = repetition_time(ticket["metadata"], scan)
    if ticket["kind"] == "cifti":
        halves = read_cifti(root / files["dtseries"]["path"])
    else:
        halves = [read_surface(root / files[side]["path"]) for side in ("left", "right")]
    if len({len(half) for half in halves}) != 1:
        why = f"{len(halves[0])} volumes on the left, {len(halves[1])} on the right"
        raise DataFault("cannot use cortex", scan, why, "restore the shorter file")
    for half, side in zip(halves, ("left", "right"), strict=True):
        if not (np.ptp(np.nan_to_num(half), axis=0) > 0).any():
            raise DataFault("cannot use cortex", scan, f"the {side} hemisphere is constant", "restore the file")
    series = np.concatenate(halves, axis=1).astype(np.float32, copy=False)
    live = np.isfinite(series).all(axis=0) & (np.ptp(np.nan_to_num(series), axis=0) > 0)
    cleaned = clean_ready(job, ticket, series, tr)
    fields = about(ticket, tr, **cleaned.fields)
    made, extra = publish_cortex(job, ticket, cleaned.series, tr, fields, ticket["space"])
    if cleaned.table is not None:
        made["confounds"], json = publish_table(job, ticket, cleaned.table)
        extra.append(json)
    facts = {"kind": "surface", "source_kind": ticket["kind"], "layout": ticket["layout"]}
    facts |= {"tr": tr, "n_volumes": len(series), "space": ticket["space"]}
    qc = {**cleaned.qc, "live_vertices": float(live.mean())}
    return StepResult(files=made, qc=qc, flags=cleaned.flags, extra=extra, facts=facts)


def read_cifti(path: Path) -> list[Array]:
    """Return both cortices of a dense series (T, 32,492 each), zero where a vertex has no data.

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
    halves = []
    for name in CORTEX:
        if name not in structures or structures[name][1].nvertices[name] != N_VERTICES["fsLR"]:
            raise DataFault("cannot read grayordinates", path, f"{name} is not on the fsLR 32k mesh", fix)
        part, model = structures[name]
        half = np.zeros((image.shape[0], N_VERTICES["fsLR"]), np.float32)
        try:
            with reading(path, "grayordinates"):
                half[:, model.vertex] = np.asarray(image.dataobj[:, part], np.float32)
        except ValueError as error:  # nibabel: fewer bytes than the header says
            why = f"the file is truncated ({' '.join(str(error).split())})"
            raise DataFault("cannot read grayordinates", path, why, "replace the file with an intact copy") from error
        halves.append(half)
    return halves
