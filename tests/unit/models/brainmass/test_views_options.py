"""Views by estimator and drop mode, against scikit-learn, nilearn and the reference of the represent area."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from boldmill.errors import ConfigError
from boldmill.models.brainmass import train as training
from boldmill.models.brainmass.views import FlyViews, ShardViews, from_edges, masked_correlation
from boldmill.represent.config import AugmentConfig
from boldmill.represent.fc import correlation
from boldmill.represent.pfc import pfc_views, view_masks
from boldmill.shards.reader import Snapshot
from boldmill.stages import Settings, stage_json


def padded(lengths: tuple[int, ...], parcels: int) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Autocorrelated series of several lengths, padded with what must not matter; a fifth is dropped."""
    rng = np.random.default_rng(3)
    series = np.full((len(lengths), max(lengths), parcels), 1e3)
    kept = np.zeros(series.shape[:2], dtype=bool)
    parts = []
    for b, length in enumerate(lengths):
        x = rng.standard_normal((length, 6)) @ rng.standard_normal((6, parcels)) + rng.standard_normal(
            (length, parcels)
        )
        series[b, :length] = (x - x.mean(0)) / x.std(0)
        kept[b, :length] = rng.random(length) > 0.2
        parts.append(series[b, kept[b]])
    return torch.from_numpy(series), torch.from_numpy(kept), parts


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize("parcels", [8, 100])
@pytest.mark.filterwarnings("ignore:The default strategy for standardize")
def test_ledoit_wolf_views_are_those_of_nilearn(dtype: torch.dtype, tolerance: float, parcels: int) -> None:
    """The published estimator: nilearn's correlation with its Ledoit-Wolf default, on the kept points alone."""
    from nilearn.connectome import ConnectivityMeasure
    from sklearn.covariance import ledoit_wolf_shrinkage

    series, kept, parts = padded((60, 240, 176), parcels)
    found = masked_correlation(series.to(dtype), kept, "ledoit_wolf").double().numpy()
    published = np.stack([ConnectivityMeasure(kind="correlation").fit_transform([one])[0] for one in parts])
    np.testing.assert_allclose(found, published, atol=tolerance, rtol=0)
    np.testing.assert_allclose(found, [correlation(p, estimator="ledoit_wolf") for p in parts], atol=tolerance, rtol=0)
    plain = masked_correlation(series.to(dtype), kept).double().numpy()
    for b, one in enumerate(parts):
        shrunk = ledoit_wolf_shrinkage((one - one.mean(0)) / one.std(0))
        assert 0.005 < shrunk < 1
        np.testing.assert_allclose(found[b, 0, 1:], (1 - shrunk) * plain[b, 0, 1:], atol=tolerance, rtol=0)


def test_ledoit_wolf_leaves_out_parcels_without_variance_and_stands_degenerate_scans() -> None:
    series, kept, parts = padded((60, 80), 8)
    series[0, :, 3] = 0.0  # no data
    found = masked_correlation(series, kept, "ledoit_wolf")
    others = [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_allclose(found[0][others][:, others], correlation(parts[0][:, others], estimator="ledoit_wolf"))
    assert torch.equal(found[0, 3], torch.eye(8, dtype=torch.float64)[3])
    alone = torch.zeros(1, 30, 4, dtype=torch.float64)
    alone[0, :, 1] = torch.randn(30, dtype=torch.float64)
    assert torch.equal(masked_correlation(alone, torch.ones(1, 30, dtype=torch.bool), "ledoit_wolf")[0], torch.eye(4))


@pytest.mark.parametrize("mode", ["scattered", "block"])
def test_the_drop_mode_reaches_the_views(mode: Any, manifest: Path) -> None:
    snapshot = Snapshot.load(manifest)
    scans = snapshot.scans(having="timeseries")["scan_id"].tolist()
    cfg = AugmentConfig(mode=mode, drop_rate=0.3)
    views = FlyViews(snapshot, dict.fromkeys(scans, cfg), 7, "cpu")
    for k, ours in enumerate(views.pair(scans, 3)):
        reference = np.stack([pfc_views(np.array(snapshot.timeseries(s)), s, [6 + k], 7, cfg)[0] for s in scans])
        torch.testing.assert_close(ours, from_edges(torch.from_numpy(reference), 20), atol=1e-5, rtol=0)
    dropped = [np.flatnonzero(~view_masks(60, scan, [6], 7, cfg)[0]) for scan in scans]
    assert all(len(points) == 18 for points in dropped)
    assert all((np.diff(points) == 1).all() == (mode == "block") for points in dropped)


def settings(synth: ModuleType, model: dict[str, Any], **sections: Any) -> Settings:
    return Settings(stage_json(synth.config(models={"brainmass": model}, **sections), "train_brainmass"))


def test_drop_mode_rate_and_estimator_reach_the_training(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    """Each of them gives another first loss; shards of the same settings give that of the fly."""
    snapshot, first = Snapshot.load(manifest), {}
    for name, model, sections in (
        ("scattered", {}, {}),
        ("block", {}, {"augment": {"mode": "block"}}),
        ("rate", {}, {"augment": {"drop_rate": 0.4}}),
        ("ledoit_wolf", {"estimator": "ledoit_wolf"}, {}),
    ):
        chosen = settings(synth, {"epochs": 1, "batch": 4, **model}, **sections)
        first[name] = training.train(snapshot, chosen, tmp_path / name, "cpu", 1, False).history[0]["loss"]
    assert len({round(loss, 5) for loss in first.values()}) == 4


def test_fly_views_are_shard_views_to_the_stored_half_precision(synth: ModuleType, tmp_path: Path) -> None:
    config = synth.config(augment={"dtype": "float16", "mode": "block"})
    snapshot = Snapshot.load(synth.snapshot(tmp_path, config))
    scans = snapshot.scans(having="timeseries")["scan_id"].tolist()
    fly = FlyViews(snapshot, dict.fromkeys(scans, config.augment), config.seed, "cpu")
    for ours, stored in zip(fly.pair(scans, 1), ShardViews(snapshot, "cpu").pair(scans, 1), strict=True):
        torch.testing.assert_close(ours, stored, atol=2**-11, rtol=0)  # half a unit in the last place below 1


def test_shards_of_another_estimator_are_refused(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    chosen = settings(synth, {"epochs": 1, "views": "shards", "estimator": "ledoit_wolf"})
    with pytest.raises(ConfigError, match=r"hold pearson views.*use views: fly, or estimator: pearson"):
        training.train(Snapshot.load(manifest), chosen, tmp_path, "cpu", 1, False)


def test_one_candidate_is_refused(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    chosen = settings(synth, {"epochs": 1, "mask_clf": 0.07})
    with pytest.raises(ConfigError, match=r"0\.07 of 20 ROIs is one.*set mask_clf to 0\.1 or more"):
        training.train(Snapshot.load(manifest), chosen, tmp_path, "cpu", 1, False)


@pytest.mark.parametrize("views", ["fly", "shards"])
@pytest.mark.parametrize("stop", [1, 4])
def test_resume_is_bitwise(
    views: str, stop: int, manifest: Path, synth: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, batch statistics, EMA, cosine schedule and validation between the steps."""
    from functools import partial

    from boldmill.train.loop import Interrupted

    snapshot = Snapshot.load(manifest)
    chosen = settings(synth, {"epochs": 6, "batch": 2, "views": views, "schedule": "cosine"})
    whole = training.train(snapshot, chosen, tmp_path / "whole", "cpu", 1, False)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(training, "fit", partial(training.fit, stop_at=stop))
        training.train(snapshot, chosen, tmp_path / "cut", "cpu", 1, False)
    torch.manual_seed(123)  # whatever state the new process starts in
    resumed = training.train(snapshot, chosen, tmp_path / "cut", "cpu", 1, False)
    assert resumed.history == whole.history and len(whole.history) > stop
    name = "model.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert training.load(tmp_path / "cut" / name).arch.dropout > 0
    assert whole.history[-1]["lr"] < 0.1 * max(row["lr"] for row in whole.history)  # cosine


def test_monitors_are_of_fixed_scans_and_views(manifest: Path, synth: ModuleType, tmp_path: Path) -> None:
    chosen = settings(synth, {"epochs": 3, "batch": 4})
    history = training.train(Snapshot.load(manifest), chosen, tmp_path, "cpu", 1, False).history
    watched = [row for row in history if "uniformity" in row]
    names = ("embedding_variance", "effective_rank", "alignment", "uniformity")
    assert watched and all(np.isfinite(row[name]) for row in watched for name in names)
    assert all(0 <= row["alignment"] <= 4 and row["uniformity"] <= 0 for row in watched)


@pytest.mark.parametrize("estimator", ["pearson", "ledoit_wolf"])
def test_evaluation_gives_the_full_length_fc_of_the_training(estimator: Any, manifest: Path) -> None:
    from boldmill.evaluate.cohort import read_cohort
    from boldmill.evaluate.features import fc_input, random_twin, scan_features
    from boldmill.models.brainmass.architecture import design
    from boldmill.models.brainmass.model import BrainMass

    snapshot = Snapshot.load(manifest)
    model = BrainMass(design("tiny", 20, style="paper", estimator=estimator)).eval()
    cohort = read_cohort(snapshot)
    found = fc_input("brainmass", model, snapshot, cohort.scan_ids)
    for scan, fc in zip(cohort.scan_ids, found, strict=True):
        expected = np.nan_to_num(correlation(snapshot.timeseries(scan), estimator=estimator))
        np.fill_diagonal(expected, 1.0)
        np.testing.assert_allclose(fc, expected, atol=1e-6)
    with torch.no_grad():
        features = model.features(torch.from_numpy(found)).numpy()
    np.testing.assert_allclose(scan_features("brainmass", model, snapshot, cohort, "cpu"), features, atol=1e-5)
    twin = random_twin("brainmass", model, 0)
    assert twin.arch == model.arch and not torch.equal(twin.online.reduce.weight, model.online.reduce.weight)
