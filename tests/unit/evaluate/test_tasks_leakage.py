from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from boldmill.errors import ConfigError, LeakageError
from boldmill.evaluate import design
from boldmill.evaluate.cohort import families, group_of
from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.leakage import pretraining_epochs, pretraining_subjects, refuse_overlap
from boldmill.evaluate.tasks import CannotEvaluate, label_text, make_task
from boldmill.represent.fc import fisher_z


def test_overlap_is_refused_by_name():
    with pytest.raises(LeakageError, match="demo/03"):
        refuse_overlap(["demo/01", "demo/03"], {"demo/03", "demo/09"}, what="x")
    refuse_overlap(["demo/01"], {"demo/03"}, what="x")


def test_a_relative_in_training_is_leakage_too():
    groups = {"demo/01": "demo/family-7", "demo/03": "demo/family-7"}
    with pytest.raises(LeakageError, match="demo/01"):
        refuse_overlap(["demo/01"], {"demo/03"}, groups, what="x")


def test_a_checkpoint_without_its_list_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot rule out leakage"):
        pretraining_subjects(tmp_path / "model.safetensors")
    (tmp_path / "subjects.json").write_text(json.dumps({"subjects": ["a/1"]}))
    assert pretraining_subjects(tmp_path / "model.safetensors") == {"a/1"}


def test_families_are_those_of_all_scans():
    class Snapshot:
        def scans(self):
            return pd.DataFrame({"dataset": ["d"] * 4, "subject": list("abbc"), "family": ["7", "7", "7", ""]})

    assert families(Snapshot()) == {"d/a": "d/family-7", "d/b": "d/family-7", "d/c": "d/c"}


def test_epochs_are_read_from_the_last_row_of_the_history(tmp_path):
    model = tmp_path / "model.safetensors"
    assert pretraining_epochs(model) == "n/a"  # imported weights
    (tmp_path / "history.jsonl").write_text('{"step": 1, "epoch": 0}\n{"step": 9, "epoch": 4}\n')
    assert pretraining_epochs(model) == "5"


def test_positive_label_and_heldout(cohort):
    data = cohort(n=8, edges=6, heldout=3)
    task = make_task(TaskConfig(name="g", column="group", positive="control"), data)
    assert task.truth.tolist() == [1, 0] * 4
    assert task.heldout.tolist() == [True] * 3 + [False] * 5
    assert make_task(TaskConfig(name="g", column="group"), data).truth.tolist() == [0, 1] * 4  # the last sorted


def test_wrong_names_are_refused_with_the_nearest(cohort):
    with pytest.raises(ConfigError, match="did you mean 'group'"):
        make_task(TaskConfig(name="g", column="grup"), cohort(edges=6))
    with pytest.raises(ConfigError, match="did you mean 'patient'"):
        make_task(TaskConfig(name="g", column="group", positive="patients"), cohort(edges=6))
    with pytest.raises(ConfigError, match="not a number"):
        make_task(TaskConfig(name="g", column="group", kind="regression"), cohort(edges=6))


def test_missing_labels_leave_the_scan_out(cohort):
    data = cohort(n=8, edges=6)
    data.phenotypes.loc[data.scan_ids[0], "group"] = None
    data.phenotypes.loc[data.scan_ids[1], "group"] = "n/a"
    assert len(make_task(TaskConfig(name="g", column="group"), data).subjects) == 6
    data.phenotypes["group"] = "same"
    with pytest.raises(CannotEvaluate, match="nothing to tell apart"):
        make_task(TaskConfig(name="g", column="group"), data)


def test_small_helpers():
    assert [label_text(v) for v in (1.0, "a ", None, "n/a", 0.5)] == ["1", "a", None, None, "0.5"]
    assert group_of("d", "d/1", "") == "d/1"
    assert group_of("d", "d/1", "7") == "d/family-7"
    assert np.isfinite(fisher_z(np.array([1.0, -1.0]))).all()


def coded_otherwise(cohort, labels):
    """Forty subjects, the last twelve of an external data set with its own labels."""
    data = cohort(n=40, edges=4, heldout=0)
    table = data.phenotypes.assign(group=[*data.phenotypes["group"][:28], *labels])
    return dataclasses.replace(data, datasets=("toy",) * 28 + ("other",) * 12, phenotypes=table)


@pytest.mark.parametrize("kind", ["classification", "multiclass"])
def test_labels_of_external_data_alone_are_no_class(cohort, kind):
    """`sick` sorts after `patient`, and would have been the positive class that nobody can learn."""
    data = coded_otherwise(cohort, ["patient", "control", "sick"] * 4)
    task = make_task(TaskConfig(name="g", column="group", kind=kind, external=["other"]), data)
    assert task.classes == (("patient",) if kind == "classification" else ("control", "patient"))
    assert (len(task.subjects), int(task.external.sum())) == (36, 8)
    assert task.note == "4 external scans left out for labels of no other scan: sick"
    assert set(task.truth[task.external]) == {0.0, 1.0}

    data = coded_otherwise(cohort, ["1", "2"] * 6)
    task = make_task(TaskConfig(name="g", column="group", kind=kind, external=["other"]), data)
    assert not task.external.any()
    assert task.note.endswith(": 1, 2")
    with pytest.raises(CannotEvaluate, match="labels of no other scan"):
        design.external(task, EvaluateConfig(), 0)
    with pytest.raises(ConfigError, match="labels are \\['control', 'patient'\\]"):
        make_task(TaskConfig(name="g", column="group", positive="2", external=["other"]), data)


@pytest.mark.parametrize(("kind", "column"), [("classification", "group"), ("regression", "score")])
def test_a_task_without_data_of_its_own_is_refused(cohort, kind, column):
    data = dataclasses.replace(cohort(n=40, edges=4), datasets=("other",) * 40)
    with pytest.raises(CannotEvaluate, match="own data sets"):
        make_task(TaskConfig(name="g", column=column, kind=kind, external=["other"]), data)
