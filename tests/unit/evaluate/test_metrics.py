from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as peer

from boldmill.evaluate import metrics
from boldmill.evaluate.metrics import KINDS, metrics_of, over_repeats


@pytest.fixture
def drawn():
    rng = np.random.default_rng(3)
    truth = (rng.random(40) < 0.4).astype(float)
    score = np.round(rng.standard_normal(40) + truth, 1)  # rounded: ties
    weights = np.stack([np.ones(40), *rng.multinomial(40, np.full(40, 1 / 40), size=4)]).astype(float)
    return truth, score, weights


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("auc", lambda y, s, w: peer.roc_auc_score(y, s, sample_weight=w)),
        ("accuracy", lambda y, s, w: peer.accuracy_score(y, s > 0, sample_weight=w)),
        ("balanced_accuracy", lambda y, s, w: peer.balanced_accuracy_score(y, s > 0, sample_weight=w)),
        ("sensitivity", lambda y, s, w: peer.recall_score(y, s > 0, sample_weight=w)),
        ("specificity", lambda y, s, w: peer.recall_score(1 - y, s <= 0, sample_weight=w)),
        ("f1", lambda y, s, w: peer.f1_score(y, s > 0, sample_weight=w)),
    ],
)
def test_classification_metrics_are_those_of_scikit_learn(drawn, name, reference):
    truth, score, weights = drawn
    ours = metrics.CLASSIFICATION[name](truth, score, weights)
    np.testing.assert_allclose(ours, [reference(truth, score, w) for w in weights], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mae", lambda y, s, w: peer.mean_absolute_error(y, s, sample_weight=w)),
        ("r2", lambda y, s, w: peer.r2_score(y, s, sample_weight=w)),
        ("pearson_r", lambda y, s, w: np.corrcoef(np.repeat(y, w.astype(int)), np.repeat(s, w.astype(int)))[0, 1]),
    ],
)
def test_regression_metrics(name, reference):
    rng = np.random.default_rng(4)
    truth = rng.standard_normal(30)
    score = truth + rng.standard_normal(30)
    weights = np.stack([np.ones(30), *rng.multinomial(30, np.full(30, 1 / 30), size=3)]).astype(float)
    ours = metrics.REGRESSION[name](truth, score, weights)
    np.testing.assert_allclose(ours, [reference(truth, score, w) for w in weights], atol=1e-10)


def test_sensitivity_is_not_precision():
    # 10 positives, 9 found; 10 negatives, 5 false alarms: PPV would be 9/14
    truth = np.r_[np.ones(10), np.zeros(10)]
    score = np.r_[np.ones(9), -1, np.ones(5), -np.ones(5)]
    one = np.ones((1, 20))
    assert metrics.sensitivity(truth, score, one)[0] == pytest.approx(0.9)
    assert metrics.specificity(truth, score, one)[0] == pytest.approx(0.5)


def test_undefined_metrics_are_nan():
    one = np.ones((1, 4))
    assert np.isnan(metrics.auc(np.ones(4), np.arange(4.0), one)[0])
    assert np.isnan(metrics.pearson_r(np.arange(4.0), np.full(4, 1 / 3), one)[0])
    assert np.isnan(metrics.r2(np.full(4, 2.0), np.arange(4.0), one)[0])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_repeat_without_anybody_scored_is_undefined_and_stops_nothing(kind: str) -> None:
    truth, rng = np.tile([0.0, 1.0, 2.0] if kind == "multiclass" else [0.0, 1.0], 6), np.random.default_rng(0)
    shape = (2, len(truth), 3) if kind == "multiclass" else (2, len(truth))
    scores = rng.standard_normal(shape)
    lost = scores.copy()
    lost[1] = np.nan
    for metric in metrics_of(kind).values():
        np.testing.assert_allclose(over_repeats(metric, truth, lost), over_repeats(metric, truth, scores[:1]))
