"""Ready-made volumes in a template space: brought to the output grid by at most one interpolation, then cleaned.

Axes: X Y Z voxels, T time, N voxels of the mask in C order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault
from boldmill.preprocess.bold import repetition_time
from boldmill.preprocess.imagefaults import reading, sound_affine
from boldmill.preprocess.images import Grid, Volume, nib, read_volume
from boldmill.preprocess.ready import about, clean_ready, publish_table
from boldmill.preprocess.series_io import image_of, write_masked_series
from boldmill.preprocess.smooth import smooth_masked
from boldmill.preprocess.subject import Job, StepResult
from boldmill.preprocess.transforms import resample, sample, spline

Array = NDArray[Any]
ORDER = 3
"""Spline order of the one interpolation."""
MIN_VOXELS = 50
WHAT = "volume"


def process_volume_ready(job: Job, ticket: Mapping[str, Any]) -> StepResult:
    """Bring one ready-made volume run to a cleaned series on the output grid.

    Returns
    -------
    StepResult
        ``files``: clean, mask, boldref, and confounds where the run has a motion table. ``facts``: kind, tr,
        n_volumes, space.

    Raises
    ------
    DataFault
        Another space than the configured one, a broken image, an empty mask, or a run that cannot be cleaned.
    """
    scan, root, files = str(ticket["scan_id"]), Path(ticket["root"]), ticket["files"]
    check_space(str(ticket["space"]), job.space, scan)
    tr = repetition_time(ticket["metadata"], scan)
    image, grid = open_image(root / files["bold"]["path"])
    mask = _given_mask(root, files, image, grid, scan)
    same = grid.same_as(job.grid)
    on_grid = mask if same else resample(Volume(mask.data, mask.affine), job.grid, order=0)
    inside = on_grid.data > 0.5
    if int(inside.sum()) < MIN_VOXELS:
        why = f"its mask covers {int(inside.sum())} voxels of the output grid"
        raise DataFault("cannot use volume", scan, why, "check that the file is in the space its name says")
    series = masked_series(image, grid, job.grid, inside, root / files["bold"]["path"])
    mean = series.mean(axis=0, dtype=np.float64)
    if ticket["stage"] == "clean":
        middle = float(np.median(mean))
        if middle <= 0:
            raise DataFault("cannot use volume", scan, f"the median of its brain is {middle:g}", "restore the file")
        series *= np.float32(job.clean.intensity / middle)
        mean *= job.clean.intensity / middle
    cleaned = clean_ready(job, ticket, series, tr)
    if ticket["stage"] == "clean":
        smoothed = smooth_masked(cleaned.series, inside, job.grid.zooms, job.clean.smoothing)
        cleaned = replace(cleaned, series=smoothed)
    moved = "none: its grid is the output grid" if same else f"one spline interpolation of order {ORDER}"
    fields = about(ticket, tr, Resampling=moved, **cleaned.fields)
    made, extra = _publish(job, ticket, cleaned.series, inside, mean, fields)
    if cleaned.table is not None:
        made["confounds"], json = publish_table(job, ticket, cleaned.table)
        extra.append(json)
    brain = sample(read_volume(job.template["brain_mask"]), job.grid.points(), order=0).reshape(inside.shape) > 0.5
    quality = {
        **cleaned.qc,
        "mask_ml": float(inside.sum()) * job.grid.voxel_ml,
        "coverage": float(inside[brain].mean()) if brain.any() else 0.0,
    }
    flags = [*cleaned.flags] + ([] if same else [f"resampled from {'x'.join(map(str, grid.shape))} voxels"])
    facts = {"kind": "volume", "source_kind": ticket["kind"], "layout": ticket["layout"]}
    facts |= {"tr": tr, "n_volumes": len(series), "space": job.space}
    return StepResult(files=made, qc=quality, flags=flags, extra=extra, facts=facts)


def check_space(given: str, wanted: str, scan: str) -> None:
    """Refuse a series in another space than the configured template: no affine carries a person there.

    Raises
    ------
    DataFault
        Names both spaces and the ways out.
    """
    if given == wanted:
        return
    raise DataFault(
        "another template space",
        scan,
        f"the series is in {given or 'an unnamed space'}, the configured template is {wanted}",
        f"set spaces.template: {given}, or have the pipeline write the run in {wanted} as well",
    )


def open_image(path: Path) -> tuple[Any, Grid]:
    """Open a 4D NIfTI in the nearest RAS orientation (no interpolation); nothing is read yet.

    Raises
    ------
    DataFault
        A broken header, a singular affine, or not 4D.
    """
    nibabel = nib()
    with reading(path, WHAT):
        try:
            image = nibabel.load(path, keep_file_open=True)
        except ValueError as error:
            raise EOFError(" ".join(str(error).split())) from error
    if len(image.shape) != 4:
        fix = "give the 4D series of the pipeline, or exclude the run"
        raise DataFault(f"cannot read {WHAT}", path, f"its shape is {image.shape}, not that of a series", fix)
    sound_affine(image, path, WHAT)
    if nibabel.aff2axcodes(image.affine) != ("R", "A", "S"):
        image = _Flipped(image)
    affine = np.asarray(image.affine, np.float64)
    x, y, z = (int(n) for n in image.shape[:3])
    return image, Grid((x, y, z), affine)


class _Flipped:
    """A 4D image whose volumes are flipped to RAS one by one, so that the series is never in memory whole."""

    def __init__(self, image: Any) -> None:
        from nibabel import orientations

        make: Any = orientations
        self._image, self._flips = image, make.io_orientation(image.affine)
        self._apply = make.apply_orientation
        first = self._apply(np.empty(image.shape[:3], np.uint8), self._flips)
        self.shape = (*first.shape, image.shape[3])
        self.affine = image.affine @ make.inv_ornt_aff(self._flips, image.shape[:3])

    def volume(self, t: int) -> Array:
        """Return one volume."""
        return np.asarray(self._apply(np.asarray(self._image.dataobj[..., t], np.float32), self._flips))


def volume_of(image: Any, t: int, path: str | Path) -> Array:
    """Return one volume as float32, values that are not finite as 0.

    Raises
    ------
    DataFault
        The file ends early or its compression is broken.
    MachineFault
        It cannot be opened.
    """
    with reading(path, WHAT):
        try:
            data = image.volume(t) if isinstance(image, _Flipped) else np.asarray(image.dataobj[..., t], np.float32)
        except ValueError as error:  # nibabel: fewer bytes than the header says
            raise EOFError(" ".join(str(error).split())) from error
    return np.asarray(np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0))


def _given_mask(root: Path, files: Mapping[str, Any], image: Any, grid: Grid, scan: str) -> Volume:
    """Return the mask of the run on its own grid, or the voxels that vary where it has none."""
    if "mask" in files:
        mask = read_volume(root / files["mask"]["path"], canonical=True, what="brain mask")
        if not mask.grid.same_as(grid, 1e-2):
            why = "the brain mask is on another grid than the series"
            raise DataFault("mask does not fit", scan, why, "restore the mask of this series")
        return mask
    path = root / files["bold"]["path"]
    low = high = volume_of(image, 0, path)
    for t in range(1, image.shape[3]):
        data = volume_of(image, t, path)
        low, high = np.minimum(low, data), np.maximum(high, data)
    return Volume((high > low).astype(np.float32), grid.affine)


def masked_series(image: Any, grid: Grid, target: Grid, inside: NDArray[np.bool_], path: str | Path) -> Array:
    """Return the series (T, N) float32 of a mask on the target grid, one volume in memory at a time.

    Parameters
    ----------
    image
        Of :func:`open_image`.
    grid, target : Grid
        Its grid, and the output grid.
    inside : bool array (X, Y, Z)
        Mask on the target grid.
    path : str or Path
        The file.
    """
    series = np.empty((image.shape[3], int(inside.sum())), np.float32)
    same = grid.same_as(target)
    points = None if same else target.points()[inside.ravel()]
    for t in range(image.shape[3]):
        volume = Volume(volume_of(image, t, path), grid.affine)
        if points is None:
            series[t] = volume.data[inside]
        else:
            series[t] = sample(volume, points, order=ORDER, coefficients=spline(volume, ORDER))
    return series


def _publish(
    job: Job, ticket: Mapping[str, Any], series: Array, inside: NDArray[np.bool_], mean: Array, fields: dict[str, Any]
) -> tuple[dict[str, Path], list[Path]]:
    d, entities = job.derivatives, ticket["entities"]
    sources = [d.uri_raw(entry["path"]) for role, entry in sorted(ticket["files"].items()) if role in ("bold", "mask")]
    files = {
        "clean": d.path(entities, "func", "bold", space=job.space, desc="clean"),
        "mask": d.path(entities, "func", "mask", space=job.space, desc="brain"),
        "boldref": d.path(entities, "func", "boldref", space=job.space),
    }
    write_masked_series(files["clean"], series, len(series), inside, job.grid.affine, fields["RepetitionTime"])
    extra = [d.sidecar(files["clean"], sources=sources, SkullStripped=True, **fields)]
    common: dict[str, Any] = {"sources": sources, "template": True}
    d.image(files["mask"], inside, job.grid.affine, dtype="uint8", Type="Brain", **common)
    d.image(files["boldref"], image_of(mean, inside), job.grid.affine, SkullStripped=True, **common)
    extra += [path.with_name(path.name.replace(".nii.gz", ".json")) for key, path in files.items() if key != "clean"]
    return files, extra
