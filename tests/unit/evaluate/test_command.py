from __future__ import annotations

import csv
import json
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from boldmill.cli import main
from boldmill.evaluate.command import evaluate_task
from boldmill.evaluate.config import EvaluateConfig, TaskConfig
from boldmill.evaluate.table import COLUMNS, Predictions
from boldmill.provenance.tested import CONTROLS
from boldmill.stages import stage_json


@pytest.fixture(scope="session")
def checkpoints(manifest, config):
    """One trained checkpoint per model."""
    root = manifest.parents[2]
    out = {}
    for model in ("brainmass", "fmri_mae", "fm_app"):
        out[model] = root / "models" / model / "model.safetensors"
        words = ["train", "--model", model, "--snapshot", str(manifest), "--out", str(out[model]), "--device", "cpu"]
        assert main([*words, "--config-json", stage_json(config, f"train_{model}")]) == 0
    return out


def evaluate(model, checkpoint, manifest, out, config):
    words = ["evaluate", "--model", model, "--checkpoint", str(checkpoint), "--snapshot", str(manifest)]
    return main([*words, "--out", str(out), "--device", "cpu", "--config-json", stage_json(config, "evaluate")])


def read(path: Path) -> list[dict[str, str]]:
    with open(path) as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


@pytest.mark.parametrize("model", ["brainmass", "fmri_mae"])
def test_frozen_features_against_baselines(model, checkpoints, manifest, config, tmp_path):
    out = tmp_path / "metrics.tsv"
    assert evaluate(model, checkpoints[model], manifest, out, config) == 0
    rows = read(out)
    assert tuple(rows[0]) == COLUMNS
    trained = [row for row in rows if row["model"] == model]
    assert {row["method"] for row in trained if row["task"] == "group"} == {
        f"{model}_{weights}_{probe}" for weights in ("frozen", "random") for probe in ("logistic", "svm_rbf")
    }
    frozen = [row for row in trained if "_frozen_" in row["method"]]
    assert {row["protocol"] for row in frozen if row["value"] != "n/a"} == {"heldout"}
    assert all("were in pre-training" in row["note"] for row in frozen if row["protocol"] == "cv")
    assert {row["epochs"] for row in frozen} != {"n/a"}
    assert {row["epochs"] for row in trained if "_random_" in row["method"]} == {"n/a"}
    assert all("not science" in r["note"] for r in frozen if "_over_" not in r["metric"] and r["metric"] != "n/a")
    baseline = {row["method"] for row in rows if row["model"] == "baseline"}
    assert {"fc_logistic", "fc_ridge", "fc_svm_rbf", "covariates", "majority", "mean"} <= baseline
    assert {row["protocol"] for row in rows if row["method"] == "fc_logistic"} == {"cv", "heldout"}

    table = pq.read_table(out.with_name("predictions.parquet")).to_pandas()
    split = json.loads(manifest.read_text())["subjects"]
    ours = table[table["method"].str.startswith(f"{model}_frozen")]
    assert len(ours)
    assert {split[subject] for subject in ours["subject"]} == {"heldout"}
    assert Path(f"{out}.prov.json").exists()
    text = out.with_name("comparison.md").read_text()
    assert text.count("### cv") == 2
    assert f"- {model}_frozen_logistic: not run: " in text


def test_fm_app_predictions_and_zero_shot_ladder(checkpoints, manifest, config, tmp_path):
    out = tmp_path / "a" / "metrics.tsv"
    assert evaluate("fm_app", checkpoints["fm_app"], manifest, out, config) == 0
    rows = [row for row in read(out) if row["protocol"] == "split"]
    methods = {row["method"] for row in rows}
    rungs = ("a_nearest_text", "b_text_mean", "c_plain_mean", "d_ridge", "f_permuted_text", "f_random_vector")
    for modality in ("fmri", "t1w"):
        assert f"fm_app_{modality}" in methods
        assert {f"zeroshot_{rung}_{modality}" for rung in rungs} <= methods
    assert {"fc_ridge_fmri", "morphometry_ridge_t1w"} <= methods
    ridge = [row for row in rows if "ridge" in row["method"] and "zeroshot_d" not in row["method"]]
    assert {"zeroshot_h_supervised_fc_ridge_fmri", "zeroshot_h_supervised_morphometry_ridge_t1w"} <= {
        row["method"] for row in ridge
    }
    assert {(row["model"], row["text_encoder"]) for row in ridge} == {("baseline", "n/a")}  # no word was read for it
    assert {row["task"] for row in rows if row["method"].startswith("zeroshot")} == {"score"}
    assert "score" not in {row["task"] for row in rows if row["method"].startswith("fm_app")}
    assert all(row["text_encoder"].startswith("hashed-512-") for row in rows if row["model"] == "fm_app")
    assert all("largest |label r|" in r["note"] for r in rows if r["method"].startswith("zeroshot_d"))

    # the audit of leakage expects predictions of every method but these
    shown = set(pq.read_table(out.with_name("predictions.parquet"), columns=["method"])["method"].to_pylist())
    silent = {row["method"] for row in rows if row["model"] == "fm_app" and row["value"] != "n/a"} - shown
    assert silent == {f"{control}_{modality}" for control in CONTROLS for modality in ("fmri", "t1w")}

    again = tmp_path / "b" / "metrics.tsv"
    assert evaluate("fm_app", checkpoints["fm_app"], manifest, again, config) == 0
    assert again.read_bytes() == out.read_bytes()
    name = "predictions.parquet"
    assert again.with_name(name).read_bytes() == out.with_name(name).read_bytes()


def test_a_heldout_subject_in_the_training_list_stops_the_command(checkpoints, manifest, config, tmp_path, capsys):
    copy = tmp_path / "model.safetensors"
    shutil.copy(checkpoints["brainmass"], copy)
    split = json.loads(manifest.read_text())["subjects"]
    victim = sorted(s for s, part in split.items() if part == "heldout")[0]
    seen = json.loads((checkpoints["brainmass"].parent / "subjects.json").read_text())["subjects"]
    (tmp_path / "subjects.json").write_text(json.dumps({"subjects": [*seen, victim]}))
    out = tmp_path / "metrics.tsv"
    assert evaluate("brainmass", copy, manifest, out, config) == 1
    assert victim in capsys.readouterr().err
    assert not out.exists()


def test_rows_that_cannot_be_computed_say_why(cohort):
    tiny = cohort(n=6, edges=15, heldout=1)
    settings = EvaluateConfig(repeats=2, bootstrap=100, permutations=99)
    task = TaskConfig(name="group", column="group")
    features = {"features": {"m": (tiny.fc, "", True)}, "text_encoder": "n/a"}
    rows = evaluate_task(task, tiny, settings, 0, "m", features, Predictions())
    held = [row for row in rows if row.protocol == "heldout"]
    assert held
    assert all(row.value != row.value and row.note.startswith("n/a: 1 tested") for row in held)
    assert "3 folds" in next(row.note for row in rows if row.protocol == "cv")

    empty = evaluate_task(
        task, cohort(n=2, edges=15), settings, 0, "m", {"features": {}, "text_encoder": "n/a"}, Predictions()
    )
    assert [row.note.startswith("n/a") for row in empty] == [True]


def test_demo_sized_evaluation_is_fast(cohort):
    """About 20 scans, 4,950 edges, 5 x 5 folds; a fifth of the 500 permutations in a fifth of a generous limit."""
    data = cohort(n=18, effect=1.0, two_scans=2)
    task, settings = TaskConfig(name="group", column="group"), EvaluateConfig(permutations=100)
    inputs = {"features": {"m": (data.fc[:, :800], "", True)}, "text_encoder": "n/a"}
    start = time.process_time()
    evaluate_task(task, data, settings, 0, "m", inputs, Predictions())
    assert time.process_time() - start < 10


def test_some_methods_only_and_an_unknown_name(checkpoints, manifest, config, tmp_path, capsys):
    out = tmp_path / "metrics.tsv"
    words = ["evaluate", "--model", "brainmass", "--checkpoint", str(checkpoints["brainmass"])]
    words += ["--snapshot", str(manifest), "--out", str(out), "--device", "cpu"]
    words += ["--config-json", stage_json(config, "evaluate"), "--methods"]
    assert main([*words, "majority,brainmass_frozen_logistic"]) == 0
    assert {row["method"] for row in read(out) if row["task"] == "group"} == {"majority", "brainmass_frozen_logistic"}
    out.unlink()
    assert main([*words, "majorty"]) == 2
    assert "majorty" in capsys.readouterr().err
    assert not out.exists()
