"""Published weights in and out: against the published numbers, a stand-in of the published encoder, and bad files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from boldmill.cli import main
from boldmill.errors import ConfigError
from boldmill.evaluate.leakage import pretraining_subjects
from boldmill.models.brainmass import train as training
from boldmill.models.brainmass.architecture import Architecture, design
from boldmill.models.brainmass.model import BrainMass
from boldmill.models.brainmass.official import official_names, rename
from boldmill.models.brainmass.train import load
from boldmill.shards.reader import Snapshot
from boldmill.stages import Settings, stage_json
from boldmill.train.checkpoint import VOUCHED, checkpoint_note, load_weights, save_weights

State = dict[str, torch.Tensor]


class Published(nn.Module):
    """The published encoder as its description has it, of torch's own layers and with its names."""

    def __init__(self, rois: int, depth: int, heads: int, ffn: int, latent: int) -> None:
        super().__init__()
        self.attention_list = nn.ModuleList(
            nn.TransformerEncoderLayer(rois, heads, ffn, batch_first=True) for _ in range(depth)
        )
        self.dim_reduction = nn.Sequential(nn.Linear(rois, 8), nn.LeakyReLU())
        self.g = nn.Module()
        self.g.net = nn.Sequential(
            nn.Linear(8 * rois, 16 * rois), nn.BatchNorm1d(16 * rois), nn.ReLU(), nn.Linear(16 * rois, latent)
        )

    def forward(self, fc: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for layer in self.attention_list:
            fc = layer(fc)
        features = self.dim_reduction(fc).reshape(len(fc), -1)
        return features, self.g.net(features)


def fc(batch: int = 3, rois: int = 20) -> torch.Tensor:
    series = np.random.default_rng(1).standard_normal((batch, 50, rois))
    return torch.from_numpy(np.stack([np.corrcoef(one.T) for one in series])).float()


def whole(rois: int = 20, depth: int = 2, heads: int = 5, **changes: Any) -> BrainMass:
    torch.manual_seed(2)
    values = {"ffn": 24, "latent": 32, "hidden": 16 * rois, "style": "paper", "estimator": "ledoit_wolf", **changes}
    model = BrainMass(Architecture(rois=rois, width=rois, depth=depth, heads=heads, **values))
    with torch.no_grad():
        for value in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
            value.add_(0.1 * torch.rand_like(value))  # target, vectors and batch statistics of their own
    return model.eval()


def call(*words: Any) -> int:
    return main([str(word) for word in words])


def imported(tmp_path: Path, content: Any, *more: Any, status: int = 0) -> Path:
    """Write a torch file, import it by the command, return the checkpoint."""
    torch.save(content, tmp_path / "given.pth")
    out = tmp_path / "in" / "model.safetensors"
    assert call("import-weights", "brainmass", tmp_path / "given.pth", "--out", out, *more) == status
    return out


@pytest.mark.data
@pytest.mark.parametrize("form", ["bare", "model"])
def test_published_features_and_projection(golden: Callable[[str], Path], tmp_path: Path, form: str) -> None:
    """Weights and FC of the published code give its 800-d features and its projection to 1e-5, by the command."""
    z = np.load(golden("brainmass_official_depth2.npz"), allow_pickle=False)
    state = {name[3:]: torch.from_numpy(z[name]) for name in z.files if name[:3] == "sd/"}
    out = imported(tmp_path, state if form == "bare" else {"model": state}, "--heads", 5)
    model = load(out)
    assert sum(p.numel() for p in model.parameters()) == int(z["meta"][3])
    assert (model.arch.depth, model.arch.heads, model.arch.ffn, model.arch.style) == (2, 5, 256, "paper")
    with torch.no_grad():
        features = model.features(torch.from_numpy(z["fc"]))
        projection = model.online.project(features)
    np.testing.assert_allclose(features, z["features_800"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(projection, z["projection_1024"], atol=1e-5, rtol=0)
    config = json.loads(out.with_name("config.json").read_text())
    assert config["imported"]["lacking"] == ["target", "predictor", "unused_norm"]
    online = {name[7:]: value for name, value in model.state_dict().items() if name.startswith("online.")}
    target = {name[7:]: value for name, value in model.state_dict().items() if name.startswith("target.")}
    assert online.keys() == target.keys() and all(torch.equal(online[name], target[name]) for name in online)


def test_export_fits_the_published_encoder_and_gives_its_features(tmp_path: Path, capsys: Any) -> None:
    model = whole()
    save_weights(
        tmp_path / "model.safetensors", model.state_dict(), model="brainmass", architecture=model.arch.as_dict()
    )
    assert call("export-weights", "brainmass", tmp_path / "model.safetensors", "--out", tmp_path / "out.pth") == 0
    assert "it has 20 ROIs, the published code is written for 100" in capsys.readouterr().out
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    for key, ours in (("online_network_state_dict", model.online), ("target_network_state_dict", model.target)):
        theirs = Published(20, 2, 5, 24, 32).eval()
        theirs.load_state_dict(content[key], strict=True)
        features, latent = theirs(fc())
        torch.testing.assert_close(ours.readout(model.encode(fc(), network=ours)), features, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.project(features), latent, atol=1e-5, rtol=0)
    outer = {name.split(".")[0] for name in content["model"]}
    assert outer == {"online_network", "target_network", "predictor", "cpred", "gpred", "norm", "mask_embed",
                     "cls_token", "dist_token"}  # fmt: skip
    assert len(content["model"]) == len(model.state_dict())


@pytest.mark.parametrize("changes", [{}, {"style": "uniform", "estimator": "pearson", "rec_layers": 3, "hidden": 40}])
def test_round_trip_is_bitwise(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = whole(**changes)
    first = save_weights(
        tmp_path / "model.safetensors", model.state_dict(), model="brainmass", architecture=model.arch.as_dict()
    )
    assert call("export-weights", "brainmass", first, "--out", tmp_path / "a.pth") == 0
    back = tmp_path / "back" / "model.safetensors"
    assert call("import-weights", "brainmass", tmp_path / "a.pth", "--out", back) == 0
    assert back.read_bytes() == Path(first).read_bytes()
    assert {Path(f"{p}.prov.json").exists() for p in (back, tmp_path / "a.pth")} == {True}


@pytest.mark.parametrize(("depth", "heads"), [(8, 5), (16, 10), (32, 20)])
def test_heads_of_the_published_sizes_are_known_by_depth(tmp_path: Path, depth: int, heads: int) -> None:
    state = official_names(whole(depth=depth, heads=heads).state_dict())
    assert load(imported(tmp_path, {"model": state})).arch.heads == heads


def test_every_form_of_the_file(tmp_path: Path) -> None:
    """Whole model, encoders alone, bare encoder, prefix of DDP: the same features."""
    model = whole(depth=8)
    state = official_names(model.state_dict())
    online, target = (
        {name.removeprefix(f"{net}_network."): v for name, v in state.items() if name.startswith(f"{net}_network.")}
        for net in ("online", "target")
    )
    both = {"online_network_state_dict": online, "target_network_state_dict": target}
    lacking = {"predictor", "head_clf", "head_rec", "unused_norm", "mask_vector", "cls_token", "dist_token"}
    for content, fresh in (
        ({"model": state, **both}, set()),
        ({f"module.{name}": value for name, value in state.items()}, set()),
        (both, lacking),
        ({"online_network_state_dict": online}, lacking | {"target"}),
        (online, lacking | {"target"}),
        ({name: value for name, value in online.items() if not name.startswith("g.")},
         lacking | {"target", "online.project"}),
    ):  # fmt: skip
        out = imported(tmp_path, content)
        assert torch.equal(load(out).features(fc()), model.features(fc()))
        assert set(json.loads(out.with_name("config.json").read_text())["imported"]["lacking"]) == fresh
        if not fresh:
            assert all(
                torch.equal(v, model.state_dict()[k]) for k, v in load_weights(out, model="brainmass")[0].items()
            )


def broken(state: State, name: str, change: Callable[[State], Any]) -> State:
    changed = dict(state)
    change(changed)
    assert name in state
    return changed


def test_files_that_are_no_whole_weights_are_refused_in_one_line(tmp_path: Path, capsys: Any) -> None:
    state = official_names(whole(depth=8).state_dict())
    a, b = "online_network.attention_list.3.linear1.weight", "gpred.2.bias"
    nan = torch.full_like(state[b], torch.nan)
    out = tmp_path / "out" / "model.safetensors"
    for content, words in (
        ({"epoch": 3}, "no online_network.attention_list (found: epoch)"),
        ([1, 2], "no online_network.attention_list (found: list)"),
        (broken(state, a, lambda s: s.pop(a)), "lacks online.blocks.3.up.weight"),
        ({k: v for k, v in state.items() if "attention_list.3." not in k}, "lacks block 3"),
        (broken(state, b, lambda s: s.pop(b)), "lacks head_rec.2.bias"),
        (broken(state, a, lambda s: s.update({a: s[a][:, :9]})), "is (24, 9), the architecture needs (24, 20)"),
        (broken(state, b, lambda s: s.update({b: nan})), "head_rec.2.bias has values that are not finite"),
        ({k: v for k, v in state.items() if "attention_list.7." not in k}, "no published size has 7 blocks. Fix: give"),
    ):  # fmt: skip
        torch.save(content, tmp_path / "bad.pth")
        assert call("import-weights", "brainmass", tmp_path / "bad.pth", "--out", out) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1
    good = tmp_path / "good.pth"
    torch.save({"model": state}, good)
    (tmp_path / "cut.pth").write_bytes(good.read_bytes()[:-2000])
    (tmp_path / "text.pth").write_text("no weights at all\n")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save({"model": state, "code": print}, tmp_path / "code.pth")  # would run something
    for name in ("cut", "text", "empty", "code", "absent"):
        assert call("import-weights", "brainmass", tmp_path / f"{name}.pth", "--out", out) == 2, name
        error = capsys.readouterr().err
        assert f"{name}.pth" in error and len(error.splitlines()) == 1
    assert call("import-weights", "brainmass", good, "--out", out, "--heads", 3) == 2
    assert "3 heads do not divide 20 channels" in capsys.readouterr().err
    assert call("import-weights", "brainmass", good, "--out", tmp_path / "x.pt") == 2
    assert not out.parent.exists()


def test_unknown_tensors_are_named_and_a_projection_is_not_exported(tmp_path: Path, capsys: Any) -> None:
    state = official_names(whole(depth=8).state_dict())
    imported(tmp_path, {"model": state | {"extra.weight": torch.zeros(2)}})
    assert "left out: extra.weight" in capsys.readouterr().out
    arch = design("tiny", 23)
    path = save_weights(
        tmp_path / "p" / "model.safetensors",
        BrainMass(arch).state_dict(),
        model="brainmass",
        architecture=arch.as_dict(),
    )
    assert call("export-weights", "brainmass", path, "--out", tmp_path / "p.pth") == 2
    assert "a learned projection carries its 23 ROIs to 100 channels" in capsys.readouterr().err
    assert rename(official_names(BrainMass(arch).state_dict())).keys() < BrainMass(arch).state_dict().keys()


def test_whom_weights_were_trained_on_is_known_vouched_for_or_refused(tmp_path: Path, capsys: Any) -> None:
    content = {"model": official_names(whole(depth=8).state_dict())}
    names = tmp_path / "names.txt"
    names.write_text("# pre-training\nabide/0051\n\nukb/sub-7\nabide/0051\n")
    out = imported(tmp_path, content, "--subjects", names)
    assert pretraining_subjects(out) == {"abide/0051", "ukb/7"} and VOUCHED not in checkpoint_note(out)
    out = imported(tmp_path, content, "--unseen-data")
    assert pretraining_subjects(out) == frozenset() and VOUCHED in checkpoint_note(out)
    capsys.readouterr()
    out = imported(tmp_path, content)  # nothing of the last import stays
    assert "evaluation will refuse it" in capsys.readouterr().out and VOUCHED not in checkpoint_note(out)
    with pytest.raises(ConfigError, match=r"cannot rule out leakage.*--subjects FILE or --unseen-data"):
        pretraining_subjects(out)
    for text, words in (("0051\n", "names.txt:1: '0051' is not <dataset>/<subject>"), ("# none\n", "it names nobody")):
        names.write_text(text)
        imported(tmp_path, content, "--subjects", names, status=2)
        assert words in capsys.readouterr().err


def trained(manifest: Path, synth: ModuleType, out: Path, **model: Any) -> Any:
    settings = Settings(stage_json(synth.config(models={"brainmass": {"batch": 4, **model}}), "train_brainmass"))
    return training.train(Snapshot.load(manifest), settings, out, "cpu", 1, False)


def test_training_starts_from_imported_weights(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    content = {"model": official_names(whole(depth=8).state_dict())}
    (tmp_path / "names.txt").write_text("elsewhere/1\n")
    first = imported(tmp_path, content, "--subjects", tmp_path / "names.txt")
    only = trained(manifest, synth, tmp_path / "only", init=str(first), preset="paper", epochs=0)
    assert (tmp_path / "only" / "model.safetensors").read_bytes() == first.read_bytes()  # epochs 0: import, no more
    assert only.metadata["subjects"] == ["elsewhere/1"] and only.history == []
    on = trained(manifest, synth, tmp_path / "on", init=str(first), preset="paper", epochs=1, lr=1e-6)
    seen = {s for s, split in Snapshot.load(manifest).subjects.items() if split != "heldout"}
    assert set(on.metadata["subjects"]) == seen | {"elsewhere/1"} and on.metadata["init"]["sha256"]
    with torch.no_grad():
        before, after = (load(p / "model.safetensors").features(fc()) for p in (first.parent, tmp_path / "on"))
    assert 0 < float((before - after).abs().max()) < 1e-2  # it began there
    for model, words in (
        ({"preset": "boldmill"}, r"forward_style is paper.*set models\.brainmass\.forward_style: paper \(or preset"),
        ({"forward_style": "paper"}, r"estimator is ledoit_wolf, models\.brainmass\.estimator is pearson"),
    ):
        with pytest.raises(ConfigError, match=words):
            trained(manifest, synth, tmp_path / "bad", init=str(first), epochs=1, **model)
    other = imported(tmp_path, {"model": official_names(whole(rois=10, depth=8).state_dict())}, "--unseen-data")
    with pytest.raises(ConfigError, match="trained on 10 ROIs, the snapshot has 20"):
        trained(manifest, synth, tmp_path / "bad", init=str(other), preset="paper", epochs=1)
    nobody = imported(tmp_path, content)
    with pytest.raises(ConfigError, match="cannot rule out leakage"):
        trained(manifest, synth, tmp_path / "bad", init=str(nobody), preset="paper", epochs=1)
    vouched = imported(tmp_path, content, "--unseen-data")
    kept = trained(manifest, synth, tmp_path / "v", init=str(vouched), preset="paper", epochs=1)
    assert kept.metadata["unseen_data"] is True and set(kept.metadata["subjects"]) == seen


def test_imported_weights_go_through_train_and_evaluate(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    """The commands of the workflow: `init` with no epochs, then the evaluation, whose table says who vouches."""
    first = imported(tmp_path, {"model": official_names(whole(depth=8).state_dict())}, "--unseen-data")
    config = synth.config(
        models={"brainmass": {"init": str(first), "preset": "paper", "epochs": 0}},
        evaluate={"tasks": [{"name": "group", "column": "group"}], "folds": 2, "repeats": 2, "bootstrap": 100,
                  "permutations": 99},
    )  # fmt: skip
    out = tmp_path / "models" / "model.safetensors"
    common = ["--snapshot", manifest, "--device", "cpu"]
    words = ["train", "--model", "brainmass", "--out", out, "--config-json", stage_json(config, "train_brainmass")]
    assert call(*words, *common) == 0
    assert out.read_bytes() == first.read_bytes() and pretraining_subjects(out) == frozenset()
    record = json.loads(Path(f"{out}.prov.json").read_text())
    assert str(first) in {one["path"] for one in record["inputs"]}
    table = tmp_path / "evaluate" / "metrics.tsv"
    words = ["evaluate", "--model", "brainmass", "--checkpoint", out, "--out", table]
    assert call(*words, *common, "--config-json", stage_json(config, "evaluate")) == 0
    lines = table.read_text().splitlines()
    ours = [line for line in lines if "brainmass_frozen_logistic\t" in line and "_over_" not in line]
    assert ours and all(VOUCHED in line for line in ours)
    untrained = [line for line in lines if "brainmass_random_" in line]
    assert untrained and not any(VOUCHED in line for line in untrained)  # nothing of those weights is in them
    out.with_name("subjects.json").unlink()
    assert call(*words, *common, "--config-json", stage_json(config, "evaluate")) == 2
