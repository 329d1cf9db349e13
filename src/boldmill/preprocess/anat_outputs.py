"""Images, transforms and sidecars of the anatomy under their BIDS-Derivatives names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boldmill.preprocess.derivatives import sidecar_of
from boldmill.preprocess.images import Dtype, read_volume
from boldmill.preprocess.subject import Job
from boldmill.preprocess.transforms import read_affine, read_field, write_affine, write_field

Row = tuple[str, str, str, dict[str, str], Dtype, dict[str, Any]]
"""Manifest key, workflow output, BIDS suffix, entities, type on disk, sidecar."""


def write_anat(
    job: Job, out: Mapping[str, Any], entities: Mapping[str, str], sources: list[str]
) -> tuple[dict[str, Path], list[Path]]:
    """Write images, transforms and sidecars; return them by the manifest's keys, and the sidecars."""
    d = job.derivatives
    stripped = {"SkullStripped": bool(out["extracted"])}
    native: list[Row] = [
        ("t1w", "t1w", "T1w", {"desc": "preproc"}, "float32", stripped),
        ("t1w_mask", "mask", "mask", {"desc": "brain"}, "uint8", {"Type": "Brain"}),
        ("dseg", "dseg", "dseg", {}, "uint8", {"LabelMap": {"CSF": 1, "GM": 2, "WM": 3}}),
    ]
    native += [
        (f"{k}_native", f"{k}_native", "probseg", {"label": k.upper()}, "float32", {}) for k in ("gm", "wm", "csf")
    ]
    files: dict[str, Path] = {}
    plan = [("", "", row) for row in native]
    plan += [(job.space, "output grid", row) for row in _standard(stripped, "")]
    for other in sorted(job.others):
        plan += [(other, "grid of the template", row) for row in _standard(stripped, f"_{other}")]
    for space, grid, (key, name, suffix, more, kind, fields) in plan:
        volume = read_volume(out[name])
        where = {"space": space} if space else {}
        reference: dict[str, Any] = {"SpatialReference": {"space": space, "grid": grid}} if space else {}
        files[key] = d.image(
            d.path(entities, "anat", suffix, **where, **more), volume.data, volume.affine,
            sources=sources, dtype=kind, template=bool(space), **fields, **reference,
        )  # fmt: skip
    for space, ending in [(job.space, ""), *((other, f"_{other}") for other in sorted(job.others))]:
        for key, frm, to in (("to_subject", "T1w", space), ("to_template", space, "T1w")):
            path = d.path(entities, "anat", "xfm", from_=frm, to=to, mode="image")
            files[f"{key}{ending}"] = write_field(path, read_field(out[f"{key}{ending}"]), template=key == "to_subject")
            words = f"displacements in mm (RAS) that resample {frm} images to {to}"
            d.sidecar(path, sources=sources, Description=words)
    path = d.path(entities, "anat", "xfm", ".txt", from_="T1w", to=job.space, mode="image", desc="affine")
    files["affine"] = write_affine(path, read_affine(out["affine"]))
    d.sidecar(path, sources=sources, Description=f"4x4 matrix, {job.space} world to T1w world, mm, RAS")
    return files, [sidecar_of(path) for path in files.values()]


def _standard(stripped: dict[str, Any], ending: str) -> list[Row]:
    """Images in a template's space; ``ending`` marks those of a further template."""
    rows: list[Row] = [
        ("t1w_template", "t1w_template", "T1w", {"desc": "preproc"}, "float32", stripped),
        ("brain_mask", "brain_mask", "mask", {"desc": "brain"}, "uint8", {"Type": "Brain"}),
        ("jacobian", "jacobian", "T1w", {"desc": "jacobian"}, "float32", {
            "Description": "volume change from template to T1w, affine included; below 0: folded"}),
    ]  # fmt: skip
    rows += [(k, k, "probseg", {"label": k.upper()}, "float32", {}) for k in ("gm", "wm", "csf")]
    return [(f"{key}{ending}", f"{name}{ending}", *rest) for key, name, *rest in rows]  # type: ignore[misc]
