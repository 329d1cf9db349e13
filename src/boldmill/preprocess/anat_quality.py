"""Quality figures and flags of the anatomical workflow.

Axes: X Y Z voxels of the template grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from boldmill.preprocess.images import Array, Volume
from boldmill.preprocess.syn import Warp
from boldmill.preprocess.transforms import apply_affine, resample

MASK_ML = (1000.0, 1900.0)
MIN_DICE = 0.97
MIN_CORRELATION = 0.75
MIN_GAIN = 0.08
MIN_JACOBIAN = 0.1


def overlap(a: Array, b: Array) -> float:
    """Dice overlap of two masks: twice the common voxels over the sum of both."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 0.0


def correlation(a: Array, b: Array) -> float:
    """Pearson correlation of two vectors; 0 where one is constant."""
    if float(a.std()) == 0 or float(b.std()) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def warp_figures(head: Volume, template_mask: Volume, brain: Volume, warp: Warp, change: Array) -> dict[str, Any]:
    """Measure a registration inside the template's brain mask.

    Parameters
    ----------
    head, template_mask : Volume
        Template T1w and brain mask.
    brain : Volume
        Extracted brain of the subject.
    warp : Warp
        The registration.
    change : array (X, Y, Z)
        Jacobian determinant of the whole mapping on the template grid.

    Returns
    -------
    dict
        Correlation with the template after the affine and after the warp; extremes of the Jacobian of the warp alone
        (the affine's scaling divided out); number of folded voxels.
    """
    inside = template_mask.data > 0.5
    template = head.data[inside]
    linear = resample(brain, head.grid, lambda x: apply_affine(warp.affine, x)).data[inside]
    warped = resample(brain, head.grid, warp.to_subject).data[inside]
    local = change[inside] / float(np.linalg.det(warp.affine[:3, :3]))
    return {
        "template_correlation_affine": correlation(linear, template),
        "template_correlation": correlation(warped, template),
        "jacobian_min": float(local.min()),
        "jacobian_max": float(local.max()),
        "folded_voxels": int((local <= 0).sum()),
    }


def anat_flags(qc: dict[str, Any]) -> list[str]:
    """Return what a person should look at, ``name: text`` (thresholds measured on seven real T1w)."""
    flags = []
    low, high = MASK_ML
    if qc["brain_extracted_input"]:
        flags.append("brain_extracted_input: the mask is that of the given extraction")
    if not low <= qc["mask_ml"] <= high:
        flags.append(f"mask_volume: brain mask of {qc['mask_ml']:.0f} ml, outside {low:.0f}-{high:.0f}")
    if qc["template_mask_dice"] < MIN_DICE:
        flags.append(f"mask_overlap: Dice {qc['template_mask_dice']:.3f} with the template's mask, under {MIN_DICE}")
    after, before = qc["template_correlation"], qc["template_correlation_affine"]
    if after < MIN_CORRELATION:
        flags.append(f"template_correlation: {after:.3f} after the warp, under {MIN_CORRELATION}")
    if after - before < MIN_GAIN:
        flags.append(f"warp_gain: the warp raised the correlation by {after - before:.3f}, under {MIN_GAIN}")
    if qc["jacobian_min"] < MIN_JACOBIAN:
        flags.append(f"jacobian: smallest volume change {qc['jacobian_min']:.3f}, under {MIN_JACOBIAN}")
    if qc["folded_voxels"]:
        flags.append(f"folding: {qc['folded_voxels']} voxels are folded")
    if qc["syn_sigma_diff"] != qc["syn_sigma_diff_set"]:
        flags.append(f"smooth_retry: registered again with sigma_diff {qc['syn_sigma_diff']}")
    return flags


def further_flags(space: str, figures: dict[str, Any]) -> list[str]:
    """Return the flags of the warp to a further template; the first one's flags speak of the T1w itself."""
    flags = []
    if figures["template_correlation"] < MIN_CORRELATION:
        value = figures["template_correlation"]
        flags.append(f"template_correlation_{space}: {value:.3f} after the warp, under {MIN_CORRELATION}")
    if figures["folded_voxels"]:
        flags.append(f"folding_{space}: {figures['folded_voxels']} voxels are folded")
    return flags


def rounded(qc: dict[str, Any]) -> dict[str, Any]:
    """Round figures for the manifest: six significant digits."""
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in sorted(qc.items())}
