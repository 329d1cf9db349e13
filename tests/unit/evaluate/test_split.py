"""Fixed predictions of held-out subjects: whose labels are exchanged."""

from __future__ import annotations

import numpy as np

from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.split import average, measured
from boldmill.evaluate.table import Row

CONFIG = EvaluateConfig(bootstrap=100, permutations=199)
BASE = Row(task="score", kind="regression", method="fm_app_fmri", model="fm_app", protocol="split", metric="")


def p_of_r(truth, scores, places):
    names = [f"d/{i:02d}" for i in range(len(truth))]
    rows = measured(BASE, truth, scores[None], names, places, names, CONFIG, 0, only_r=True)
    return rows[0].p_permutation, rows[0].note


def test_what_the_site_tells_is_part_of_the_null():
    rng = np.random.default_rng(0)
    site = np.repeat([0.0, 1.0], 20)
    truth, scores = 3 * site + rng.standard_normal(40), site + 0.1 * rng.standard_normal(40)
    p, note = p_of_r(truth, scores, [f"d/{s}" for s in site])
    assert p > 0.05 and note == "labels permuted within site"
    assert p_of_r(truth, scores, ["d/1"] * 40) == (1 / 200, "labels permuted among held-out subjects")
    assert p_of_r(truth, truth + rng.standard_normal(40), [f"d/{s}" for s in site])[0] < 0.02


def test_values_that_are_the_site_move_across_sites():
    site = np.repeat(np.arange(4.0), 10)
    scores = site + np.random.default_rng(0).standard_normal(40)
    assert p_of_r(site, scores, [f"d/{s}" for s in site]) == (1 / 200, "labels permuted among held-out subjects")


def test_an_edge_that_one_scan_lacks_is_that_of_the_others():
    values = np.array([[1.0, 3.0, 5.0], [np.nan, 3.0, 5.0], [np.nan, np.nan, 5.0]])
    member = np.array([0, 0, 1])
    np.testing.assert_array_equal(average(values, member, 2), [[2, 5], [3, 5], [np.nan, 5]])
    np.testing.assert_array_equal(average(values[0], member, 2), [2, 5])
