"""Degrees of freedom against counts made by hand."""

import pytest

from boldmill.index.dof import residual_dof, suggest_clean
from boldmill.preprocess.config import CleanConfig

OPEN = {"band_low": None, "band_high": None}


@pytest.mark.parametrize(
    ("n", "tr", "over", "left"),
    [
        (100, 2.0, {"motion": "none", "compcor": 0, "drift": "none", **OPEN}, 99),  # the mean only
        (100, 2.0, {"motion": "24", "compcor": 5, "drift": "linear", **OPEN}, 99 - 30),
        (
            100,
            2.0,
            {"motion": "6", "compcor": 0, "tissue": "wm_csf", "global_signal": True, "drift": "none", **OPEN},
            90,
        ),
        (100, 2.0, {"motion": "none", "compcor": 0, "drift": "cosine", **OPEN}, 99 - 3),  # 400/128 = 3.1 cosines
        (200, 2.0, {"motion": "none", "compcor": 0}, 74),  # k/400 in [.01, .1]: 4 ... 40, a sine and a cosine each
        (200, 2.0, {"motion": "24", "compcor": 5}, 74 - 29),  # drift cosines lie below the band
        (20, 2.52, {}, -1),  # the filter does not fit
    ],
)
def test_count(n, tr, over, left):
    assert residual_dof(n, tr, CleanConfig(**over)) == left


def test_the_two_real_short_runs_get_smaller_sets():
    over, left = suggest_clean(20, 2.52)
    assert over == {"motion": "6", "compcor": 0, "tissue": "wm_csf", "drift": "linear", **OPEN}
    assert left == 20 - 1 - 6 - 2 - 1
    assert suggest_clean(78, 2.0) == ({"motion": "6", "compcor": 5}, 28 - 11)


def test_a_long_run_keeps_the_default():
    assert suggest_clean(300, 2.0)[0] == {}


@pytest.mark.parametrize("n", range(15, 250, 9))
def test_a_suggestion_never_leaves_fewer_than_the_default(n):
    over, left = suggest_clean(n, 2.0)
    assert left >= residual_dof(n, 2.0, CleanConfig())
    assert left == residual_dof(n, 2.0, CleanConfig(**over))


def test_a_suggestion_for_36_parameters_gives_up_their_expansion():
    base = CleanConfig(strategy="36P")
    over, left = suggest_clean(100, 2.0, base)
    assert over == {"motion": "12", "compcor": 0, "expand": False}
    assert left == 38 - 12 - 3 == residual_dof(100, 2.0, base.model_copy(update=over))


@pytest.mark.parametrize(
    ("strategy", "left"),
    [("abide_pcp", 38), ("36P", 38 - 36), ("24P+gsr", 38 - 25)],  # after: 100 - 3 - 29 leave more than the band holds
)
def test_orders_and_expansions_are_counted(strategy, left):
    assert residual_dof(100, 2.0, CleanConfig(strategy=strategy)) == left
