"""Inclusion rules: why a scan stays out of the snapshot, in words with numbers.

The cohort page and the snapshot ask the same two functions, so that what one shows is what the other does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boldmill.quality.config import InclusionConfig


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the key of its limit, the figure it judges, whether the limit is an upper one, and its words."""

    key: str
    figure: str
    upper: bool
    words: str
    unit: str = ""


RULES: tuple[Rule, ...] = (
    Rule("max_mean_fd", "mean_fd", True, "mean FD", " mm"),
    Rule("min_minutes", "minutes_kept", False, "kept time", " min"),
    Rule("max_censored", "censored_share", True, "share of censored volumes"),
    Rule("min_residual_dof", "residual_dof", False, "residual degrees of freedom"),
    Rule("min_tsnr", "tsnr", False, "median tSNR"),
    Rule("min_coverage", "coverage", False, "covered share of the template brain"),
)
"""Every rule of the section ``inclusion`` that excludes."""


def reasons(figures: Mapping[str, Any], rules: InclusionConfig) -> list[str]:
    """Return every reason why a scan is excluded; a figure exactly at its limit is accepted.

    Parameters
    ----------
    figures : mapping
        Quality figures of the run by name; a missing or undefined one excludes nothing (:func:`unchecked`).
    rules : InclusionConfig
        Limits; null: no rule.

    >>> from boldmill.quality.config import InclusionConfig
    >>> reasons({"mean_fd": 0.812, "tsnr": 31.0}, InclusionConfig(max_mean_fd=0.5, min_tsnr=40, min_minutes=5))
    ['mean FD 0.812 mm is above 0.5 mm (max_mean_fd)', 'median tSNR 31 is below 40 (min_tsnr)']
    """
    found = []
    for rule in RULES:
        limit, value = getattr(rules, rule.key), figures.get(rule.figure)
        if limit is None or value is None or not _known(value):
            continue
        if value > limit if rule.upper else value < limit:
            side = "above" if rule.upper else "below"
            shown = _shown(float(value), float(limit))
            found.append(f"{rule.words} {shown}{rule.unit} is {side} {limit:g}{rule.unit} ({rule.key})")
    return found


def unchecked(figures: Mapping[str, Any], rules: InclusionConfig) -> list[str]:
    """Return the rules that could not be asked because their figure is missing.

    >>> from boldmill.quality.config import InclusionConfig
    >>> unchecked({"mean_fd": None}, InclusionConfig(max_mean_fd=0.5))
    ['max_mean_fd not checked: mean_fd is unknown']
    """
    return [
        f"{rule.key} not checked: {rule.figure} is unknown"
        for rule in RULES
        if getattr(rules, rule.key) is not None and not _known(figures.get(rule.figure))
    ]


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: float, limit: float) -> str:
    """Return a value in so many digits that it does not look equal to its limit."""
    return next((text for n in (3, 4, 6, 9) if float(text := f"{value:.{n}g}") != limit), repr(value))
