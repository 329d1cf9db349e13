"""Build the confounds table of a run from its motion, its series and the components of its noise regions.

Axes: T time, V voxels, K components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.preprocess import dvars as intensity
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.compcor import Components
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.drifts import cosines
from boldmill.preprocess.motion import Float

Array = NDArray[Any]

GROUPS = {
    "a_comp_cor": ("aCompCor", "combined"),
    "c_comp_cor": ("aCompCor", "CSF"),
    "w_comp_cor": ("aCompCor", "WM"),
    "t_comp_cor": ("tCompCor", "brain"),
    "edge_comp": ("EdgeRegressor", "Edge"),
}
"""Prefix of a group of components -> method and mask, in fMRIPrep's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``fd`` (mm) and ``std_dvars`` above which a volume gets an outlier column; head ``radius`` of FD (Power), mm."""

    fd: float = 0.5
    std_dvars: float = 1.5
    radius: float = 50.0


def build(
    *,
    matrices: Float,
    centre: Float,
    brain: Array,
    signals: dict[str, Float],
    groups: dict[str, Components],
    rules: dict[str, str],
    tr: float,
    non_steady: int,
    cutoff: float = 128.0,
    limits: Limits | None = None,
) -> Table:
    """Build the table of one run.

    Parameters
    ----------
    matrices : array (T, 4, 4)
        Motion.
    centre : array (3,)
        Point rotations are reported about, mm.
    brain : array (T, V)
        Realigned native series of the brain mask, scaled.
    signals : dict
        Mean signals (T,) ``csf``, ``white_matter`` and ``csf_wm`` of the eroded tissues; NaN where there are no voxels.
    groups : dict
        Components by prefix (a key of ``GROUPS``).
    rules : dict
        How the voxels of a mask (``WM``, ``CSF``, ``combined``, ``brain``, ``Edge``) were chosen, in words.
    tr : float
        Repetition time, s.
    non_steady : int
        Non-steady first volumes.
    cutoff : float
        Period of the fastest drift cosine, s.
    limits : Limits, optional
        Limits of the outlier columns.
    """
    limits = limits or Limits()
    count = len(matrices)
    parameters = rigid.parameters_of(matrices, centre)
    fd = rigid.fd_power(parameters, limits.radius)
    std = intensity.std_dvars(brain)
    whole = brain.mean(axis=1, dtype=np.float64)
    tissues = {"global_signal": whole, "csf": signals["csf"], "white_matter": signals["white_matter"]}
    columns = rigid.expand(tissues)
    columns |= {
        "csf_wm": signals["csf_wm"],
        "std_dvars": std,
        "dvars": intensity.dvars(brain) * (1000.0 / float(np.median(brain))),
        "framewise_displacement": fd,
        "framewise_displacement_jenkinson": rigid.fd_jenkinson(matrices),
        "rmsd": rigid.fd_jenkinson(matrices, centre),
    }
    notes = _describe(rules, limits)
    for prefix, found in groups.items():
        method, mask = GROUPS[prefix]
        for index in range(found.values.shape[1]):
            name = f"{prefix}_{index:02d}"
            columns[name] = found.values[:, index]
            notes[name] = {
                "Method": method,
                "Mask": mask,
                "MaskRule": rules[mask],
                "SingularValue": float(found.singular[index]),
                "VarianceExplained": float(found.explained[index]),
                "CumulativeVarianceExplained": float(found.explained[: index + 1].sum()),
                "Retained": True,
            }
    for index, values in enumerate(cosines(count, tr, cutoff).T):
        columns[f"cosine_{index:02d}"] = values
        notes[f"cosine_{index:02d}"] = {"Description": f"discrete cosine {index + 1}, cut-off {cutoff:g} s"}
    for index in range(non_steady):
        columns[f"non_steady_state_outlier{index:02d}"] = _impulse(count, index)
        notes[f"non_steady_state_outlier{index:02d}"] = {"Description": f"1 in volume {index} (not in steady state)"}
    motion = dict(zip(rigid.AXES, parameters.T, strict=True))
    columns |= rigid.expand(motion) | rigid.lagged(motion)
    high = np.flatnonzero((np.nan_to_num(fd) > limits.fd) | (np.nan_to_num(std) > limits.std_dvars))
    for index, t in enumerate(high):
        columns[f"motion_outlier{index:02d}"] = _impulse(count, int(t))
        notes[f"motion_outlier{index:02d}"] = {
            "Description": f"1 in volume {t}",
            "Rule": f"FD > {limits.fd:g} mm or standardised DVARS > {limits.std_dvars:g}",
        }
    return Table(columns, notes)


def _describe(rules: dict[str, str], limits: Limits) -> dict[str, dict[str, Any]]:
    """Return the descriptions of the columns every run has."""
    signal = {"Units": "arbitrary"}
    notes: dict[str, dict[str, Any]] = {
        "global_signal": {"Description": "mean signal of the BOLD brain mask", **signal},
        "csf": {"Description": "mean signal of eroded CSF", **signal, "Mask": rules["CSF"]},
        "white_matter": {"Description": "mean signal of eroded white matter", **signal, "Mask": rules["WM"]},
        "csf_wm": {"Description": "mean signal of eroded CSF and white matter together", **signal},
        "std_dvars": {"Description": "standardised DVARS (Nichols 2013)"},
        "dvars": {"Description": "DVARS of the series scaled to a median of 1000"},
        "framewise_displacement": {"Description": "Power 2012", "Units": "mm", "Radius": limits.radius},
        "framewise_displacement_jenkinson": {
            "Description": "Jenkinson 2002 about the world origin (C-PAC)",
            "Units": "mm",
            "Radius": rigid.SPHERE,
        },
        "rmsd": {"Description": "Jenkinson 2002 about the head's centre", "Units": "mm", "Radius": rigid.SPHERE},
    }
    unit = {"trans": "mm", "rot": "rad"}
    for name in rigid.AXES:
        where = "displacement of the head against the reference, rotations about the head's centre"
        notes[name] = {"Description": where, "Units": unit[name.partition("_")[0]]}
        notes[f"{name}_lag1"] = {"Description": f"{name} of the volume before (Friston 1996)"}
        notes[f"{name}_lag1_power2"] = {"Description": f"square of {name} of the volume before (Friston 1996)"}
    return notes


def _impulse(count: int, index: int) -> Float:
    out = np.zeros(count)
    out[index] = 1.0
    return out
