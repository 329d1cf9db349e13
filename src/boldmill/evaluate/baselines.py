"""Linear and kernel fits on functional connectivity, and the constant that every table holds.

Axes: B fits, N scans, E edges.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.method import Method
from boldmill.evaluate.probes import Probe, probe_scores, svm_scores

if TYPE_CHECKING:
    from boldmill.evaluate.crossval import Fit

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


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


def _svm(kind: str, features: Floats, truth: Floats, train: Mask) -> Floats:
    return svm_scores(features, truth, train, kind)


def selected_method(edges: Floats, kind: str, config: EvaluateConfig, *, fill: bool = True) -> Method:
    """Return the reference of the table: logistic regression on few edges, or ridge on all of them."""
    if kind != "classification":
        return ridge_method(edges, kind, fill=fill)
    select = min(config.select_edges, edges.shape[1])
    probe = Probe(kind="logistic", select=select)
    return Method(
        name="fc_logistic",
        fit=partial(probe_scores, probe),
        features=edges,
        permute="refit",
        grid=tuple(partial(probe_scores, replace(probe, c=c)) for c in config.grid_c),
        note=f"{select} edges kept by ANOVA in the training fold, z-scored, L2 logistic",
    )


def ridge_method(edges: Floats, kind: str, *, fill: bool = True) -> Method:
    """Return ridge on all edges; a classifier is a ridge on -1 and 1, as scikit-learn's ``RidgeClassifier``.

    With ``fill`` an undefined edge counts as no correlation (and the kernel is the same for every fit), and the note
    says in how many scans; otherwise it becomes the training mean. A scan without any edge stays without.
    """
    seen = np.isfinite(edges)
    some = np.asarray(seen.any(axis=1))
    plain = np.where(seen | ~some[:, None], edges, 0.0) if fill else edges
    probe = Probe(kind="ridge", scale=False)
    note = "all edges, penalty by leave-one-out in the training fold"
    if fill and (lacking := int((some & ~seen.all(axis=1)).sum())):
        note += f"; undefined edges, of {lacking} of {len(edges)} scans of the cohort, count as no correlation"
    fit: Fit = partial(probe_scores, probe)
    if kind == "classification":
        note, fit = f"ridge on -1 and 1, no class weights; {note}", partial(ridge_classifier, probe)
    return Method(name="fc_ridge", fit=fit, features=plain, permute="refit", note=note)


def ridge_classifier(probe: Probe, features: Floats, truth: Floats, train: Mask) -> Floats:
    """Return the ridge prediction of -1 or 1, (B, N); NaN for a fit whose training rows hold a single class."""
    scores = probe_scores(probe, features, np.where(truth > 0.5, 1.0, -1.0), train)
    positive = (train & (truth > 0.5)).sum(axis=1)
    scores[(positive == 0) | (positive == train.sum(axis=1))] = np.nan
    return scores


def logistic_method(edges: Floats, config: EvaluateConfig) -> Method:
    """Return L2 logistic regression on all edges."""
    return Method(
        name="fc_logistic_all",
        fit=linear_probe("classification"),
        features=edges,
        permute="refit",
        grid=linear_grid("classification", config),
        note="all edges, z-scored, L2 logistic",
    )


def svm_method(edges: Floats, kind: str) -> Method:
    """Return the RBF support vector machine on all edges."""
    return Method(
        name="fc_svm_rbf", fit=svm_probe(kind), features=edges, permute="fixed", note="permutation without refit: slow"
    )


def constant_method(n: int, kind: str) -> Method:
    """Return the majority class or the training mean for N scans."""
    name = "majority" if kind == "classification" else "mean"
    return Method(name=name, fit=partial(_constant, kind), features=np.zeros((n, 1)), note="predicts one value")


def _constant(kind: str, features: Floats, truth: Floats, train: Mask) -> Floats:
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
