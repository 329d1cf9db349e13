from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boldmill.errors import ConfigError
from boldmill.evaluate.folds import dealt, possible_folds, repeated_group_folds, strata


@given(data=st.data(), n=st.integers(6, 40), folds=st.integers(2, 5), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_group_lies_in_one_fold_and_order_does_not_matter(data, n, folds, seed):
    groups = [f"g{data.draw(st.integers(0, 12))}" for _ in range(n)]
    stratum = np.array([data.draw(st.integers(0, 1)) for _ in range(n)])
    if len(set(groups)) < folds:
        with pytest.raises(ConfigError, match="cannot make folds"):
            repeated_group_folds(stratum, groups, folds, 2, seed)
        return
    out = repeated_group_folds(stratum, groups, folds, 2, seed)
    assert out.shape == (2, n)
    assert ((out >= 0) & (out < folds)).all()
    for repeat in out:
        for group in set(groups):
            assert len({int(repeat[i]) for i in range(n) if groups[i] == group}) == 1
    order = np.random.default_rng(seed).permutation(n)
    again = repeated_group_folds(stratum[order], [groups[i] for i in order], folds, 2, seed)
    np.testing.assert_array_equal(again, out[:, order])


def test_classes_are_balanced_in_every_fold_and_repeats_differ():
    stratum = np.repeat([0, 1], 10)
    out = repeated_group_folds(stratum, [f"s{i}" for i in range(20)], 5, 3, 1)
    for repeat in out:
        for k in range(5):
            assert np.bincount(stratum[repeat == k], minlength=2).tolist() == [2, 2]
    assert not np.array_equal(out[0], out[1])


def test_number_of_folds_follows_the_smallest_class():
    stratum = np.array([0, 0, 0, 0, 1, 1, 1])
    assert possible_folds(stratum, list("abcdefg"), 5) == 3
    assert possible_folds(stratum, list("abcdeee"), 5) == 1


def test_continuous_targets_are_stratified_by_quantile():
    values = np.arange(20.0)
    assert np.bincount(strata(values, "regression")).tolist() == [5, 5, 5, 5]
    assert strata(np.arange(4.0), "regression").max() == 0


def test_a_small_bin_of_a_continuous_target_costs_no_folds():
    """A score with one low value: its bin of one subject must not forbid cross-validation, nor a class allow it."""
    values = np.r_[0.0, np.ones(8), np.full(11, 2.0)]
    names = [f"s{i}" for i in range(20)]
    stratum, number = dealt(values, "regression", names, 5)
    assert (number, stratum.max()) == (5, 0)
    assert (np.bincount(repeated_group_folds(stratum, names, number, 1, 0)[0]) == 4).all()
    assert dealt(values, "multiclass", names, 5)[1] == 1
    two = ["a"] * 10 + ["b"] * 10
    stratum, number = dealt(np.arange(20.0), "regression", two, 5)
    assert number == 2
    assert np.bincount(repeated_group_folds(stratum, two, number, 1, 0)[0]).tolist() == [10, 10]
    assert dealt(values[:0], "regression", [], 5)[1] == 0


def test_mixed_families_count_for_each_of_their_classes():
    """Twenty pairs of a patient and a relative, and one patient alone: five folds, each with patients and controls."""
    stratum = np.array([0, 1] * 20 + [1])
    groups = [f"f{i // 2}" for i in range(40)] + ["alone"]
    assert possible_folds(stratum, groups, 5) == 5
    for of in repeated_group_folds(stratum, groups, 5, 3, 0):
        assert all(set(stratum[of == k]) == {0, 1} for k in range(5))
    # Ten families with one patient each among forty without any: a patient in every fold of ten.
    trios = np.array([1, 0, 0] * 10 + [0] * 40)
    names = [f"f{i // 3}" for i in range(30)] + [f"s{i}" for i in range(40)]
    for of in repeated_group_folds(trios, names, 10, 3, 0):
        assert np.bincount(of, weights=trios).tolist() == [1.0] * 10
