"""Variants: what may vary, what their settings are, and the table of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from boldmill.ablation.config import AblationConfig, VariantConfig
from boldmill.ablation.table import ablation_rows, read_evaluated
from boldmill.ablation.variants import evaluation_config, variant_config, variant_of
from boldmill.config.load import load, parse
from boldmill.errors import ConfigError
from boldmill.evaluate.metrics import auc
from boldmill.stages import stage_json

ROOT = Path(__file__).parents[3]


def config(*variants: dict[str, Any], **more: Any) -> Any:
    listed = [{"name": "full"}, *variants]
    return parse({"models": {"brainmass": {"epochs": 7, "lr": 0.001}}, "ablation": {"variants": listed}, **more})


def test_a_variant_is_the_base_with_its_keys_changed() -> None:
    base = config({"name": "v", "set": {"models.brainmass.weight_rec": 0, "augment.drop_rate": 0.4}})
    made = variant_config(base, variant_of(base, "v"))
    assert (made.models.brainmass.weight_rec, made.augment.drop_rate) == (0.0, 0.4)
    assert (made.models.brainmass.epochs, made.models.brainmass.lr) == (7, 0.001)
    before, after = (json.loads(stage_json(c, "train_brainmass")) for c in (base, made))
    changed = {
        k for k in before["config"]["augment"] if before["config"]["augment"][k] != after["config"]["augment"][k]
    }
    assert changed == {"drop_rate"}
    assert base.augment.drop_rate == 0.2
    assert stage_json(variant_config(base, variant_of(base, "full")), "train_brainmass") == json_of(base)


def json_of(base: Any) -> str:
    return stage_json(base, "train_brainmass")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"evaluate.folds": 3}, "is not below models.brainmass or augment"),
        ({"models.fmri_mae.lr": 1}, "is not below models.brainmass or augment"),
        ({"models.brainmass.weigth_rec": 3}, "did you mean 'weight_rec'"),
        ({"models.brainmass.lr": -1}, r"variants\[v\].*models\.brainmass\.lr"),
        ({"augment.drop_rate": 1.5}, r"augment\.drop_rate"),
        ({"augment.mode": "block", "models.brainmass.views": "shards"}, "set models.brainmass.views: fly"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_with_one_line_before_anything_runs(change, match) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        config({"name": "v", "set": change})
    assert "\n" not in str(caught.value)


def test_names_are_unique_and_the_reference_is_one_of_them() -> None:
    with pytest.raises(ValueError, match="unique"):
        AblationConfig(variants=[{"name": "full"}, {"name": "full"}])
    with pytest.raises(ValueError, match="did you mean 'full'"):
        AblationConfig(variants=[{"name": "full"}], reference="ful")
    with pytest.raises(ValueError, match="name"):
        VariantConfig(name="a/b")


def test_every_variant_is_evaluated_briefly_and_alike() -> None:
    task = {"name": "a", "column": "a", "protocols": ["cv"]}
    base = config(evaluate={"tasks": [task]})
    slim = json.loads(stage_json(evaluation_config(base), "evaluate"))["config"]["evaluate"]
    assert slim["protocols"] == ["split"] and slim["tasks"][0]["protocols"] == []
    assert base.evaluate.tasks[0].protocols == ["cv"]
    assert slim["probes"] == ["logistic"] and slim["baselines"] == ["fc_linear_selected"]
    deep = {"mlp": {"epochs": 7}, "finetune": {"lr": 0.5}, "grid_c": [3.0], "folds": 7}
    other, wider = (config(evaluate={"tasks": [task], **more}) for more in (deep, {"bootstrap": 321}))
    text = stage_json(evaluation_config(base), "evaluate")
    assert stage_json(evaluation_config(other), "evaluate") == text  # what it does not read never reruns it
    assert stage_json(evaluation_config(wider), "evaluate") != text


def test_the_shipped_ablation_lies_over_the_demo() -> None:
    base = load(ROOT / "config.yaml", ROOT / "workflow" / "configs" / "ablation.yaml")
    groups = {variant.group for variant in base.ablation.variants}
    assert {"loss", "drop_rate"} <= groups
    rates = [variant_config(base, v).augment.drop_rate for v in base.ablation.variants if v.group == "drop_rate"]
    assert rates == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    texts = {v.name: stage_json(variant_config(base, v), "train_brainmass") for v in base.ablation.variants}
    assert texts["full"] == texts["drop-20"] and len(set(texts.values())) == len(texts) - 1


COLUMNS = (
    "task kind method model protocol metric value ci_low ci_high p_permutation n_test n_train text_encoder note fold"
)


def write(folder: Path, scores: np.ndarray, truth: np.ndarray, epochs: int = 3) -> Path:
    folder.mkdir(parents=True)
    value = float(np.mean([auc(truth, row, np.ones((1, truth.size)))[0] for row in scores]))
    rows = [
        ["group", "classification", "fc_logistic", "baseline", "heldout", "auc", "0.6", "0.4", "0.8", "0.1", "8", "20"],
        ["group", "classification", "brainmass_frozen_logistic", "brainmass", "heldout", "auc", f"{value:.6g}"],
        ["group", "classification", "brainmass_frozen_logistic", "brainmass", "heldout", "auc_over_fc_logistic", "0"],
        ["group", "classification", "brainmass_random_logistic", "brainmass", "heldout", "auc", "0.5"],
    ]
    for row in rows:
        row += ["n/a"] * (10 - len(row)) + ["8", "20"][max(0, len(row) - 10) :] + ["n/a", "small", "all"]
    rows.append([*rows[1][:-1], "SITE"])
    text = "\n".join("\t".join(row) for row in [COLUMNS.split(), *rows])
    (folder / "metrics.tsv").write_text(text + "\n")
    (folder / "config.json").write_text(json.dumps({"settings": {"size": "S"}}))
    (folder / "history.jsonl").write_text(json.dumps({"step": 0, "epoch": epochs - 1}) + "\n")
    frame = [
        {"task": "group", "method": "brainmass_frozen_logistic", "protocol": "heldout", "repeat": q, "fold": 0,
         "subject": f"d/{s}", "scan_id": f"{s}_{scan}", "truth": truth[s], "score": row[s] + (0.1 if scan else -0.1)}
        for q, row in enumerate(scores) for s in range(truth.size) for scan in range(2)
    ]  # fmt: skip
    pd.DataFrame(frame).to_parquet(folder / "predictions.parquet")
    return folder / "metrics.tsv"


def test_the_table_holds_each_variant_and_its_paired_gain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = (np.arange(30) % 2).astype(float)
    full = truth + rng.normal(size=(2, 30))
    worse = truth * 0.2 + rng.normal(size=(2, 30))
    paths = {"full": write(tmp_path / "full", full, truth), "worse": write(tmp_path / "worse", worse, truth, 9)}
    settings = AblationConfig(
        variants=[
            {"name": "full", "group": "loss"},
            {"name": "worse", "group": "loss", "set": {"augment.drop_rate": 0.5}},
        ]
    )
    rows = ablation_rows(settings, {name: read_evaluated(path) for name, path in paths.items()}, {}, 400, 1)
    assert [(row.variant, row.metric) for row in rows] == [
        ("baseline", "auc"),
        ("full", "auc"),
        ("worse", "auc"),
        ("worse", "auc_over_full"),
    ]
    gain = rows[-1]
    once = np.ones((1, 30))
    wanted = np.mean([auc(truth, row, once) for row in worse]) - np.mean([auc(truth, row, once) for row in full])
    assert gain.value == pytest.approx(wanted) and gain.value < 0 and gain.n_test == 30
    assert gain.ci_low < gain.value < gain.ci_high
    assert (gain.overrides, gain.epochs, rows[1].epochs, rows[1].overrides) == (
        "augment.drop_rate: 0.5",
        "9",
        "3",
        "none",
    )
    assert "one training seed per variant" in gain.note
    equal = ablation_rows(settings, dict.fromkeys(("full", "worse"), read_evaluated(paths["full"])), {}, 400, 1)[-1]
    assert (equal.value, equal.ci_low, equal.ci_high) == (0.0, 0.0, 0.0)


def test_families_are_drawn_together(tmp_path: Path) -> None:
    truth = (np.arange(40) // 2 % 2).astype(float)  # twins alike
    rng = np.random.default_rng(1)
    full, other = (truth + np.repeat(rng.normal(size=20), 2)[None] for _ in range(2))
    paths = {"full": write(tmp_path / "full", full, truth), "v": write(tmp_path / "v", other, truth)}
    settings = AblationConfig(variants=[{"name": "full"}, {"name": "v", "set": {"augment.drop_rate": 0.5}}])
    found = {name: read_evaluated(path) for name, path in paths.items()}
    alone, twins = (
        ablation_rows(settings, found, groups, 2000, 1)[-1]
        for groups in ({}, {f"d/{i}": f"family-{i // 2}" for i in range(40)})
    )
    assert alone.value == twins.value
    assert twins.ci_high - twins.ci_low > 1.15 * (alone.ci_high - alone.ci_low)


def test_a_variant_that_was_not_evaluated_stops_the_table() -> None:
    settings = AblationConfig(variants=[{"name": "full"}])
    with pytest.raises(ConfigError, match="full: it was not evaluated"):
        ablation_rows(settings, {}, {}, 100, 1)
