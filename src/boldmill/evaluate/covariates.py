"""Age, sex, site and motion of every scan, and the baseline that knows nothing else.

The list of columns is explicit: a column that restates a diagnosis (a subtype, a questionnaire) is never found.

Axes: N scans, C columns.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.method import Method
from boldmill.evaluate.probes import Probe, probe_scores
from boldmill.evaluate.tasks import label_text

Floats = NDArray[np.float64]

COVARIATES: dict[str, tuple[str, ...]] = {
    "age": ("age", "interview_age", "age_at_scan"),
    "sex": ("sex", "gender"),
    "mean_fd": ("mean_fd", "func_mean_fd", "meanfd", "fd_mean", "mean_framewise_displacement"),
}
"""Covariate -> the names its column goes by: data sets differ, each scan has the value of the first name that it has
one under. Mean FD of preprocessing comes first, site comes from the index."""
IN_MONTHS = ("interview_age",)
"""Age in months (NIMH Data Archive); all others are in years."""
SITE = ("site", "site_id", "scanner")
"""Targets that the site restates."""


def covariate_features(cohort: Cohort, target: str) -> tuple[Floats, list[str]]:
    """Return age, sex, site and mean FD as (N, C) columns with their names; the target itself is never among them."""
    columns: list[Floats] = []
    names: list[str] = []
    for name in ("age", "sex", "site", "mean_fd"):
        added = _site(cohort, target) if name == "site" else _column(cohort, name, target)
        columns += added
        names += [name] if added else []
    return (np.stack(columns, axis=1) if columns else np.zeros((len(cohort), 0))), names


def kept_covariates(cohort: Cohort, target: str) -> tuple[Floats, list[str]]:
    """Return age and sex, (N, C), which site harmonisation keeps in the features, unless they are the target."""
    found = {name: _column(cohort, name, target) for name in ("age", "sex")}
    columns = [column for added in found.values() for column in added]
    stacked = np.stack(columns, axis=1) if columns else np.zeros((len(cohort), 0))
    return stacked, [name for name, added in found.items() if added]


def covariate_method(cohort: Cohort, target: str, kind: str) -> Method | None:
    """Return the covariates-only baseline, or None where the data carry no covariate."""
    features, names = covariate_features(cohort, target)
    if not names:
        return None
    # A constant column keeps a scan without any covariate usable: it then gets the training mean.
    features = np.column_stack([features, np.zeros(len(cohort))])
    note = f"covariates: {', '.join(names)}"
    if "site" in names:
        note += "; a site unseen in training has no column of its own"
    fit = partial(probe_scores, Probe(kind="logistic" if kind == "classification" else "ridge"))
    return Method(name="covariates", fit=fit, features=features, permute="refit", note=note)


def _column(cohort: Cohort, name: str, target: str) -> list[Floats]:
    """Return the columns (N,) of a covariate; none where it is missing throughout or is the target."""
    aliases = COVARIATES[name]
    if target.lower() in aliases:
        return []
    lower = {str(c).lower(): c for c in cohort.phenotypes.columns}
    found = {alias: cohort.phenotypes[lower[alias]].tolist() for alias in aliases if alias in lower}
    if name == "sex":
        texts = [list(map(label_text, values)) for values in found.values()]
        return _one_hot([next((text for text in scan if text is not None), None) for scan in zip(*texts, strict=True)])
    column = np.full(len(cohort), np.nan)
    for alias, values in found.items():
        numbers = _numbers(values, len(cohort)) / (12 if alias in IN_MONTHS else 1)
        column = np.where(np.isfinite(column), column, numbers)
    if name == "mean_fd":
        column = np.where(np.isfinite(cohort.mean_fd), cohort.mean_fd, column)
    return [column] if np.isfinite(column).any() else []


def _site(cohort: Cohort, target: str) -> list[Floats]:
    """Return a column for each site; sites of different data sets are different, whatever their names."""
    if target.lower() in SITE:
        return []
    known = [label_text(site) for site in cohort.sites]
    pairs = zip(cohort.datasets, known, strict=True)
    return _one_hot([None if site is None else f"{dataset}/{site}" for dataset, site in pairs])


def _numbers(values: list[Any], n: int) -> Floats:
    out = np.full(n, np.nan)
    for i, value in enumerate(values):
        try:
            out[i] = np.nan if value is None else float(value)
        except (TypeError, ValueError):
            continue
    return out


def _one_hot(values: list[Any]) -> list[Floats]:
    texts = [label_text(value) for value in values]
    classes = sorted({t for t in texts if t is not None})
    if len(classes) < 2:
        return []
    return [np.array([np.nan if t is None else float(t == c) for t in texts]) for c in classes]
