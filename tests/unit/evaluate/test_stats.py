from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp

from boldmill.evaluate import metrics, stats


def test_interval_covers_the_true_auc():
    true, hits = norm.cdf(1 / np.sqrt(2)), 0  # two normals one SD apart
    rng = np.random.default_rng(0)
    truth = np.repeat([0.0, 1.0], 30)
    for trial in range(150):
        score = rng.standard_normal(60) + truth
        weights = stats.bootstrap_weights([str(i) for i in range(60)], 300, trial)
        found = stats.interval(metrics.auc, truth, score[None], weights)
        hits += found.low <= true <= found.high
    assert 0.88 <= hits / 150 <= 0.995


def test_repeats_do_not_narrow_the_interval():
    rng = np.random.default_rng(1)
    truth = np.repeat([0.0, 1.0], 15)
    score = rng.standard_normal(30) + truth
    weights = stats.bootstrap_weights([str(i) for i in range(30)], 400, 0)
    one = stats.interval(metrics.auc, truth, score[None], weights)
    ten = stats.interval(metrics.auc, truth, np.repeat(score[None], 10, axis=0), weights)
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high))


def test_families_are_drawn_together():
    weights = stats.bootstrap_weights(["a", "a", "b", "c", "c", "c"], 50, 0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, 2] != weights[:, 0]).any()


def test_interval_is_missing_where_most_draws_are_undefined():
    truth, score = np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, -1.0])
    weights = np.array([[0.0, 2, 1]] * 9 + [[1.0, 1, 1]])
    found = stats.interval(metrics.auc, truth, score[None], weights)
    assert found.value == 1.0
    assert np.isnan(found.low)


@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 3), min_size=3, max_size=8))
@settings(max_examples=40, deadline=None)
def test_permutations_keep_families_and_layers(seed, sizes):
    rng = np.random.default_rng(seed)
    groups = [f"f{i}" for i, size in enumerate(sizes) for _ in range(size)]
    n = len(groups)
    subjects = [f"s{i}" for i in range(n)]
    layers = [str(rng.integers(2)) for _ in range(n)]
    moves = stats.block_permutations(subjects, groups, layers, 20, seed)
    for move in moves:
        assert sorted(move) == list(range(n))
        assert all(layers[i] == layers[move[i]] for i in range(n))
        for family in set(groups):  # a family's labels come from one family of the same size
            givers = {groups[move[i]] for i in range(n) if groups[i] == family}
            assert len(givers) == 1
            assert groups.count(givers.pop()) == groups.count(family)


def test_single_subjects_are_fully_permuted():
    moves = stats.block_permutations(list("abcdef"), list("abcdef"), [""] * 6, 300, 0)
    assert len({tuple(m) for m in moves}) > 200


def test_p_value_counts_the_observed_draw():
    null = np.array([0.1, 0.2, 0.5, np.nan])
    assert stats.p_value(0.5, null) == pytest.approx(2 / 4)
    assert stats.p_value(0.15, null, lower_is_better=True) == pytest.approx(2 / 4)
    assert np.isnan(stats.p_value(float("nan"), null))


def test_corrected_resampled_t():
    d = np.random.default_rng(2).standard_normal(25) + 0.5
    t, p = stats.corrected_resampled_t(d, 4, 16)
    plain = ttest_1samp(d, 0)
    assert t == pytest.approx(plain.statistic * np.sqrt((1 / 25) / (1 / 25 + 4 / 16)))
    assert p > plain.pvalue
    assert stats.corrected_resampled_t(np.zeros(10), 4, 16) == (0.0, 1.0)
    assert np.isnan(stats.corrected_resampled_t(np.full(10, 0.5), 4, 16)).all()  # no variance is no certainty


def test_interval_over_repeats_with_their_own_test_sets_covers_the_true_auc():
    """Ten random test sets of 30 out of 200, as in the 70/15/15 split: subjects are drawn once for all of them."""
    true, hits, widths = norm.cdf(1 / np.sqrt(2)), 0, []
    rng = np.random.default_rng(5)
    for trial in range(120):
        truth = (np.arange(200) % 2).astype(float)
        score = rng.standard_normal(200) + truth
        scores = np.full((10, 200), np.nan)
        for row in scores:
            chosen = rng.permutation(200)[:30]
            row[chosen] = score[chosen]
        keep = np.isfinite(scores).any(axis=0)
        weights = stats.bootstrap_weights([str(i) for i in np.flatnonzero(keep)], 200, trial)
        found = stats.interval(metrics.auc, truth[keep], scores[:, keep], weights)
        hits += found.low <= true <= found.high
        widths.append(found.high - found.low)
    assert 0.88 <= hits / 120 <= 0.995
    assert np.mean(widths) > 0.1  # not that of 300 independent tests


def test_repeats_that_leave_a_metric_undefined_are_skipped_up_to_half():
    truth = np.array([0.0, 1, 1, 1])
    scores = np.array([[0.0, 1, np.nan, np.nan], [np.nan, np.nan, 1, 2]])
    assert metrics.over_repeats(metrics.auc, truth, scores)[0] == 1.0
    both = np.vstack([scores, scores[1:]])
    assert np.isnan(metrics.over_repeats(metrics.auc, truth, both)[0])
