"""Image quality figures: contrast, noise, entropy, ghosts, smoothness, overlaps and outlying voxels.

Pure functions on arrays, with the names of MRIQC where it has the figure; :mod:`boldmill.preprocess.scanquality` takes
them of a T1w and of a run. docs/preprocessing.md lists formulas, units and which direction is worse.

Axes: X Y Z voxels, T time, N voxels of a set.
"""

from __future__ import annotations

import numpy as np

from boldmill.preprocess.images import Array, Float

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
    spread = float(np.var(image[mask], dtype=np.float64)) if mask.any() else 0.0
    found = []
    for axis, zoom in enumerate(zooms):
        low = np.take(mask, range(mask.shape[axis] - 1), axis)
        both = low & np.take(mask, range(1, mask.shape[axis]), axis)
        step = np.diff(np.asarray(image, dtype=np.float64), axis=axis)[both]
        if not step.size or spread == 0:
            return 0.0
        alike = 1.0 - float(np.var(step)) / (2.0 * spread)
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
