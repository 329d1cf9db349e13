"""Losses against plain loops, masks by their key, views against the reference of the represent area."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from boldmill.models.brainmass.losses import alignment, draw_masks, info_nce, n_masked, reconstruction
from boldmill.models.brainmass.views import FlyViews, ShardViews, from_edges, masked_correlation
from boldmill.represent.config import AugmentConfig
from boldmill.represent.pfc import pfc_views
from boldmill.shards.reader import Snapshot


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def test_info_nce_against_loops() -> None:
    predicted, truth = rand(3, 4, 6, seed=1), rand(3, 4, 6, seed=2)
    c, x = predicted.double().numpy(), truth.double().numpy()
    loss = 0.0
    for b in range(3):
        for i in range(4):
            scores = [sum(x[b, i, k] * c[b, j, k] for k in range(6)) for j in range(4)]
            loss -= math.log(math.exp(scores[i]) / sum(math.exp(s) for s in scores))
    assert float(info_nce(predicted, truth)) == pytest.approx(loss / 12, abs=1e-6)


def test_reconstruction_against_loops() -> None:
    predicted, truth = rand(2, 3, 5, seed=3), rand(2, 3, 5, seed=4)
    pairs = zip(predicted.flatten().tolist(), truth.flatten().tolist(), strict=True)
    assert float(reconstruction(predicted, truth)) == pytest.approx(sum((p - t) ** 2 for p, t in pairs) / 30, abs=1e-6)


def test_alignment_against_loops() -> None:
    p1, p2, z1, z2 = (rand(4, 8, seed=s) for s in range(4))

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        x, y = a.tolist(), b.tolist()
        dot = sum(u * v for u, v in zip(x, y, strict=True))
        return dot / math.sqrt(sum(u * u for u in x)) / math.sqrt(sum(v * v for v in y))

    loss = sum(4 - 2 * cosine(p1[b], z2[b]) - 2 * cosine(p2[b], z1[b]) for b in range(4)) / 4
    assert float(alignment((p1, p2), (z1, z2))) == pytest.approx(loss, abs=1e-6)
    assert float(alignment((p1, p2), (p2, p1))) == pytest.approx(0, abs=1e-5)
    assert float(alignment((p1, p2), (-p2, -p1))) == pytest.approx(8, abs=1e-5)


def test_masks_belong_to_scan_epoch_seed_and_purpose() -> None:
    both = draw_masks(["a", "b"], "clf", 3, 7, 100, 10)
    assert np.array_equal(both[1], draw_masks(["b"], "clf", 3, 7, 100, 10)[0])  # whatever the batch
    assert (np.diff(both, axis=1) > 0).all() and both.min() >= 0 and both.max() < 100  # distinct ROIs
    for other in (("a", "rec", 3, 7), ("a", "clf", 4, 7), ("a", "clf", 3, 8), ("c", "clf", 3, 7)):
        assert not np.array_equal(both[0], draw_masks([other[0]], *other[1:], 100, 10)[0])  # type: ignore[arg-type]


def test_masks_are_uniform() -> None:
    drawn = draw_masks([f"s{i}" for i in range(2000)], "clf", 0, 7, 20, 2)
    counts = np.bincount(drawn.ravel(), minlength=20)
    assert abs(counts - 200).max() < 5 * math.sqrt(200)


def test_number_of_masked_rois() -> None:
    assert [n_masked(100, 0.1), n_masked(100, 0.05), n_masked(111, 0.1), n_masked(111, 0.05), n_masked(8, 0.05)] == [
        10, 5, 11, 5, 1]  # fmt: skip


def test_masked_correlation_is_pearson_of_the_kept_points() -> None:
    rng = np.random.default_rng(5)
    series = rng.standard_normal((2, 30, 6))
    kept = rng.random((2, 30)) < 0.7
    series[0, :, 4] = 1.5  # constant
    series[1, ~kept[1]] = 1e6  # what is dropped cannot matter
    found = masked_correlation(torch.from_numpy(series).float(), torch.from_numpy(kept)).numpy()
    expected = np.corrcoef(series[1][kept[1]].T)
    np.testing.assert_allclose(found[1], expected, atol=1e-5)
    assert (found[0, 4] == np.eye(6)[4]).all() and (np.diagonal(found, axis1=1, axis2=2) == 1).all()


def test_views_on_the_fly_are_those_of_the_reference_and_of_the_shards(manifest: Path) -> None:
    snapshot = Snapshot.load(manifest)
    scans = snapshot.scans(having="timeseries")["scan_id"].tolist()  # three lengths, one parcel without data
    assert snapshot.scans()["n_volumes"].nunique() == 3
    cfg = AugmentConfig(n_views=4, dtype="float32")
    fly = FlyViews(snapshot, dict.fromkeys(scans, cfg), 7, "cpu")
    stored = ShardViews(snapshot, "cpu")
    for epoch in (0, 1, 2):
        for k, (ours, shard) in enumerate(zip(fly.pair(scans, epoch), stored.pair(scans, epoch), strict=True)):
            view = 2 * epoch + k
            edges = np.stack([pfc_views(np.array(snapshot.timeseries(s)), s, [view], 7, cfg)[0] for s in scans])
            reference = from_edges(torch.from_numpy(edges), 20)
            torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)
            assert torch.equal(ours, ours.mT) and torch.isfinite(ours).all()
            if view < 4:
                torch.testing.assert_close(ours, shard, atol=1e-5, rtol=0)
    again = stored.pair(scans, 2)  # views 4 and 5 of 4 stored: 0 and 1 again
    assert torch.equal(again[0], stored.pair(scans, 0)[0]) and torch.equal(again[1], stored.pair(scans, 0)[1])
    assert not torch.equal(again[0], again[1])
    missing = scans.index("toy_sub-00_task-rest")
    assert torch.equal(fly.pair(scans, 0)[0][missing, 0], torch.eye(20)[0])


def test_training_from_shards_equals_training_on_the_fly(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    from boldmill.models.brainmass import train as module
    from boldmill.stages import Settings, stage_json

    losses = {}
    for views in ("fly", "shards"):
        model = {"epochs": 2, "batch": 4, "views": views}
        settings = Settings(stage_json(synth.config(models={"brainmass": model}), "train_brainmass"))
        (tmp_path / views).mkdir()
        result = module.train(Snapshot.load(manifest), settings, tmp_path / views, "cpu", 1, False)
        losses[views] = [row["loss"] for row in result.history]
    assert losses["fly"] == pytest.approx(losses["shards"], abs=1e-3)


def test_loss_falls_and_features_do_not_collapse(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    from boldmill.models.brainmass import train as module
    from boldmill.stages import Settings, stage_json

    cfg = synth.config(models={"brainmass": {"epochs": 60, "batch": 8, "lr": 1e-3}})
    settings = Settings(stage_json(cfg, "train_brainmass"))
    history = module.train(Snapshot.load(manifest), settings, tmp_path, "cpu", 1, False).history
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert history[-1]["rec"] < 0.8 * history[0]["rec"]
    watched = [row for row in history if "effective_rank" in row]
    assert watched[-1]["effective_rank"] > 2 and watched[-1]["embedding_variance"] > 1e-4
