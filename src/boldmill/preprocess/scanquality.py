"""The quality figures of one T1w and of one BOLD run, for the manifest's ``qc``.

Figures that need air around the head are None where the background was masked before. Names: docs/preprocessing.md.

Axes: X Y Z voxels, T time, N voxels of a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.preprocess.censor import over_limits
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.foreground import COARSE, block_mean, otsu, without_specks
from boldmill.preprocess.imagequality import (
    SAMPLE,
    cjv,
    cnr,
    dice,
    efc,
    fber,
    fwhm,
    ghost_to_signal,
    outlying_share,
    quality_index,
    snr,
    snr_dietrich,
)
from boldmill.preprocess.images import Array, Float, Volume, read_volume
from boldmill.preprocess.series_io import read_rows
from boldmill.preprocess.slicetiming import AXIS
from boldmill.preprocess.transforms import apply_affine, read_affine, resample, sample

CERTAIN = 0.9
"""Tissue probability above which a voxel counts as that tissue."""
AIR_MM = 8.0
"""Distance from the head at which air begins."""
MIN_AIR = 200
"""Fewer air voxels, or more than half of them exactly 0, give no noise estimate."""
FD_COUNTED = 0.2
"""FD above which MRIQC counts a volume, mm."""


def anat_quality(t1w: Path, mask: Path, tissues: Mapping[str, Path]) -> dict[str, float | None]:
    """Return the image quality figures of a T1w from its files (:func:`t1w_quality`)."""
    maps = {name: read_volume(path).data for name, path in tissues.items()}
    return t1w_quality(read_volume(t1w), maps, read_volume(mask).data > 0.5)


def run_quality(
    made: Mapping[str, Any],
    t1w_mask: Path,
    columns: Mapping[str, Float],
    metadata: Mapping[str, Any],
    clean: CleanConfig,
    tr: float,
) -> dict[str, float | None]:
    """Return the figures of a BOLD run that its steps did not leave.

    Parameters
    ----------
    made : mapping
        Files of the run: ``boldref_native``, ``coreg`` (T1w world to BOLD world) and ``native``, the realigned scratch
        series (T, N).
    t1w_mask : Path
        Brain mask of the T1w.
    columns : mapping
        Confounds: ``framewise_displacement``, ``std_dvars`` (T,).
    metadata : mapping
        Sidecar of the raw run (``PhaseEncodingDirection``).
    clean : CleanConfig
        Limits of censoring.
    tr : float
        Repetition time, s.

    Returns
    -------
    dict
        :func:`bold_quality`, :func:`run_summary`, and ``aor``, ``aqi``.
    """
    axis = AXIS.get(str(metadata.get("PhaseEncodingDirection") or "")[:1])
    coreg = read_affine(made["coreg"])
    series = _spaced_rows(made["native"])
    return {
        **bold_quality(read_volume(made["boldref_native"]), read_volume(t1w_mask), coreg, axis),
        **run_summary(columns, clean, tr),
        "aor": float(outlying_share(series, tr).mean()),
        "aqi": float(quality_index(series).mean()),
    }


def run_summary(columns: Mapping[str, Float], clean: CleanConfig, tr: float) -> dict[str, float | None]:
    """Return how many volumes are over the limits of censoring, whether or not the strategy censors them.

    Parameters
    ----------
    columns : mapping
        Confounds: ``framewise_displacement`` (mm) and ``std_dvars``, each (T,).
    clean : CleanConfig
        ``censor_fd``, ``censor_dvars``, ``censor_before``, ``censor_after``.
    tr : float
        Repetition time, s.

    Returns
    -------
    dict
        ``censored_share``, ``minutes_kept`` (min), and ``fd_over_02``, the share of volumes with FD above 0.2 mm
        (MRIQC's ``fd_perc`` / 100). None where FD is unknown.
    """
    fd = columns.get("framewise_displacement")
    if fd is None or not np.isfinite(fd).any():
        return {"censored_share": None, "minutes_kept": None, "fd_over_02": None}
    gone = over_limits(
        fd,
        columns.get("std_dvars"),
        limit_fd=clean.censor_fd,
        limit_dvars=clean.censor_dvars,
        before=clean.censor_before,
        after=clean.censor_after,
    )
    return {
        "censored_share": float(gone.mean()),
        "minutes_kept": int((~gone).sum()) * tr / 60.0,
        "fd_over_02": float((np.nan_to_num(fd) > FD_COUNTED).mean()),
    }


def _spaced_rows(path: str | Path) -> Array:
    """Return at most :data:`SAMPLE` evenly spaced voxels of a scratch series, which is never in memory whole."""
    parts = []
    for block in read_rows(path):
        step = max(1, -(-block.shape[1] // SAMPLE))
        parts.append(block[:, ::step])
    return np.concatenate(parts)


def head_and_air(volume: Volume) -> tuple[Array, Array]:
    """Return the head, and the air at least :data:`AIR_MM` away from it, both bool (X, Y, Z).

    The head is found at about 4 mm: Gaussian of 4 mm FWHM, 0.6 x Otsu, specks removed, holes filled.
    """
    from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter

    coarse = block_mean(volume, COARSE)
    smooth = gaussian_filter(coarse.data, COARSE / 2.355 / coarse.grid.zooms)
    head = binary_fill_holes(without_specks(smooth > 0.6 * otsu(smooth)))
    near = binary_dilation(head, iterations=max(1, round(AIR_MM / float(coarse.grid.zooms.min()))))
    own = volume.grid
    if coarse.grid.same_as(own):
        return np.asarray(head), ~near
    fine = [resample(coarse.like(one.astype(np.float32)), own).data for one in (head, near)]
    return fine[0] > 0.5, fine[1] < 0.5


def _noise(values: Array) -> Array | None:
    """Return the air, or None where the background was masked before."""
    return None if values.size < MIN_AIR or (values == 0).mean() > 0.5 else values


def t1w_quality(t1w: Volume, tissues: Mapping[str, Array], brain: Array) -> dict[str, float | None]:
    """Return the image quality figures of a T1w.

    Parameters
    ----------
    t1w : Volume
        Bias-corrected whole head (X, Y, Z).
    tissues : mapping
        ``gm``, ``wm``, ``csf``: probabilities (X, Y, Z).
    brain : bool array (X, Y, Z)
        Brain mask.

    Returns
    -------
    dict
        ``cnr, cjv, snr_csf, snr_gm, snr_wm, snrd_csf, snrd_gm, snrd_wm, efc, fber, fwhm_mm``; None where it cannot be
        had: no air around the head, or a tissue without 100 certain voxels.
    """
    data = np.asarray(t1w.data, dtype=np.float64)
    head, outside = head_and_air(t1w)
    air = _noise(data[outside])
    values = {name: data[brain & (np.asarray(tissues[name]) > CERTAIN)] for name in ("csf", "gm", "wm")}
    sure = {name: one for name, one in values.items() if one.size >= 100 and float(np.std(one)) > 0}
    both = "wm" in sure and "gm" in sure
    out: dict[str, float | None] = {
        "cjv": cjv(sure["wm"], sure["gm"]) if both else None,
        "cnr": cnr(sure["wm"], sure["gm"], air) if both and air is not None else None,
        "efc": efc(data) if air is not None else None,
        "fber": fber(data[head], air) if air is not None and head.any() else None,
        "fwhm_mm": fwhm(data, brain, t1w.grid.zooms) or None,
    }
    for name in ("csf", "gm", "wm"):
        out[f"snr_{name}"] = snr(sure[name]) if name in sure else None
        out[f"snrd_{name}"] = snr_dietrich(sure[name], air) if name in sure and air is not None else None
    return out


def bold_quality(boldref: Volume, t1w_mask: Volume, coreg: Float, pe_axis: int | None) -> dict[str, float | None]:
    """Return the image quality figures of a BOLD reference, and how well it overlaps the T1w.

    Parameters
    ----------
    boldref : Volume
        Realigned median on the run's own grid (X, Y, Z).
    t1w_mask : Volume
        Brain mask of the T1w.
    coreg : array (4, 4)
        T1w world to BOLD-reference world.
    pe_axis : int or None
        Phase-encoding axis; None: unknown.

    Returns
    -------
    dict
        ``efc, fber, snr, gsr, fwhm_mm, coreg_dice``; None where it cannot be had.
    """
    data = np.asarray(boldref.data, dtype=np.float64)
    head, outside = head_and_air(boldref)
    air = _noise(data[outside])
    world = apply_affine(np.asarray(np.linalg.inv(coreg), dtype=np.float64), boldref.grid.points())
    brain = sample(t1w_mask, world, order=0).reshape(data.shape) > 0.5
    inside = data[brain]
    usable = inside.size >= 100 and float(np.std(inside)) > 0
    return {
        "efc": efc(data) if air is not None else None,
        "fber": fber(data[head], air) if air is not None and head.any() else None,
        "snr": snr(inside) if usable else None,
        "gsr": ghost_to_signal(data, head, pe_axis) if pe_axis is not None and air is not None else None,
        "fwhm_mm": fwhm(data, brain, boldref.grid.zooms) or None if usable else None,
        "coreg_dice": dice(brain, bold_brain(boldref)),
    }


def bold_brain(boldref: Volume) -> Array:
    """Return the brain as the BOLD alone shows it, bool (X, Y, Z): the T1w has no say in it (nilearn's EPI mask)."""
    import nibabel
    from nilearn.masking import compute_epi_mask
    from scipy.ndimage import binary_fill_holes

    nifti: Any = nibabel.Nifti1Image
    image = nifti(np.asarray(boldref.data, dtype=np.float32), boldref.affine)
    mask = compute_epi_mask(image, opening=2, verbose=0)
    return np.asarray(binary_fill_holes(np.asarray(mask.dataobj) > 0))
