"""The confounds table: fMRIPrep's column names, one row per volume, ``n/a`` where a value is undefined.

Axes: T time, V voxels, K components.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import write_json, write_text
from boldmill.errors import DataFault
from boldmill.preprocess import dvars as intensity
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.compcor import Components
from boldmill.preprocess.drifts import cosines
from boldmill.preprocess.motion import Float

Array = NDArray[Any]

FD_OUTLIER = 0.5
"""FD (Power) above which a volume gets an outlier column, mm (fMRIPrep)."""
DVARS_OUTLIER = 1.5
"""Standardised DVARS above which a volume gets an outlier column (fMRIPrep)."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """``columns``: name -> values (T,), NaN where undefined; ``notes``: name -> its JSON description."""

    columns: dict[str, Float]
    notes: dict[str, dict[str, Any]]

    @property
    def n_rows(self) -> int:
        """Number of volumes."""
        return len(next(iter(self.columns.values())))


def build(
    *,
    matrices: Float,
    centre: Float,
    brain: Array,
    white: Array,
    csf: Array,
    compcor: Components,
    rules: dict[str, str],
    tr: float,
    non_steady: int,
    cutoff: float = 128.0,
    fd_radius: float = 50.0,
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
    white, csf : array (T,)
        Mean signals of the eroded tissues (NaN where a tissue has no voxels).
    compcor : Components
        aCompCor of both tissues.
    rules : dict
        How the ``wm`` and ``csf`` voxels were chosen, in words.
    tr : float
        Repetition time, s.
    non_steady : int
        Non-steady first volumes.
    cutoff : float
        Period of the fastest drift cosine, s.
    fd_radius : float
        Head radius of FD (Power), mm.
    """
    count = len(matrices)
    parameters = rigid.parameters_of(matrices, centre)
    fd = rigid.fd_power(parameters, fd_radius)
    scaled = brain * np.float32(1000.0 / float(np.median(brain)))
    std = intensity.std_dvars(scaled)
    columns = rigid.expand({"global_signal": brain.mean(axis=1, dtype=np.float64), "csf": csf, "white_matter": white})
    columns |= {
        "std_dvars": std,
        "dvars": intensity.dvars(scaled),
        "framewise_displacement": fd,
        "framewise_displacement_jenkinson": rigid.fd_jenkinson(matrices),
        "rmsd": rigid.fd_jenkinson(matrices, centre),
    }
    notes: dict[str, dict[str, Any]] = {
        "global_signal": {"Description": "mean signal of the BOLD brain mask", "Units": "arbitrary"},
        "csf": {"Description": "mean signal of eroded CSF", "Units": "arbitrary", "Mask": rules["csf"]},
        "white_matter": {
            "Description": "mean signal of eroded white matter",
            "Units": "arbitrary",
            "Mask": rules["wm"],
        },
        "std_dvars": {"Description": "standardised DVARS (Nichols 2013)"},
        "dvars": {"Description": "DVARS of the series scaled to a median of 1000"},
        "framewise_displacement": {"Description": "Power 2012", "Units": "mm", "Radius": fd_radius},
        "framewise_displacement_jenkinson": {
            "Description": "Jenkinson 2002 about the world origin (C-PAC)",
            "Units": "mm",
            "Radius": rigid.SPHERE,
        },
        "rmsd": {"Description": "Jenkinson 2002 about the head's centre", "Units": "mm", "Radius": rigid.SPHERE},
    }
    for index in range(compcor.values.shape[1]):
        name = f"a_comp_cor_{index:02d}"
        columns[name] = compcor.values[:, index]
        notes[name] = {
            "Method": "aCompCor",
            "Mask": "combined",
            "MaskRule": f"white matter: {rules['wm']}; CSF: {rules['csf']}",
            "SingularValue": float(compcor.singular[index]),
            "VarianceExplained": float(compcor.explained[index]),
            "CumulativeVarianceExplained": float(compcor.explained[: index + 1].sum()),
            "Retained": True,
        }
    for index, values in enumerate(cosines(count, tr, cutoff).T):
        columns[f"cosine_{index:02d}"] = values
        notes[f"cosine_{index:02d}"] = {"Description": f"discrete cosine {index + 1}, cut-off {cutoff:g} s"}
    for index in range(non_steady):
        columns[f"non_steady_state_outlier{index:02d}"] = _impulse(count, index)
    columns |= rigid.expand(dict(zip(rigid.AXES, parameters.T, strict=True)))
    unit = {"trans": "mm", "rot": "rad"}
    for name in rigid.AXES:
        notes[name] = {
            "Description": "displacement of the head against the reference, rotations about the head's centre",
            "Units": unit[name.partition("_")[0]],
        }
    high = np.flatnonzero((np.nan_to_num(fd) > FD_OUTLIER) | (np.nan_to_num(std) > DVARS_OUTLIER))
    for index, t in enumerate(high):
        columns[f"motion_outlier{index:02d}"] = _impulse(count, int(t))
    return Table(columns, notes)


def _impulse(count: int, index: int) -> Float:
    out = np.zeros(count)
    out[index] = 1.0
    return out


def write(table: Table, tsv: str | Path, json: str | Path) -> None:
    """Write the table and its description; numbers keep twelve significant digits."""
    names = list(table.columns)
    rows = np.stack([table.columns[name] for name in names], axis=1)
    lines = ["\t".join(names)]
    lines += ["\t".join("n/a" if np.isnan(v) else format(v, ".12g") for v in row) for row in rows]
    write_text(tsv, "\n".join(lines) + "\n")
    write_json(json, table.notes)


def read(path: str | Path) -> Table:
    """Read a confounds TSV (tab or space separated); columns without names become ``confound_00`` and on.

    Raises
    ------
    DataFault
        Not a table of numbers.
    """
    fix = "give one row per volume, with numbers or n/a"
    try:
        lines = [line.split() for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataFault("cannot read confounds", path, "it is not text", fix) from error
    if not lines or len({len(line) for line in lines}) != 1:
        raise DataFault("cannot read confounds", path, "rows have different lengths or there are none", fix)
    names = lines.pop(0) if not all(_is_number(word) for word in lines[0]) else None
    if names is None:
        names = [f"confound_{index:02d}" for index in range(len(lines[0]))]
    try:
        values = np.array([[np.nan if w.lower() in MISSING else float(w) for w in line] for line in lines])
    except ValueError as error:
        raise DataFault("cannot read confounds", path, str(error), fix) from error
    if not len(values):
        raise DataFault("cannot read confounds", path, "it has a header only", fix)
    return Table(dict(zip(names, values.T, strict=True)), {})


MISSING = frozenset({"n/a", "nan", "na"})


def _is_number(word: str) -> bool:
    if word.lower() in MISSING:
        return True
    try:
        float(word)
    except ValueError:
        return False
    return True
