from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import kstest

from boldmill.evaluate.baselines import linear_probe
from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.crossval import cross_validate
from boldmill.evaluate.design import PROTOCOLS
from boldmill.evaluate.metrics import auc
from boldmill.evaluate.null import exchangeable, fixed_p, measure, null_repeats, refit_null, refit_p
from boldmill.evaluate.tasks import make_task

GROUP = TaskConfig(name="group", column="group", positive="patient")
CONFIG = EvaluateConfig(repeats=2, paper_repeats=2)
LOGISTIC = linear_probe("classification")


def centroid(features, truth, train):
    """A fit that takes no time: projection on the difference of the class means."""
    yes, no = train * (truth == 1), train * (truth == 0)
    one, two = (m @ features / m.sum(axis=1, keepdims=True) for m in (yes, no))
    return (one - two) @ features.T - ((one**2).sum(axis=1) - (two**2).sum(axis=1))[:, None] / 2


def p_values(data, protocol, features, draws=99):
    """(refitted, fixed) p of the AUC."""
    task = make_task(GROUP, data)
    design = PROTOCOLS[protocol](task, CONFIG, 0)
    scores = task.of_subjects(cross_validate(centroid, features, task, design))
    null = refit_null(centroid, features, task, design, draws, 0)
    refit = refit_p(task, scores, design.tested, null)["auc"]
    return refit, fixed_p(task, design, scores, design.tested, draws, 0)[0]["auc"]


@pytest.mark.parametrize("protocol", ["cv", "leave-one-site-out", "split", "paper"])
def test_p_of_noise_is_uniform(cohort, protocol):
    """Forty cohorts of noise: the refitted p must look uniform, and reject at its level only."""
    found = []
    for seed in range(40):
        data = cohort(n=64, edges=3, seed=seed, heldout=24)
        found.append(p_values(data, protocol, np.random.default_rng(seed).standard_normal((64, 3)), draws=49)[0])
    assert kstest(found, "uniform").pvalue > 0.01
    assert sum(p <= 0.05 for p in found) <= 6


def test_both_nulls_find_an_effect(cohort):
    data = cohort(n=80, edges=40, effect=2.0, heldout=30)
    for protocol in ("cv", "split", "leave-one-site-out", "paper"):
        assert max(p_values(data, protocol, data.fc)) <= 0.02, protocol


def test_what_the_site_tells_is_part_of_the_null(cohort):
    """The label goes with the site, the features know the site alone: no finding beyond the site."""
    data = cohort(n=120, edges=4, heldout=0)
    rng = np.random.default_rng(3)
    site = np.array(["A", "B"])[(np.arange(120) >= 60).astype(int)]
    sick = np.where(site == "A", rng.random(120) < 0.8, rng.random(120) < 0.2)
    data.phenotypes["group"] = np.where(sick, "patient", "control")
    data = dataclasses.replace(data, sites=tuple(site))
    features = (site == "A")[:, None] + 0.3 * rng.standard_normal((120, 2))
    task = make_task(GROUP, data)
    design = PROTOCOLS["cv"](task, CONFIG, 0)
    scores = task.of_subjects(cross_validate(LOGISTIC, features, task, design))
    assert measure(auc, task.truth, scores, design.tested) > 0.7
    null = refit_null(LOGISTIC, features, task, design, 99, 0)
    assert null.note == "labels permuted within site and test set, p of the first repeat"
    assert refit_p(task, scores, design.tested, null)["auc"] > 0.05
    assert fixed_p(task, design, scores, design.tested, 99, 0)[0]["auc"] > 0.05


def test_a_label_that_is_the_site_is_permuted_across_sites(cohort):
    data = cohort(n=70, edges=4)
    data.phenotypes["group"] = ["patient" if s == "A" else "control" for s in data.sites]
    task = make_task(GROUP, data)
    layers, note = exchangeable(task, None)
    assert note == "labels permuted within held-out status"
    assert set(layers) == {"heldout", "other"}


def test_every_draw_trains_on_the_same_scans_with_the_same_labels(cohort):
    """Above 60 scans: one set of training masks for all draws, and the class counts of the real labels in each."""
    data = cohort(n=90, edges=5, heldout=20)
    task = make_task(GROUP, data)
    design = PROTOCOLS["cv"](task, CONFIG, 0)
    calls = []

    def spy(features, truth, train):
        calls.append((truth, train))
        return np.zeros(truth.shape)

    null = refit_null(spy, data.fc, task, design, 20, 0)
    assert null.scores.shape == (20, 1, 90)
    assert null_repeats(task, design) == 1
    assert len(calls) == 5
    for fit, (truth, train) in enumerate(calls):
        assert (train == design.train[fit]).all()
        assert (truth[train].reshape(20, -1).sum(axis=1) == task.truth[design.train[fit]].sum()).all()
    assert len({labels.tobytes() for labels in null.truth}) == 20
    assert (null.truth[:, task.heldout].sum(axis=1) == task.truth[task.heldout].sum()).all()


def test_repeats_that_test_others_are_averaged_over_their_own_subjects():
    truth = np.array([0.0, 1, 0, 1, 0, 1])
    scores = np.array([[0.0, 1, 2, 1, np.nan, np.nan], [np.nan, np.nan, 0, 1, 5, 2]])
    tested = np.isfinite(scores)
    want = (auc(truth[:4], scores[0, :4], np.ones((1, 4)))[0] + auc(truth[2:], scores[1, 2:], np.ones((1, 4)))[0]) / 2
    assert measure(auc, truth, scores, tested) == pytest.approx(want)
    lost = scores.copy()
    lost[1, 2] = np.nan  # tested but not scored: left out of both repeats
    want = (auc(truth[[0, 1, 3]], scores[0, [0, 1, 3]], np.ones((1, 3)))[0] + 0.0) / 2
    assert measure(auc, truth, lost, tested) == pytest.approx(want)


@pytest.mark.parametrize(("n", "protocol"), [(40, "cv"), (80, "paper")])
def test_labels_never_cross_between_external_data_and_the_others(cohort, n, protocol):
    """Else draws would train on external scans (together), or give their shares of the labels to the others (alone)."""
    data = cohort(n=n, edges=3, heldout=0)
    data = dataclasses.replace(data, datasets=("toy",) * (n - 15) + ("other",) * 15)
    data.phenotypes.iloc[n - 15 :, 0] = "control"
    task = make_task(GROUP.model_copy(update={"external": ["other"]}), data)
    seen = []

    def spy(features, truth, train):
        seen.append((truth, train))
        return np.zeros(truth.shape)

    null = refit_null(spy, data.fc, task, PROTOCOLS[protocol](task, CONFIG, 0), 99, 0)
    assert (null.truth[:, task.external] == 0).all()
    assert not any(train[:, task.external].any() for _, train in seen)


def test_sites_that_only_training_varies_within_do_not_freeze_the_labels_of_the_tested(cohort):
    """Fixed predictions: the tested sites hold one class each, so that labels must move between them."""
    data = cohort(n=80, edges=3, heldout=20)
    sites = [("P" if i % 2 else "C") if i < 20 else "A" for i in range(80)]
    task = make_task(GROUP, dataclasses.replace(data, sites=tuple(sites)))
    design = PROTOCOLS["split"](task, CONFIG, 0)
    scores = np.where(task.truth == 1, 1.0, -1.0)[None] + np.where(task.heldout, 0.0, np.nan)
    found, note = fixed_p(task, design, scores, design.tested, 99, 0)
    assert found["auc"] == pytest.approx(0.01)
    assert note == "labels permuted within test set"


def test_sites_of_one_name_in_two_data_sets_exchange_no_labels(cohort):
    data = cohort(n=80, edges=4, heldout=0)
    home = np.arange(80) < 40
    subjects = tuple(f"{'home' if h else 'away'}/{i:02d}" for i, h in enumerate(home))
    data = dataclasses.replace(data, subjects=subjects, groups=subjects, sites=("1",) * 80)
    data = dataclasses.replace(data, datasets=tuple(name.partition("/")[0] for name in subjects))
    task = make_task(GROUP, data)
    layers, note = exchangeable(task, None)
    assert note == "labels permuted within site and held-out status"
    assert layers == [f"other|{name.partition('/')[0]}/1" for name in task.subjects]
