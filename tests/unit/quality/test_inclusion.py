"""Every rule on both sides of its limit, all reasons at once, and figures that are not there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill.quality.config import InclusionConfig
from boldmill.quality.inclusion import RULES, reasons, unchecked
from boldmill.quality.measures import MEASURES

LIMITS = {
    "max_mean_fd": (0.5, 0.501, "mean FD 0.501 mm is above 0.5 mm (max_mean_fd)"),
    "min_minutes": (5.0, 4.2, "kept time 4.2 min is below 5 min (min_minutes)"),
    "max_censored": (0.3, 0.41, "share of censored volumes 0.41 is above 0.3 (max_censored)"),
    "min_residual_dof": (20, 19, "residual degrees of freedom 19 is below 20 (min_residual_dof)"),
    "min_tsnr": (40.0, 31.24, "median tSNR 31.2 is below 40 (min_tsnr)"),
    "min_coverage": (0.9, 0.85, "covered share of the template brain 0.85 is below 0.9 (min_coverage)"),
}


def rules(**given: Any) -> InclusionConfig:
    return InclusionConfig.model_validate(given)


def test_every_key_of_the_section_is_a_rule_of_a_known_figure() -> None:
    assert {rule.key for rule in RULES} | {"outlier_z"} == set(InclusionConfig.model_fields) == {*LIMITS, "outlier_z"}
    assert {rule.figure for rule in RULES} <= {measure.name for measure in MEASURES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_a_rule_excludes_beyond_its_limit_only(rule: Any) -> None:
    limit, outside, words = LIMITS[rule.key]
    limits = rules(**{rule.key: limit})
    assert reasons({rule.figure: outside}, limits) == [words]
    assert reasons({rule.figure: limit}, limits) == []
    assert reasons({rule.figure: outside}, rules()) == []


def test_all_reasons_are_given() -> None:
    limits = rules(**{key: limit for key, (limit, _, _) in LIMITS.items()})
    figures = {rule.figure: LIMITS[rule.key][1] for rule in RULES}
    assert reasons(figures, limits) == [words for _, _, words in LIMITS.values()]
    assert unchecked(figures, limits) == []


@pytest.mark.parametrize("value", [None, float("nan"), "n/a", True])
def test_an_unknown_figure_excludes_nothing_and_is_named(value: Any) -> None:
    limits = rules(max_mean_fd=0.5, min_tsnr=40)
    assert reasons({"mean_fd": value, "tsnr": 50}, limits) == []
    assert unchecked({"mean_fd": value, "tsnr": 50}, limits) == ["max_mean_fd not checked: mean_fd is unknown"]
    assert len(unchecked({}, limits)) == 2


@given(st.floats(0.001, 10), st.floats(0.001, 10))
def test_the_words_never_say_that_equal_numbers_differ(value: float, limit: float) -> None:
    for text in reasons({"mean_fd": value}, rules(max_mean_fd=limit)):
        assert value > limit
        shown = text.split()[2]
        assert float(shown) != float(f"{limit:g}") or float(f"{limit:g}") != limit
