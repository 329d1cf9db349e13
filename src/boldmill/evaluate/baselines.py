"""Baselines that stand in every table: functional connectivity, covariates alone, and a constant.

Axes: B fits, N scans, P features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.method import Method
from boldmill.evaluate.probes import Probe, probe_scores, svm_scores
from boldmill.evaluate.tasks import label_text

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Fit

Floats = NDArray[np.float64]

COVARIATES: dict[str, tuple[str, ...]] = {
    "age": ("age", "interview_age", "age_at_scan"),
    "sex": ("sex", "gender"),
}
"""Covariate -> the names its column goes by; site and mean FD come from the index and from preprocessing."""


def linear_probe(kind: str) -> Fit:
    """Return the linear probe of frozen features: L2 logistic or ridge, z-scored in the training fold."""
    return partial(probe_scores, Probe(kind="logistic" if kind == "classification" else "ridge"))


def linear_grid(kind: str, config: EvaluateConfig) -> tuple[Fit, ...]:
    """Return linear probes of other penalties; none for ridge, which chooses its own in the training fold."""
    if kind == "regression":
        return ()
    return tuple(partial(probe_scores, Probe(kind="logistic", c=c)) for c in config.grid_c)


def svm_probe(kind: str) -> Fit:
    """Return the RBF support vector machine."""
    return partial(_svm, kind)


def _svm(kind: str, features: Floats, truth: Floats, train: NDArray[np.bool_]) -> Floats:
    return svm_scores(features, truth, train, kind)


def fc_methods(cohort: Cohort, kind: str, config: EvaluateConfig) -> list[Method]:
    """Return the methods on functional connectivity; the first is the reference of the table."""
    edges = cohort.fc
    select = min(config.select_edges, edges.shape[1])
    if kind == "classification":
        probe = Probe(kind="logistic", select=select)
        note = f"{select} edges kept by ANOVA in the training fold, z-scored, L2 logistic"
        grid = tuple(partial(probe_scores, replace(probe, c=c)) for c in config.grid_c)
        first = Method(
            name="fc_logistic",
            fit=partial(probe_scores, probe),
            features=edges,
            permute="refit",
            grid=grid,
            note=note,
        )
    else:
        # One scale for all edges: an undefined edge counts as no correlation, and the kernel is the same for every fit.
        plain = np.nan_to_num(edges, nan=0.0)
        probe = Probe(kind="ridge", scale=False)
        note = "all edges, penalty by leave-one-out in the training fold"
        first = Method(name="fc_ridge", fit=partial(probe_scores, probe), features=plain, permute="refit", note=note)
    svm = Method(name="fc_svm_rbf", fit=svm_probe(kind), features=edges, note="permutation without refit: slow")
    return [first, svm]


def covariate_features(cohort: Cohort, target: str) -> tuple[Floats, list[str]]:
    """Return age, sex, site and mean FD as (N, P) columns with their names; the target itself is never among them."""
    columns: list[Floats] = []
    names: list[str] = []
    lower = {str(c).lower(): c for c in cohort.phenotypes.columns}
    own = target.lower()
    for covariate, aliases in COVARIATES.items():
        found = next((lower[a] for a in aliases if a in lower), None)
        if found is None or own in aliases:
            continue
        values = cohort.phenotypes[found].tolist()
        added = _numbers(values) if covariate == "age" else _one_hot(values)
        columns += added
        names += [covariate] if added else []
    if own not in ("site", "scanner"):
        added = _one_hot(list(cohort.sites))
        columns += added
        names += ["site"] if added else []
    if own != "mean_fd" and np.isfinite(cohort.mean_fd).any():
        columns.append(cohort.mean_fd)
        names.append("mean_fd")
    return (np.stack(columns, axis=1) if columns else np.zeros((len(cohort), 0))), names


def covariate_method(cohort: Cohort, target: str, kind: str) -> Method | None:
    """Return the covariates-only baseline, or None where the data carry no covariate."""
    features, names = covariate_features(cohort, target)
    if not names:
        return None
    # A constant column keeps a scan without any covariate usable: it then gets the training mean.
    features = np.column_stack([features, np.zeros(len(cohort))])
    note = f"covariates: {', '.join(names)}"
    return Method(name="covariates", fit=linear_probe(kind), features=features, permute="refit", note=note)


def constant_method(cohort: Cohort, kind: str) -> Method:
    """Return the majority class or the training mean."""
    name = "majority" if kind == "classification" else "mean"
    fit: Callable[..., Any] = partial(_constant, kind)
    return Method(name=name, fit=fit, features=np.zeros((len(cohort), 1)), note="predicts one value")


def _constant(kind: str, features: Floats, truth: Floats, train: NDArray[np.bool_]) -> Floats:
    """Return the log-odds of the classes, or the mean, of the training rows."""
    count = train.sum(axis=1)
    mean = np.where(train, truth, 0.0).sum(axis=1) / np.maximum(count, 1)
    if kind == "classification":
        # Half a count each keeps the log-odds finite; a tie calls positive, as any fixed choice would.
        positive = mean * count
        value = np.log((positive + 0.5) / (count - positive + 0.5))
        value = np.where(value == 0, 1e-9, value)
    else:
        value = mean
    return np.repeat(value[:, None], truth.shape[1], axis=1)


def _numbers(values: list[Any]) -> list[Floats]:
    out = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        try:
            out[i] = np.nan if value is None else float(value)
        except (TypeError, ValueError):
            continue
    return [out] if np.isfinite(out).any() else []


def _one_hot(values: list[Any]) -> list[Floats]:
    texts = [label_text(value) for value in values]
    classes = sorted({t for t in texts if t is not None})
    if len(classes) < 2:
        return []
    return [np.array([np.nan if t is None else float(t == c) for t in texts]) for c in classes]
