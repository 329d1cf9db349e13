"""Confounds and motion of other pipelines, brought to fMRIPrep's column names.

Axes: T time.

fMRIPrep's names are ours. HCP's ``Movement_Regressors.txt`` and C-PAC's 1D files are renamed, degrees become radians.
What a table lacks of other forms is computed by :mod:`boldmill.preprocess.given`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import read_json
from boldmill.errors import DataFault
from boldmill.preprocess.confounds import Table, read
from boldmill.preprocess.motion import AXES, Float

CPAC_NAMES = {
    "X": "trans_x",
    "Y": "trans_y",
    "Z": "trans_z",
    "RotX": "rot_x",
    "RotY": "rot_y",
    "RotZ": "rot_z",
    "CerebrospinalFluidMean": "csf",
    "WhiteMatterMean": "white_matter",
    "GlobalSignalMean": "global_signal",
}
"""C-PAC's names of regressors (degrees and mm) -> fMRIPrep's."""
AFNI_ORDER = ("rot_z", "rot_x", "rot_y", "trans_z", "trans_x", "trans_y")
"""Columns of 3dvolreg: roll, pitch, yaw (degrees), dS, dL, dP (mm); dL and dP point to the left and to the back."""


def given_table(ticket: Mapping[str, Any], count: int) -> Table:
    """Return the confounds a run comes with, under fMRIPrep's names.

    Parameters
    ----------
    ticket : mapping
        A ready-made run.
    count : int
        Volumes T.

    Raises
    ------
    DataFault
        No table, not a table of numbers, or not one row per volume.
    """
    root, files = Path(ticket["root"]), ticket["files"]
    layout, scan = str(ticket["layout"]), str(ticket["scan_id"])
    columns: dict[str, Float] = {}
    for role in ("confounds", "motion"):
        if role in files:
            path = root / files[role]["path"]
            for name, values in _columns(path, layout, role).items():
                columns.setdefault(name, values)
    if not columns:
        raise DataFault("cannot clean", scan, "the run has no confounds", "restore its confounds table")
    rows = {len(values) for values in columns.values()}
    if rows != {count}:
        why = f"the confounds have {sorted(rows)[0]} rows, the series {count} volumes"
        raise DataFault("cannot clean", scan, why, "restore the table: one row per volume")
    notes: dict[str, dict[str, Any]] = {}
    if "confounds_json" in files:
        path = root / files["confounds_json"]["path"]
        try:
            said = read_json(path)
        except ValueError as error:
            raise DataFault("cannot read confounds", path, f"its JSON is broken ({error})", "restore it") from error
        notes = {
            k: {"Mask": v["Mask"]} for k, v in said.items() if k in columns and isinstance(v, dict) and "Mask" in v
        }
    return Table(columns, notes)


def _columns(path: Path, layout: str, role: str) -> dict[str, Float]:
    if layout == "hcp":
        return hcp_motion(path)
    if layout == "cpac":
        return cpac_regressors(path) if role == "confounds" else afni_motion(path)
    return read(path).columns


def hcp_motion(path: Path) -> dict[str, Float]:
    """Return the six parameters of ``Movement_Regressors.txt``: mm and degrees, then their derivatives (recomputed)."""
    values = number_table(path)
    if values.shape[1] not in (6, 12):
        why = f"it has {values.shape[1]} columns, not 12 (or 6)"
        raise DataFault("cannot read movement", path, why, "restore Movement_Regressors.txt of the run")
    return {name: np.deg2rad(v) if "rot" in name else v for name, v in zip(AXES, values.T[:6], strict=True)}


def afni_motion(path: Path) -> dict[str, Float]:
    """Return the six parameters of C-PAC's movement file (3dvolreg: roll pitch yaw dS dL dP, degrees and mm)."""
    values = number_table(path)
    if values.shape[1] != 6:
        raise DataFault("cannot read movement", path, f"it has {values.shape[1]} columns, not 6", "restore the file")
    found = dict(zip(AFNI_ORDER, values.T, strict=True))
    sign = {"trans_x": -1.0, "trans_y": -1.0}
    return {name: np.deg2rad(found[name]) if "rot" in name else sign.get(name, 1.0) * found[name] for name in AXES}


def cpac_regressors(path: Path) -> dict[str, Float]:
    """Return C-PAC's nuisance regressors: names in the last comment line, lagged and squared motion left out."""
    head = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith("#")]
    if not head:
        return read(path).columns
    names, values = head[-1].lstrip("# ").split(), number_table(path)
    if len(names) != values.shape[1]:
        why = f"{len(names)} names for {values.shape[1]} columns"
        raise DataFault("cannot read confounds", path, why, "restore the regressor file")
    out: dict[str, Float] = {}
    for name, column in zip(names, values.T, strict=True):
        component = re.fullmatch(r"aCompCor\w*?PC(\d+)", name)
        known = f"a_comp_cor_{int(component.group(1)):02d}" if component else CPAC_NAMES.get(name)
        if known:
            out[known] = np.deg2rad(column) if "rot" in known else column
    return out


def number_table(path: Path) -> Float:
    """Return a table of numbers (T, K) without header; lines that begin with ``#`` are comments, ``n/a`` is NaN.

    Raises
    ------
    DataFault
        A word is no number, or rows differ in length.
    """
    fix = "restore the file: one row per volume, numbers only"
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    rows = [line.replace(",", " ").split() for line in lines if line.strip() and not line.startswith("#")]
    if not rows or len({len(row) for row in rows}) != 1:
        raise DataFault("cannot read table", path, "rows have different lengths or there are none", fix)
    try:
        return np.array([[np.nan if word.lower() in ("n/a", "na") else float(word) for word in row] for row in rows])
    except ValueError as error:
        raise DataFault("cannot read table", path, str(error), fix) from error
