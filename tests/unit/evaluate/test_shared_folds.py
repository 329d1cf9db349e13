"""Fits that share a training fold give what they give one by one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from boldmill.evaluate.baselines import ridge_classifier
from boldmill.evaluate.bymask import by_mask, in_fold
from boldmill.evaluate.linear import logistic_shared, rotate
from boldmill.evaluate.probes import PENALTIES, Probe, probe_scores


@pytest.fixture
def wide():
    """40 samples, 300 features, 2 folds with 3 labellings each."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 300)) * rng.uniform(0.5, 3, 300) + 1
    y = (rng.random((3, 40)) < 0.4).astype(float)
    x[:, :4] += 2 * y[0][:, None]
    folds = np.array([np.arange(40) >= 10, np.arange(40) < 28])
    return x, np.tile(y, (2, 1)), np.repeat(folds, 3, axis=0)


PROBES = [
    Probe(kind="ridge"),
    Probe(kind="ridge", scale=False),
    Probe(kind="logistic"),
    Probe(kind="logistic", select=6),
]


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("holes", [False, True])
def test_shared_folds_change_nothing(wide, probe, holes):
    x, y, train = wide
    if holes:
        x = x.copy()
        x[5, :50] = x[33, 20:90] = np.nan
    together = probe_scores(probe, x, y, train)
    for b in range(len(y)):
        alone = probe_scores(probe, x, y[b : b + 1], train[b : b + 1])[0]
        np.testing.assert_allclose(together[b], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("columns", [300, 12])
@pytest.mark.parametrize("c", [1.0, 0.01])
def test_shared_logistic_is_that_of_scikit_learn(wide, columns, c):
    x, y, train = wide
    x = x[:, :columns]
    ours = probe_scores(Probe(kind="logistic", c=c), x, y, train)
    for scores, labels, mask in zip(ours, y, train, strict=True):
        scaler = StandardScaler().fit(x[mask])
        peer = LogisticRegression(C=c, class_weight="balanced", tol=1e-12, max_iter=10_000)
        peer.fit(scaler.transform(x[mask]), labels[mask])
        np.testing.assert_allclose(scores, peer.decision_function(scaler.transform(x)), atol=2e-4)


def test_shared_logistic_meets_the_condition_of_the_optimum(wide):
    """Zero gradient: the weights are the sum of residuals times training rows, in the original features."""
    x, y, train = wide
    mask, labels = train[0], y[0]
    z = StandardScaler().fit(x[mask]).transform(x)
    scores = logistic_shared(z, y[:1], mask, 1.0)[0]
    n, positive = mask.sum(), labels[mask].sum()
    weight = np.where(labels[mask] > 0.5, n / (2 * positive), n / (2 * (n - positive)))
    residual = weight * (labels[mask] - 1 / (1 + np.exp(-scores[mask])))
    assert abs(residual.sum()) < 1e-7
    linear = z @ (z[mask].T @ residual)
    np.testing.assert_allclose(scores - linear, np.full(len(z), (scores - linear)[0]), atol=1e-7)


def test_rotation_keeps_inner_products_with_training_rows(wide):
    x, _, train = wide
    mask = train[0]
    centred = x - x[mask].mean(axis=0)
    turned = rotate(centred, mask)
    assert turned.shape == (40, mask.sum() - 1)  # centring takes one dimension
    np.testing.assert_allclose(turned @ turned[mask].T, centred @ centred[mask].T, atol=1e-8)


def test_a_fold_of_one_class_has_no_score_among_others(wide):
    x, y, train = wide
    y = y.copy()
    y[1] = 1.0
    scores = probe_scores(Probe(kind="logistic"), x, y, train)
    assert np.isnan(scores[1]).all() and np.isfinite(scores[[0, 2]]).all()
    assert np.isnan(ridge_classifier(Probe(kind="ridge"), x, y, train)[1]).all()


def test_ridge_classifier_is_that_of_scikit_learn(wide):
    x, y, train = wide
    ours = ridge_classifier(Probe(kind="ridge", scale=False), x, y, train)
    for scores, labels, mask in zip(ours, y, train, strict=True):
        centred = x - x[mask].mean(axis=0)
        size = (centred[mask] ** 2).sum() / mask.sum()
        peers = [RidgeClassifier(alpha=f * size).fit(x[mask], labels[mask]).decision_function(x) for f in PENALTIES]
        assert min(np.abs(peer - scores).max() for peer in peers) < 1e-8


def test_a_transform_runs_once_for_each_fold_and_sees_no_label(wide):
    x, y, train = wide
    seen = []

    def spy(features, mask):
        seen.append(mask.copy())
        return features - features[mask].mean(axis=0)

    def fit(features, truth, train):
        assert (train == train[0]).all()
        return np.repeat(features[:, 0][None], len(truth), axis=0)

    scores = in_fold(spy, fit)(x, y, train)
    assert len(seen) == 2
    np.testing.assert_allclose(scores[4], x[:, 0] - x[train[4], 0].mean())
    assert [fits.tolist() for _, fits in by_mask(train[[3, 0, 4, 1]])] == [[0, 2], [1, 3]]
