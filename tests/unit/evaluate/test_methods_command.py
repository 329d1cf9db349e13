"""`boldmill evaluate` with every baseline and probe, on a snapshot written by the shard commands."""

from __future__ import annotations

import csv

import pytest

from boldmill.cli import main
from boldmill.stages import stage_json

SHORT = {"epochs": 2, "patience": 2, "batch": 4}
EVERYTHING = {
    "baselines": ["fc_linear_selected", "fc_svm", "fc_ridge", "fc_logistic", "tangent", "brainnetcnn", "transformer",
                  "covariates", "constant"],
    "probes": ["logistic", "svm_rbf", "mlp", "knn", "finetune"],
    "harmonise": "combat",
    "mlp": SHORT, "brainnetcnn": SHORT, "transformer": SHORT, "finetune": SHORT,
}  # fmt: skip


@pytest.fixture(scope="module")
def everything(synth):
    tasks = [{"name": "group", "column": "group"}, {"name": "score", "column": "score", "kind": "regression"}]
    evaluate = {"tasks": tasks, "folds": 2, "repeats": 1, "bootstrap": 100, "permutations": 99, **EVERYTHING}
    models = {"brainmass": {"epochs": 2, "batch": 4}}
    return synth.config(models=models, evaluate=evaluate)


def test_all_methods_stand_in_one_table(everything, manifest, tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    words = ["--model", "brainmass", "--snapshot", str(manifest), "--device", "cpu"]
    assert main(["train", *words, "--out", str(checkpoint), "--config-json",
                 stage_json(everything, "train_brainmass")]) == 0  # fmt: skip
    tables = []
    for name in ("a", "b"):
        out = tmp_path / name / "metrics.tsv"
        assert main(["evaluate", *words, "--checkpoint", str(checkpoint), "--out", str(out), "--config-json",
                     stage_json(everything, "evaluate")]) == 0  # fmt: skip
        tables.append(out)
    assert tables[0].read_bytes() == tables[1].read_bytes()
    with open(tables[0]) as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    scored = {(r["task"], r["method"]): r for r in rows if r["protocol"] == "heldout" and r["value"] != "n/a"}
    for task, linear in (("group", "logistic"), ("score", "ridge")):
        fc = ["fc_logistic", "fc_logistic_all", "fc_ridge"] if task == "group" else ["fc_ridge"]
        methods = [*fc, "fc_svm_rbf", f"tangent_{linear}", "brainnetcnn", "transformer", "brainmass_finetune"]
        methods += [f"brainmass_frozen_{probe}" for probe in (linear, "svm_rbf", "mlp", "knn")]
        assert {(task, method) for method in methods} <= set(scored)
    assert not any("random" in r["method"] for r in rows)
    tuned = [r for r in rows if r["method"] == "brainmass_finetune"]
    assert {r["model"] for r in tuned} == {"brainmass"}
    assert all("were in pre-training" in r["note"] for r in tuned if r["protocol"] == "cv")
    assert {r["model"] for r in rows if r["method"] in ("transformer", "brainnetcnn")} == {"baseline"}
    for (_, method), row in scored.items():
        harmonised = method.startswith(("fc_", "brainmass_frozen")) and "_over_" not in row["metric"]
        assert ("tested scans unharmonised" in row["note"]) == harmonised, method
