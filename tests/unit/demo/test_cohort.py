"""Who is in the cohort, and that nothing is confounded with the group."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.demo import cohort
from boldmill.demo.parameters import Parameters, parameters
from boldmill.errors import ConfigError


@pytest.mark.parametrize("n", [12, 16, 20])
def test_group_is_balanced(n):
    people = cohort.subjects(Parameters(subjects=n))
    group = np.array([s.is_patient for s in people], float)
    assert group.sum() == n / 2
    for values in (
        [s.site == "A" for s in people],
        [s.sex == "F" for s in people],
        [s.age for s in people],
        [s.ability for s in people],
        [s.motion for s in people],
    ):
        assert abs(np.corrcoef(group, np.array(values, float))[0, 1]) < 0.2


def test_phenotypes_are_numbers_with_words():
    p = Parameters()
    rows = cohort.phenotypes(p, cohort.subjects(p))
    assert set(rows[0]) == {"participant_id", *cohort.DESCRIPTIONS}
    numeric = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    assert len(numeric) >= 8 + 1
    for name in numeric:
        assert {"LongName", "Description", "Units"} <= set(cohort.DESCRIPTIONS[name])
        assert len(cohort.DESCRIPTIONS[name]["Description"].split()) >= 6
        assert len({row[name] for row in rows}) > 4


def test_runs_of_the_default_cohort():
    p = Parameters()
    stems = [run.stem for run in cohort.good_runs(p)]
    assert len(stems) == len(set(stems)) == 18
    assert stems[1:5] == [
        "sub-02_ses-1_task-rest",
        "sub-02_ses-2_task-rest",
        "sub-03_task-rest_run-1",
        "sub-03_task-rest_run-2",
    ]
    bad = {kind: run.stem for kind, run in cohort.bad_runs(p).items()}
    assert bad == {
        "truncated": "sub-04_task-rest_run-2",
        "no_tr": "sub-05_task-rest_run-2",
        "short": "sub-06_task-rest_run-2",
    }
    assert not set(bad.values()) & set(stems)


def test_bad_runs_of_a_tiny_cohort_are_distinct():
    p = parameters(tiny=True)
    good = {run.stem for run in cohort.good_runs(p)}
    assert len({run.stem for run in cohort.bad_runs(p).values()} - good) == 3


@pytest.mark.parametrize(
    "given", [{"subjects": 5}, {"subjects": 2}, {"effect": -1.0}, {"bold_mm": 20.0}, {"volumes": 3}, {"tr": 0.0}]
)
def test_wrong_parameters_are_refused(given):
    with pytest.raises(ConfigError, match="out of range"):
        parameters(**given)


def test_given_parameters_win_over_tiny():
    p = parameters(tiny=True, subjects=6, volumes=None)
    assert (p.subjects, p.volumes, p.bold_mm) == (6, 60, 6.0)
