"""Confounds that came with ready-made series: which of their columns are regressed.

A table with fMRIPrep's motion columns is treated as our own: the strategy chooses its columns, and forms that other
tools leave out (squares, lags, framewise displacement) are computed. Of any other table every column is regressed.

Axes: T time.
"""

from __future__ import annotations

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess import design
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.drifts import cosines
from boldmill.preprocess.freedom import needs_cosines

SIGNALS = ("global_signal", "csf", "white_matter")


def is_named(table: Table) -> bool:
    """Return whether a table has fMRIPrep's six motion columns."""
    return set(rigid.AXES) <= set(table.columns)


def completed(table: Table, n_volumes: int, tr: float, clean: CleanConfig, *, radius: float = 50.0) -> Table:
    """Return a table with what a strategy may need besides what was given; given columns stay as they are.

    Parameters
    ----------
    table : Table
        Given confounds; without columns where there were none.
    n_volumes : int
        T.
    tr : float
        Repetition time, s.
    clean : CleanConfig
        ``cosine_cutoff`` is the period of the fastest drift cosine.
    radius : float
        Head radius of FD (Power), mm; translations are taken to be in mm and rotations in rad.
    """
    columns = dict(table.columns)
    known = {name: columns[name] for name in (*rigid.AXES, *SIGNALS) if name in columns}
    extra = rigid.expand(known)
    if is_named(table):
        motion = {name: columns[name] for name in rigid.AXES}
        extra |= rigid.lagged(motion)
        extra["framewise_displacement"] = rigid.fd_power(np.stack(list(motion.values()), axis=1), radius)
    for index, values in enumerate(cosines(n_volumes, tr, clean.cosine_cutoff).T):
        extra[f"cosine_{index:02d}"] = values
    extra.setdefault("framewise_displacement", np.full(n_volumes, np.nan))
    for name, values in extra.items():
        columns.setdefault(name, values)
    return Table(columns, table.notes)


def chosen_names(table: Table, full: Table, clean: CleanConfig, *, where: str) -> list[str] | None:
    """Return the columns to regress, or None where the strategy chooses them.

    Parameters
    ----------
    table : Table
        Confounds as they were given.
    full : Table
        The same, :func:`completed`.
    clean : CleanConfig
        Strategy.
    where : str
        Scan, for messages.

    Raises
    ------
    DataFault
        The table has fMRIPrep's names, but lacks what the strategy asks for.
    """
    if is_named(table):
        lacking = missing(clean, full)
        if lacking:
            why = f"the strategy asks for {', '.join(lacking)}, which the given confounds do not have"
            fix = "set overrides.clean for this data set to a strategy of columns they have, e.g. {strategy: 24P}"
            raise DataFault("cannot clean", where, why, fix)
        return None
    drift = [name for name in full.columns if name.startswith("cosine_")] if needs_cosines(clean) else []
    return list(dict.fromkeys([*table.columns, *drift]))


def missing(clean: CleanConfig, table: Table) -> list[str]:
    """Return what a strategy asks for and a table does not have, in words."""
    out = [name for name in design.motion_columns(clean.motion) if name not in table.columns]
    if clean.compcor and not design.component_columns(clean, table.columns, table.notes):
        out.append(f"aCompCor components ({clean.compcor_masks} masks)")
    signals = {"none": [], "csf": ["csf"], "wm_csf": ["csf", "white_matter"]}[clean.tissue]
    signals = [*signals, *(["global_signal"] if clean.global_signal else [])]
    return out + [name for name in signals if name not in table.columns]
