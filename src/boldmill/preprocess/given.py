"""Confounds that came with ready-made series: which of their columns are regressed.

A table with fMRIPrep's motion columns is treated as our own: the strategy chooses its columns, and forms that other
tools leave out (squares, lags, framewise displacement) are computed. Of any other table every column is regressed.

Axes: T time.
"""

from __future__ import annotations

import re

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess import design
from boldmill.preprocess import motion as rigid
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.drifts import cosines
from boldmill.preprocess.freedom import needs_cosines

SIGNALS = ("global_signal", "csf", "white_matter")
SHOWN = 6
"""Columns a message names."""


def is_named(table: Table) -> bool:
    """Return whether a table has fMRIPrep's six motion columns."""
    return set(rigid.AXES) <= set(table.columns)


def own_name(name: str) -> str:
    """Return a column's name as the cleaning reads it: fMRIPrep writes ``cosine00``, boldmill ``cosine_00``."""
    return re.sub(r"^cosine(\d\d)$", r"cosine_\1", name)


def completed(table: Table, n_volumes: int, tr: float, clean: CleanConfig, *, radius: float = 50.0) -> Table:
    """Return a table with what a strategy may need besides what was given; given columns keep their values.

    Parameters
    ----------
    table : Table
        Given confounds under fMRIPrep's names; without columns where there were none.
    n_volumes : int
        T.
    tr : float
        Repetition time, s.
    clean : CleanConfig
        ``cosine_cutoff`` is the period of the fastest drift cosine, s: cosines that were given are completed up to it.
    radius : float
        Head radius of FD (Power), mm; translations are taken to be in mm and rotations in rad.

    Returns
    -------
    Table
        ``framewise_displacement`` (mm) is always there: undefined where motion is not known.
    """
    columns = {own_name(name): values for name, values in table.columns.items()}
    motion = {name: columns[name] for name in rigid.AXES if name in columns}
    signals = {name: columns[name] for name in SIGNALS if name in columns}
    extra = {**rigid.expand({**motion, **signals}), **rigid.lagged(motion)}
    if is_named(table):
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
        require(clean, full, where, "the given confounds")
        return None
    drift = [name for name in full.columns if name.startswith("cosine_")] if needs_cosines(clean) else []
    return list(dict.fromkeys([*(own_name(name) for name in table.columns), *drift]))


def missing(clean: CleanConfig, table: Table) -> list[str]:
    """Return what a strategy asks for and a table does not have, in words.

    Fewer components than asked for are taken as they are; none at all are missing.
    """
    out = [name for name in design.motion_columns(clean.motion) if name not in table.columns]
    if clean.compcor and not design.component_columns(clean, table.columns, table.notes):
        out.append(f"aCompCor components ({clean.compcor_masks} masks)")
    return out + [name for name in design.signal_columns(clean) if name not in table.columns]


def require(clean: CleanConfig, table: Table, where: str, whose: str) -> None:
    """Refuse a strategy whose columns a table lacks.

    Parameters
    ----------
    clean : CleanConfig
        Strategy.
    table : Table
        :func:`completed`.
    where : str
        Scan, for messages.
    whose : str
        What the confounds are called in the message.

    Raises
    ------
    DataFault
        Names the columns, and a strategy that the table can serve.
    """
    lost = missing(clean, table)
    if not lost:
        return
    shown = ", ".join(lost[:SHOWN]) + (f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else "")
    why = f"the strategy asks for {shown}, which {whose} do not have"
    fix = "for this data set set overrides.clean to a strategy they can serve, e.g. {strategy: %s}"
    raise DataFault("cannot clean", where, why, fix % ("24P" if is_named(table) else "none"))
