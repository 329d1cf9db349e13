"""Named cleaning strategies and presets: sets of values of the same options, nothing else.

Sources: C-PAC 1.8.7 defaults and ABIDE PCP; fMRIPrep 26 with 36 parameters (Ciric 2017); XCP-D 26.1 mode `linc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boldmill.errors import nearest

STRATEGIES: dict[str, dict[str, Any]] = {
    "none": {"motion": "none", "compcor": 0, "tissue": "none", "global_signal": False, "expand": False},
    "24P": {"motion": "24", "compcor": 0, "tissue": "none", "global_signal": False, "expand": False},
    "36P": {"motion": "24", "compcor": 0, "tissue": "wm_csf", "global_signal": True, "expand": True},
    "acompcor": {
        "motion": "24",
        "compcor": 5,
        "compcor_masks": "combined",
        "tissue": "none",
        "global_signal": False,
        "expand": False,
    },
    "abide_pcp": {
        "motion": "24lag",
        "compcor": 5,
        "compcor_masks": "combined",
        "tissue": "none",
        "global_signal": False,
        "expand": False,
        "drift": "quadratic",
        "band_low": 0.01,
        "band_high": 0.1,
        "filter": "fft",
        "order": "after",
    },
}
"""Base strategies; a name may carry suffixes, as in ``acompcor+gsr+scrub``."""

SUFFIXES: dict[str, dict[str, Any]] = {
    "gsr": {"global_signal": True},
    "scrub": {"censor": "interpolate"},
    "spike": {"censor": "spike"},
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "boldmill": {},
    "abide_pcp": {
        "spaces": {"resolution": 3.0},
        "preprocess": {"motion_before_slice_timing": False, "motion_reference": "mean", "maps_smoothing": 6.0},
        "clean": {**STRATEGIES["abide_pcp"]},
    },
    "cpac_default": {
        "spaces": {"resolution": 3.0},
        "preprocess": {
            "motion_before_slice_timing": False,
            "motion_reference": "mean",
            "maps_smoothing": 4.0,
            "maps_zscore": True,
        },
        "clean": {**STRATEGIES["abide_pcp"], "tissue": "csf"},
    },
    "fmriprep_36p": {"clean": {**STRATEGIES["36P"], "band_low": 0.01, "band_high": 0.08}},
    "xcpd_linc": {
        "preprocess": {"despike": True},
        "clean": {
            **STRATEGIES["36P"],
            "drift": "linear",
            "band_low": 0.01,
            "band_high": 0.08,
            "filter_order": 2,
            "smoothing": 6.0,
        },
    },
}
"""Preset -> section -> values that differ from the defaults (``boldmill``)."""


def strategy_values(name: str) -> dict[str, Any]:
    """Return the values a strategy name stands for.

    Raises
    ------
    ValueError
        An unknown base or suffix, with the nearest known one.

    >>> strategy_values("24P+gsr")["global_signal"]
    True
    """
    base, *suffixes = name.split("+")
    if base not in STRATEGIES:
        raise ValueError(f"unknown strategy '{base}'{nearest(base, STRATEGIES)}; known are {', '.join(STRATEGIES)}")
    values = dict(STRATEGIES[base])
    for suffix in suffixes:
        if suffix not in SUFFIXES:
            known = ", ".join(f"+{one}" for one in SUFFIXES)
            raise ValueError(f"unknown suffix '+{suffix}'{nearest(suffix, SUFFIXES)}; known are {known}")
        values.update(SUFFIXES[suffix])
    return values


def expand_strategy(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of ``clean`` with the values their ``strategy`` stands for; keys that are given win."""
    name = values.get("strategy")
    return {**strategy_values(name), **values} if isinstance(name, str) and name else dict(values)


def with_preset(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a raw configuration with the values of its ``preset`` filled in where a key is absent."""
    out = dict(raw)
    for section, values in PRESETS.get(str(raw.get("preset", "boldmill")), {}).items():
        given = out.get(section) or {}
        if isinstance(given, Mapping):
            own = strategy_values(str(given["strategy"])) if section == "clean" and given.get("strategy") else {}
            out[section] = {**values, **own, **given}
    return out


def governed() -> set[str]:
    """Return the dotted keys that a preset or a strategy may set: configuration files leave them commented out."""
    keys = {f"clean.{key}" for values in (*STRATEGIES.values(), *SUFFIXES.values()) for key in values}
    for sections in PRESETS.values():
        keys |= {f"{section}.{key}" for section, values in sections.items() for key in values if section != "spaces"}
    return keys
