"""Image quality figures: contrast, noise, entropy, ghosts, smoothness, overlaps and outlying voxels.

Names are those of MRIQC where it has the figure. Figures that need air around the head are None where the background
was masked before. docs/preprocessing.md lists formulas, units and which direction is worse.

Axes: X Y Z voxels, T time, N voxels of a set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from boldmill.preprocess.foreground import COARSE, block_mean, otsu, without_specks
from boldmill.preprocess.images import Array, Float, Volume
from boldmill.preprocess.transforms import apply_affine, resample, sample

CERTAIN = 0.9
"""Tissue probability above which a voxel counts as that tissue."""
AIR_MM = 8.0
"""Distance from the head at which air begins."""
MIN_AIR = 200
"""Fewer air voxels, or more than half of them exactly 0, give no noise estimate."""
SAMPLE = 10_000
"""Most voxels of a series that outlier shares look at, evenly spaced."""


def efc(image: Array) -> float:
    """Return the entropy focus criterion: 0 for one bright voxel, 1 for energy spread evenly.

    ``E = -sum(x/m ln(x/m))``, ``m = sqrt(sum(x^2))``, over its largest value ``sqrt(N) ln(sqrt(N))`` (Atkinson 1997,
    doi 10.1109/42.650886).

    Parameters
    ----------
    image : array
        Intensities; negative ones count by size.
    """
    x = np.abs(np.asarray(image, dtype=np.float64)).ravel()
    total = float(np.sqrt(np.sum(x * x)))
    if total == 0:
        return 0.0
    share = x[x > 0] / total
    root = float(np.sqrt(x.size))
    return float(-np.sum(share * np.log(share)) / (root * np.log(root)))


def cnr(white: Array, grey: Array, air: Array) -> float:
    """Contrast-to-noise ratio ``|mu_W - mu_G| / sqrt(s_air^2 + s_W^2 + s_G^2)`` (Magnotta & Friedman 2006)."""
    noise = np.sqrt(np.var(air) + np.var(white) + np.var(grey))
    return float(abs(np.mean(white) - np.mean(grey)) / noise)


def cjv(white: Array, grey: Array) -> float:
    """Coefficient of joint variation ``(s_W + s_G) / |mu_W - mu_G|`` (Ganzetti 2016); high with bias and motion."""
    return float((np.std(white) + np.std(grey)) / abs(np.mean(white) - np.mean(grey)))


def snr(values: Array) -> float:
    """Signal-to-noise ratio inside a tissue, ``mu / (s sqrt(n / (n - 1)))`` with the population SD s."""
    n = values.size
    return float(np.mean(values) / (np.std(values) * np.sqrt(n / (n - 1))))


def snr_dietrich(values: Array, air: Array) -> float:
    """Signal over the Rayleigh noise of the air, ``mu / (s_air sqrt(2 / (4 - pi)))`` (Dietrich 2007)."""
    return float(np.mean(values) / (np.std(air) * np.sqrt(2.0 / (4.0 - np.pi))))


def fber(head: Array, air: Array) -> float:
    """Foreground-to-background energy ratio ``E|head|^2 / E|air|^2``."""
    return float(np.mean(np.square(head, dtype=np.float64)) / np.mean(np.square(air, dtype=np.float64)))


def ghost_to_signal(image: Array, head: Array, axis: int) -> float:
    """Return the ghost-to-signal ratio ``(mu_ghost - mu_elsewhere) / mu_signal`` (Giannelli 2010).

    The N/2 ghost lies where the head would be half a field of view away along the phase-encoding axis.

    Parameters
    ----------
    image : array (X, Y, Z)
        Mean or median EPI.
    head : bool array (X, Y, Z)
        Where the signal is.
    axis : int
        Phase-encoding axis.
    """
    ghost = np.roll(head, head.shape[axis] // 2, axis=axis) & ~head
    elsewhere = ~ghost & ~head
    if not (ghost.any() and elsewhere.any() and head.any()):
        return 0.0
    return float((image[ghost].mean() - image[elsewhere].mean()) / image[head].mean())


def fwhm(image: Array, mask: Array, zooms: Float) -> float:
    """Return the smoothness of an image inside a mask, mm: geometric mean of the FWHM along the axes.

    From the variance of neighbours' differences: a Gaussian autocorrelation has ``1 - var(d) / (2 var(x)) =
    exp(-z^2 / (4 s^2))`` at distance z, ``FWHM = s sqrt(8 ln 2)`` (Forman 1995; AFNI 3dFWHMx without -acf).

    Parameters
    ----------
    image : array (X, Y, Z)
        Intensities.
    mask : bool array (X, Y, Z)
        Where to look; both neighbours must be inside.
    zooms : array (3,)
        Voxel sizes, mm.
    """
    spread = float(np.var(image[mask], dtype=np.float64))
    found = []
    for axis, zoom in enumerate(zooms):
        low = np.take(mask, range(mask.shape[axis] - 1), axis)
        both = low & np.take(mask, range(1, mask.shape[axis]), axis)
        step = np.diff(np.asarray(image, dtype=np.float64), axis=axis)[both]
        alike = 1.0 - float(np.var(step)) / (2.0 * spread) if spread > 0 and step.size else 0.0
        if 0 < alike < 1:
            found.append(zoom * np.sqrt(-2.0 * np.log(2.0) / np.log(alike)))
    return float(np.exp(np.mean(np.log(found)))) if len(found) == 3 else 0.0


def dice(a: Array, b: Array) -> float:
    """Dice overlap of two masks: twice the common voxels over the sum of both; 0 for two empty ones."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 0.0


def outlying_share(series: Array, tr: float) -> Float:
    """Return the share of voxels that lie outside at each volume (T,); its mean is the AOR.

    A voxel is outside where its distance from its median, after a Legendre detrend of degree ``1 + duration / 150 s``,
    exceeds ``z(0.001 / T) sqrt(pi / 2) MAD`` with z the upper normal quantile (AFNI 3dToutcount).

    Parameters
    ----------
    series : array (T, N)
        Voxel series before cleaning; at most 10,000 evenly spaced voxels are used.
    tr : float
        Repetition time, s.
    """
    from scipy.special import ndtri

    chosen = np.asarray(_spaced(series), dtype=np.float64)
    count = len(chosen)
    degree = min(1 + int(count * tr // 150.0), count - 1)
    basis, _ = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1.0, 1.0, count), degree))
    rest = chosen - basis @ (basis.T @ chosen)
    rest -= np.median(rest, axis=0)
    mad = np.median(np.abs(rest), axis=0)
    limit = -ndtri(0.001 / count) * np.sqrt(np.pi / 2.0) * mad
    return np.asarray((np.abs(rest) > limit)[:, mad > 0].mean(axis=1)) if (mad > 0).any() else np.zeros(count)


def quality_index(series: Array) -> Float:
    """Return 1 - Spearman's rank correlation of each volume with the median volume (T,); its mean is the AQI.

    Parameters
    ----------
    series : array (T, N)
        Voxel series before cleaning; at most 10,000 evenly spaced voxels are used (AFNI 3dTqual).
    """
    from scipy.stats import rankdata

    chosen = _spaced(series)
    ranks = rankdata(np.median(chosen, axis=0))
    ranks -= ranks.mean()
    out = np.empty(len(chosen))
    for t, volume in enumerate(chosen):
        own = rankdata(volume)
        own -= own.mean()
        scale = np.sqrt((own @ own) * (ranks @ ranks))
        out[t] = 1.0 - float(own @ ranks) / scale if scale > 0 else 1.0
    return out


def _spaced(series: Array) -> Array:
    step = max(1, -(-series.shape[1] // SAMPLE))
    return series[:, ::step]


def run_summary(fd: Array, outside: Array, tr: float) -> dict[str, float]:
    """Return the share of volumes outside the censoring limits and the minutes that are left.

    Parameters
    ----------
    fd : array (T,)
        Framewise displacement (Power), mm; the first is NaN.
    outside : bool array (T,)
        Volumes over the censoring limits, whether or not the strategy censors them.
    tr : float
        Repetition time, s.

    Returns
    -------
    dict
        ``censored`` (share), ``minutes_kept`` (min), ``fd_over_02`` (share of volumes with FD above 0.2 mm, MRIQC's
        ``fd_perc / 100``).
    """
    left = int((~outside).sum())
    return {
        "censored": 1.0 - left / len(outside),
        "minutes_kept": left * tr / 60.0,
        "fd_over_02": float((np.nan_to_num(fd) > 0.2).mean()),
    }


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
