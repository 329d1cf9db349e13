"""Few-shot curves: who is drawn, what is fitted, and what the numbers are on closed cases."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.few_fits import nearest_centroid, span_logistic
from boldmill.evaluate.fewshot import CEILING, CHANCE, draw_orders, few_shot_rows, shots_of, spread
from boldmill.evaluate.metrics import auc
from boldmill.evaluate.probes import Probe, probe_scores
from boldmill.evaluate.tasks import make_task

GROUP = TaskConfig(name="group", column="group", positive="patient")


def toy(n: int = 30, p: int = 50, missing: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(n, p)) * rng.uniform(0.1, 9, p) + rng.normal(size=p)
    features[:, 4] = 1.0
    if missing:
        features[rng.random((n, p)) < 0.1] = np.nan
    truth = np.tile((np.arange(n) % 2).astype(float), (5, 1))
    train = np.zeros((5, n), dtype=bool)
    for row in train:
        row[rng.permutation(n)[:12]] = True
        row[:2] = True
    return features, truth, train


@pytest.mark.parametrize("missing", [False, True])
def test_the_logistic_in_the_span_of_its_rows_is_the_probe(missing: bool) -> None:
    features, truth, train = toy(missing=missing)
    wanted = probe_scores(Probe(kind="logistic"), features, truth, train)
    np.testing.assert_allclose(span_logistic(features, truth, train), wanted, atol=1e-6)


def test_more_rows_than_features_need_no_kernel_of_rows(monkeypatch) -> None:
    features, truth, train = toy(p=8)
    wanted = probe_scores(Probe(kind="logistic"), features, truth, train)

    def refused(matrix: np.ndarray) -> None:
        raise AssertionError(f"a kernel of {len(matrix)} rows")

    with monkeypatch.context() as patched:
        patched.setattr("boldmill.evaluate.few_fits.np.linalg.eigh", refused)
        np.testing.assert_allclose(span_logistic(features, truth, train), wanted, atol=1e-6)


@pytest.mark.parametrize("fit", [nearest_centroid, span_logistic])
def test_features_of_a_collapsed_encoder_tell_nothing(fit) -> None:
    _, truth, train = toy()
    scores = fit(np.full((30, 50), 0.3), truth, train)
    assert np.abs(scores).max() < 1e-6 and not np.ptp(scores, axis=1).any()


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_the_centroid_is_that_of_scikit_learn() -> None:
    features, truth, train = toy()
    found = nearest_centroid(features, truth, train)
    for labels, rows, ours in zip(truth, train, found, strict=True):
        scaler = StandardScaler().fit(features[rows])
        model = NearestCentroid().fit(scaler.transform(features[rows]), labels[rows])
        z = scaler.transform(features)
        distance = ((z[:, None] - model.centroids_[None]) ** 2).sum(-1)
        np.testing.assert_allclose(ours, distance[:, 0] - distance[:, 1], atol=1e-8)
        np.testing.assert_array_equal(ours > 0, model.predict(z) == 1)


def test_a_missing_feature_is_the_training_mean() -> None:
    features, truth, train = toy(missing=True)
    found = nearest_centroid(features, truth, train)
    for labels, rows, ours in zip(truth, train, found, strict=True):
        filled = np.where(np.isnan(features), np.nanmean(features[rows], axis=0), features)
        seen = np.isfinite(features[rows])
        mean = np.nanmean(features[rows], axis=0)
        sd = np.sqrt((np.where(seen, features[rows] - mean, 0) ** 2).sum(0) / seen.sum(0))
        z = np.where(sd > 1e-6, (filled - mean) / np.where(sd > 1e-6, sd, 1), 0)
        c0, c1 = (z[rows & (labels == label)].mean(0) for label in (0, 1))
        np.testing.assert_allclose(ours, ((z - c0) ** 2).sum(1) - ((z - c1) ** 2).sum(1), atol=1e-8)


@pytest.mark.parametrize("fit", [nearest_centroid, span_logistic])
def test_labels_of_other_rows_are_never_read(fit) -> None:
    features, truth, train = toy()
    spoiled = np.where(train, truth, np.nan)
    np.testing.assert_array_equal(fit(features, truth, train), fit(features, spoiled, train))
    train[0] &= truth[0] > 0.5
    assert np.isnan(fit(features, truth, train)[0]).all() and np.isfinite(fit(features, truth, train)[1:]).all()


def curve(cohort, *, shots=(1, 2, 4), draws=20, **sets) -> dict[tuple[str, str, str], object]:
    task = make_task(GROUP, cohort)
    chosen = {name: (values[task.rows], "") for name, values in sets.items()}
    rows = few_shot_rows(task, chosen, shots, draws, 200, 1)
    return {(row.method, row.k, row.metric): row for row in rows}


def test_classes_far_apart_are_told_apart_from_one_shot_each(cohort) -> None:
    people = cohort(n=40, heldout=16, edges=20)
    positive = np.array([g == "patient" for g in people.phenotypes["group"]], dtype=float)
    found = curve(people, easy=positive[:, None] * 9 + np.random.default_rng(0).normal(size=(40, 3)) * 0.01)
    for kind in ("logistic", "centroid"):
        for k in ("1", "2", "4", CEILING):
            row = found[f"easy_{kind}", k, "auc"]
            assert (row.value, row.ci_low, row.ci_high, row.n_test) == (1.0, 1.0, 1.0, 16)
    assert found["easy_logistic", "2", "auc"].draws == 20 and found["easy_logistic", CEILING, "auc"].draws == 1
    assert found["chance", CHANCE, "auc"].value == found["chance", CHANCE, "balanced_accuracy"].value == 0.5


def test_noise_is_at_chance_and_its_interval_is_wide(cohort) -> None:
    people = cohort(n=80, heldout=40, edges=20)
    found = curve(people, noise=np.random.default_rng(1).normal(size=(80, 10)), draws=60)
    for k in ("1", "4", CEILING):
        row = found["noise_logistic", k, "auc"]
        assert row.ci_low < 0.5 < row.ci_high and abs(row.value - 0.5) < 0.15


def test_more_shots_help_where_there_is_an_effect(cohort) -> None:
    people = cohort(n=120, heldout=40, edges=30)
    positive = np.array([g == "patient" for g in people.phenotypes["group"]], dtype=float)
    features = np.random.default_rng(2).normal(size=(120, 6)) + 0.8 * positive[:, None]
    found = curve(people, some=features, shots=(1, 4, 16), draws=40)
    values = [found["some_centroid", k, "auc"].value for k in ("1", "4", "16")]
    assert values == sorted(values) and values[0] < values[-1] - 0.05


def test_nobody_held_out_is_ever_drawn_and_families_once(cohort) -> None:
    people = cohort(n=24, heldout=6, two_scans=4)
    families = tuple(f"family-{int(s[-2:]) // 4}" for s in people.subjects)
    task = make_task(GROUP, dataclasses.replace(people, groups=families))
    pool = ~task.heldout
    order = draw_orders(task, pool, 10, 7)
    for k in (1, 2, 3):
        drawn = shots_of(order, k, len(pool))
        assert drawn.shape == (10, 24) and not drawn[:, task.heldout].any()
        assert (drawn[:, task.truth == 1].sum(1) == k).all() and (drawn[:, task.truth == 0].sum(1) == k).all()
        for row in drawn:
            for label in (0, 1):
                names = [task.groups[i] for i in np.flatnonzero(row & (task.truth == label))]
                assert len(set(names)) == k
    assert (shots_of(order, 2, 24) >= shots_of(order, 1, 24)).all()  # nested
    assert len({tuple(row) for row in shots_of(order, 2, 24)}) > 1
    other = draw_orders(task, pool, 10, 8)
    assert not all(np.array_equal(a, b) for a, b in zip(order, other, strict=True))


def test_too_few_subjects_for_a_k_is_said(cohort) -> None:
    people = cohort(n=16, heldout=6)
    found = curve(people, fc=people.fc, shots=(1, 32))
    row = found["fc_logistic", "32", "auc"]
    assert np.isnan(row.value) and "n/a: the pre-training split has 5 subjects" in row.note
    assert np.isfinite(found["fc_logistic", "1", "auc"].value)


def test_no_held_out_subject_is_said(cohort) -> None:
    people = cohort(n=16, heldout=0)
    row = curve(people, fc=people.fc)["fc_logistic", "1", "auc"]
    assert np.isnan(row.value) and "no held-out subjects" in row.note


def test_a_scan_without_features_is_neither_drawn_nor_tested(cohort) -> None:
    people = cohort(n=30, heldout=12)
    other = people.fc[:, :5].copy()
    other[[0, 20]] = np.nan
    found = curve(people, fc=people.fc, clips=other)
    assert {row.n_test for row in found.values()} == {11}  # the same subjects for every set


def test_the_interval_spans_draws_and_test_subjects() -> None:
    truth = np.array([0, 0, 1, 1.0])
    scores = np.array([[0, 1, 2, 3.0], [3, 2, 1, 0]])
    assert spread(auc, truth, scores, np.ones((4, 4))) == (0.5, pytest.approx(0.0), pytest.approx(1.0))
    assert spread(auc, truth, scores[:1], np.ones((4, 4))) == (1.0, 1.0, 1.0)


def test_every_bootstrap_draw_is_used_once() -> None:
    """Of the same predictions in every draw the interval is that of the plain bootstrap, not of a few of its draws."""
    rng = np.random.default_rng(0)
    truth = np.arange(40) % 2 * 1.0
    row = rng.standard_normal(40) + truth
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=1000).astype(float)
    plain = np.quantile(auc(truth, row, weights), [0.025, 0.975])
    np.testing.assert_allclose(spread(auc, truth, np.tile(row, (50, 1)), weights)[1:], plain)
    np.testing.assert_allclose(spread(auc, truth, row[None], weights)[1:], plain)


def test_shots_rise() -> None:
    with pytest.raises(ValueError, match="rising"):
        EvaluateConfig(few_shot={"shots": [4, 2]})


def test_no_fit_ever_sees_a_held_out_subject_and_each_k_has_its_number(cohort, monkeypatch) -> None:
    people = cohort(n=40, heldout=12, two_scans=6)
    task = make_task(GROUP, people)
    seen: list[np.ndarray] = []

    def spy(features: np.ndarray, truth: np.ndarray, train: np.ndarray) -> np.ndarray:
        seen.append(train.copy())
        return np.zeros(train.shape)

    monkeypatch.setattr("boldmill.evaluate.fewshot.CLASSIFIERS", {"spy": spy})
    few_shot_rows(task, {"fc": (people.fc[task.rows], "")}, [1, 4], 6, 100, 1)
    heldout = task.heldout[task.member]
    subjects = [[len(set(task.member[row])) for row in masks] for masks in seen]
    assert not any(masks[:, heldout].any() for masks in seen)
    assert subjects == [[2] * 6, [8] * 6, [28]]


def test_external_subjects_neither_teach_nor_are_tested(cohort) -> None:
    """The curve is that of the task without them; two of its held-out subjects are external, and two of the others."""
    names = tuple("other" if i in (0, 1, 28, 29) else "toy" for i in range(30))
    people = dataclasses.replace(cohort(n=30, heldout=10, edges=20, effect=1.0), datasets=names)
    found = []
    for chosen in ({"external": ["other"]}, {"datasets": ["toy"]}):
        task = make_task(GROUP.model_copy(update=chosen), people)
        sets = {"fc": (people.fc[task.rows], "")}
        found.append(few_shot_rows(task, sets, shots=(1, 4), draws=5, bootstrap=100, seed=0))
    assert {row.n_test for row in found[0]} == {8}
    values = [[(row.value, row.ci_low, row.ci_high) for row in rows] for rows in found]
    np.testing.assert_allclose(*values)


def test_a_data_set_that_is_only_tested_is_never_drawn(cohort, monkeypatch) -> None:
    people = cohort(n=40, heldout=12)
    away = tuple("away" if i >= 30 else "toy" for i in range(40))
    task = make_task(GROUP.model_copy(update={"external": ["away"]}), dataclasses.replace(people, datasets=away))
    seen: list[np.ndarray] = []

    def spy(features: np.ndarray, truth: np.ndarray, train: np.ndarray) -> np.ndarray:
        seen.append(train.any(axis=0))
        return np.zeros(train.shape)

    monkeypatch.setattr("boldmill.evaluate.fewshot.CLASSIFIERS", {"spy": spy})
    few_shot_rows(task, {"fc": (people.fc[task.rows], "")}, [8], 10, 100, 1)
    assert task.external.sum() == 10 and seen
    assert not any(drawn[task.external[task.member]].any() for drawn in seen)
