"""Further output spaces of a run: which there are, their grids, and the series before cleaning in each.

``SPACE[:res-N]`` with N in mm: the template space (another resolution), a further template the anatomy was registered
to, ``T1w``, ``boldref`` (the run's own grid, realigned) or ``fsaverage5`` (sampled in the ribbon from the template
space: a second interpolation, which its sidecar says).

Axes: X Y Z voxels, T time, N voxels of the BOLD mask in C order, V vertices, D depths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boldmill.errors import ConfigError, nearest
from boldmill.preprocess.images import Grid, read_volume
from boldmill.preprocess.space_names import OWN, Space, parse_space
from boldmill.preprocess.subject import Job

if TYPE_CHECKING:
    from boldmill.preprocess.bold import AnatInputs

DEPTHS = 5
"""Depths between white and pial surface at which fsaverage5 is sampled."""
MIN_WEIGHT = 0.5
"""A vertex is covered where at least this share of its samples lies inside the mask."""


def spaces_of(texts: Iterable[str], template: str, others: Iterable[str]) -> list[Space]:
    """Return the asked spaces, each once; the template space itself on its own grid is not a further one.

    Raises
    ------
    ConfigError
        A space that is none of this subject's, with the nearest that is.
    """
    known = [template, *sorted(others), *OWN]
    spaces = list(dict.fromkeys(parse_space(text) for text in texts))
    for space in spaces:
        if space.name not in known:
            why = f"known are {', '.join(known)}{nearest(space.name, known)}"
            where = f"preprocess.output_spaces: {space.name}"
            raise ConfigError("unknown output space", where, why, "use one of them")
    if "fsaverage5" in (space.name for space in spaces):
        from boldmill.spaces.moves import MNI305, path_between

        path_between(MNI305, template)
    return spaces


def further_grids(job: Job, anat: AnatInputs) -> list[dict[str, Any]]:
    """Return label, shape, affine and field (empty in T1w space) of every further volume grid, for the workflow."""
    found: list[dict[str, Any]] = []
    for space in spaces_of(job.settings.output_spaces, job.space, job.others):
        if space.name in ("boldref", "fsaverage5") or space == Space(job.space, None):
            continue
        zoom = float(space.res or job.grid.zooms[0])
        field = ""
        if space.name == "T1w":
            grid = _around(anat.t1w_mask, zoom)
        elif space.name == job.space:
            grid, field = _around(job.template["brain_mask"], zoom), str(anat.field)
        else:
            grid, field = _around(job.others[space.name]["brain_mask"], zoom), str(anat.other_fields[space.name])
        found.append({"label": space.label, "shape": list(grid.shape), "affine": grid.affine.tolist(), "field": field})
    return found


def _around(mask: Path, zoom: float) -> Grid:
    """Return the RAS grid around a brain mask; the mask's own where its voxels have that size already."""
    from boldmill.spaces.grid import covering_grid

    image = read_volume(mask)
    if np.allclose(image.affine[:3, :3], np.eye(3) * zoom, atol=1e-3):
        return image.grid
    affine, shape = covering_grid(image.data > 0.5, image.affine, zoom)
    return Grid(shape, affine)


def on_fsaverage5(rows: Iterable[Any], mask: Any, affine: Any, space: str) -> tuple[Any, Any]:
    """Sample a masked template-space series at the vertices of fsaverage5, over the depth of the cortical ribbon.

    Parameters
    ----------
    rows : iterable of arrays (N,)
        Volumes in order.
    mask : bool array (X, Y, Z)
        BOLD mask; samples outside it do not count.
    affine : array (4, 4)
        Voxel to world of the mask.
    space : str
        The template space.

    Returns
    -------
    series : array (T, V)
        float32, left hemisphere first; 0 where a vertex is not covered.
    covered : bool array (V,)
    """
    from boldmill.represent.operators import trilinear
    from boldmill.spaces.ribbon import ribbon_points

    operator = trilinear(ribbon_points(space, DEPTHS), affine, mask.shape)
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(int(mask.sum()))
    columns = number.ravel(order="F")  # of the operator, which numbers voxels i fastest
    used = np.flatnonzero(columns >= 0)
    inner = operator[:, used]
    weight = np.asarray(inner.sum(axis=1)).ravel()
    covered = weight >= MIN_WEIGHT
    share = np.where(covered, 1.0 / np.where(covered, weight, 1.0), 0.0).astype(np.float32)
    order = columns[used]
    return np.stack([(inner @ row[order]) * share for row in rows]).astype(np.float32), covered


def publish_spaces(
    job: Job,
    ticket: Mapping[str, Any],
    anat: AnatInputs,
    made: Mapping[str, Any],
    further: Mapping[str, Mapping[str, str]],
    fields: Mapping[str, Any],
) -> tuple[dict[str, Path], list[Path]]:
    """Write the series before cleaning in every further space, with mask and mean image.

    Parameters
    ----------
    job, ticket, anat
        Of the run.
    made : mapping
        Results of the workflow (scratch).
    further : mapping
        Its series, mask and boldref by label.
    fields : mapping
        Sidecar keys of a series.

    Returns
    -------
    files : dict
        ``preproc_<label>``, ``mask_<label>``, ``boldref_<label>``; surfaces ``preproc_fsaverage5_L`` and ``_R``.
    extra : list of Path
        Sidecars.
    """
    from boldmill.preprocess.bold_outputs import move
    from boldmill.preprocess.series_io import rows_of, write_masked_series, write_surface

    d, entities, tr = job.derivatives, ticket["entities"], float(fields["RepetitionTime"])
    sources = [d.uri_raw(entry["path"]) for entry in ticket["bold"]]
    files: dict[str, Path] = {}
    extra: list[Path] = []
    native = {"series": made["native"], "mask": made["native_mask"], "boldref": made["boldref_native"]}
    for space in spaces_of(job.settings.output_spaces, job.space, job.others):
        if space == Space(job.space, None):
            continue
        if space.name == "fsaverage5":
            image = read_volume(made["mask"])
            series, covered = on_fsaverage5(rows_of(made["preproc"]), image.data > 0.5, image.affine, job.space)
            said = {**fields, "CoveredVertices": float(covered.mean()), "Interpolations": [ONCE, RIBBON]}
            for side, half in zip("LR", np.split(series, 2, axis=1), strict=True):
                path = d.path(entities, "func", "bold", ".func.gii", hemi=side, space=space.name, desc="preproc")
                files[f"preproc_fsaverage5_{side}"] = write_surface(path, half, side, tr, {"Space": space.name})
                extra.append(d.sidecar(path, sources=sources, **said))
            continue
        name: dict[str, str] = {"space": space.name, "res": str(space.res or "")}
        own = space.name == "boldref"
        parts = native if own else further[space.label]
        image = read_volume(parts["mask"])
        about: dict[str, Any] = {"Resolution": f"{space.res} mm isotropic"} if space.res else {}
        if space.name in ("T1w", "boldref"):
            about["SpatialReference"] = d.uri(anat.t1w) if not own else sources[0]
        path = d.path(entities, "func", "bold", desc="preproc", **name)
        template = space.name not in ("T1w", "boldref")
        count = int(fields["NumberOfVolumes"])
        rows = rows_of(parts["series"])
        write_masked_series(path, rows, count, image.data > 0.5, image.affine, tr, template=template)
        files[f"preproc_{space.label}"] = path
        extra.append(d.sidecar(path, sources=sources, **fields, **about, Interpolations=[ONCE]))
        for key, suffix, desc, what in (
            ("mask", "mask", "brain", {"Type": "Brain"}),
            ("boldref", "boldref", "", {"SkullStripped": True}),
        ):
            if own and key == "boldref":  # published already, as the coregistration reference
                continue
            path = d.path(entities, "func", suffix, desc=desc, **name)
            move(Path(parts[key]), path)
            files[f"{key}_{space.label}"] = path
            extra.append(d.sidecar(path, sources=sources, **what, **about))
    return files, extra


ONCE = "one cubic interpolation from the raw grid"
RIBBON = f"trilinear samples of the template space at {DEPTHS} depths between white and pial surface"
