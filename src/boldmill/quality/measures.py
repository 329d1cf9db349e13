"""The quality figures: what each one is called, its unit, and which direction is bad.

One table for the cohort page, its outliers and the documentation. Figures of a run keep their name in the manifest's
``qc``; those of the T1w carry the prefix ``t1w_``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Bad = Literal["high", "low"]
T1W = "t1w_"
"""Prefix of the figures of the T1w."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One quality figure.

    Parameters
    ----------
    name : str
        Key in the manifest's ``qc`` (``t1w_`` before those of the T1w).
    label : str
        Column head.
    unit : str
        Unit, empty for a pure number.
    bad : {"high", "low"}
        The direction in which a value is worse.
    decimals : int
        Decimals shown.
    words : str
        Meaning in one line.
    """

    name: str
    label: str
    unit: str
    bad: Bad
    decimals: int
    words: str


MEASURES: tuple[Measure, ...] = (
    Measure("mean_fd", "mean FD", "mm", "high", 3, "mean framewise displacement (Power)"),
    Measure("max_fd", "max FD", "mm", "high", 2, "largest framewise displacement (Power)"),
    Measure("censored_share", "censored", "share", "high", 3, "share of volumes over the limits of censoring"),
    Measure("minutes_kept", "kept", "min", "low", 2, "minutes of volumes within the censoring limits"),
    Measure("mean_dvars", "DVARS", "a.u.", "high", 1, "mean DVARS, brain median scaled to 1000"),
    Measure("mean_std_dvars", "std DVARS", "", "high", 3, "mean standardised DVARS; 1: noise alone"),
    Measure("tsnr", "tSNR", "", "low", 1, "median over the brain of mean over SD, after a quadratic detrend"),
    Measure("gcor", "GCOR", "", "high", 4, "mean of the whole voxel correlation matrix of the cleaned series"),
    Measure("residual_dof", "residual dof", "", "low", 0, "degrees of freedom that filter and regressors leave"),
    Measure("coverage", "coverage", "share", "low", 3, "share of the template brain inside the mask of the run"),
    Measure(
        "coreg_dice", "coreg. overlap", "Dice", "low", 3, "T1w mask in BOLD space against the mask of the BOLD alone"
    ),
    Measure("aor", "AOR", "share", "high", 4, "mean share of outlying voxels per volume"),
    Measure("aqi", "AQI", "", "high", 4, "mean of 1 - rank correlation of each volume with the median volume"),
    Measure("efc", "EFC", "", "high", 3, "entropy of the BOLD reference; 1: spread evenly by ghosts and blur"),
    Measure("fber", "FBER", "", "low", 1, "energy of head over air in the BOLD reference"),
    Measure("snr", "SNR", "", "low", 2, "mean over SD inside the brain of the BOLD reference"),
    Measure("gsr", "GSR", "", "high", 4, "ghost-to-signal ratio along the phase-encoding axis"),
    Measure("fwhm_mm", "FWHM", "mm", "high", 2, "smoothness of the BOLD reference"),
    Measure("t1w_template_mask_dice", "norm. overlap", "Dice", "low", 3, "warped brain mask against the template's"),
    Measure(
        "t1w_template_correlation", "norm. corr.", "", "low", 3, "warped T1w against the template, inside its mask"
    ),
    Measure("t1w_cnr", "T1w CNR", "", "low", 2, "contrast of WM and GM over the noise of air, WM and GM"),
    Measure("t1w_cjv", "T1w CJV", "", "high", 3, "spread of WM and GM over their contrast"),
    Measure("t1w_snr_wm", "T1w SNR WM", "", "low", 1, "mean over SD of WM"),
    Measure("t1w_snrd_wm", "T1w SNRd WM", "", "low", 1, "mean of WM over the noise of the air (Dietrich)"),
    Measure("t1w_efc", "T1w EFC", "", "high", 3, "entropy of the T1w"),
    Measure("t1w_fber", "T1w FBER", "", "low", 1, "energy of head over air in the T1w"),
    Measure("t1w_fwhm_mm", "T1w FWHM", "mm", "high", 2, "smoothness of the T1w inside the brain"),
)
"""All figures, in the order of the columns."""


def figures_of(run: Mapping[str, Any], t1w: Mapping[str, Any]) -> dict[str, float]:
    """Return the known figures of a scan by name: those of its run, and of its T1w with a prefix.

    >>> figures_of({"tsnr": 40, "mean_fd": None, "coreg_method": "bbr"}, {"cnr": 3.5})
    {'tsnr': 40.0, 't1w_cnr': 3.5}
    """
    given = {**run, **{f"{T1W}{name}": value for name, value in t1w.items()}}
    return {
        measure.name: float(given[measure.name])
        for measure in MEASURES
        if isinstance(given.get(measure.name), int | float) and math.isfinite(given[measure.name])
    }
