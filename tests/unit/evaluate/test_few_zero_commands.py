"""The commands `few-shot` and `zero-shot` on a small snapshot: complete tables, the same bytes, no leak."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from boldmill.cli import main
from boldmill.stages import stage_json

EXTRA = {
    "few_shot": {"shots": [1, 2, 16], "draws": 10},
    "transfers": [
        {"name": "held", "source": "group", "target": "group"},
        {"name": "mixed", "source": "group", "target": "again"},
        {"name": "numbers", "source": "score", "target": "group"},
    ],
}


@pytest.fixture(scope="session")
def asked(config):
    tasks = [task.model_dump() for task in config.evaluate.tasks] + [{"name": "again", "column": "group"}]
    evaluate = {**config.evaluate.model_dump(), "tasks": tasks, **EXTRA}
    return config.model_copy(update={"evaluate": type(config.evaluate).model_validate(evaluate)})


@pytest.fixture(scope="session")
def checkpoint(manifest, config, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "model.safetensors"
    words = ["train", "--model", "brainmass", "--snapshot", str(manifest), "--out", str(out), "--device", "cpu"]
    assert main([*words, "--config-json", stage_json(config, "train_brainmass")]) == 0
    return out


def call(verb: str, checkpoint: Path, manifest: Path, out: Path, config) -> int:
    words = [verb, "--model", "brainmass", "--checkpoint", str(checkpoint), "--snapshot", str(manifest)]
    text = stage_json(config, verb.replace("-", "_"))
    return main([*words, "--out", str(out), "--device", "cpu", "--config-json", text])


def read(path: Path) -> list[dict[str, str]]:
    with open(path) as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_few_shot_writes_every_point_of_every_curve(checkpoint, manifest, asked, tmp_path) -> None:
    out = tmp_path / "few_shot.tsv"
    assert call("few-shot", checkpoint, manifest, out, asked) == 0
    rows = read(out)
    sets = ("brainmass_frozen", "brainmass_random", "fc")
    wanted = {(f"{s}_{c}", k) for s in sets for c in ("logistic", "centroid") for k in ("1", "2", "16", "all")}
    group = {(row["method"], row["k"]) for row in rows if row["task"] == "group"}
    assert group == wanted | {("chance", "0")}
    assert {row["task"] for row in rows} == {"group", "again"}  # a regression has no shots per class
    short = [row for row in rows if row["k"] == "16"]
    assert short and all(row["value"] == "n/a" and "n/a: the pre-training split" in row["note"] for row in short)
    frozen = [row for row in rows if row["method"] == "brainmass_frozen_logistic" and row["k"] == "2"]
    assert all("not science" in row["note"] and row["draws"] == "10" for row in frozen)
    split = json.loads(manifest.read_text())["subjects"]
    assert {row["n_test"] for row in rows} == {str(sum(s == "heldout" for s in split.values()))}
    assert Path(f"{out}.prov.json").exists()
    again = tmp_path / "again.tsv"
    assert call("few-shot", checkpoint, manifest, again, asked) == 0
    assert again.read_bytes() == out.read_bytes()


def test_zero_shot_tests_held_out_subjects_and_refuses_the_others(checkpoint, manifest, asked, tmp_path) -> None:
    out = tmp_path / "zero_shot.tsv"
    assert call("zero-shot", checkpoint, manifest, out, asked) == 0
    rows = read(out)
    held = [row for row in rows if row["task"] == "held"]
    methods = {
        f"{s}_{c}" for s in ("brainmass_frozen", "brainmass_random", "fc") for c in ("centroid", "logistic", "svm_rbf")
    }
    assert {row["method"] for row in held} == methods | {"chance"}
    split = json.loads(manifest.read_text())["subjects"]
    number = str(sum(s == "heldout" for s in split.values()))
    assert {row["n_test"] for row in held if row["method"] != "chance"} == {number}
    (mixed,) = [row for row in rows if row["task"] == "mixed"]  # the target holds subjects of pre-training
    assert mixed["value"] == "n/a" and "seen in training" in mixed["note"]
    (numbers,) = [row for row in rows if row["task"] == "numbers"]
    assert "score: n/a: the task is no classification" in numbers["note"]
    assert Path(f"{out}.prov.json").exists()


@pytest.mark.parametrize("verb", ["few-shot", "zero-shot"])
def test_a_planted_leak_stops_the_command_by_name(verb, checkpoint, manifest, asked, tmp_path, capsys) -> None:
    planted = tmp_path / "model.safetensors"
    for path in checkpoint.parent.iterdir():
        shutil.copy(path, tmp_path / path.name)
    heldout = next(s for s, split in json.loads(manifest.read_text())["subjects"].items() if split == "heldout")
    content = json.loads((tmp_path / "subjects.json").read_text())
    (tmp_path / "subjects.json").write_text(json.dumps({**content, "subjects": [*content["subjects"], heldout]}))
    assert call(verb, planted, manifest, tmp_path / "out.tsv", asked) == 1
    assert heldout in capsys.readouterr().err and not (tmp_path / "out.tsv").exists()
