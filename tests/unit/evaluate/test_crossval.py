from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from boldmill.evaluate.baselines import constant_method, linear_probe, selected_method
from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.covariates import covariate_features
from boldmill.evaluate.crossval import cross_validate, make_folds
from boldmill.evaluate.design import of_folds
from boldmill.evaluate.metrics import auc, over_repeats
from boldmill.evaluate.null import refit_null, refit_p
from boldmill.evaluate.probes import Probe, probe_scores
from boldmill.evaluate.tasks import make_task

GROUP = TaskConfig(name="group", column="group", positive="patient")
CONFIG = EvaluateConfig(permutations=99, bootstrap=100)


def run(cohort, config=CONFIG, task_config=GROUP, seed=1):
    """Scores and p-values of the FC baseline over all subjects."""
    task = make_task(task_config, cohort)
    design = of_folds(make_folds(task, config, seed))
    method = selected_method(cohort.fc, task.kind, config)
    features = method.features[task.rows]
    scores = task.of_subjects(cross_validate(method.fit, features, task, design))
    null = refit_null(method.fit, features, task, design, config.permutations, seed)
    return task, scores, refit_p(task, scores, design.tested, null)


def test_planted_effect_is_found_with_16_subjects(cohort):
    task, scores, p = run(cohort(effect=2.0, two_scans=2))
    assert over_repeats(auc, task.truth, scores)[0] > 0.85
    assert p["auc"] < 0.05
    assert p["balanced_accuracy"] < 0.05


def test_no_effect_no_finding(cohort):
    few = EvaluateConfig(permutations=99, repeats=2)
    ps = [run(cohort(effect=0.0, edges=1500, seed=seed), few)[2]["auc"] for seed in range(6)]
    assert sum(p < 0.05 for p in ps) <= 1
    assert np.median(ps) > 0.1


def test_regression_effect_is_found(cohort):
    score = TaskConfig(name="score", column="score", kind="regression")
    assert run(cohort(n=24, effect=3.0), task_config=score)[2]["pearson_r"] < 0.05


def test_permuted_labels_score_at_chance_with_selection_inside_the_fold(cohort):
    """A selection or scaler fitted outside the fold would show here: 5,000 noise features and few subjects."""
    data = cohort(n=20, effect=0.0, edges=5000)
    task = make_task(GROUP, data)
    folds = make_folds(task, EvaluateConfig(repeats=2), 0)
    fit = partial(probe_scores, Probe(kind="logistic", select=30))
    null = refit_null(fit, data.fc, task, of_folds(folds), 60, 0)
    inside = np.mean([over_repeats(auc, t, s)[0] for t, s in zip(null.truth, null.scores, strict=True)])
    assert 0.43 < inside < 0.57

    leaked = []  # the same with features selected on all subjects: the test can see the fault
    for labels in null.truth[:10]:
        best = np.argsort(-np.abs((data.fc - data.fc.mean(0)).T @ (labels - labels.mean())))[:30]
        leaky = linear_probe("classification")
        out = np.full((1, 20), np.nan)
        for k in range(folds.number):
            test = folds.of[0] == k
            out[0, test] = leaky(data.fc[:, best], labels[None], ~test[None])[0][test]
        leaked.append(over_repeats(auc, labels, out)[0])
    assert np.mean(leaked) > 0.85


def test_order_of_scans_does_not_matter(cohort):
    import dataclasses

    data = cohort(effect=1.5, edges=300, two_scans=3)
    order = np.random.default_rng(0).permutation(len(data))
    names = ("scan_ids", "datasets", "subjects", "groups", "splits", "sites")
    moved = {name: tuple(getattr(data, name)[i] for i in order) for name in names}
    shuffled = dataclasses.replace(
        data, **moved, mean_fd=data.mean_fd[order], fc=data.fc[order], phenotypes=data.phenotypes.iloc[order]
    )
    a, b = run(data), run(shuffled)
    assert a[0].subjects == b[0].subjects
    np.testing.assert_allclose(a[1], b[1], atol=1e-6)
    assert a[2] == b[2]


def test_scores_of_a_subject_are_averaged_over_its_scans(cohort):
    task = make_task(GROUP, cohort(edges=10, two_scans=2))
    scores = np.arange(len(task.rows), dtype=float)[None]
    by_subject = task.of_subjects(scores)[0]
    assert by_subject[:3].tolist() == [0.5, 2.5, 4.0]
    scores[0, 0] = np.nan
    assert task.of_subjects(scores)[0][0] == 1.0


def test_a_scan_without_features_is_neither_learnt_from_nor_scored(cohort):
    data = cohort(edges=20, effect=2.0)
    task = make_task(GROUP, data)
    folds = make_folds(task, CONFIG, 0)
    holes = data.fc.copy()
    holes[4] = np.nan
    scores = cross_validate(linear_probe("classification"), holes, task, folds)
    assert np.isnan(scores[:, 4]).all()
    assert np.isfinite(np.delete(scores, 4, axis=1)).all()


def test_covariates_never_hold_the_target(cohort):
    data = cohort(edges=10)
    assert covariate_features(data, "group")[1] == ["age", "site", "mean_fd"]
    assert covariate_features(data, "Age")[1] == ["site", "mean_fd"]
    assert covariate_features(data, "site")[1] == ["age", "mean_fd"]


def test_constant_prediction_is_chance(cohort):
    data = cohort(edges=10)
    task = make_task(GROUP, data)
    folds = make_folds(task, CONFIG, 0)
    method = constant_method(len(data), "classification")
    scores = task.of_subjects(cross_validate(method.fit, method.features, task, folds))
    assert over_repeats(auc, task.truth, scores)[0] == pytest.approx(0.5, abs=0.1)
