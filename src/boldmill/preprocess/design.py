"""Which confounds are regressed and which volumes censored, and the operator that does it.

Axes: T time, K regressors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boldmill.preprocess.censor import interpolation, over_limits, spikes
from boldmill.preprocess.clean import Array, Temporal, effective_freedom, informative, operator, orthonormal
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.drifts import detrend
from boldmill.preprocess.freedom import DEGREE, band, count_freedom, guard, needs_cosines
from boldmill.preprocess.motion import AXES, FORMS, LAGGED, Float

MOTION_FORMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "6": FORMS[:1],
    "12": FORMS[:2],
    "24": FORMS,
    "24lag": LAGGED,
}
"""Endings of the motion columns of each model."""


def motion_columns(model: str) -> list[str]:
    """Return the motion columns of a model: none, 6, 12 (derivatives), 24 (squares) or 24lag (Friston 1996)."""
    return [f"{axis}{form}" for axis in AXES for form in MOTION_FORMS[model]]


def signal_columns(config: CleanConfig) -> list[str]:
    """Return the mean signals a strategy regresses: of tissues, of the whole brain."""
    tissue = {"none": [], "csf": ["csf"], "wm_csf": ["white_matter", "csf"]}[config.tissue]
    return [*tissue, *(["global_signal"] if config.global_signal else [])]


def component_columns(config: CleanConfig, names: Iterable[str], notes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the aCompCor columns of a strategy, as many as there are of those it asks for.

    Components of one mask are named ``c_comp_cor_00`` (CSF) and ``w_comp_cor_00`` (white matter), of both together
    ``a_comp_cor_00``. fMRIPrep up to 20.2 named all three ``a_comp_cor``: there the ``Mask`` of the description tells.

    Parameters
    ----------
    config : CleanConfig
        ``compcor`` and ``compcor_masks``.
    names : iterable of str
        Columns of the table.
    notes : mapping
        Their descriptions; may be empty.
    """
    wanted = {"combined": ["combined"], "separate": ["CSF", "WM"]}[config.compcor_masks]
    found: dict[str, list[str]] = {mask: [] for mask in wanted}
    default = {"a_comp_cor_": "combined", "c_comp_cor_": "CSF", "w_comp_cor_": "WM"}
    for name in sorted(names):
        mask = default.get(name[: len("a_comp_cor_")])
        if mask:
            mask = str(notes.get(name, {}).get("Mask", mask))
            if mask in found:
                found[mask].append(name)
    return [name for mask in wanted for name in found[mask][: config.compcor]]


def wanted_columns(
    config: CleanConfig, table: Iterable[str], notes: Mapping[str, Mapping[str, Any]] | None = None
) -> list[str]:
    """Return the names of the columns a strategy regresses, in table order.

    Cosines slower than the pass band are left out where the filter removes them from data and regressors. Non-steady
    volumes always get their column. A strategy that asks for more components than there are takes those there are.

    Parameters
    ----------
    config : CleanConfig
        Strategy.
    table : iterable of str
        Columns of the table.
    notes : mapping, optional
        Descriptions of the columns.
    """
    names = list(table)
    want = set(motion_columns(config.motion)) | set(component_columns(config, names, notes or {}))
    want |= {f"{name}{form}" for name in signal_columns(config) for form in (FORMS if config.expand else ("",))}
    if needs_cosines(config):
        want |= {name for name in names if name.startswith("cosine_")}
    want |= {name for name in names if name.startswith("non_steady_state_outlier")}
    return [name for name in names if name in want]


def matrix(table: Table, names: list[str]) -> Float:
    """Return the columns (T, K), undefined values (first rows of derivatives) as 0; constant columns stay out."""
    if not names:
        return np.zeros((table.n_rows, 0))
    values = np.nan_to_num(np.stack([table.columns[name] for name in names], axis=1), nan=0.0)
    return np.asarray(values[:, np.ptp(values, axis=0) > 0])


def temporal_of(config: CleanConfig, tr: float) -> Temporal:
    """Return what the settings do over time besides the regressors."""
    low, high = band(config, tr)
    return Temporal(
        low=low,
        high=high,
        degree=DEGREE[config.drift],
        kind=config.filter,
        filter_order=config.filter_order,
        order=config.order,
    )


def unfiltered(config: CleanConfig) -> CleanConfig:
    """Return the same strategy without its pass band (for the voxel maps, which compare bands)."""
    return config.model_copy(update={"band_low": None, "band_high": None, "order": "both"})


def censored_volumes(config: CleanConfig, table: Table) -> tuple[Array, list[str]]:
    """Return which volumes (bool, T) the settings censor, and flags; nothing where ``censor`` is none."""
    none = np.zeros(table.n_rows, dtype=bool)
    if config.censor == "none":
        return none, []
    fd, dvars = (table.columns.get(name) for name in ("framewise_displacement", "std_dvars"))
    flags = []
    if fd is None or not np.isfinite(fd).any():
        flags.append("no framewise displacement is known: no volume is censored for motion")
    if config.censor_dvars is not None and (dvars is None or not np.isfinite(dvars).any()):
        flags.append("no standardised DVARS is known: no volume is censored for it")
    if fd is None and dvars is None:
        return none, flags
    over = over_limits(
        fd,
        dvars,
        limit_fd=config.censor_fd,
        limit_dvars=config.censor_dvars,
        before=config.censor_before,
        after=config.censor_after,
    )
    return over, flags


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is regressed (``names``), the ``operator`` (T, T) that does it, and ``facts`` for the QC."""

    names: list[str]
    operator: Float
    facts: dict[str, Any]


def plan(config: CleanConfig, table: Table, tr: float, *, where: str, names: list[str] | None = None) -> Plan:
    """Choose regressors and censored volumes, check the degrees of freedom, and build the operator of one run.

    Parameters
    ----------
    config : CleanConfig
        Strategy.
    table : Table
        Confounds of the run.
    tr : float
        Repetition time, s.
    where : str
        Scan, for messages.
    names : list of str, optional
        Columns to regress, instead of those of the strategy.

    Returns
    -------
    Plan
        ``facts``: residual_dof, n_regressors, effective_dof, dof_words, regressors, censored (volume numbers),
        flags.

    Raises
    ------
    DataFault
        Too few residual degrees of freedom, or too few volumes for filter or interpolation.
    """
    chosen = wanted_columns(config, table.columns, table.notes) if names is None else list(names)
    censored, flags = censored_volumes(config, table)
    gone = censored if config.censor == "interpolate" else np.zeros(table.n_rows, dtype=bool)
    extra = sum(name.startswith("non_steady_state_outlier") for name in chosen)
    regressors = matrix(table, chosen)
    temporal = temporal_of(config, tr)
    filled = detrend(interpolation(gone, where=where) @ regressors, temporal.degree)
    rank = orthonormal(informative(filled, regressors, np.flatnonzero(~gone))[~gone]).shape[1]
    low, high = temporal.low, temporal.high
    count = int(censored.sum())
    freedom = count_freedom(table.n_rows, tr, low, high, config.drift, rank, censored=count, order=config.order)
    flags += guard(config, freedom, tr, where=where, extra=extra, given=names is not None)
    if config.censor == "spike":
        columns = spikes(censored)
        chosen = [*chosen, *columns]
        regressors = np.concatenate([regressors, *(column[:, np.newaxis] for column in columns.values())], axis=1)
    matrix_, rank = operator(table.n_rows, tr, regressors, temporal, censored=gone)
    facts = {
        "residual_dof": freedom.residual,
        "n_regressors": rank,
        "effective_dof": effective_freedom(matrix_),
        "dof_words": freedom.words,
        "regressors": chosen,
        "censored": np.flatnonzero(censored).tolist(),
        "flags": flags,
    }
    return Plan(chosen, matrix_, facts)
