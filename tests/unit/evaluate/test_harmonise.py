from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from boldmill.evaluate.combat import apply_combat, fit_combat
from boldmill.evaluate.harmonise import Harmonised, unharmonised_note
from boldmill.evaluate.packed import facts, pack, unpack
from boldmill.evaluate.probes import Probe, probe_scores


def published(y, batch, covariates):
    """ComBat of Johnson 2007 as in the published R and Python code, (N, P) -> (N, P): loops over sites and features."""
    names = sorted(set(batch))
    design = np.column_stack([(batch == b).astype(float) for b in names] + [c - c.mean() for c in covariates.T])
    coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
    share = np.array([(batch == b).mean() for b in names])
    grand = share @ coefficients[: len(names)]
    variance = ((y - design @ coefficients) ** 2).mean(axis=0)
    stand = grand + design[:, len(names) :] @ coefficients[len(names) :]
    s = (y - stand) / np.sqrt(variance)
    out = np.empty_like(y)
    for b in names:
        rows = s[batch == b]
        gamma, delta = rows.mean(axis=0), rows.var(axis=0, ddof=1)
        bar, t2 = gamma.mean(), gamma.var(ddof=1)
        m, s2 = delta.mean(), delta.var(ddof=1)
        a, rate = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
        for g in range(y.shape[1]):
            old_g, old_d = gamma[g], delta[g]
            for _ in range(1000):
                new_g = (len(rows) * t2 * gamma[g] + old_d * bar) / (len(rows) * t2 + old_d)
                new_d = (0.5 * ((rows[:, g] - new_g) ** 2).sum() + rate) / (len(rows) / 2 + a - 1)
                done = max(abs(new_g - old_g) / abs(old_g), abs(new_d - old_d) / old_d) < 1e-9
                old_g, old_d = new_g, new_d
                if done:
                    break
            out[batch == b, g] = (rows[:, g] - old_g) / np.sqrt(old_d)
    return out * np.sqrt(variance) + stand


@pytest.fixture
def study():
    """60 scans of 3 sites, 25 features, a shift and a scale of each site, and an effect of age."""
    rng = np.random.default_rng(6)
    site = np.arange(60) % 3
    age = rng.uniform(20, 40, 60) + 4 * site
    y = rng.standard_normal((60, 25)) * rng.uniform(0.5, 2, 25) + rng.standard_normal(25)
    y = y * np.array([1.0, 1.6, 0.7])[site][:, None] + rng.standard_normal((3, 25))[site]
    y += 0.1 * age[:, None] * rng.standard_normal(25)
    return y, site, age[:, None]


@pytest.mark.parametrize("kept", [True, False])
def test_it_is_the_published_combat(study, kept):
    y, site, age = study
    age = age if kept else np.zeros((60, 0))
    everyone = np.ones(60, dtype=bool)
    ours = apply_combat(fit_combat(y, site, age, everyone), y, site, age)
    np.testing.assert_allclose(ours, published(y, site, age), atol=2e-3)


def test_it_takes_the_site_out_and_keeps_the_covariate(study):
    y, site, age = study
    fitted = fit_combat(y, site, age, np.ones(60, dtype=bool))
    after = apply_combat(fitted, y, site, age)

    def spread(values):
        z = (values - values.mean(axis=0)) / values.std(axis=0)
        return np.mean([z[site == s].mean(axis=0) ** 2 for s in range(3)])

    left = [v - (age - age.mean()) @ fitted.beta for v in (y, after)]
    assert spread(left[1]) < 0.1 * spread(left[0])
    slopes = [np.polyfit(age[:, 0], column, 1)[0] for column in left[1].T + ((age - age.mean()) @ fitted.beta).T]
    np.testing.assert_allclose(slopes, fitted.beta[0], atol=0.05)
    assert np.abs(fitted.beta[0]).max() > 0.15


def test_only_training_rows_are_looked_at(study):
    y, site, age = study
    train = np.arange(60) < 45
    before = fit_combat(y, site, age, train)
    moved, other = y.copy(), age.copy()
    moved[45:], other[45:] = 99.0, -5.0
    after = fit_combat(moved, site, other, train)
    for name in ("alpha", "beta", "gamma", "delta", "sigma", "middle"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_a_site_unseen_in_training_stays_as_it_is(study):
    y, site, age = study
    train = site != 2
    after = apply_combat(fit_combat(y, site, age, train), y, site, age)
    np.testing.assert_array_equal(after[site == 2], y[site == 2])
    assert np.abs(after[site == 0] - y[site == 0]).max() > 0.1


def test_missing_features_stay_missing_and_bias_nothing(study):
    y, site, age = study
    holes = y.copy()
    holes[:4, 0] = np.nan
    holes[site == 1, 1] = np.nan  # a whole site without this feature
    age = age.copy()
    age[9] = np.nan
    everyone = np.ones(60, dtype=bool)
    after = apply_combat(fit_combat(holes, site, age, everyone), holes, site, age)
    np.testing.assert_array_equal(np.isnan(after), np.isnan(holes))
    known = np.arange(60) >= 4
    alone = fit_combat(holes[known], site[known], age[known], known[known])
    together = fit_combat(holes, site, age, everyone)
    np.testing.assert_allclose(together.sigma[0], alone.sigma[0], rtol=0.02)


def test_constant_features_and_single_scans(study):
    y, site, age = study
    y = y.copy()
    y[:, 3] = 2.5
    site = site.copy()
    site[0] = 7
    after = apply_combat(fit_combat(y, site, age, np.ones(60, dtype=bool)), y, site, age)
    np.testing.assert_allclose(after[:, 3], 2.5)
    np.testing.assert_array_equal(after[0], y[0])
    assert np.isfinite(after).all()


def test_a_site_of_copies_is_shifted_and_never_scaled(study):
    """Two runs that are one: their variance is rounding, and a third scan of the site must not be divided by it."""
    y, site, age = study
    mine = np.flatnonzero(site == 2)
    y, age = y.copy(), age.copy()
    y[mine[1]], age[mine[1]] = y[mine[0]] * (1 + 1e-15), age[mine[0]]
    train = site != 2
    train[mine[:2]] = True
    fitted = fit_combat(y, site, age, train)
    np.testing.assert_array_equal(fitted.delta[2], 1.0)
    after = apply_combat(fitted, y, site, age)
    assert np.abs(after).max() < 10 * np.abs(y).max()
    np.testing.assert_allclose(after[mine[2]] - y[mine[2]], after[mine[0]] - y[mine[0]], atol=0.2)


def packed(study):
    y, site, age = study
    return pack(facts([f"p{i}" for i in range(60)], [f"s{i}" for i in site], age), y)


def test_facts_travel_with_the_features(study):
    y, site, age = study
    array = packed(study)
    about, plain = unpack(array[[5, 3]], 1)
    assert about.scan.tolist() == [5, 3] and about.site.tolist() == [site[5], site[3]]
    np.testing.assert_array_equal(plain, y[[5, 3]])
    np.testing.assert_array_equal(about.covariates, age[[5, 3]])
    y = y.copy()
    y[7] = np.nan
    empty = packed((y, site, age))
    assert np.isnan(empty[7]).all() and unpack(empty, 1)[0].scan[7] == -1


@pytest.mark.parametrize("inner_packed", [False, True])
def test_the_wrapped_fit_sees_no_test_label_and_no_other_row(study, inner_packed):
    y, site, _ = study
    label = (np.arange(60) % 2).astype(float)
    probe = partial(probe_scores, Probe(kind="logistic", c=0.01))
    inner = (lambda f, t, m: probe(unpack(f, 1)[1], t, m)) if inner_packed else probe
    fit = Harmonised(fit=inner, covariates=1, packed=inner_packed)
    train = np.array([np.arange(60) < 45, site != 2])
    truth = np.stack([label, label])
    array = packed(study)
    before = fit(array, truth, train)
    np.testing.assert_array_equal(fit(array, np.where(train, truth, 1 - truth), train), before)
    moved = array.copy()
    moved[50, 4:] += 30
    after = fit(moved, truth, train)
    rest = np.arange(60) != 50
    np.testing.assert_allclose(after[0][rest], before[0][rest], atol=1e-9)
    assert np.abs(before[0] - probe(y, truth, train)[0]).max() > 1e-3


def test_the_note_counts_scans_of_unseen_sites(study):
    _, site, _ = study
    fit = Harmonised(fit=lambda f, t, m: t, covariates=1)
    leave_out = np.array([site != s for s in range(3)])
    note = unharmonised_note(fit, packed(study), leave_out, ~leave_out)
    assert note.startswith("60 of 60 tested scans unharmonised: their site has fewer than 2 training scans")
    folds = np.array([np.arange(60) < 45, np.arange(60) >= 15])
    assert unharmonised_note(fit, packed(study), folds, ~folds) == "0 of 30 tested scans unharmonised"
    only = np.array([(site == 0) & (np.arange(60) < 50)])  # nothing to bring together
    tested = np.array([(site == 0) & (np.arange(60) >= 50)])
    count = int(tested.sum())
    note = unharmonised_note(fit, packed(study), only, tested)
    assert count and note.startswith(f"{count} of {count}") and "no other site" in note
    assert unharmonised_note(lambda f, t, m: t, packed(study), folds, ~folds) == ""
