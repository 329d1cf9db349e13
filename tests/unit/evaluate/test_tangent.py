from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from nilearn.connectome import ConnectivityMeasure
from sklearn.covariance import LedoitWolf

from boldmill.evaluate.bymask import in_fold
from boldmill.evaluate.probes import Probe, probe_scores
from boldmill.evaluate.tangent import geometric_mean, positive, tangent_vectors
from boldmill.represent.fc import correlation, vectorise


@pytest.fixture
def series():
    rng = np.random.default_rng(2)
    mixing = rng.standard_normal((12, 12)) * 0.3 + np.eye(12)
    return [rng.standard_normal((40 + 5 * i, 12)) @ (mixing + 0.1 * rng.standard_normal((12, 12))) for i in range(10)]


@pytest.fixture
def edges(series):
    return np.stack([vectorise(correlation(x, estimator="ledoit_wolf")) for x in series])


def test_it_is_that_of_nilearn(series, edges):
    train = np.arange(10) < 7
    z = [(x - x.mean(axis=0)) / x.std(axis=0) for x in series]
    peer = ConnectivityMeasure(
        LedoitWolf(store_precision=False), kind="tangent", vectorize=True, discard_diagonal=False, standardize=False
    )
    peer.fit([z[i] for i in np.flatnonzero(train)])
    np.testing.assert_allclose(tangent_vectors(edges, train), peer.transform(z), atol=1e-5)


def test_the_reference_is_the_geometric_mean(edges):
    matrices = positive(edges)
    mean = geometric_mean(matrices)
    values, vectors = np.linalg.eigh(mean)
    white = (vectors / np.sqrt(values)) @ vectors.T
    logs = []
    for matrix in matrices:
        v, u = np.linalg.eigh(white @ matrix @ white)
        logs.append((u * np.log(v)) @ u.T)
    assert np.abs(np.mean(logs, axis=0)).max() < 1e-4  # tangent vectors of the reference sum to 0
    assert np.abs(np.mean(logs[:5], axis=0)).max() > 1e-2


def test_a_test_scan_does_not_move_the_others(edges):
    train = np.arange(10) < 7
    before = tangent_vectors(edges, train)
    moved = edges.copy()
    moved[8] *= 0.1
    after = tangent_vectors(moved, train)
    np.testing.assert_array_equal(after[:8], before[:8])
    assert np.abs(after[8] - before[8]).max() > 1e-2
    moved[2] *= 0.1
    assert np.abs(tangent_vectors(moved, train)[0] - before[0]).max() > 1e-3


def test_test_labels_do_not_matter(edges):
    fit = in_fold(tangent_vectors, partial(probe_scores, Probe(kind="logistic")))
    y, train = (np.arange(10) % 2).astype(float), np.array([np.arange(10) < 7, np.arange(10) > 2])
    truth = np.stack([y, y])
    np.testing.assert_array_equal(fit(edges, np.where(train, truth, 1 - truth), train), fit(edges, truth, train))


def test_parcels_without_data_and_matrices_that_are_not_positive(edges):
    holes = edges.copy()
    square = np.zeros((12, 12), dtype=bool)
    square[3] = square[:, 3] = True
    missing = vectorise(square)
    holes[1, missing] = np.nan
    vectors = tangent_vectors(holes, np.arange(10) < 7)
    assert np.isfinite(vectors).all()
    assert np.allclose(positive(holes)[1, 3], np.eye(12)[3])
    flat = np.ones((3, 66)) * [[0.999], [-0.9], [0.2]]  # the second has negative eigenvalues
    assert np.linalg.eigvalsh(positive(flat)).min() > 0
    assert np.isfinite(tangent_vectors(flat, np.ones(3, dtype=bool))).all()


@pytest.mark.filterwarnings("error")
def test_a_fold_without_training_rows_gives_no_score(edges):
    fit = in_fold(tangent_vectors, partial(probe_scores, Probe(kind="ridge")))
    train = np.array([np.zeros(10, dtype=bool), np.arange(10) < 7])
    scores = fit(edges, np.ones((2, 10)), train)
    assert np.isnan(scores[0]).all() and np.isfinite(scores[1]).all()
    chosen = probe_scores(Probe(kind="logistic", select=5), edges, np.ones((1, 10)), train[:1])
    assert np.isnan(chosen).all()
