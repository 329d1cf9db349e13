"""Checks of ready-made data that need no image data, and the ticket of a run.

The repetition time is that of the sidecar, else of another form of the run, else of the header: ready-made headers are
written by pipelines, which know it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boldmill.errors import DataFault
from boldmill.index.checks import (
    FSLR_VERTICES,
    check_cifti,
    check_shape,
    check_surface,
    check_volumes,
    repetition_time,
)
from boldmill.index.ready_files import Choice, Ready
from boldmill.index.sidecars import shareable

if TYPE_CHECKING:
    from boldmill.index.evaluate import Evaluator
    from boldmill.index.scans import Scan

VERTICES = {"fsaverage5": 10242, "fsLR": FSLR_VERTICES}
SERIES_ROLES = {"volume": ("bold",), "surface": ("left", "right"), "cifti": ("dtseries",), "parcels": ("timeseries",)}
"""Form -> roles of its series in the ticket's ``files``."""


def evaluate_ready(evaluator: Evaluator, scan: Scan, choice: Choice) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the index row holds beyond identity, and the content part of the ticket.

    Raises
    ------
    DataFault
        The run fails a check.
    """
    one = choice.taken
    n_volumes = check_volumes(_volumes(evaluator, one), one.path, evaluator.settings.min_volumes)
    metadata, used = evaluator.sidecars.resolve(one.files[0])
    if len(one.files) > 1:
        other, more = evaluator.sidecars.resolve(one.files[1])
        if metadata.get("RepetitionTime") != other.get("RepetitionTime"):
            raise DataFault("hemispheres differ", one.path, "their sidecars differ", "give both the same sidecar")
        used = sorted({*used, *more})
    tr, remarks = _repetition_time(evaluator, choice, metadata)
    _check_rows(evaluator, one, n_volumes)
    ticket = evaluator.ticket(one.files, [], scan.confounds, {}, used)
    series = dict(zip(SERIES_ROLES[one.form], one.files, strict=True))
    ticket |= {
        "layout": choice.layout,
        "stage": one.stage,
        "space": one.space,
        "files": {role: evaluator.entry(file) for role, file in {**series, **one.roles}.items()},
        "metadata": {**_plain(metadata), "RepetitionTime": tr},
    }
    if one.form == "parcels":
        label = one.files[0].entities.get
        ticket["atlas"] = label("atlas") or label("seg") or ""
    return {"tr": tr, "n_volumes": n_volumes, "flags": scan.flags + remarks}, ticket


def _volumes(evaluator: Evaluator, one: Ready) -> int:
    facts = [evaluator.sound(file) for file in one.files]
    if one.form == "volume":
        if "mask" in one.roles:
            mask = evaluator.sound(one.roles["mask"]).shape
            if tuple(mask[:3]) != tuple(facts[0].shape[:3]):
                why = f"the mask has {mask[:3]} voxels, the series {facts[0].shape[:3]}"
                raise DataFault("mask does not fit", one.roles["mask"].path, why, "restore the mask of this series")
        if not facts[0].oriented:
            raise DataFault(
                "no orientation", one.path, "its header does not say where the template lies", "restore the file"
            )
        return check_shape(facts[0].shape, one.path, 2)
    if one.form == "cifti":
        return check_cifti(facts[0].shape, one.path)
    if one.form == "surface":
        return check_surface(facts[0].shape, facts[1].shape, one.path, VERTICES[one.space], one.space)
    return facts[0].shape[0]


def _repetition_time(evaluator: Evaluator, choice: Choice, metadata: dict[str, Any]) -> tuple[float, list[str]]:
    one = choice.taken
    accepted = evaluator.settings.tr_range
    header = evaluator.facts_of(one.files[0]).header_tr
    if metadata.get("RepetitionTime") is not None:
        return repetition_time(metadata, header, one.path, accepted)
    for other in choice.others:
        found, _ = evaluator.sidecars.resolve(other.files[0])
        if found.get("RepetitionTime") is not None:
            tr, flags = repetition_time(found, header, one.path, accepted)
            return tr, [*flags, f"repetition time from the sidecar of {other.path}"]
    if header and one.form in ("volume", "cifti"):
        tr, _ = repetition_time({"RepetitionTime": header}, header, one.path, accepted)
        return tr, [f"repetition time {tr:g} s from the header"]
    return repetition_time({}, header, one.path, accepted)


def _check_rows(evaluator: Evaluator, one: Ready, n_volumes: int) -> None:
    """Refuse tables of another length; a censored series may have fewer volumes than its motion tables have rows."""
    for role, file in sorted(one.roles.items()):
        if role not in ("confounds", "motion", "outliers"):
            continue
        rows = evaluator.sound(file).shape[0]
        fits = rows == n_volumes or (one.stage == "parcellate" and rows > n_volumes)
        if not fits:
            why = f"{rows} rows for {n_volumes} volumes"
            raise DataFault(f"{role} do not fit", file.path, why, "restore the table")


def _plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what a ticket keeps of a derivative's sidecar: single values, no paths of another machine."""
    kept = {}
    for key, value in shareable(metadata).items():
        if isinstance(value, (bool, int, float)) or (isinstance(value, str) and "/" not in value):
            kept[key] = value
    return kept
