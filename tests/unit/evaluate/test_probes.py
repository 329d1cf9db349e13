from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler

from boldmill.evaluate import probes
from boldmill.evaluate.linear import kernel_ridge, logistic_shared, ridge_shared
from boldmill.evaluate.probes import FEW_LABELS, PENALTIES, Probe, probe_scores, svm_scores


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((24, 60)) * rng.uniform(0.5, 3, 60) + 2
    y = (rng.random(24) < 0.4).astype(float)
    x[:, :3] += 2 * y[:, None]
    train = rng.random((3, 24)) < 0.75
    return x, np.repeat(y[None], 3, axis=0), train


def reference_logistic(x, y, mask, select):
    chosen = SelectKBest(f_classif, k=select).fit(x[mask], y[mask]) if select else None
    pick = chosen.transform if chosen else (lambda a: a)
    scaler = StandardScaler().fit(pick(x[mask]))
    model = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-12, max_iter=5000)
    model.fit(scaler.transform(pick(x[mask])), y[mask])
    return model.decision_function(scaler.transform(pick(x)))


@pytest.mark.parametrize("select", [None, 7])
def test_logistic_is_that_of_scikit_learn(problem, select):
    x, y, train = problem
    ours = probe_scores(Probe(kind="logistic", select=select), x, y, train)
    for scores, labels, mask in zip(ours, y, train, strict=True):
        np.testing.assert_allclose(scores, reference_logistic(x, labels, mask, select), atol=1e-4)


@pytest.mark.parametrize("features", [5, 60])
def test_folds_with_one_label_few_or_many_are_solved_alike(problem, features, monkeypatch):
    """As in permutations of a small cohort: some draws share a training fold, most have one of their own."""
    x, y, train = problem
    x = x[:, :features]
    rng = np.random.default_rng(8)
    mask = np.concatenate([train, train[:1].repeat(2, 0), train[1:2].repeat(FEW_LABELS, 0)])
    mask = mask[rng.permutation(len(mask))]
    labels = np.stack([rng.permutation(y[0]) for _ in mask])
    labels[3] = 1.0  # a single class
    calls = []
    monkeypatch.setattr(
        probes, "logistic_shared", lambda *given: calls.append(len(given[1])) or logistic_shared(*given)
    )
    ours = probe_scores(Probe(kind="logistic"), x, labels, mask)
    assert calls == [FEW_LABELS + 1]  # the fold of many labels; all others together
    assert np.isnan(ours[3]).all() and np.isfinite(np.delete(ours, 3, axis=0)).all()
    for scores, truth, own in zip(np.delete(ours, 3, 0), np.delete(labels, 3, 0), np.delete(mask, 3, 0), strict=True):
        np.testing.assert_allclose(scores, reference_logistic(x, truth, own, None), atol=1e-4)
    monkeypatch.setattr(probes, "CHUNK_NUMBERS", 1)  # one fold at a time
    np.testing.assert_allclose(probe_scores(Probe(kind="logistic"), x, labels, mask), ours, atol=1e-7)
    monkeypatch.setattr(probes, "SMALL_DESIGN", 0)  # large designs: every fold by itself
    np.testing.assert_allclose(probe_scores(Probe(kind="logistic"), x, labels, mask), ours, atol=1e-7)
    assert sorted(calls[2:]) == [1, 3, FEW_LABELS + 1]


@pytest.mark.parametrize("scale", [True, False])
def test_ridge_is_that_of_scikit_learn(problem, scale):
    x, _, train = problem
    y = np.repeat((x[:, 0] + np.random.default_rng(1).standard_normal(24))[None], 3, axis=0)
    ours = probe_scores(Probe(kind="ridge", scale=scale), x, y, train)
    for scores, labels, mask in zip(ours, y, train, strict=True):
        scaler = StandardScaler(with_std=scale).fit(x[mask])
        z, known = scaler.transform(x), scaler.transform(x[mask])
        alphas = PENALTIES * (known**2).sum() / mask.sum()
        best = RidgeCV(alphas=alphas, scoring="neg_mean_squared_error").fit(known, labels[mask]).alpha_
        peer = Ridge(alpha=best).fit(known, labels[mask]).predict(z)
        np.testing.assert_allclose(scores, peer, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "probe",
    [Probe(kind="logistic", select=5), Probe(kind="logistic"), Probe(kind="ridge"), Probe(kind="ridge", scale=False)],
)
def test_nothing_is_learnt_from_test_rows(problem, probe):
    x, y, train = problem
    before = probe_scores(probe, x, y, train)
    flipped = np.where(train, y, 1 - y)
    np.testing.assert_allclose(probe_scores(probe, x, flipped, train), before, atol=1e-9)
    moved = x.copy()
    test = np.flatnonzero(~train[0])
    moved[test[0]] *= 50
    after = probe_scores(probe, moved, y[:1], train[:1])[0]
    rest = np.arange(24) != test[0]
    np.testing.assert_allclose(after[rest], before[0][rest], rtol=1e-5, atol=1e-6)
    assert abs(after[test[0]] - before[0][test[0]]) > 1e-3


def test_scale_of_features_does_not_matter(problem):
    x, y, train = problem
    before = probe_scores(Probe(kind="logistic"), x, y, train)
    np.testing.assert_allclose(probe_scores(Probe(kind="logistic"), 1e-3 * x, y, train), before, atol=1e-5)


def test_missing_values_become_the_training_mean(problem):
    x, y, train = problem
    holes = x.copy()
    holes[3, 10] = holes[8, 10] = np.nan
    ours = probe_scores(Probe(kind="logistic"), holes, y, train)
    for scores, labels, mask in zip(ours, y, train, strict=True):
        mean, sd = np.nanmean(holes[mask], axis=0), np.nanstd(holes[mask], axis=0)
        z = np.nan_to_num((holes - mean) / sd, nan=0.0)
        model = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-12, max_iter=5000).fit(z[mask], labels[mask])
        np.testing.assert_allclose(scores, model.decision_function(z), atol=1e-4)


def test_a_single_class_gives_no_score(problem):
    x, y, train = problem
    assert np.isnan(probe_scores(Probe(kind="logistic"), x, np.ones_like(y), train)).all()
    assert np.isnan(svm_scores(x, np.ones_like(y), train, "classification")).all()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_svm_scores_are_those_of_scikit_learn(kind):
    from sklearn.svm import SVC, SVR

    rng = np.random.default_rng(4)
    x, train = rng.standard_normal((40, 90)) * 3 + 1, rng.random((1, 40)) < 0.75
    y = (x[:, 0] > 1).astype(float) if kind == "classification" else x[:, 0]
    z, learn = StandardScaler().fit(x[train[0]]).transform(x), train[0]
    if kind == "classification":
        want = SVC(class_weight="balanced").fit(z[learn], y[learn]).decision_function(z)
    else:
        m, s = y[learn].mean(), y[learn].std()
        want = SVR().fit(z[learn], (y[learn] - m) / s).predict(z) * s + m
    np.testing.assert_allclose(svm_scores(x, y[None], train, kind)[0], want, rtol=1e-6, atol=1e-8)


def test_svm_learns_a_quadratic_rule():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 2))
    y = ((x**2).sum(axis=1) > 1.4).astype(float)
    train = (np.arange(80) < 60)[None]
    scores = svm_scores(x, y[None], train, "classification")[0]
    assert ((scores > 0) == y)[60:].mean() > 0.8
    assert ((probe_scores(Probe(kind="logistic"), x, y[None], train)[0] > 0) == y)[60:].mean() < 0.75


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_an_svm_without_training_rows_gives_no_score(kind):
    features = np.random.default_rng(0).standard_normal((6, 3))
    train = np.array([[False] * 6, [True] * 5 + [False]])
    scores = svm_scores(features, np.tile([0.0, 1, 0, 1, 0, 1], (2, 1)), train, kind)
    assert np.isnan(scores[0]).all() and np.isfinite(scores[1]).all()


@pytest.mark.parametrize("features", [1, 7, 60])
def test_ridge_with_more_samples_than_features_needs_no_kernel(features, monkeypatch):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((260, features)) * rng.uniform(0.1, 5, features)
    x[:, -1] = x[:, 0]  # a column that another one holds
    truth = np.stack([x @ rng.standard_normal(features) + rng.standard_normal(260), rng.standard_normal(260)])
    mask = rng.random(260) < 0.7
    centred = x - x[mask].mean(axis=0)
    wanted = kernel_ridge((centred @ centred.T)[None], truth[None] * mask, mask[None])[0]
    np.testing.assert_allclose(ridge_shared(centred, truth, mask), wanted, atol=1e-8)

    def refused(*_):
        raise AssertionError("a kernel of all samples")

    monkeypatch.setattr("boldmill.evaluate.probes.kernel_ridge", refused)
    for scale in (False, True):
        found = probe_scores(Probe(kind="ridge", scale=scale), x, truth, np.stack([mask, mask]))
        assert np.isfinite(found).all()
        if not scale:
            np.testing.assert_allclose(found, wanted, atol=1e-8)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("probe", [Probe(kind="logistic"), Probe(kind="logistic", select=5), Probe(kind="ridge")])
def test_a_feature_that_nobody_has_is_no_feature(probe):
    x = np.random.default_rng(2).standard_normal((40, 12))
    truth, train = np.tile((np.arange(40) % 2).astype(float), (2, 1)), np.tile(np.arange(40) < 30, (2, 1))
    holed = np.insert(x, 4, np.nan, axis=1)
    np.testing.assert_allclose(probe_scores(probe, holed, truth, train), probe_scores(probe, x, truth, train))
