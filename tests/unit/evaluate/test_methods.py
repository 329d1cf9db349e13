from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.covariates import covariate_features, kept_covariates
from boldmill.evaluate.crossval import cross_validate, make_folds
from boldmill.evaluate.harmonise import Harmonised
from boldmill.evaluate.methods import MethodInputs, methods_of, missing
from boldmill.evaluate.tasks import make_task
from boldmill.models.brainmass.architecture import design
from boldmill.models.brainmass.model import BrainMass
from boldmill.represent.fc import fisher_z

PARCELS = 12
EDGES = PARCELS * (PARCELS - 1) // 2
ALL_BASELINES = ["fc_linear_selected", "fc_svm", "fc_ridge", "fc_logistic", "tangent", "brainnetcnn", "transformer",
                 "random", "covariates", "constant"]  # fmt: skip
ALL_PROBES = ["logistic", "svm_rbf", "mlp", "knn", "finetune"]
SHORT = {"epochs": 2, "patience": 2, "batch": 16}


class Series:
    """What a snapshot gives: FC by estimator."""

    def __init__(self, cohort):
        self.edges = np.tanh(cohort.fc).astype(np.float32)
        self.asked = []

    def fc_by(self, estimator, scan_ids):
        self.asked.append(estimator)
        return self.edges * (0.8 if estimator == "ledoit_wolf" else 1.0)


@pytest.fixture
def inputs(cohort):
    def make(kind="classification", model="brainmass", **settings):
        data = cohort(24, effect=4.0, edges=EDGES)
        torch.manual_seed(0)
        settings = {"mlp": SHORT, "brainnetcnn": SHORT, "transformer": SHORT, "finetune": SHORT} | settings
        frozen = np.random.default_rng(1).standard_normal((24, 16))
        return MethodInputs(
            cohort=data,
            task="group",
            column="group" if kind == "classification" else "score",
            kind=kind,
            config=EvaluateConfig(select_edges=20, **settings),
            seed=3,
            model=model,
            features={f"{model}_frozen": (frozen, "note", True), f"{model}_random": (frozen, "random", False)},
            network=BrainMass(design("tiny", PARCELS)).eval() if model == "brainmass" else None,
            snapshot=Series(data),
        )

    return make


def test_the_default_is_the_table_as_it_was(inputs):
    names = [method.name for method in methods_of(inputs())]
    assert names == ["fc_logistic", "fc_svm_rbf", "covariates", "majority", "brainmass_frozen_logistic",
                     "brainmass_frozen_svm_rbf", "brainmass_random_logistic", "brainmass_random_svm_rbf"]  # fmt: skip
    names = [method.name for method in methods_of(inputs("regression"))]
    assert names == ["fc_ridge", "fc_svm_rbf", "covariates", "mean", "brainmass_frozen_ridge",
                     "brainmass_frozen_svm_rbf", "brainmass_random_ridge", "brainmass_random_svm_rbf"]  # fmt: skip


@pytest.mark.parametrize("harmonise", ["none", "combat"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_every_method_runs_in_a_task(inputs, kind, harmonise):
    made = inputs(kind, baselines=ALL_BASELINES, probes=ALL_PROBES, harmonise=harmonise)
    methods = methods_of(made)
    linear = "logistic" if kind == "classification" else "ridge"
    names = [method.name for method in methods]
    want = ["fc_logistic", "fc_svm_rbf", "fc_ridge", "fc_logistic_all"]
    want = want if kind == "classification" else ["fc_ridge", "fc_svm_rbf"]
    want += [f"tangent_{linear}", "brainnetcnn", "transformer", "covariates"]
    want += ["majority" if kind == "classification" else "mean"]
    want += [f"brainmass_{f}_{p}" for f in ("frozen", "random") for p in (linear, "svm_rbf", "knn", "mlp")]
    assert names == [*want, "brainmass_finetune"]
    assert {m.name for m in methods if m.pretrained} == {n for n in names if n.startswith("brainmass_f")}
    cheap = {n for n in names if n.startswith(("fc_l", "fc_r", "cov")) or n.endswith(("_knn", f"m_{linear}"))}
    cheap |= {f"brainmass_frozen_{linear}"}
    assert {m.name for m in methods if m.permute == "refit"} == cheap
    column = {"column": made.column, "kind": kind} | ({"positive": "patient"} if kind == "classification" else {})
    task = make_task(TaskConfig(name="group", **column), made.cohort)
    folds = make_folds(task, EvaluateConfig(folds=2, repeats=1), 0)
    for method in methods:
        assert len(method.features) == len(made.cohort)
        scores = cross_validate(method.fit, method.features[task.rows], task, folds)
        assert np.isfinite(scores).all(), method.name
        on = method.name.startswith(("fc_", "brainmass_")) and method.name != "brainmass_finetune"
        assert isinstance(method.fit, Harmonised) == (harmonise == "combat" and on), method.name
        assert ("ComBat" in method.note) == (harmonise == "combat" and on)


def test_the_site_as_target_is_never_read_by_harmonisation(inputs):
    from dataclasses import replace

    made = inputs(harmonise="combat", baselines=["fc_ridge"], probes=["logistic", "mlp"])
    assert all(isinstance(method.fit, Harmonised) for method in methods_of(made))
    site = methods_of(replace(made, column="SITE_ID"))
    assert len(site) == 3 and not any(isinstance(method.fit, Harmonised) for method in site)
    assert all("not harmonised: the target is the site" in method.note for method in site)


def test_what_a_model_cannot_have_is_said(inputs):
    made = inputs(model="fm_app", baselines=ALL_BASELINES, probes=ALL_PROBES)
    names = [method.name for method in methods_of(made)]
    assert "transformer" not in names and "fm_app_finetune" not in names and "fm_app_frozen_mlp" in names
    assert set(missing(made)) == {"transformer", "finetune"}
    assert missing(inputs()) == {}
    slim = inputs(baselines=["fc_ridge"], probes=["knn"])
    assert [m.name for m in methods_of(slim)] == ["fc_ridge", "brainmass_frozen_knn"]


def test_covariates_of_abide_are_found_and_never_the_target(cohort):
    from dataclasses import replace

    data = cohort(12)
    table = pd.DataFrame(
        {
            "DX_GROUP": [1, 2] * 6,
            "DSM_IV_TR": [1, 0] * 6,
            "AGE_AT_SCAN": np.linspace(8, 30, 12),
            "SEX": [1, 2, 2] * 4,
            "func_mean_fd": np.linspace(0.05, 0.4, 12),
        },
        index=data.phenotypes.index,
    )
    data = replace(data, phenotypes=table, mean_fd=np.full(12, np.nan))
    features, names = covariate_features(data, "DX_GROUP")
    assert names == ["age", "sex", "site", "mean_fd"] and features.shape == (12, 1 + 2 + 2 + 1)
    np.testing.assert_array_equal(features[:, -1], table["func_mean_fd"])
    assert covariate_features(data, "AGE_AT_SCAN")[1] == ["sex", "site", "mean_fd"]
    assert covariate_features(data, "SEX")[1] == ["age", "site", "mean_fd"]
    assert covariate_features(data, "func_mean_fd")[1] == ["age", "sex", "site"]
    assert covariate_features(data, "SITE_ID")[1] == ["age", "sex", "mean_fd"]
    assert kept_covariates(data, "SEX")[1] == ["age"] and kept_covariates(data, "DX_GROUP")[1] == ["age", "sex"]
    measured = replace(data, mean_fd=np.where(np.arange(12) < 3, 0.9, np.nan))
    assert covariate_features(measured, "x")[0][:4, -1].tolist() == [0.9, 0.9, 0.9, table["func_mean_fd"].iloc[3]]


def test_a_covariate_goes_by_another_name_in_each_data_set(cohort):
    from dataclasses import replace

    data = cohort(6)
    table = pd.DataFrame(
        {
            "group": data.phenotypes["group"],
            "age": [20.0, 21.0, None, None, None, None],
            "interview_age": [None, 999.0, 360.0, None, None, None],  # months
            "age_at_scan": [None, None, None, 40.0, 41.0, None],
            "sex": ["F", "M", None, None, None, None],
            "gender": [None, None, "F", "M", "M", None],
        },
        index=data.phenotypes.index,
    )
    data = replace(data, phenotypes=table, sites=("A",) * 6, mean_fd=np.full(6, np.nan))
    features, names = covariate_features(data, "group")
    assert names == ["age", "sex"]
    np.testing.assert_array_equal(features[:, 0], [20, 21, 30, 40, 41, np.nan])
    np.testing.assert_array_equal(features[:, 1], [1, 0, 1, 0, 0, np.nan])
    assert covariate_features(data, "gender")[1] == ["age"] and covariate_features(data, "age")[1] == ["sex"]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_ridge_says_what_it_makes_of_undefined_edges(inputs, kind):
    made = inputs(kind, baselines=["fc_ridge"], probes=[])
    assert "undefined" not in methods_of(made)[0].note
    made.cohort.fc[3, :5] = np.nan
    made.cohort.fc[4] = np.nan  # a scan without any FC is not one without any correlation
    ridge = methods_of(made)[0]
    assert "; undefined edges, of 1 of 24 scans of the cohort, count as no correlation" in ridge.note
    assert (ridge.features[3, :5] == 0).all() and np.isnan(ridge.features[4]).all()
    column = {"column": made.column, "kind": kind} | ({"positive": "patient"} if kind == "classification" else {})
    task = make_task(TaskConfig(name="group", **column), made.cohort)
    scores = cross_validate(ridge.fit, ridge.features, task, make_folds(task, EvaluateConfig(folds=2, repeats=1), 0))
    assert np.flatnonzero(np.isnan(scores[0])).tolist() == [4]
    without = np.delete(np.where(np.isnan(ridge.features), 0.0, ridge.features), 4, axis=0)
    truth, train = np.delete(task.truth, 4)[None], np.arange(23)[None] < 12
    given = np.insert(truth, 4, 0.0, axis=1), np.insert(train, 4, False, axis=1)
    beside = np.delete(ridge.fit(ridge.features, *given), 4, axis=1)
    np.testing.assert_allclose(beside, ridge.fit(without, truth, train), rtol=1e-6, atol=1e-9)


def test_sites_of_two_data_sets_are_two_sites(cohort):
    from dataclasses import replace

    data = cohort(12)
    data = replace(data, phenotypes=data.phenotypes[["group"]], mean_fd=np.full(12, np.nan))
    data = replace(data, datasets=tuple("ab"[i % 2] for i in range(12)), sites=("1",) * 11 + ("n/a",))
    features, names = covariate_features(data, "group")
    assert names == ["site"] and features.shape == (12, 2)
    np.testing.assert_array_equal(features[:11, 0], [1 - i % 2 for i in range(11)])
    assert np.isnan(features[11]).all()


def test_networks_that_read_the_same_fc_share_it(inputs):
    made = inputs(baselines=["brainnetcnn", "transformer"], probes=["finetune"])
    arrays = [method.features for method in methods_of(made)]
    assert len(arrays) == 3 and all(one is arrays[0] for one in arrays)
    assert made.snapshot.asked == ["pearson"]


def test_reference_fc_is_that_of_the_cohort(inputs):
    made = inputs(baselines=["brainnetcnn"], probes=[])
    packed = methods_of(made)[0].features
    np.testing.assert_allclose(fisher_z(packed[:, -EDGES:]), made.cohort.fc, atol=1e-5)
