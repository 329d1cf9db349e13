"""Who is explained, what a planted effect gives, and the command from snapshot to pictures."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.errors import ConfigError
from boldmill.evaluate.crossval import Folds
from boldmill.evaluate.tasks import CannotEvaluate, Task
from boldmill.interpret import probe
from boldmill.interpret.config import InterpretConfig
from boldmill.interpret.explain import Inputs, baselines, chosen_scans, gradients_map, rollout_map
from boldmill.interpret.maps import ranking
from boldmill.models.brainmass.architecture import design
from boldmill.models.brainmass.model import BrainMass
from boldmill.paths import Layout
from boldmill.spaces.images import write_labels_gifti
from boldmill.stages import stage_json

R = 20
PLANTED = [2, 7, 11]
CONFIG = InterpretConfig(top=3, ig_steps=8)


def toy(subjects: int = 48, heldout: int = 20) -> tuple[Inputs, Task, Folds]:
    """Two classes that differ in the edges among three regions; the first subject has two scans."""
    rng = np.random.default_rng(0)
    truth = np.arange(subjects) % 2 * 1.0
    member = np.r_[0, np.arange(subjects)]
    fc = 0.15 * rng.standard_normal((len(member), R, R)).astype(np.float32)
    for i in PLANTED:
        for j in PLANTED:
            fc[:, i, j] += 0.5 * (truth[member] - 0.5)
    fc = (fc + fc.transpose(0, 2, 1)) / 2
    fc[:, np.arange(R), np.arange(R)] = 1.0
    names = tuple(f"toy/{i:02d}" for i in range(subjects))
    known = {
        "name": "group", "kind": "classification", "column": "group", "rows": np.arange(len(member)), "member": member,
        "subjects": names, "groups": names, "truth": truth, "heldout": np.arange(subjects) < heldout,
        "sites": ("A",) * subjects, "classes": ("1",), "external": np.zeros(subjects, dtype=bool),
    }  # fmt: skip
    task = Task(**{field.name: known[field.name] for field in fields(Task) if field.name in known})
    folds = Folds(number=4, of=np.stack([np.arange(subjects) // 2 % 4, np.arange(subjects) // 4 % 4]))
    torch.manual_seed(1)
    model = BrainMass(design("tiny", R)).eval()
    with torch.no_grad():
        features = model.features(torch.from_numpy(fc)).double().numpy()
    inputs = Inputs(model=model, device="cpu", fc=lambda rows: fc[rows], features=features, regions=R)
    return inputs, task, folds


def ids(task: Task) -> list[str]:
    return [f"scan-{i:02d}" for i in range(len(task.rows))]


def everyone(task: Task) -> Any:
    return np.ones(len(task.rows), dtype=bool)


def test_regions_with_a_planted_effect_come_first() -> None:
    inputs, task, folds = toy()
    rows = chosen_scans(task, folds, ids(task), 200, everyone(task))
    found = gradients_map(inputs, task, rows, folds, CONFIG, 0)
    assert sorted(ranking(found.value)[:3].tolist()) == PLANTED
    assert found.auc > 0.85 and found.subjects == 20
    assert found.gap < 0.1
    assert (found.positive[PLANTED] > found.negative[PLANTED]).all()  # towards the class that has the edges
    strongest = ranking(np.abs(found.edges))[:3]
    upper = np.triu_indices(R, k=1)
    assert {(upper[0][e], upper[1][e]) for e in strongest} == {(2, 7), (2, 11), (7, 11)}
    assert found.stable.folds == 4 and found.stable.share[PLANTED].min() > 0.6
    assert found.shuffled < 0.5  # shuffled labels do not find them


def test_without_an_effect_no_map_is_stable() -> None:
    inputs, task, folds = toy()
    shuffled = np.random.default_rng(3).permutation(len(task.truth))
    task = Task(**{name: getattr(task, name) for name in task.__slots__} | {"truth": task.truth[shuffled]})
    rows = chosen_scans(task, folds, ids(task), 200, everyone(task))
    found = gradients_map(inputs, task, rows, folds, CONFIG, 0)
    assert 0.2 < found.auc < 0.8


def test_a_map_that_is_the_networks_alone_is_told_by_shuffled_labels() -> None:
    inputs, task, folds = toy()
    spread = np.linspace(0.2, 3, R)
    scale = np.sqrt(spread[:, None] * spread).astype(np.float32)
    np.fill_diagonal(scale, 1)
    fc = inputs.fc(np.arange(len(task.rows))) * scale
    with torch.no_grad():
        features = inputs.model.features(torch.from_numpy(fc)).double().numpy()
    loud = Inputs(model=inputs.model, device="cpu", fc=lambda rows: fc[rows], features=features, regions=R)
    shuffled = task.truth[np.random.default_rng(3).permutation(len(task.truth))]
    task = Task(**{name: getattr(task, name) for name in task.__slots__} | {"truth": shuffled})
    rows = chosen_scans(task, folds, ids(task), 200, everyone(task))
    found = gradients_map(loud, task, rows, folds, CONFIG, 0)
    assert found.shuffled > 0.5 and found.stable.spearman > 0.5  # alike in every fold, yet nothing of the task


def test_nobody_is_explained_by_a_probe_fitted_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, task, folds = toy()
    fitted: list[Any] = []
    explained: list[Any] = []
    real, rows = probe.fit_direction, chosen_scans(task, folds, ids(task), 200, everyone(task))
    starts: list[Any] = []

    def watch(features: Any, truth: Any, train: Any) -> Any:
        fitted.append(set(task.member[train]))
        return real(features, truth, train)

    def read(asked: Any) -> Any:
        (starts if len(asked) and not set(asked) <= set(rows) else explained).append(set(task.member[asked]))
        return inputs.fc(asked)

    monkeypatch.setattr(probe, "fit_direction", watch)
    watched = Inputs(model=inputs.model, device="cpu", fc=read, features=inputs.features, regions=R)
    gradients_map(watched, task, rows, folds, InterpretConfig(repeats=2, baseline="zero", ig_steps=2), 0)
    assert len(fitted) == len(explained) == 12 and not starts
    for learnt, tested in zip(fitted, explained, strict=True):
        assert not learnt & tested
        assert tested <= set(np.flatnonzero(task.heldout))
    assert set.union(*explained) == set(np.flatnonzero(task.heldout))


def test_subjects_of_no_fold_are_neither_explained_nor_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, task, folds = toy()
    outside = np.arange(48) % 7 == 0
    folds = Folds(number=4, of=np.where(outside, -1, folds.of))
    rows = chosen_scans(task, folds, ids(task), 200, everyone(task))
    assert not outside[task.member[rows]].any()
    real, fitted = probe.fit_direction, []

    def watch(features: Any, truth: Any, train: Any) -> Any:
        fitted.append(outside[task.member[train]].any())
        return real(features, truth, train)

    monkeypatch.setattr(probe, "fit_direction", watch)
    assert np.isfinite(gradients_map(inputs, task, rows, folds, CONFIG, 0).auc)
    assert len(fitted) == 8 and not any(fitted)


def test_rollout_difference_is_descriptive_and_its_stability_needs_subjects() -> None:
    inputs, task, folds = toy()
    rows = chosen_scans(task, folds, ids(task), 200, everyone(task))
    found = rollout_map(inputs, task, rows, folds, CONFIG)
    assert np.isnan(found.auc) and found.stable.folds == 4 and "not tested" in found.note
    assert found.positive.mean() == pytest.approx(1, abs=1e-4)
    few = rows[task.member[rows] < 8]
    assert "stability n/a" in rollout_map(inputs, task, few, folds, CONFIG).note


def test_a_scan_weighs_as_a_share_of_its_subject() -> None:
    inputs, task, folds = toy()
    rows = chosen_scans(task, folds, ids(task), 200, everyone(task))
    assert len(rows) == 21  # the first subject has two scans
    assert rollout_map(inputs, task, rows, folds, CONFIG).subjects == 20


def test_scans_are_thinned_by_name_not_by_order() -> None:
    _, task, folds = toy()
    names = ids(task)
    kept = {names[row] for row in chosen_scans(task, folds, names, 9, everyone(task))}
    backwards = names[::-1]
    moved = Task(**{n: getattr(task, n) for n in task.__slots__} | {"member": task.member[::-1].copy()})
    assert {backwards[row] for row in chosen_scans(moved, folds, backwards, 9, everyone(task))} == kept
    assert len(kept) == 9


def test_who_cannot_be_explained_is_said() -> None:
    _, task, folds = toy(heldout=0)
    with pytest.raises(CannotEvaluate, match="no held-out subject"):
        chosen_scans(task, folds, ids(task), 200, everyone(task))
    _, task, folds = toy(heldout=1)
    with pytest.raises(CannotEvaluate, match="all of one class"):
        chosen_scans(task, folds, ids(task), 200, everyone(task))


def test_a_path_starts_at_the_mean_of_the_training_scans_each_read_once() -> None:
    inputs, _, _ = toy()
    read: list[int] = []

    def fc(rows: np.ndarray) -> np.ndarray:
        read.extend(rows.tolist())
        return inputs.fc(rows)

    fold = np.where(np.arange(len(inputs.features)) < 3, -1, np.arange(len(inputs.features)) % 4)
    known = np.arange(len(fold)) != 7
    found = baselines(replace(inputs, fc=fc), fold, known, "mean")
    assert sorted(found) == [0, 1, 2, 3] and sorted(read) == np.flatnonzero((fold >= 0) & known).tolist()
    for k, start in found.items():
        wanted = inputs.fc(np.flatnonzero((fold >= 0) & (fold != k) & known)).mean(0)
        assert np.allclose(start, wanted, atol=1e-6)
    zero = baselines(inputs, fold, known, "zero")
    assert all(np.array_equal(start, np.eye(R)) for start in zero.values())


# the command


def settings(synth: ModuleType, **interpret: Any) -> Any:
    tasks = [
        {"name": "group", "column": "group"},
        {"name": "score", "column": "score", "kind": "regression"},
        {"name": "site", "column": "age", "datasets": ["nobody"]},
    ]
    return synth.config(
        models={"brainmass": {"epochs": 1, "batch": 4}},
        snapshot={"heldout": 0.6, "validation": 0.2},
        evaluate={"tasks": tasks, "folds": 2, "repeats": 1},
        interpret={"ig_steps": 4, "top": 5, **interpret},
    )


@pytest.fixture(scope="module")
def trained(synth: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Snapshot manifest and checkpoint of a model trained for an epoch."""
    config = settings(synth)
    manifest = synth.snapshot(tmp_path_factory.mktemp("results"), config, n_subjects=24)
    checkpoint = Layout.at(manifest.parents[2]).checkpoint("brainmass")
    words = ["train", "--model", "brainmass", "--snapshot", str(manifest), "--out", str(checkpoint)]
    assert main([*words, "--config-json", stage_json(config, "train_brainmass")]) == 0
    return manifest, checkpoint


def explain(trained: tuple[Path, Path], config: Any, out: Path, *words: str) -> int:
    manifest, checkpoint = trained
    given = ["--checkpoint", str(checkpoint), "--snapshot", str(manifest), "--out", str(out), *words]
    return main(["interpret", "--model", "brainmass", *given, "--config-json", stage_json(config, "interpret")])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


@pytest.fixture(scope="module")
def done(trained: tuple[Path, Path], synth: ModuleType) -> Path:
    out = Layout.at(trained[0].parents[2]).interpretation("brainmass")
    assert explain(trained, settings(synth), out, "--atlas") == 0
    return out.parent


def test_the_command_writes_tables_and_pictures(done: Path) -> None:
    regions, summary = rows_of(done / "regions.tsv"), rows_of(done / "summary.tsv")
    assert [(row["task"], row["map"]) for row in summary] == [
        ("group", "rollout"), ("group", "integrated_gradients"), ("site", "n/a"),
    ]  # fmt: skip
    assert summary[2]["note"].startswith("n/a: ") and "interpret.surface_labels" in summary[0]["note"]
    ranked = [row for row in regions if row["map"] == "integrated_gradients"]
    assert [int(row["rank"]) for row in ranked] == list(range(1, 21))
    assert {row["region"] for row in ranked} == {f"parcel-{i:03d}" for i in range(20)}
    values = [float(row["value"]) for row in ranked]
    assert values == sorted(values, reverse=True) and values[0] > 0
    assert {row["map"] for row in rows_of(done / "edges.tsv")} == {"rollout", "integrated_gradients"}
    pictures = [name for row in summary[:2] for name in row["pictures"].split()]
    assert pictures == [f"group_{m}_{kind}.png" for m in ("rollout", "integrated_gradients")
                        for kind in ("bars", "connectogram")]  # fmt: skip
    for name in pictures:
        assert np.asarray(Image.open(done / name).convert("L")).std() > 5
    record = json.loads((done / "regions.tsv.prov.json").read_text())
    assert {Path(item["path"]).name for item in record["outputs"]} == {
        "regions.tsv", "edges.tsv", "summary.tsv", *pictures,
    }  # fmt: skip
    assert {"model.safetensors", "manifest.json", "subjects.json"} <= {Path(i["path"]).name for i in record["inputs"]}


def test_labels_of_the_user_bring_the_regions_to_the_cortex(
    trained: tuple[Path, Path], synth: ModuleType, tmp_path: Path
) -> None:
    sides = [
        str(write_labels_gifti(tmp_path / f"{side}.label.gii", np.arange(10242) // 512 % 21, {0: "none"}, "CortexLeft"))
        for side in ("lh", "rh")
    ]
    out = tmp_path / "out" / "regions.tsv"
    assert explain(trained, settings(synth, tasks=["group"], surface_labels=sides), out) == 0
    summary = rows_of(out.with_name("summary.tsv"))
    for row in summary:
        names = row["pictures"].split()
        assert names == [f"group_{row['map']}_{kind}.png" for kind in ("cortex", "flat", "connectogram")]
        assert all(np.asarray(Image.open(out.parent / name).convert("L")).std() > 5 for name in names)
        assert "surface_labels" not in row["note"]
    record = json.loads(Path(f"{out}.prov.json").read_text())
    assert {"lh.label.gii", "rh.label.gii"} <= {Path(item["path"]).name for item in record["inputs"]}


def test_the_same_input_gives_the_same_bytes(
    trained: tuple[Path, Path], synth: ModuleType, done: Path, tmp_path: Path
) -> None:
    assert explain(trained, settings(synth), tmp_path / "regions.tsv") == 0
    for path in sorted(tmp_path.glob("*")):
        if ".prov" not in path.name:
            assert path.read_bytes() == (done / path.name).read_bytes(), path.name


def test_a_task_that_is_no_classification_and_one_that_is_unknown(
    trained: tuple[Path, Path], synth: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(trained, settings(synth, tasks=["score"]), tmp_path / "regions.tsv") == 0
    (row,) = rows_of(tmp_path / "summary.tsv")
    assert row["task"] == "score" and "two classes" in row["note"]
    assert explain(trained, settings(synth, tasks=["grup"]), tmp_path / "regions.tsv") == 2
    assert "did you mean 'group'" in capsys.readouterr().err


def test_a_model_that_saw_the_held_out_subjects_is_refused(
    trained: tuple[Path, Path], synth: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, checkpoint = trained
    copy = tmp_path / checkpoint.name
    copy.write_bytes(checkpoint.read_bytes())
    everyone = sorted(json.loads(manifest.read_text())["subjects"])
    (tmp_path / "subjects.json").write_text(json.dumps({"subjects": everyone}))
    assert explain((manifest, copy), settings(synth), tmp_path / "out" / "regions.tsv") == 1
    assert "were seen in training" in capsys.readouterr().err
    assert not (tmp_path / "out" / "regions.tsv").exists()


def test_only_what_can_be_explained_is_configured() -> None:
    with pytest.raises(ConfigError, match="cannot explain"):
        parse({"interpret": {"models": ["fmri_mae"]}})
    with pytest.raises(ConfigError, match="two files"):
        parse({"interpret": {"surface_labels": ["a.gii"]}})
