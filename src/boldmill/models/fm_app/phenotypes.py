"""Which phenotypes FM-APP learns, which it must answer from text alone, and their values as numbers.

Axes: N scans, K phenotypes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError, nearest
from boldmill.models.fm_app.text import phenotype_text

if TYPE_CHECKING:
    import pandas as pd

    from boldmill.models.fm_app.config import FmAppConfig

MIN_KNOWN = 3
"""Training subjects that must have a value for a phenotype to get a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phenotypes:
    """Seen and unseen phenotypes with their ``(title, text)``, sorted by name."""

    seen: dict[str, tuple[str, str]]
    unseen: dict[str, tuple[str, str]]


def number(value: Any) -> float:
    """Return a phenotype value as a number; NaN where it is missing or no number.

    >>> number("12.5"), number(True), number("F")
    (12.5, nan, nan)
    """
    if value is None or isinstance(value, bool):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def numbers(table: pd.DataFrame, columns: Sequence[str], sentinels: Mapping[str, Sequence[float]]) -> NDArray[Any]:
    """Return (N, K) float64 values of phenotype columns, looked up by name; sentinel codes and gaps are NaN."""
    out = np.full((len(table), len(columns)), np.nan)
    for k, column in enumerate(columns):
        if column not in table.columns:
            continue
        values = np.array([number(value) for value in table[column]], dtype=np.float64)
        values[np.isin(values, list(sentinels.get(column, ())))] = np.nan
        out[:, k] = values
    return out


def choose(
    table: pd.DataFrame, descriptions: Mapping[str, Mapping[str, Any]], config: FmAppConfig, where: str = "phenotypes"
) -> Phenotypes:
    """Return the seen and unseen phenotypes of a training table.

    Parameters
    ----------
    table : DataFrame
        One row per training subject, one column per phenotype.
    descriptions : mapping
        Data set -> column -> BIDS entry. Where several data sets describe a column, the first by name counts.
    config : FmAppConfig
        ``phenotypes`` empty: every numeric column that has words and no ``Levels`` (a code is no score).

    Raises
    ------
    ConfigError
        A named phenotype is unknown or not numeric, or nothing is left to learn.
    """
    words: dict[str, Mapping[str, Any]] = {}
    for dataset in sorted(descriptions):
        for column, entry in descriptions[dataset].items():
            words.setdefault(column, entry)
    usable = {}
    for column in sorted(map(str, table.columns)):
        present = [value for value in table[column] if value is not None and value == value]
        values = numbers(table, [column], config.sentinels)[:, 0]
        known = values[np.isfinite(values)]
        if present and all(np.isfinite(number(v)) for v in present) and np.unique(known).size > 1:
            usable[column] = known.size
    for name in (*config.phenotypes, *config.unseen):
        if name not in usable:
            why = "it is no numeric column with at least two values in the training split"
            raise ConfigError("cannot use phenotype", name, f"{why}{nearest(name, usable)}", "correct models.fm_app")
    described = [c for c in usable if words.get(c, {}).get("Description") and not words[c].get("Levels")]
    wanted = config.phenotypes or described
    seen = [c for c in sorted(set(wanted)) if c not in config.unseen and usable[c] >= MIN_KNOWN]
    if not seen:
        raise ConfigError(
            "nothing to learn",
            where,
            "no numeric phenotype with a Description in participants.json is left in the training split",
            "describe phenotypes in participants.json, or take fm_app out of models.train",
        )
    field = config.text_field
    return Phenotypes(
        seen={c: phenotype_text(c, words.get(c, {}), field) for c in seen},
        unseen={c: phenotype_text(c, words.get(c, {}), field) for c in sorted(set(config.unseen))},
    )
