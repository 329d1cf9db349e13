"""Zero-shot transfer: what teaches, what is tested, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from boldmill.errors import LeakageError
from boldmill.evaluate.cohort import Cohort
from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.tasks import CannotEvaluate, make_task
from boldmill.evaluate.transfer import sides, transfer_rows


def two(effect: float = 1.0, n: int = 40, families: bool = False) -> tuple[Cohort, np.ndarray]:
    """Data set ``home`` (pre-training split) and ``away`` (held out), with another name for the same diagnosis."""
    rng = np.random.default_rng(5)
    names = [f"{d}/{i:02d}" for d in ("home", "away") for i in range(n)]
    label = np.tile(np.arange(n) % 2, 2)
    features = rng.normal(size=(2 * n, 8)) + effect * label[:, None]
    home = np.arange(2 * n) < n
    columns = {
        "dx": [("patient" if v else "control") if h else None for v, h in zip(label, home, strict=True)],
        "status": [None if h else ("asd" if v else "td") for v, h in zip(label, home, strict=True)],
    }
    ids = tuple(f"{name.replace('/', '_sub-')}" for name in names)
    cohort = Cohort(
        scan_ids=ids,
        datasets=tuple(name.split("/")[0] for name in names),
        subjects=tuple(names),
        groups=tuple(f"family-{i % n}" for i in range(2 * n)) if families else tuple(names),
        splits=tuple("train" if h else "heldout" for h in home),
        sites=tuple("A" if i % 3 else "B" for i in range(2 * n)),
        mean_fd=np.full(2 * n, 0.1),
        fc=features,
        phenotypes=pd.DataFrame(columns, index=ids),
    )
    return cohort, label


SOURCE = TaskConfig(name="dx", column="dx", positive="patient")
TARGET = TaskConfig(name="status", column="status", positive="asd")


def transfer(cohort: Cohort, trained=frozenset(), source=SOURCE, target=TARGET):
    tasks = make_task(source, cohort), make_task(target, cohort)
    sets = {"fc": (cohort.fc, "all edges")}
    families = dict(zip(cohort.subjects, cohort.groups, strict=True))
    counts = {"bootstrap": 200, "permutations": 199, "seed": 1}
    return transfer_rows("home-to-away", *tasks, cohort, sets, trained, families=families, **counts)


def test_both_readings_are_those_of_scikit_learn() -> None:
    cohort, label = two()
    rows = {(row.method, row.metric): row for row in transfer(cohort)}
    home = np.arange(80) < 40
    scaler = StandardScaler().fit(cohort.fc[home])
    x = scaler.transform(cohort.fc)
    for kind, model in (("centroid", NearestCentroid()), ("logistic", LogisticRegression(class_weight="balanced"))):
        called = model.fit(x[home], label[home]).predict(x[~home])
        row = rows[f"fc_{kind}", "accuracy"]
        assert row.value == pytest.approx((called == label[~home]).mean()) and row.n_test == 40
        assert row.ci_low <= row.value <= row.ci_high and row.p_permutation == pytest.approx(1 / 200)
    assert rows["fc_svm_rbf", "auc"].value > 0.8
    assert (row.task, row.source, row.target) == ("home-to-away", "dx", "status")


def test_positive_classes_are_matched_by_name() -> None:
    cohort, _ = two()
    right = {(row.method, row.metric): row.value for row in transfer(cohort)}
    wrong_way = TaskConfig(name="status", column="status", positive="td")
    wrong = {(row.method, row.metric): row.value for row in transfer(cohort, target=wrong_way)}
    assert wrong["fc_logistic", "auc"] == pytest.approx(1 - right["fc_logistic", "auc"])


def test_without_an_effect_p_is_no_small_number() -> None:
    cohort, _ = two(effect=0.0)
    found = [row for row in transfer(cohort) if row.metric == "auc" and row.method != "chance"]
    assert all(row.p_permutation > 0.02 and row.ci_low < 0.5 < row.ci_high for row in found)


def test_target_labels_change_no_score_of_the_classifier() -> None:
    cohort, _ = two()
    first = {(r.method, r.metric): r.value for r in transfer(cohort)}
    flipped = cohort.phenotypes.assign(status=cohort.phenotypes["status"].map({"asd": "td", "td": "asd"}))
    second = {(r.method, r.metric): r.value for r in transfer(dataclasses.replace(cohort, phenotypes=flipped))}
    for kind in ("centroid", "logistic", "svm_rbf"):
        assert second[f"fc_{kind}", "auc"] == pytest.approx(1 - first[f"fc_{kind}", "auc"])


def test_a_target_subject_seen_in_pretraining_is_refused_by_name() -> None:
    cohort, _ = two()
    tasks = make_task(SOURCE, cohort), make_task(TARGET, cohort)
    groups = dict(zip(cohort.subjects, cohort.groups, strict=True))
    with pytest.raises(LeakageError, match="away/07"):
        sides(*tasks, frozenset({"away/07"}), groups)
    rows = transfer(cohort, frozenset({"away/07"}))
    assert len(rows) == 1 and rows[0].note.startswith("n/a") and "away/07" in rows[0].note
    assert np.isnan(rows[0].value)


def test_a_family_on_both_sides_is_refused() -> None:
    cohort, _ = two(families=True)
    (row,) = transfer(cohort)
    assert "test subjects were seen in training" in row.note and "source task" in row.note


def test_a_task_is_its_own_target_on_its_held_out_subjects(cohort) -> None:
    people = cohort(n=30, heldout=10, effect=2.0)
    group = TaskConfig(name="group", column="group", positive="patient")
    task = make_task(group, people)
    learn, test = sides(task, task, frozenset(), {})
    np.testing.assert_array_equal(test, task.heldout)
    np.testing.assert_array_equal(learn, ~task.heldout)
    nobody = make_task(group, cohort(n=30, heldout=0))
    with pytest.raises(CannotEvaluate, match="no subject of the target is held out"):
        sides(nobody, nobody, frozenset(), {})


def test_a_source_that_was_held_out_whole_teaches_with_all() -> None:
    cohort, _ = two()
    out = dataclasses.replace(cohort, splits=tuple("heldout" for _ in cohort.splits))
    learn, test = sides(make_task(SOURCE, out), make_task(TARGET, out), frozenset(), {})
    assert learn.all() and test.all()


def test_external_subjects_of_the_source_never_teach() -> None:
    cohort, _ = two()
    both = cohort.phenotypes.assign(dx=cohort.phenotypes["dx"].fillna("patient"))
    cohort = dataclasses.replace(cohort, phenotypes=both, splits=("train",) * 80)
    source = make_task(SOURCE.model_copy(update={"external": ["away"]}), cohort)
    learn, test = sides(source, make_task(TARGET, cohort), frozenset(), {})
    assert (learn.sum(), test.sum()) == (40, 40) and not (learn & source.external).any()


def test_a_data_set_that_a_task_only_tests_never_teaches() -> None:
    cohort, label = two()
    both = ["patient" if value else "control" for value in label]
    merged = dataclasses.replace(cohort, phenotypes=cohort.phenotypes.assign(dx=both))
    merged = dataclasses.replace(merged, splits=tuple("train" for _ in merged.splits))
    source = make_task(TaskConfig(name="dx", column="dx", positive="patient", external=["away"]), merged)
    learn, _ = sides(source, make_task(TARGET, merged), frozenset(), {})
    np.testing.assert_array_equal(learn, ~source.external)
    out = dataclasses.replace(merged, splits=tuple("heldout" for _ in merged.splits))
    source = make_task(TaskConfig(name="dx", column="dx", positive="patient", external=["away"]), out)
    learn, _ = sides(source, make_task(TARGET, out), frozenset(), {})
    np.testing.assert_array_equal(learn, ~source.external)


def test_a_transfer_names_known_tasks() -> None:
    with pytest.raises(ValueError, match="did you mean 'group'"):
        EvaluateConfig(
            tasks=[{"name": "group", "column": "g"}], transfers=[{"name": "t", "source": "group", "target": "grup"}]
        )


def test_labels_are_permuted_within_sites_only() -> None:
    """Where the site tells the label, no permutation within sites moves it, and no score can be significant."""
    cohort, label = two(effect=3.0)
    sites = tuple("A" if value else "B" for value in label)
    found = [r for r in transfer(dataclasses.replace(cohort, sites=sites)) if r.method != "chance"]
    assert {row.p_permutation for row in found} == {1.0}
    assert all("p means little: labels vary within the site of 0% of subjects" in row.note for row in found)
    assert not any("p means little" in row.note for row in transfer(cohort))
    assert {row.p_permutation for row in transfer(cohort) if row.metric == "auc" and row.method == "fc_logistic"} != {
        1.0
    }
