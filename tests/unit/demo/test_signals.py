"""Parcel signals: population structure, planted edges, and whether a baseline finds them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from boldmill.demo import motion, signals
from boldmill.demo.cohort import subjects
from boldmill.demo.parameters import Parameters
from boldmill.rng import generator

UPPER = np.triu_indices(signals.N_PARCELS, 1)


def test_networks_have_the_published_sizes():
    sizes = np.bincount(signals.networks())
    assert sizes.tolist() == [17, 14, 15, 12, 5, 13, 24]


def test_population_covariance_is_like_a_brain(centroids):
    covariance = signals.base_covariance(centroids)
    assert_allclose(np.diag(covariance), 1, atol=1e-9)
    assert np.linalg.eigvalsh(covariance).min() > 0
    same = signals.networks()[:, None] == signals.networks()
    off = ~np.eye(signals.N_PARCELS, dtype=bool)
    within, between = covariance[same & off].mean(), covariance[~same].mean()
    assert within > between + 0.12
    mirrored = centroids * [-1, 1, 1]
    partner = np.argmin(((centroids[:50, None] - mirrored[None, 50:]) ** 2).sum(-1), axis=1) + 50
    assert covariance[np.arange(50), partner].mean() > between + 0.15


def test_planted_edges_use_each_parcel_once(centroids):
    edges = signals.planted_edges(Parameters(), centroids)
    used = [parcel for edge in edges for parcel in (edge.first, edge.second)]
    assert len(used) == len(set(used)) == 2 * sum(signals.EDGES.values())
    member = signals.networks()
    assert all(member[e.first - 1] != member[e.second - 1] for e in edges)
    assert {e.effect for e in edges} == set(signals.EDGES)


def test_planting_moves_only_the_planted_covariances(centroids, monkeypatch):
    """Closed form: covariance of a planted pair rises by share * own, of every other pair by nothing."""
    monkeypatch.setattr(signals, "INDIVIDUAL", 0.0)
    p = Parameters()
    person = subjects(p)[0]
    edges = signals.planted_edges(p, centroids)
    plain = signals.subject_mixing(p, person, [], centroids)
    planted = signals.subject_mixing(p, person, edges, centroids)
    change = planted @ planted.T - plain @ plain.T
    expected = np.zeros_like(change)
    for e in edges:
        rise = e.share(person, p.effect) * signals.SHARES["own"]
        expected[e.first - 1, e.second - 1] = expected[e.second - 1, e.first - 1] = rise
    assert_allclose(change, expected, atol=1e-9)


def test_no_group_effect_leaves_age_and_cognition(centroids):
    p = Parameters(effect=0.0)
    people = subjects(p)
    for edge in signals.planted_edges(p, centroids):
        shares = {person.label: edge.share(person, p.effect) for person in people}
        if edge.effect == "group":
            assert set(shares.values()) == {signals.BACKGROUND_SHARE}
        else:
            latent = [person.age_z if edge.effect == "age" else person.ability for person in people]
            assert np.corrcoef(latent, list(shares.values()))[0, 1] * edge.sign > 0.9


def test_signals_are_band_limited_and_follow_their_covariance(centroids):
    p = Parameters(volumes=3000)
    mixing = signals.subject_mixing(p, subjects(p)[0], signals.planted_edges(p, centroids), centroids)
    x = signals.run_spectrum(p, mixing, "long").at(np.array(p.times()))
    assert_allclose(x.std(0), 1, atol=1e-9)
    power = np.abs(np.fft.rfft(x * np.hanning(len(x))[:, None], axis=0)) ** 2
    frequency = np.fft.rfftfreq(len(x), p.tr)
    inside = (frequency > 0.009) & (frequency < 0.101)
    assert power[inside].sum() / power.sum() > 0.999
    assert_allclose(np.corrcoef(x.T)[UPPER], (mixing @ mixing.T)[UPPER], atol=0.2)
    assert np.abs(np.corrcoef(x.T)[UPPER] - (mixing @ mixing.T)[UPPER]).mean() < 0.045


def cleaned_fc(p, centroids, noise=0.35):
    """Fisher-z FC of every subject after the costs of a real pipeline, at parcel level.

    Noise, motion leaking into the signals, band-pass, and regression of 24 motion courses, five others and two drifts.
    """
    edges = signals.planted_edges(p, centroids)
    frequency = np.fft.rfftfreq(p.volumes, p.tr)
    outside = (frequency < 0.01) | (frequency > 0.1)

    def band_pass(x):
        spectrum = np.fft.rfft(x - x.mean(0), axis=0)
        spectrum[outside] = 0
        return np.fft.irfft(spectrum, p.volumes, axis=0)

    features = []
    for person in subjects(p):
        draw = generator("test", p.seed, person.label)
        mixing = signals.subject_mixing(p, person, edges, centroids)
        x = signals.run_spectrum(p, mixing, person.label).at(np.array(p.times()))
        moved = motion.simulate(draw, p.volumes, p.tr, person.motion)
        lagged = np.vstack([np.zeros(6), moved[:-1]])
        courses = np.hstack([moved, lagged, moved**2, lagged**2, draw.standard_normal((p.volumes, 5))])
        courses = courses / courses.std(0)
        x = x + noise * draw.standard_normal(x.shape) + courses @ (0.1 * draw.standard_normal((courses.shape[1], 100)))
        time = np.linspace(-1, 1, p.volumes)[:, None]
        nuisance = band_pass(np.hstack([courses, time, time**2]))
        basis, size, _ = np.linalg.svd(nuisance / nuisance.std(0), full_matrices=False)
        basis = basis[:, size > 1e-6 * size[0]]
        assert 2 * (~outside).sum() - basis.shape[1] < 30, "cleaning must cost what it costs a real run"
        x = band_pass(x)
        x -= basis @ (basis.T @ x)
        features.append(np.arctanh(np.corrcoef(x.T)[UPPER]))
    return np.array(features), np.array([person.is_patient for person in subjects(p)])


def auc(x, y, top=50, folds=4):
    """Area under the ROC curve of a ridge classifier on the ``top`` edges chosen inside each training fold."""
    from sklearn.model_selection import StratifiedKFold

    decision = np.zeros(len(y))
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y):
        a, b = x[train][y[train]], x[train][~y[train]]
        t = (a.mean(0) - b.mean(0)) / np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b))
        chosen = np.argsort(-np.abs(t))[:top]
        mean, sd = x[train][:, chosen].mean(0), x[train][:, chosen].std(0)
        z = (x[:, chosen] - mean) / sd
        weights = z[train].T @ np.linalg.solve(z[train] @ z[train].T + 10 * np.eye(len(train)), 2.0 * y[train] - 1)
        decision[test] = z[test] @ weights
    return (decision[y][:, None] > decision[~y]).mean()


def permutation_p(x, y, draws=99):
    observed = auc(x, y)
    shuffle = np.random.default_rng(0)
    return (1 + sum(auc(x, shuffle.permutation(y)) >= observed for _ in range(draws))) / (draws + 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_baseline_finds_the_planted_group_effect(centroids, seed):
    assert permutation_p(*cleaned_fc(Parameters(seed=seed), centroids)) < 0.05


def test_without_the_effect_p_values_are_not_small(centroids):
    """p is about uniform without an effect: of six cohorts (fixed seeds), the median must not be small."""
    values = [permutation_p(*cleaned_fc(Parameters(seed=s, effect=0.0), centroids), draws=39) for s in range(2, 8)]
    assert np.median(values) > 0.3
    assert values[0] > 0.05


@pytest.mark.parametrize("effect", ["age", "cognition"])
def test_age_and_cognition_reach_their_edges(centroids, effect):
    p = Parameters()
    x, _ = cleaned_fc(p, centroids)
    position = {(i + 1, j + 1): k for k, (i, j) in enumerate(zip(*UPPER, strict=True))}
    people = subjects(p)
    latent = np.array([s.age_z if effect == "age" else s.ability for s in people])
    r = [
        e.sign * np.corrcoef(x[:, position[e.first, e.second]], latent)[0, 1]
        for e in signals.planted_edges(p, centroids)
        if e.effect == effect
    ]
    assert np.mean(r) > 0.5
