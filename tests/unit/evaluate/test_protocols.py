"""Tasks under all protocols, from the cohort to the rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from boldmill.errors import ConfigError
from boldmill.evaluate import metrics
from boldmill.evaluate.command import evaluate_task
from boldmill.evaluate.compare import fold_test
from boldmill.evaluate.comparison import comparison
from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.design import PROTOCOLS
from boldmill.evaluate.leakage import overlap
from boldmill.evaluate.protocol import undefined
from boldmill.evaluate.stats import corrected_resampled_t
from boldmill.evaluate.table import Predictions
from boldmill.evaluate.tasks import CannotEvaluate, make_task

CONFIG = EvaluateConfig(repeats=2, paper_repeats=2, bootstrap=100, permutations=99, select_edges=10, grid_c=[0.01, 1.0])


def evaluate(data, *, trained=frozenset(), predictions=None, kind="classification", column="group", only=(), **task):
    task_config = TaskConfig(name="t", column=column, kind=kind, **task)
    inputs = {"features": {"m": (data.fc, "", True), "r": (data.fc[:, ::-1], "", False)}, "text_encoder": "n/a"}
    table = predictions if predictions is not None else Predictions()
    return evaluate_task(task_config, data, CONFIG, 0, "m", inputs, table, trained=trained, epochs="7", only=only)


def test_a_planted_overlap_is_refused_under_every_protocol_that_tests_it(cohort):
    data = cohort(n=60, edges=20, effect=2.0, heldout=30)
    of = dict(zip(data.subjects, data.splits, strict=True))
    trained = {subject for subject, split in of.items() if split == "train"}
    rows = evaluate(data, trained=trained, protocols=list(PROTOCOLS), only={"m_logistic", "fc_logistic"})
    ours = [row for row in rows if row.method == "m_logistic"]
    ran = {row.protocol for row in ours if np.isfinite(row.value)}
    assert ran == {"heldout", "split"}
    refused = {row.protocol: row.note for row in ours if row.metric == "n/a"}
    assert set(refused) == {"cv", "nested", "paper", "leave-one-site-out"}
    assert refused["cv"] == "not run: 30 of 60 tested subjects (or their families) were in pre-training"
    assert {row.epochs for row in ours} == {"7"}

    nobody = evaluate(data, protocols=list(PROTOCOLS), only={"m_logistic"})
    assert {row.protocol for row in nobody if np.isfinite(row.value)} == set(PROTOCOLS) - {"external"}
    victim = next(subject for subject, split in of.items() if split == "heldout")
    planted = evaluate(data, trained={*trained, victim}, protocols=["heldout", "split"], only={"m_logistic"})
    assert [row.note[:10] for row in planted] == ["not run: 1"] * 2


def test_a_relative_in_pre_training_counts():
    assert overlap(["d/1", "d/2"], {"d/9"}, {"d/1": "d/family-1", "d/9": "d/family-1"}) == ["d/1"]


def test_external_data_are_tested_by_methods_fitted_elsewhere(cohort):
    data = cohort(n=40, edges=20, effect=2.0, heldout=0)
    names = tuple("other" if i >= 28 else "toy" for i in range(40))
    data = dataclasses.replace(data, datasets=names)
    table = Predictions()
    rows = evaluate(data, predictions=table, external=["other"], protocols=["cv", "external"], only={"fc_logistic"})
    tested = {row.protocol: (row.n_test, row.n_train) for row in rows if row.metric == "auc" and row.fold == "all"}
    assert tested["external"] == (12, 28)
    assert tested["cv"][0] == 28
    outside = [p for p, scan in zip(table.columns["protocol"], table.columns["scan_id"], strict=True)
               if data.scan_ids.index(scan) >= 28]  # fmt: skip
    assert set(outside) == {"external"}
    assert len(outside) == 12


def test_a_site_with_one_class_has_no_auc_and_says_so(cohort):
    data = cohort(n=60, edges=20, effect=2.0, heldout=0)
    sick = data.phenotypes["group"].to_numpy() == "patient"
    sites = np.where(sick & (np.arange(60) < 12), "ONE", np.array(data.sites))
    data = dataclasses.replace(data, sites=tuple(sites))
    table = Predictions()
    rows = evaluate(data, predictions=table, protocols=["leave-one-site-out"], only={"fc_logistic", "covariates"})
    own = {(row.fold, row.metric): row for row in rows if row.method == "fc_logistic"}
    assert own["all", "auc"].n_test == 60
    assert np.isnan(own["ONE", "auc"].value)
    assert own["ONE", "auc"].note == "n/a: the tested subjects are all of one class"
    assert 0 <= own["ONE", "accuracy"].value <= 1
    assert np.isfinite(own["A", "auc"].value)
    assert set(table.columns["fold"]) == {"A", "B", "ONE"}
    text = comparison(rows)
    assert "| ONE | 6 | n/a | n/a |" in text
    named = dataclasses.replace(data, sites=tuple("all" if site == "ONE" else site for site in sites))
    same = evaluate(named, protocols=["leave-one-site-out"], only={"fc_logistic", "covariates"})
    assert (
        comparison(same).replace("| site all |", "| ONE |").split("per test site")[0] == text.split("per test site")[0]
    )
    assert {row.fold for row in same} == {"all", "A", "B", "site all"}
    odd = comparison([dataclasses.replace(row, fold=row.fold.replace("ONE", "1|2")) for row in rows])
    assert r"| 1\|2 | 6 | n/a | n/a |" in odd
    gain = next(row for row in rows if row.metric == "auc_over_fc_logistic")
    assert "no t-test: 1 of 3 test sites have a single class" in gain.note


def test_pooled_rows_of_leave_one_site_out_are_those_of_the_predictions(cohort):
    data = cohort(n=60, edges=20, effect=1.0, heldout=0)
    table = Predictions()
    rows = evaluate(data, predictions=table, protocols=["leave-one-site-out"], only={"fc_logistic"})
    truth, score = np.array(table.columns["truth"]), np.array(table.columns["score"])
    found = next(row.value for row in rows if row.metric == "auc" and row.fold == "all")
    assert found == pytest.approx(roc_auc_score(truth, score))
    site = np.array(table.columns["fold"]) == "A"
    found = next(row.value for row in rows if row.metric == "auc" and row.fold == "A")
    assert found == pytest.approx(roc_auc_score(truth[site], score[site]))


def test_several_classes(cohort):
    data = cohort(n=90, edges=30, heldout=30)
    label = np.arange(90) % 3
    data.phenotypes["three"] = [("a", "b", "c")[k] for k in label]
    for k in range(3):
        data.fc[label == k, 5 * k : 5 * k + 5] += 0.3
    table = Predictions()
    rows = evaluate(data, predictions=table, kind="multiclass", column="three", protocols=["cv", "split", "nested"])
    value = {(row.method, row.protocol, row.metric): row for row in rows if row.fold == "all"}
    for protocol in ("cv", "split", "nested"):
        best = value["fc_logistic", protocol, "macro_auc"]
        assert best.value > 0.9
        assert best.p_permutation <= 0.02
        assert best.ci_low > 0.8
    assert value["majority", "cv", "accuracy"].value == pytest.approx(1 / 3, abs=0.1)
    assert value["fc_logistic", "cv", "accuracy"].value > 0.75

    columns = {name: np.array(values) for name, values in table.columns.items()}
    own = (columns["method"] == "fc_logistic") & (columns["protocol"] == "split")
    score = columns["score"][own].reshape(-1, 3)
    assert columns["label"][own][:3].tolist() == ["a", "b", "c"]
    truth = columns["truth"][own].reshape(-1, 3).argmax(axis=1)
    reference = np.mean([roc_auc_score(truth == c, score[:, c]) for c in range(3)])
    assert value["fc_logistic", "split", "macro_auc"].value == pytest.approx(reference)
    reference = f1_score(truth, score.argmax(axis=1), average="macro")
    assert value["fc_logistic", "split", "macro_f1"].value == pytest.approx(reference)


@pytest.mark.parametrize("method", ["m_logistic", "m_svm_rbf", "fc_logistic", "majority"])
def test_a_class_of_one_site_is_missed_and_its_subjects_count(cohort, method):
    """Left out, the site takes its class out of training: nobody is called so, and nobody is dropped for it."""
    data = cohort(n=90, edges=30, heldout=0)
    rng = np.random.default_rng(0)
    site = np.array(["A", "B", "C"])[np.arange(90) % 3]
    label = np.where((site == "C") & (rng.random(90) < 0.6), 2, rng.integers(0, 2, 90))
    data.phenotypes["three"] = [("a", "b", "c")[k] for k in label]
    for k in range(3):
        data.fc[label == k, 5 * k : 5 * k + 5] += 0.3
    data = dataclasses.replace(data, sites=tuple(site))
    table = Predictions()
    rows = evaluate(data, predictions=table, kind="multiclass", column="three", protocols=["leave-one-site-out"],
                    only={method})  # fmt: skip
    found = {row.metric: row for row in rows if row.fold == "all" and row.method == method}
    assert found["accuracy"].n_test == 90 and "without a score" not in found["accuracy"].note
    assert "1 of 3 fits lack a class in training and never call it" in found["accuracy"].note
    score = np.array(table.columns["score"]).reshape(-1, 3)
    truth = np.array(table.columns["truth"]).reshape(-1, 3).argmax(axis=1)
    at_c = np.array(table.columns["fold"]).reshape(-1, 3)[:, 0] == "C"
    assert np.isfinite(score).all() and not (score[at_c].argmax(axis=1) == 2).any()
    right = (score.argmax(axis=1) == truth).mean()
    assert found["accuracy"].value == pytest.approx(right) and (truth == 2).sum() > 10
    assert found["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(truth, score.argmax(axis=1)))


def test_metrics_of_several_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 80).astype(float)
    score = rng.standard_normal((80, 4)) + np.eye(4)[truth.astype(int)]
    weights = np.stack([np.ones(80), *rng.multinomial(80, np.full(80, 1 / 80), size=3)]).astype(float)
    called = score.argmax(axis=1)
    each = [[roc_auc_score(truth == c, score[:, c], sample_weight=w) for c in range(4)] for w in weights]
    np.testing.assert_allclose(metrics.macro_auc(truth, score, weights), np.mean(each, axis=1))
    f1 = [f1_score(truth, called, average="macro", sample_weight=w) for w in weights]
    np.testing.assert_allclose(metrics.macro_f1(truth, score, weights), f1)
    balanced = [balanced_accuracy_score(truth, called, sample_weight=w) for w in weights]
    np.testing.assert_allclose(metrics.multiclass_balanced_accuracy(truth, score, weights), balanced)
    right = [np.average(truth == called, weights=w) for w in weights]
    np.testing.assert_allclose(metrics.multiclass_accuracy(truth, score, weights), right)


def test_filters_and_their_counts(cohort):
    data = cohort(n=20, edges=6)
    data.phenotypes.loc[data.scan_ids[3], "age"] = None
    rule = {"age": {"min": 22, "max": 35}, "group": ["patient", "control"]}
    task = make_task(TaskConfig(name="g", column="group", sites=["A"], include=rule), data)
    kept = [i for i in range(20) if data.sites[i] == "A" and 2 <= i <= 15 and i != 3]
    assert [int(subject[-2:]) for subject in task.subjects] == kept
    away = sum(site == "B" for site in data.sites)
    assert task.note == f"scans left out: {away} by site, {20 - away - len(kept)} by age"
    assert set(task.sites) == {"A"}
    absent = make_task(TaskConfig(name="g", column="group", datasets=["toy", "tyo"], external=["far"]), data)
    assert absent.note == "no scan is of tyo, far"
    by_motion = make_task(TaskConfig(name="g", column="group", include={"mean_fd": {"max": 0.2}}), data)
    assert len(by_motion.subjects) == 20

    with pytest.raises(ConfigError, match="did you mean 'age'"):
        make_task(TaskConfig(name="g", column="group", include={"agee": ["1"]}), data)
    with pytest.raises(ConfigError, match="unknown site"):
        make_task(TaskConfig(name="g", column="group", sites=["Z"]), data)
    with pytest.raises(ConfigError, match="not a number"):
        make_task(TaskConfig(name="g", column="group", include={"group": {"min": 1}}), data)
    with pytest.raises(CannotEvaluate, match="by age"):
        make_task(TaskConfig(name="g", column="group", include={"age": {"min": 99}}), data)


def test_a_protocol_that_cannot_be_run_says_why_and_the_others_go_on(cohort):
    data = dataclasses.replace(cohort(n=16, edges=20, effect=2.0, heldout=0), sites=("A",) * 16)
    rows = evaluate(data, protocols=list(PROTOCOLS), only={"fc_logistic"})
    why = {row.protocol: row.note for row in rows if row.method == "n/a"}
    assert set(why) == {"heldout", "split", "paper", "leave-one-site-out", "external"}
    assert all(note.startswith("n/a: ") for note in why.values())
    assert {row.protocol for row in rows if np.isfinite(row.value)} == {"cv", "nested"}
    alone = evaluate(data, trained=set(data.subjects), protocols=["heldout"], only={"m_logistic"})
    assert [row.note for row in alone if row.method == "n/a"] == [why["heldout"]]


def test_methods_compare_with_the_first_one_under_each_protocol(cohort):
    data = cohort(n=80, edges=20, effect=1.0, heldout=40)
    rows = evaluate(data, protocols=["cv", "split", "paper"])
    gains = {(row.method, row.protocol): row for row in rows if row.metric == "auc_over_fc_logistic"}
    assert not [key for key in gains if key[0] == "fc_logistic"]
    assert {key[1] for key in gains} == {"cv", "split", "paper"}
    majority = gains["majority", "split"]
    fc = next(r for r in rows if (r.method, r.protocol, r.metric) == ("fc_logistic", "split", "auc"))
    assert majority.value == pytest.approx(0.5 - fc.value)
    assert majority.ci_high < 0
    assert np.isnan(majority.p_t)
    assert "no t-test: one test set" in majority.note
    with pytest.raises(ValidationError, match="used twice: \\['t'\\]"):
        EvaluateConfig(tasks=[TaskConfig(name="t", column=column) for column in ("group", "age")])
    assert gains["majority", "cv"].p_t < 0.05
    assert {row.p_kind for row in rows if row.method == "fc_svm_rbf" and np.isfinite(row.p_permutation)} == {"fixed"}
    assert {row.p_kind for row in rows if row.method == "fc_logistic" and np.isfinite(row.p_permutation)} == {"refit"}


def test_the_comparison_is_one_table_per_task_and_protocol(cohort):
    data = cohort(n=60, edges=20, effect=2.0, heldout=20)
    trained = {s for s, split in zip(data.subjects, data.splits, strict=True) if split == "train"}
    rows = evaluate(data, trained=trained, protocols=["cv", "split"])
    text = comparison(rows)
    assert text.count("| method | model | AUC |") == 2
    assert "| sensitivity | specificity | F1 | p |" in text
    line = next(line for line in text.split("### split")[1].splitlines() if line.startswith("| m_logistic"))
    auc = next(r for r in rows if (r.method, r.protocol, r.metric, r.fold) == ("m_logistic", "split", "auc", "all"))
    assert f"| {auc.value:.3f} [{auc.ci_low:.3f}, {auc.ci_high:.3f}] |" in line
    assert line.endswith("| 20 | 40 | 7 |")
    assert "- m_logistic: not run: 40 of 60 tested" in text.split("### split")[0]
    assert comparison(evaluate(data, trained=trained, protocols=["cv", "split"])) == text


def test_a_method_without_a_grid_is_not_said_to_have_chosen(cohort):
    """Under `nested` it is the fit of `cv`, run once, and the row says so."""
    data = cohort(n=24, edges=8, effect=1.0, heldout=0)
    rows = evaluate(data, protocols=["cv", "nested"], only={"fc_logistic", "fc_svm_rbf"})
    value = {(r.method, r.protocol): r for r in rows if r.metric == "auc"}
    assert value["fc_svm_rbf", "nested"].value == value["fc_svm_rbf", "cv"].value
    assert value["fc_svm_rbf", "nested"].note.startswith("without a grid to choose from: as under cv")
    assert "without a grid" not in value["fc_logistic", "nested"].note + value["fc_svm_rbf", "cv"].note


def test_tested_subjects_without_a_score_are_counted(cohort):
    """Site B alone has patients but one: without it, nothing can be learnt."""
    data = cohort(n=24, edges=4, heldout=0)
    sites = ["B" if i % 2 else "A" for i in range(24)]
    sites[0], sites[2] = "B", "B"
    data = dataclasses.replace(data, sites=tuple(sites))
    rows = evaluate(data, protocols=["leave-one-site-out"], only={"fc_logistic"})
    pooled = next(row for row in rows if row.metric == "auc" and row.fold == "all")
    assert pooled.n_test == 10
    assert pooled.note.startswith("n/a: the tested subjects are all of one class; 14 tested subjects without a score; ")


def test_the_reason_of_an_undefined_metric():
    nan = float("nan")
    assert undefined(nan, nan, np.zeros(3), "regression") == "n/a: the tested subjects all have one value"
    assert undefined(nan, nan, np.arange(3.0), "regression") == "n/a: constant scores"
    assert undefined(nan, nan, np.zeros(3), "classification") == "n/a: the tested subjects are all of one class"
    assert undefined(nan, nan, np.arange(2.0), "classification") == "n/a: most test sets lack a class"
    assert undefined(nan, nan, np.arange(2.0), "multiclass", 3) == "n/a: the tested subjects are of 2 of 3 classes"
    assert undefined(0.5, nan, np.arange(2.0), "multiclass", 3).startswith("interval n/a")
    assert undefined(0.5, 0.1, np.arange(2.0), "multiclass", 3) == ""


def test_unharmonised_scans_are_counted_among_those_that_are_scored(cohort):
    data = cohort(n=40, edges=4, heldout=8)
    config = CONFIG.model_copy(update={"harmonise": "combat", "baselines": ["fc_linear_selected"], "probes": []})
    task_config = TaskConfig(name="t", column="group", protocols=["heldout"])
    inputs = {"features": {}, "text_encoder": "n/a"}
    rows = evaluate_task(task_config, data, config, 0, "m", inputs, Predictions())
    assert rows[0].note.startswith("0 of 8 tested scans unharmonised; ")


def test_a_fold_without_anybody_who_counts_is_no_test_set(cohort):
    """Seven held-out subjects in five folds of two repeats: some folds hold none of them."""
    data = cohort(n=40, edges=6, heldout=7)
    task = make_task(TaskConfig(name="t", column="score", kind="regression"), data)
    design = PROTOCOLS["heldout"](task, CONFIG, 1)
    sizes = (design.test & design.scored).sum(axis=1)
    assert (sizes == 0).any()
    ours, reference = np.random.default_rng(0).standard_normal((2, 2, 40))
    p, words = fold_test(task, design, design.tested, ours, reference)
    one, two = (np.abs(task.truth - s) for s in (ours, reference))
    used = [j for j in range(10) if sizes[j]]
    gain = [(two - one)[design.repeat[j], design.test[j] & design.scored].mean() for j in used]
    train = design.train[used].sum(axis=1).mean()
    assert p == pytest.approx(corrected_resampled_t(np.array(gain), 14 / len(used), train)[1])
    assert f"over {len(used)} test sets" in words
