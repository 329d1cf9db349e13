"""Degrees of freedom that cleaning leaves, counted from settings, volumes and repetition time (no data, no numpy).

A band-pass of T volumes keeps the sine and the cosine of each Fourier frequency ``k / (T TR)`` inside the band (one
dimension at the Nyquist frequency); the mean takes one. Each censored volume takes one more, whether it is interpolated
or modelled, and so does each regressor. With ``order: both`` filter and regressors share one space, so that

    residual = kept by the band - censored - regressors

With ``order: after`` the regression comes first and the filter then keeps what lies in its band, so that

    residual = min(kept by the band, volumes - 1 - trends - censored - regressors)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from boldmill.errors import DataFault
from boldmill.preprocess.config import CleanConfig

MOTION = {"none": 0, "6": 6, "12": 12, "24": 24, "24lag": 24}
TISSUE = {"none": 0, "csf": 1, "wm_csf": 2}
DEGREE = {"none": 0, "cosine": 0, "linear": 1, "quadratic": 2}
"""Polynomial removed from data and regressors by each kind of drift."""


def band(config: CleanConfig, tr: float) -> tuple[float | None, float | None]:
    """Return the pass band in Hz; an upper edge at or above the Nyquist frequency is no edge."""
    high = config.band_high
    if high is not None and high >= 0.5 / tr:
        high = None
    return config.band_low or None, high


def band_dimensions(n_volumes: int, tr: float, low: float | None, high: float | None) -> int:
    """Return how many dimensions of T volumes a pass band (Hz) holds, the mean not counted."""
    kept = 0
    for k in range(1, n_volumes // 2 + 1):
        frequency = k / (n_volumes * tr)
        if (low is None or frequency >= low - 1e-12) and (high is None or frequency <= high + 1e-12):
            kept += 1 if 2 * k == n_volumes else 2
    return kept


def filter_padding(config: CleanConfig, low: float | None, high: float | None) -> int:
    """Return the number of volumes a run must exceed for the edge padding of its filter."""
    if config.filter == "fft" or (low is None and high is None):
        return 0
    both = low is not None and high is not None
    sections = config.filter_order if both else math.ceil(config.filter_order / 2)
    return 3 * (2 * sections + 1)


def needs_cosines(config: CleanConfig) -> bool:
    """Return whether drift cosines are regressed: not where data and regressors are high-passed beyond them anyway."""
    if config.drift != "cosine":
        return False
    removed = config.band_low is not None and config.band_low * config.cosine_cutoff >= 1.0
    return config.order == "after" or not removed


def model_size(config: CleanConfig, n_volumes: int, tr: float) -> int:
    """Return how many regressors the settings ask for; the rank of real ones may be lower."""
    compcor = config.compcor * (2 if config.compcor_masks == "separate" else 1)
    signals = TISSUE[config.tissue] + int(config.global_signal)
    cosines = math.floor(2.0 * n_volumes * tr / config.cosine_cutoff) if needs_cosines(config) else 0
    return MOTION[config.motion] + compcor + signals * (4 if config.expand else 1) + cosines


@dataclass(frozen=True, slots=True, kw_only=True)
class Freedom:
    """Degrees of freedom of one run: what the filter keeps, what is taken, what is left, and all of it in words."""

    n_volumes: int
    kept: int
    regressors: int
    censored: int
    residual: int
    words: str


def count_freedom(
    n_volumes: int,
    tr: float,
    low: float | None,
    high: float | None,
    drift: str,
    rank: int,
    *,
    censored: int = 0,
    order: str = "both",
) -> Freedom:
    """Count the degrees of freedom that filter, censoring and regressors leave.

    Parameters
    ----------
    n_volumes : int
        T.
    tr : float
        Repetition time, s.
    low, high : float or None
        Pass band, Hz.
    drift : str
        ``"linear"`` takes one more dimension and ``"quadratic"`` two, where no high-pass removes them.
    rank : int
        Rank of the regressors.
    censored : int
        Volumes interpolated or modelled by a column of their own.
    order : str
        ``"both"`` or ``"after"``.
    """
    inside, degree = band_dimensions(n_volumes, tr, low, high), DEGREE[drift]
    trend = {0: "", 1: " and linear trend", 2: " and quadratic trend"}[degree]
    taken = f"{censored} censored volumes and {rank} regressors" if censored else f"{rank} regressors"
    whole = n_volumes - 1 - degree
    edges = f"{low if low is not None else 0:g} to {high if high is not None else 0.5 / tr:g} Hz"
    unfiltered = low is None and high is None
    if order == "after" and not unfiltered:
        left = whole - censored - rank
        words = (
            f"{n_volumes} volumes without mean{trend} keep {whole} dimensions, {taken} leave {left}, of which the "
            f"filter ({edges} at TR {tr:g} s) can keep {inside}: {min(inside, left)}"
        )
        return Freedom(
            n_volumes=n_volumes,
            kept=inside,
            regressors=rank,
            censored=censored,
            residual=min(inside, left),
            words=words,
        )
    kept = inside - degree if low is None else inside
    source = f"{n_volumes} volumes without mean{trend} keep {kept} dimensions"
    if not unfiltered:
        source = f"{n_volumes} volumes at TR {tr:g} s keep {kept} dimensions from {edges}"
    left = kept - censored - rank
    return Freedom(
        n_volumes=n_volumes,
        kept=kept,
        regressors=rank,
        censored=censored,
        residual=left,
        words=f"{source}, {taken} leave {left}",
    )


def _smaller(config: CleanConfig) -> Iterator[dict[str, Any]]:
    """Yield what may be given up, as settings: motion terms, components, expansions, the global signal."""
    motions = [m for m in MOTION if MOTION[m] and m != ("24" if config.motion == "24lag" else "24lag")]
    tissues = dict.fromkeys([(config.compcor, config.tissue), (config.compcor, "none"), (0, "wm_csf"), (0, "none")])
    for motion in motions:
        for compcor, tissue in tissues:
            for expand in dict.fromkeys([config.expand, False]):
                for whole in dict.fromkeys([config.global_signal, False]):
                    model = {"motion": motion, "compcor": compcor, "tissue": tissue}
                    model |= {"expand": expand} if expand != config.expand else {}
                    yield model | ({"global_signal": whole} if whole != config.global_signal else {})


def largest_that_fits(
    config: CleanConfig, n_volumes: int, tr: float, extra: int = 0, censored: int = 0, *, at_least: bool = True
) -> str | None:
    """Return, as settings in words, the largest model that leaves ``min_dof_flag`` degrees of freedom.

    With ``at_least`` one that leaves ``min_dof`` will do where none leaves more. The pass band is given up last.
    ``extra`` are regressors no setting removes (non-steady volumes).
    """
    unfiltered = {"drift": "linear", "band_low": None, "band_high": None}
    for limit in (config.min_dof_flag, config.min_dof)[: 2 if at_least else 1]:
        for base in ({}, unfiltered):
            options: list[tuple[int, str]] = []
            for change in _smaller(config):
                model = config.model_copy(update={**base, **change})
                low, high = band(model, tr)
                size = model_size(model, n_volumes, tr) + extra
                counted = count_freedom(
                    n_volumes, tr, low, high, model.drift, size, censored=censored, order=model.order
                )
                if counted.residual >= limit:
                    options.append((size, in_words(change | base)))
            if options:
                return max(options, key=lambda option: option[0])[1]
    return None


def in_words(values: dict[str, Any]) -> str:
    """Return settings as they are written in a configuration file, on one line."""

    def word(key: str, value: Any) -> str:
        if key == "motion":
            return f"'{value}'"  # 6 alone would be read as a number
        if value is None:
            return "null"
        return str(value).lower() if isinstance(value, bool) else str(value)

    return ", ".join(f"{key}: {word(key, value)}" for key, value in values.items())


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
    refused = freedom.residual < config.min_dof
    model = None
    if not given:
        model = largest_that_fits(config, freedom.n_volumes, tr, extra, freedom.censored, at_least=refused)
    short = "too few volumes are left after censoring" if freedom.censored else "the run is too short"
    fix = f"for this data set set overrides.clean to {{{model}}}" if model else f"{short}: exclude the run"
    if given:
        wider = "set overrides.clean to {drift: linear, band_low: null, band_high: null}"
        fix = f"give fewer confounds with the run, or for this data set {wider}"
    if refused:
        why = f"{freedom.words} degrees of freedom, fewer than clean.min_dof = {config.min_dof}"
        raise DataFault("cannot clean", where, why, fix)
    if freedom.residual < config.min_dof_flag:
        return [f"few residual degrees of freedom: {freedom.words}; {fix if model or given else 'the run is short'}"]
    return []
