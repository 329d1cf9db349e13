from __future__ import annotations

import numpy as np
import pytest
import torch

from boldmill.evaluate.zeroshot import ladder
from boldmill.models.fm_app.data import read_scans
from boldmill.models.fm_app.train import load, train


def correlations(snapshot, model, modality):
    """Held-out r of each seen phenotype, and of each rung of the ladder averaged over unseen ones."""
    held = read_scans(snapshot, "heldout")
    values = held.fc if modality == "fmri" else np.stack([held.morphometry[name] for name in held.subjects])
    inputs, table = torch.from_numpy(values), held.table.loc[list(held.subjects)]
    seen = model.predict_seen(inputs, modality)
    found = {name: np.corrcoef(seen[:, k], table[name])[0, 1] for k, name in enumerate(model.bank.ids)}
    rungs: dict[str, list[float]] = {}
    for name, words in model.facts["unseen"].items():
        for rung in ladder(model, inputs, modality, name, words[1], 0):
            r = np.mean([np.corrcoef(scores, table[name])[0, 1] for scores in rung.scores])
            rungs.setdefault(rung.name.removeprefix("zeroshot_"), []).append(float(r))
    return found, {name: float(np.mean(values)) for name, values in rungs.items()}


@pytest.mark.parametrize("modality", ["fmri", "t1w"])
def test_seen_phenotypes_are_learnt_and_transferred(trained, modality):
    snapshot, model, _ = trained(True)
    found, _ = correlations(snapshot, model, modality)
    assert len(found) == 6
    assert np.mean(list(found.values())) > (0.7 if modality == "fmri" else 0.4)


def test_zero_shot_is_above_its_controls_where_words_matter(trained):
    snapshot, model, _ = trained(True)
    rungs = correlations(snapshot, model, "fmri")[1]
    assert rungs["d_ridge"] > rungs["c_plain_mean"] + 0.1
    assert rungs["d_ridge"] > rungs["f_permuted_text"] + 0.2
    assert rungs["d_ridge"] > rungs["f_nonsense_text"] + 0.1


def test_zero_shot_is_not_above_the_plain_mean_where_words_say_nothing(trained):
    snapshot, model, _ = trained(False)
    rungs = [correlations(snapshot, model, modality)[1] for modality in ("fmri", "t1w")]
    assert np.mean([r["d_ridge"] - r["c_plain_mean"] for r in rungs]) < 0.1


def test_scores_do_not_depend_on_batch_composition(trained):
    snapshot, model, _ = trained(True)
    fc = torch.from_numpy(read_scans(snapshot, "heldout").fc)
    vector = model.text_vector("recall of a story after a delay")
    whole = model.predict_unseen(fc, "fmri", vector)
    alone = np.concatenate([model.predict_unseen(fc[i : i + 1], "fmri", vector) for i in range(len(fc))])
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    other = model.predict_unseen(fc, "fmri", model.text_vector("grip strength"))
    assert np.corrcoef(whole, other)[0, 1] < 0.9


def test_training_reads_no_heldout_subject(trained):
    snapshot, _, result = trained(True)
    allowed = {f"toy/{i:02d}" for i, split in enumerate(snapshot.split) if split != "heldout"}
    assert set(result.metadata["subjects"]) == allowed
    assert {row["stage"] for row in result.history} == {"fmri", "t1w"}
    assert any("validation_loss" in row for row in result.history)


def test_order_of_tables_and_columns_does_not_matter_and_bytes_repeat(toy, tmp_path):
    chosen = toy.settings(epochs_fmri=1, epochs_t1w=1, unseen=["memory3"])
    for name, reverse in (("a", False), ("b", False), ("c", True)):
        (tmp_path / name).mkdir()
        train(toy.ToySnapshot(n=20, reverse=reverse), chosen, tmp_path / name, "cpu", 1, False)
    first = (tmp_path / "a" / "model.safetensors").read_bytes()
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == first
    assert (tmp_path / "c" / "model.safetensors").read_bytes() == first
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["model.safetensors", "stage-fmri", "stage-t1w"]


def test_heldout_values_do_not_move_the_weights(toy, tmp_path):
    chosen = toy.settings(epochs_fmri=1, epochs_t1w=1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        snapshot = toy.ToySnapshot(n=20)
        if name == "b":
            held = [i for i, split in enumerate(snapshot.split) if split == "heldout"]
            snapshot.table.iloc[held] = 1e6
            snapshot.matrix[held] = 0.5
            snapshot.morph[held] = 1e6
        train(snapshot, chosen, tmp_path / name, "cpu", 1, False)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_without_t1w_only_the_fmri_branch_is_trained(toy, tmp_path):
    snapshot = toy.ToySnapshot(n=20)
    from boldmill.errors import DataFault

    def none(scan_id):
        raise DataFault("no morphometry", scan_id, "no usable T1w", "leave it out")

    snapshot.morphometry = none
    result = train(snapshot, toy.settings(epochs_fmri=1), tmp_path, "cpu", 1, False)
    assert {row["stage"] for row in result.history} == {"fmri"}
    assert not load(tmp_path / "model.safetensors").has_t1w


def test_the_state_of_a_run_on_other_data_is_not_resumed(toy, tmp_path, monkeypatch):
    """Equal settings, equal numbers of samples, another snapshot: the interrupted run must start anew."""
    from boldmill.models.fm_app import stages
    from boldmill.train import loop

    chosen = toy.settings(epochs_fmri=2, epochs_t1w=1)
    whole = loop.fit
    monkeypatch.setattr(stages, "fit", lambda *args, **more: whole(*args, **more, stop_at=3))
    for name in ("other", "same"):
        (tmp_path / name).mkdir()
        with pytest.raises(loop.Interrupted):
            train(toy.ToySnapshot(n=20, seed=int(name == "same")), chosen, tmp_path / name, "cpu", 1, False)
        assert (tmp_path / name / "stage-fmri" / "resume-00000003.safetensors").exists()
    monkeypatch.undo()
    (tmp_path / "clean").mkdir()
    weights = {}
    for name in ("clean", "same", "other"):
        result = train(toy.ToySnapshot(n=20, seed=1), chosen, tmp_path / name, "cpu", 1, False)
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["same"] == weights["clean"]
    assert weights["other"] == weights["clean"]
    assert {"data_digest", "n_train", "n_validation"} <= set(result.metadata)
