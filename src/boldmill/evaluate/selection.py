"""Which scans of the cohort a task uses: data sets, sites and limits on other columns, with counts of what they cost.

Axes: N scans of the cohort.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import ConfigError, nearest
from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.config import RangeConfig, TaskConfig

Mask = NDArray[np.bool_]

FIGURES = ("mean_fd",)
"""Columns that come from preprocessing where the phenotype table has none of that name."""


def select(config: TaskConfig, cohort: Cohort) -> tuple[Mask, str]:
    """Return the scans (N,) that pass all filters of a task, and how many each filter left out, in words.

    ``datasets`` and ``external`` choose the data of the task and are not counted. A scan that fails two filters is
    counted under the first: sites, then ``include`` in the order given. Data sets without any scan are named, too.

    Raises
    ------
    ConfigError
        A site or a column that no scan has, or a limit on a column that holds text.
    """
    asked = set(config.datasets)
    kept = np.array([not asked or d in asked or d in config.external for d in cohort.datasets], dtype=bool)
    left_out: list[str] = []
    steps: list[tuple[str, Mask]] = []
    if config.sites:
        known = sorted(set(cohort.sites))
        for site in config.sites:
            if site not in known:
                why = f"'{site}' is no site of the scans{nearest(site, known)}; they are {', '.join(known)}"
                raise ConfigError("unknown site", f"evaluate.tasks[{config.name}].sites", why, "correct or remove it")
        steps.append(("site", np.isin(np.array(cohort.sites, dtype=str), config.sites)))
    steps += [(column, _passes(config.name, column, rule, cohort, kept)) for column, rule in config.include.items()]
    for name, passed in steps:
        lost = int((kept & ~passed).sum())
        kept = kept & passed
        left_out += [f"{lost} by {name}"] if lost else []
    unknown = [name for name in [*config.datasets, *config.external] if name not in set(cohort.datasets)]
    said = [f"no scan is of {', '.join(unknown)}"] if unknown else []
    said += [f"scans left out: {', '.join(left_out)}"] if left_out else []
    return kept, "; ".join(said)


def _passes(task: str, column: str, rule: RangeConfig | list[Any], cohort: Cohort, asked: Mask) -> Mask:
    from boldmill.evaluate.tasks import label_text

    where = f"evaluate.tasks[{task}].include"
    if column in cohort.phenotypes.columns:
        values = cohort.phenotypes[column].tolist()
    elif column in FIGURES:
        values = cohort.mean_fd.tolist()
    else:
        known = [str(c) for c in cohort.phenotypes.columns]
        why = f"no participants table has the column `{column}`{nearest(column, known)}"
        raise ConfigError("unknown phenotype", where, why, "correct the column")
    if isinstance(rule, list):
        wanted = {label_text(value) for value in rule}
        return np.array([label_text(value) in wanted - {None} for value in values], dtype=bool)
    out = np.zeros(len(values), dtype=bool)
    for i, value in enumerate(values):
        if label_text(value) is None:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            if asked[i]:
                why = f"`{column}` holds {value!r}"
                raise ConfigError("not a number", where, why, "give a list of labels, or another column") from None
            continue
        out[i] = (rule.min is None or number >= rule.min) and (rule.max is None or number <= rule.max)
    return out
