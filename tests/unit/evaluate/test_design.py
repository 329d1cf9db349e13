from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boldmill.evaluate.config import EvaluateConfig
from boldmill.evaluate.crossval import cross_validate, make_folds
from boldmill.evaluate.design import PROTOCOLS, Design, leave_one_site_out, of_folds, paper, purge, split
from boldmill.evaluate.tasks import CannotEvaluate, Task

CONFIG = EvaluateConfig(repeats=2, paper_repeats=4)


def make(n: int = 60, *, sites: int = 4, families: int = 0, heldout: int = 0, external: int = 0, seed: int = 0) -> Task:
    """A task of one scan per subject; the first subjects are in families of two, the last ones external."""
    rng = np.random.default_rng(seed)
    subjects = tuple(f"d/{i:03d}" for i in range(n))
    groups = tuple(f"d/family-{i // 2}" if i < 2 * families else subjects[i] for i in range(n))
    truth = rng.permutation(np.arange(n) % 2).astype(float)
    return Task(
        name="t",
        kind="classification",
        column="c",
        rows=np.arange(n),
        member=np.arange(n),
        subjects=subjects,
        groups=groups,
        sites=tuple(f"S{k}" for k in rng.integers(0, sites, n)),
        truth=truth,
        classes=("yes",),
        heldout=np.arange(n) < heldout,
        external=np.arange(n) >= n - external,
    )


def centroid(features: Any, truth: Any, train: Any) -> Any:
    """A plain fit: difference of the class means of the training rows."""
    out = np.empty(truth.shape)
    for b, (y, m) in enumerate(zip(truth, train, strict=True)):
        a, c = features[m & (y == 1)].mean(axis=0), features[m & (y == 0)].mean(axis=0)
        out[b] = (features - (a + c) / 2) @ (a - c)
    return out


@given(seed=st.integers(0, 500), families=st.integers(0, 20), sites=st.integers(2, 6), external=st.integers(0, 15))
@settings(max_examples=40, deadline=None)
def test_families_never_cross_and_roles_never_overlap(seed: int, families: int, sites: int, external: int) -> None:
    task = make(70, sites=sites, families=families, heldout=12, external=external, seed=seed)
    for name, make_design in PROTOCOLS.items():
        if name == "external" and not external:
            continue
        design = make_design(task, CONFIG, seed)
        roles = [design.train, design.validation, design.test]
        assert not (sum(r.astype(int) for r in roles) > 1).any()
        for fit in range(len(design.test)):
            groups = [{g for g, k in zip(task.groups, r[fit], strict=True) if k} for r in roles]
            assert not groups[0] & groups[2]
            assert not groups[1] & groups[2]
            assert not groups[0] & groups[1]
        times = np.zeros((design.repeats, 70), dtype=int)
        np.add.at(times, design.repeat, design.test)
        assert times.max() == 1


def test_folds_are_those_of_make_folds() -> None:
    task = make(30)
    folds = make_folds(task, CONFIG, 3)
    design = of_folds(folds)
    assert design.train.shape == (2 * folds.number, 30)
    for j in range(len(design.test)):
        repeat, k = divmod(j, folds.number)
        np.testing.assert_array_equal(design.test[j], folds.of[repeat] == k)
        np.testing.assert_array_equal(design.train[j], folds.of[repeat] != k)


def test_leave_one_site_out_is_the_plain_loop() -> None:
    task = make(50, families=0)
    x = np.random.default_rng(1).standard_normal((50, 6)) + task.truth[:, None]
    design = leave_one_site_out(task, CONFIG, 0)
    found = cross_validate(centroid, x, task, design)[0]
    site = np.array(task.sites)
    want = np.full(50, np.nan)
    for name in sorted(set(site)):
        train = site != name
        want[~train] = centroid(x, task.truth[None], train[None])[0][~train]
    np.testing.assert_allclose(found, want, rtol=1e-12)
    assert design.by_site
    assert [design.names[k] for k in design.fold[0]] == list(site)


def test_a_relative_of_a_tested_subject_leaves_the_training_set_and_is_counted() -> None:
    task = dataclasses.replace(make(8, families=2), sites=("A", "B", "A", "A", "B", "B", "A", "B"))
    design = leave_one_site_out(task, CONFIG, 0)  # the first family has a member on either site
    assert design.note.startswith("2 subjects left out")
    assert not design.train[:, :2].any()
    kept, note = purge(np.array([[False, True, True]]), np.array([[True, False, False]]), ["f", "f", "g"])
    assert kept.tolist() == [[False, False, True]]
    assert note.startswith("1 ")


def test_a_label_that_goes_with_the_site_cannot_be_learnt_from_other_sites() -> None:
    task = make(12)
    task = dataclasses.replace(task, sites=tuple("A" if y else "B" for y in task.truth))
    with pytest.raises(CannotEvaluate, match="nothing to learn from"):
        leave_one_site_out(task, CONFIG, 0)


def test_paper_shares_and_strata() -> None:
    task = make(400, sites=5, seed=2)
    design = paper(task, CONFIG, 7)
    assert design.test.sum(axis=1).tolist() == [60] * 4
    assert design.validation.sum(axis=1).tolist() == [60] * 4
    assert design.train.sum(axis=1).tolist() == [280] * 4
    for name in set(task.sites):
        for label in (0, 1):
            cell = (np.array(task.sites) == name) & (task.truth == label)
            for part in (design.test, design.validation):
                assert (np.abs(part[:, cell].sum(axis=1) - 0.15 * cell.sum()) <= 1).all()
    assert len({test.tobytes() for test in design.test}) == 4
    again = paper(task, CONFIG, 7)
    np.testing.assert_array_equal(again.test, design.test)
    assert (paper(task, CONFIG, 8).test != design.test).any()


def test_small_sites_of_the_paper_split_are_stratified_by_label() -> None:
    """Forty sites of three: by site alone no stratum has a test unit of its own."""
    task = dataclasses.replace(make(120), sites=tuple(f"S{i // 3}" for i in range(120)))
    design = paper(task, CONFIG, 0)
    assert design.test.sum(axis=1).tolist() == [18] * 4
    for test in design.test:
        assert abs(task.truth[test].sum() - 9) <= 1


def test_paper_keeps_families_whole() -> None:
    task = make(80, families=30)
    design = paper(task, CONFIG, 1)
    for part in (design.train, design.validation, design.test):
        for repeat in part:
            assert (repeat[0:60:2] == repeat[1:60:2]).all()


def test_split_trains_on_the_others_and_tests_the_held_out_once() -> None:
    task = make(40, heldout=15, external=6)
    design = split(task, CONFIG, 0)
    np.testing.assert_array_equal(design.test[0], np.arange(40) < 15)
    np.testing.assert_array_equal(design.train[0], (np.arange(40) >= 15) & (np.arange(40) < 34))
    with pytest.raises(CannotEvaluate, match="no labelled subject is held out"):
        split(make(40), CONFIG, 0)


def test_external_data_are_tested_only() -> None:
    task = make(60, external=20)
    for name, make_design in PROTOCOLS.items():
        if name in ("split", "heldout"):
            continue
        design = make_design(task, CONFIG, 0)
        assert not design.train[:, 40:].any()
        assert design.test[:, 40:].any() == (name == "external")
    with pytest.raises(CannotEvaluate, match="external"):
        PROTOCOLS["external"](make(60), CONFIG, 0)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_a_fit_is_never_shown_a_label_outside_its_training_rows(protocol: str) -> None:
    task = make(60, heldout=20, external=10)
    task = dataclasses.replace(task, truth=task.truth + 1)  # so that 0 is no label
    design: Design = PROTOCOLS[protocol](task, CONFIG, 0)
    seen = []

    def spy(features: Any, truth: Any, train: Any) -> Any:
        seen.append((truth, train))
        return np.zeros(truth.shape)

    scores = cross_validate(spy, np.ones((60, 2)), task, design)
    np.testing.assert_array_equal(np.isfinite(scores) & design.scored, design.tested)
    for truth, train in seen:
        assert (truth[~train] == 0).all()
        assert (truth[train] > 0).all()
    runs = [j for j in range(len(design.test)) if (design.test[j] & design.scored).any()]
    np.testing.assert_array_equal(np.concatenate([train for _, train in seen]), design.train[runs])
