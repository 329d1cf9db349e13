from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from boldmill.evaluate.nested import nested
from boldmill.evaluate.probes import Probe, probe_scores

GROUPS = [f"g{i // 2}" for i in range(60)]


def test_the_outer_test_set_is_never_seen() -> None:
    """A spy records all masks and labels: inner folds split the training groups, and nothing else is read."""
    calls: list[tuple[Any, Any]] = []

    def spy(features: Any, truth: Any, train: Any) -> Any:
        calls.append((truth, train))
        return np.where(train, 0.0, features[:, 0])

    rng = np.random.default_rng(0)
    truth = (np.arange(60) % 4 < 2).astype(float) + 0.0
    outer = np.arange(60) < 40
    fit = nested([spy, spy], GROUPS, "classification", 3, "t", 0)
    fit(rng.standard_normal((60, 2)), np.where(outer, truth, 0.0)[None], outer[None])
    inner = [train for _, train in calls[:2]]
    for masks in inner:
        assert masks.shape == (3, 60)
        assert not masks[:, 40:].any()
        np.testing.assert_array_equal((~masks & outer).sum(axis=0), outer)  # each training scan is tested once
        for mask in masks:
            assert not {GROUPS[i] for i in np.flatnonzero(mask)} & {GROUPS[i] for i in np.flatnonzero(outer & ~mask)}
    for labels, masks in calls:
        assert (labels[~masks] == 0).all()
    np.testing.assert_array_equal(calls[-1][1][0], outer)  # the choice is fitted on the whole training set


def test_it_chooses_the_better_candidate() -> None:
    """Weak signal in one of 200 features: heavy shrinkage of all against a single feature kept."""
    rng = np.random.default_rng(1)
    y = (np.arange(60) // 2 % 2).astype(float)
    x = rng.standard_normal((60, 200))
    x[:, 0] += 3 * y
    good = partial(probe_scores, Probe(kind="logistic", select=1))

    def bad(features: Any, truth: Any, train: Any) -> Any:
        return -good(features, truth, train)

    train = (np.arange(60) < 44)[None]
    for order in ([bad, good], [good, bad]):
        fit = nested(order, GROUPS, "classification", 3, 0)
        np.testing.assert_array_equal(fit(x, y[None], train), good(x, y[None], train))
    values = x[:, 0] * 2
    ridge = partial(probe_scores, Probe(kind="ridge", select=1))
    fit = nested([bad, ridge], GROUPS, "regression", 3, 0)
    np.testing.assert_array_equal(fit(x, values[None], train), ridge(x, values[None], train))


def test_too_few_groups_take_the_first() -> None:
    good = partial(probe_scores, Probe(kind="logistic"))
    x = np.random.default_rng(0).standard_normal((6, 3))
    y, train = np.array([0.0, 0, 0, 1, 1, 1]), np.array([[True, False, True, True, False, False]])
    fit = nested([good, lambda *_: 1 / 0], list("abcdef"), "classification", 3)
    np.testing.assert_array_equal(fit(x, y[None], train), good(x, y[None], train))
