from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from boldmill.evaluate.knn import knn_probe, neighbours
from boldmill.evaluate.methods_config import KnnConfig


@pytest.fixture
def problem():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((50, 20)) + 1
    y = (x[:, 0] > 1).astype(float)
    return x, y, rng.random(50) < 0.7


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_neighbours_are_those_of_scikit_learn(problem, metric, k):
    x, y, mask = problem
    config = KnnConfig(k=k, metric=metric)
    z = StandardScaler().fit(x[mask]).transform(x)
    peer = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(z[mask], y[mask])
    share = peer.predict_proba(z)[:, 1]
    ours = knn_probe("classification", config)(x, np.stack([y, 1 - y]), np.stack([mask, mask]))
    np.testing.assert_allclose(ours[0], np.log((k * share + 0.5) / (k * (1 - share) + 0.5)), atol=1e-9)
    np.testing.assert_allclose(ours[1], -ours[0], atol=1e-12)
    values = x[:, 1] * 3
    peer = KNeighborsRegressor(k, metric=metric, algorithm="brute").fit(z[mask], values[mask])
    np.testing.assert_allclose(knn_probe("regression", config)(x, values[None], mask[None])[0], peer.predict(z))


def test_more_neighbours_than_rows_and_a_single_class(problem):
    x, y, mask = problem
    few = np.zeros(50, dtype=bool)
    few[np.r_[np.flatnonzero(y > 0)[:2], np.flatnonzero(y == 0)[:1]]] = True
    scores = knn_probe("classification", KnnConfig(k=15))(x, y[None], few[None])[0]
    np.testing.assert_allclose(scores, np.log(2.5 / 1.5))
    assert np.isnan(knn_probe("classification", KnnConfig())(x, np.ones((1, 50)), mask[None])).all()


def test_labels_and_rows_of_the_test_fold_do_not_matter(problem):
    x, y, mask = problem
    fit = knn_probe("classification", KnnConfig(k=5))
    before = fit(x, y[None], mask[None])[0]
    moved = x.copy()
    test = np.flatnonzero(~mask)
    moved[test[0]] *= 40
    after = fit(moved, np.where(mask, y, 1 - y)[None], mask[None])[0]
    rest = np.arange(50) != test[0]
    np.testing.assert_array_equal(after[rest], before[rest])


def test_a_vector_of_zeros_is_no_nearer_than_an_unrelated_one():
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 0.0], [-1.0, 0.0]])
    train = np.array([False, True, True, True])
    assert neighbours(x, train, 3, "cosine")[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_many_scans_are_taken_in_parts(problem, metric, monkeypatch):
    x, _, mask = problem
    whole = neighbours(x, mask, 5, metric)
    monkeypatch.setattr("boldmill.evaluate.knn.CHUNK_NUMBERS", 3 * int(mask.sum()))
    np.testing.assert_array_equal(neighbours(x, mask, 5, metric), whole)
    assert np.isnan(knn_probe("regression", KnnConfig())(x, np.zeros((1, 50)), np.zeros((1, 50), dtype=bool))).all()
