"""Which confounds are regressed, and whether the run is long enough for them.

Axes: T time, K regressors.

Degrees of freedom are counted after the filter: a band-pass of T volumes keeps the Fourier bins of the band (two
dimensions each, one at Nyquist), and each regressor that the band does not remove by itself takes one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess.clean import detrend, effective_freedom, operator, orthonormal
from boldmill.preprocess.config import CleanConfig
from boldmill.preprocess.confounds import Table
from boldmill.preprocess.motion import AXES, Float, expand

MOTION = {"none": 0, "6": 1, "12": 2, "24": 4, "24lag": 4}


def motion_columns(model: str) -> list[str]:
    """Return the motion columns of a model: none, 6, 12 (with derivatives) or 24 (with squares)."""
    expanded = list(expand({name: np.zeros(1) for name in AXES}))
    suffixes = ("", "_derivative1", "_power2", "_derivative1_power2")[: MOTION[model]]
    return [name for name in expanded if any(name == f"{axis}{s}" for axis in AXES for s in suffixes)]


def wanted_columns(config: CleanConfig, table: Iterable[str]) -> list[str]:
    """Return the names of the columns a strategy regresses, in table order.

    Cosines slower than the pass band are left out: the filter removes them. Non-steady volumes always get their
    column. A strategy that asks for more components than there are takes those there are.
    """
    names = list(table)
    want = set(motion_columns(config.motion))
    want |= {f"a_comp_cor_{index:02d}" for index in range(config.compcor)}
    want |= {"none": set(), "csf": {"csf"}, "wm_csf": {"white_matter", "csf"}}[config.tissue]
    want |= {"global_signal"} if config.global_signal else set()
    if config.drift == "cosine" and not (config.band_low and config.band_low * config.cosine_cutoff >= 1.0):
        want |= {name for name in names if name.startswith("cosine_")}
    want |= {name for name in names if name.startswith("non_steady_state_outlier")}
    return [name for name in names if name in want]


def matrix(table: Table, names: list[str]) -> Float:
    """Return the columns (T, K), undefined values (first rows of derivatives) as 0; constant columns stay out."""
    if not names:
        return np.zeros((table.n_rows, 0))
    values = np.nan_to_num(np.stack([table.columns[name] for name in names], axis=1), nan=0.0)
    return np.asarray(values[:, np.ptp(values, axis=0) > 0])


def band(config: CleanConfig, tr: float) -> tuple[float | None, float | None]:
    """Return the pass band in Hz; an upper edge at or above the Nyquist frequency is no edge."""
    high = config.band_high
    if high is not None and high >= 0.5 / tr:
        high = None
    return config.band_low or None, high


@dataclass(frozen=True, slots=True, kw_only=True)
class Freedom:
    """Degrees of freedom of one run: what the filter keeps, what the regressors take, what is left."""

    n_volumes: int
    kept: int
    regressors: int
    words: str

    @property
    def residual(self) -> int:
        """Residual degrees of freedom."""
        return self.kept - self.regressors


def count_freedom(n_volumes: int, tr: float, low: float | None, high: float | None, drift: str, rank: int) -> Freedom:
    """Count the degrees of freedom that filter and regressors leave.

    Parameters
    ----------
    n_volumes : int
        T.
    tr : float
        Repetition time, s.
    low, high : float or None
        Pass band, Hz.
    drift : str
        ``"linear"`` takes one more dimension where no high-pass removes it.
    rank : int
        Rank of the regressors.
    """
    bins = np.arange(1, n_volumes // 2 + 1)
    frequency = bins / (n_volumes * tr)
    size = np.where(2 * bins == n_volumes, 1, 2)
    inside = np.ones(len(bins), dtype=bool)
    if low is not None:
        inside &= frequency >= low - 1e-12
    if high is not None:
        inside &= frequency <= high + 1e-12
    kept = int(size[inside].sum())
    trend = drift == "linear" and low is None
    kept -= int(trend)
    if low is None and high is None:
        source = f"{n_volumes} volumes without mean{' and linear trend' if trend else ''} keep {kept} dimensions"
    else:
        edges = f"{low if low is not None else 0:g} to {high if high is not None else 0.5 / tr:g} Hz"
        source = f"{n_volumes} volumes at TR {tr:g} s keep {kept} dimensions from {edges}"
    return Freedom(
        n_volumes=n_volumes, kept=kept, regressors=rank, words=f"{source}, {rank} regressors leave {kept - rank}"
    )


def largest_that_fits(config: CleanConfig, n_volumes: int, tr: float, extra: int = 0) -> str | None:
    """Return, as settings in words, the largest smaller model that leaves enough degrees of freedom.

    The pass band is given up last. ``extra`` are regressors no setting removes (non-steady volumes).
    """
    linear = {"band_low": None, "band_high": None, "drift": "linear"}
    for limit in (config.min_dof_flag, config.min_dof):
        for base in ({}, linear):
            options: list[tuple[int, str]] = []
            for motion, factor in MOTION.items():
                for compcor, tissue in ((config.compcor, "none"), (0, "wm_csf"), (0, "none")):
                    model = config.model_copy(update={**base, "motion": motion, "compcor": compcor, "tissue": tissue})
                    low, high = band(model, tr)
                    size = 6 * factor + compcor + 2 * (tissue == "wm_csf") + int(model.global_signal) + extra
                    if model.drift == "cosine" and low is None:
                        size += int(np.floor(2.0 * n_volumes * tr / model.cosine_cutoff))
                    if count_freedom(n_volumes, tr, low, high, model.drift, size).residual >= limit and factor:
                        text = f"motion: '{motion}', compcor: {compcor}, tissue: {tissue}"
                        if base:
                            text += ", drift: linear, band_low: null, band_high: null"
                        options.append((size, text))
            if options:
                return max(options, key=lambda option: option[0])[1]
    return None


def guard(
    config: CleanConfig, freedom: Freedom, tr: float, *, where: str, extra: int = 0, given: bool = False
) -> list[str]:
    """Refuse a run with too few residual degrees of freedom; return a flag where there are few.

    ``given``: the regressors came with the series, so that no setting makes them fewer.

    Raises
    ------
    DataFault
        Fewer than ``min_dof``: the reason shows the arithmetic, the fix proposes the largest model that fits.
    """
    model = None if given else largest_that_fits(config, freedom.n_volumes, tr, extra)
    fix = f"for this data set set overrides.clean to {{{model}}}" if model else "the run is too short: exclude it"
    if given:
        wider = "set overrides.clean to {drift: linear, band_low: null, band_high: null}"
        fix = f"give fewer confounds with the run, or for this data set {wider}"
    if freedom.residual < config.min_dof:
        why = f"{freedom.words} degrees of freedom, fewer than clean.min_dof = {config.min_dof}"
        raise DataFault("cannot clean", where, why, fix)
    if freedom.residual < config.min_dof_flag:
        return [f"few residual degrees of freedom: {freedom.words}; {fix}"]
    return []


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is regressed (``names``), the ``operator`` (T, T) that does it, and ``facts`` for the QC."""

    names: list[str]
    operator: Float
    facts: dict[str, Any]


def plan(config: CleanConfig, table: Table, tr: float, *, where: str, names: list[str] | None = None) -> Plan:
    """Choose the regressors, check the degrees of freedom, and build the cleaning operator of one run.

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

    Raises
    ------
    DataFault
        Too few residual degrees of freedom, or too few volumes for the filter.
    """
    chosen = wanted_columns(config, table.columns) if names is None else names
    low, high = band(config, tr)
    regressors = matrix(table, chosen)
    rank = orthonormal(detrend(regressors, config.drift == "linear")).shape[1]
    freedom = count_freedom(table.n_rows, tr, low, high, config.drift, rank)
    extra = sum(name.startswith("non_steady_state_outlier") for name in chosen)
    flags = guard(config, freedom, tr, where=where, extra=extra, given=names is not None)
    matrix_, rank = operator(table.n_rows, tr, regressors, low=low, high=high, linear=config.drift == "linear")
    facts = {
        "residual_dof": freedom.residual,
        "n_regressors": rank,
        "effective_dof": effective_freedom(matrix_),
        "dof_words": freedom.words,
        "regressors": chosen,
        "flags": flags,
    }
    return Plan(chosen, matrix_, facts)
