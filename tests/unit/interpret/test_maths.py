"""Rollout, integrated gradients, probe and maps against plain loops and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from boldmill.evaluate.probes import Probe, probe_scores
from boldmill.interpret.gradients import integrated_gradients, path_points
from boldmill.interpret.maps import chance_jaccard, effect_size, ranking, region_sums, stability
from boldmill.interpret.probe import fit_direction
from boldmill.interpret.rollout import attention_weights, relevance, rollout
from boldmill.models.brainmass.architecture import Style, design
from boldmill.models.brainmass.model import BrainMass

N = 12


def made(style: Style = "uniform", rois: int = N) -> BrainMass:
    torch.manual_seed(0)
    model = BrainMass(design("tiny", rois, style=style)).eval()
    for block in model.online.blocks:  # sharper attention than at initialisation, so that rollout has something to show
        torch.nn.init.normal_(block.qkv.weight, std=0.6)
    return model


def networks(count: int, rois: int = N, seed: int = 1) -> torch.Tensor:
    series = np.random.default_rng(seed).standard_normal((count, 40, rois))
    return torch.tensor(np.stack([np.corrcoef(one.T) for one in series]), dtype=torch.float32)


def test_attention_weights_are_those_that_fused_attention_uses() -> None:
    block = made().online.blocks[0]
    x = torch.randn(3, N + 2, block.qkv.in_features, generator=torch.Generator().manual_seed(2))
    weights = attention_weights(block, x)
    assert torch.allclose(weights.sum(-1), torch.ones(3, block.heads, N + 2))
    values = block.qkv(x).chunk(3, dim=-1)[2].view(3, N + 2, block.heads, -1).transpose(1, 2)
    mixed = block.out((weights @ values).transpose(1, 2).reshape(3, N + 2, -1))
    assert torch.allclose(mixed, block.attention(x), atol=1e-5)


@pytest.mark.parametrize("style", ["uniform", "paper"])
def test_rollout_equals_a_plain_loop(style: Style) -> None:
    model, fc = made(style), networks(3)
    found = rollout(model, fc).numpy()
    extra = 2 if style == "uniform" else 0
    with torch.no_grad():
        tokens = model.online.embed(fc)
        if extra:
            tokens = torch.cat([model.cls_token.expand(3, -1, -1), model.dist_token.expand(3, -1, -1), tokens], dim=1)
            tokens = tokens + model.positions
        for scan in range(3):
            x, flow = tokens[scan : scan + 1], np.eye(N + extra)
            for block in model.online.blocks:
                query, key, _ = block.qkv(x)[0].chunk(3, dim=-1)
                size = query.shape[1] // block.heads
                mean = np.zeros((N + extra, N + extra))
                for head in range(block.heads):
                    part = slice(head * size, (head + 1) * size)
                    scores = (query[:, part] @ key[:, part].T).numpy() / np.sqrt(size)
                    power = np.exp(scores - scores.max(1, keepdims=True))
                    mean += power / power.sum(1, keepdims=True) / block.heads
                flow = (0.5 * mean + 0.5 * np.eye(N + extra)) @ flow
                x = block(x)
            inner = flow[extra:, extra:]
            assert np.allclose(found[scan], inner / inner.sum(1, keepdims=True), atol=1e-5)
    assert np.abs(found - found.mean()).max() > 0.05  # not the trivial answer
    level = relevance(torch.tensor(found)).numpy()
    assert np.allclose(level.mean(axis=1), 1, atol=1e-5)


def test_rollout_leaves_no_trace_and_refuses_dropout() -> None:
    model, fc = made(), networks(2)
    before = model.features(fc)
    rollout(model, fc)
    assert torch.equal(model.features(fc), before)
    assert not any(block._forward_pre_hooks for block in model.online.blocks)
    with pytest.raises(ValueError, match="training mode"):
        rollout(model.train(), fc)


class Quadratic(torch.nn.Module):
    """Features whose integral is known: squares of the edges."""

    def features(self, fc: torch.Tensor) -> torch.Tensor:
        return fc.flatten(1) ** 2


def test_integrated_gradients_of_a_square_is_exact() -> None:
    fc = networks(2, 5).double()
    start, direction = torch.eye(5).double(), torch.arange(25.0).double()
    found = integrated_gradients(Quadratic(), fc, start, direction, steps=2)
    both = (fc**2 - start**2) * direction.view(5, 5)
    upper = np.triu_indices(5, k=1)
    assert np.allclose(found.edges, (both + both.transpose(1, 2)).numpy()[:, upper[0], upper[1]], atol=1e-12)
    assert found.gap.max() < 1e-12


@pytest.mark.parametrize("steps", [32, 128])
def test_attributions_add_up_to_the_difference_of_the_log_odds(steps: int) -> None:
    model, fc = made(), networks(6)
    direction = torch.randn(8 * N, generator=torch.Generator().manual_seed(5))
    found = integrated_gradients(model, fc, fc.mean(0), direction, steps)
    with torch.no_grad():
        wanted = (model.features(fc) - model.features(fc.mean(0)[None])) @ direction
    assert np.allclose(found.difference, wanted.numpy(), atol=1e-4)
    assert found.gap.mean() < (0.02 if steps == 128 else 0.05) * np.abs(found.difference).mean()
    coarse = integrated_gradients(model, fc, fc.mean(0), direction, 2)
    assert coarse.gap.mean() > found.gap.mean()


def test_batches_do_not_change_the_attribution() -> None:
    model, fc = made(), networks(5)
    direction = torch.ones(8 * N)
    together = integrated_gradients(model, fc, fc[0], direction, 32).edges
    alone = np.concatenate([integrated_gradients(model, one[None], fc[0], direction, 32).edges for one in fc])
    assert np.allclose(together, alone, atol=1e-6)
    assert np.allclose(together[0], 0)  # the baseline itself


def test_path_points_integrate_polynomials() -> None:
    points, weights = path_points(8)
    assert weights.sum() == pytest.approx(1)
    for power in range(16):
        assert (points**power @ weights) == pytest.approx(1 / (power + 1))


@pytest.mark.parametrize("width", [6, 60])
def test_the_probe_is_the_evaluations(width: int) -> None:
    rng = np.random.default_rng(3)
    features = rng.standard_normal((40, width)) * rng.uniform(0.1, 5, width) + 3
    features[:, 0] = 1.0  # constant: no weight
    truth = (features[:, 1] + rng.standard_normal(40) > 3).astype(float)
    train = np.arange(40) % 4 > 0
    probe = fit_direction(features, truth, train)
    wanted = probe_scores(Probe(kind="logistic"), features, truth[None], train[None])[0]
    assert np.allclose(probe.log_odds(features), wanted, atol=1e-4)
    assert probe.weights[0] == 0


def test_region_sums_share_every_edge() -> None:
    edges = np.random.default_rng(4).standard_normal((3, 10))
    found = region_sums(edges, 5)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    for scan in range(3):
        for region in range(5):
            wanted = sum(edges[scan, e] for e, pair in enumerate(pairs) if region in pair) / 2
            assert found[scan, region] == pytest.approx(wanted)
    assert np.allclose(found.sum(1), edges.sum(1))


def test_effect_size_is_cohens_d() -> None:
    rng = np.random.default_rng(5)
    values, positive = rng.standard_normal((9, 4)), np.arange(9) < 4
    a, b = values[positive], values[~positive]
    pooled = np.sqrt((3 * a.var(0, ddof=1) + 4 * b.var(0, ddof=1)) / 7)
    assert np.allclose(effect_size(values, positive), (a.mean(0) - b.mean(0)) / pooled)
    assert np.isnan(effect_size(values, np.arange(9) < 1)).all()
    assert np.isnan(effect_size(np.ones((9, 2)), positive)).all()


def test_stability_counts_tops_ranks_and_overlaps() -> None:
    maps = np.array([[5.0, 4, 1, 0, 2], [5, 1, 4, 0, 2], [np.nan] * 5])
    found = stability(maps, top=2)
    assert found.folds == 2
    assert found.share.tolist() == [1, 0.5, 0.5, 0, 0]
    assert found.jaccard == pytest.approx(1 / 3)
    assert found.spearman == pytest.approx(spearmanr(maps[0], maps[1]).statistic)
    assert np.allclose(found.mean, maps[:2].mean(0)) and np.allclose(found.sd, maps[:2].std(0, ddof=1))
    swapped = np.array([maps[0], maps[1], maps[0], maps[1], maps[2]])  # the folds of two repeats: never across them
    twice = stability(swapped, 2, [0, 0, 1, 1, 1])
    assert (twice.folds, twice.jaccard, twice.spearman) == (4, found.jaccard, pytest.approx(found.spearman))
    alone: Any = stability(maps[:1], top=2)
    assert np.isnan([alone.spearman, alone.jaccard]).all() and np.isnan(alone.sd).all()
    none = stability(maps[2:], top=2)
    assert none.folds == 0 and np.isnan(none.mean).all()


def test_ranking_is_stable_and_puts_missing_values_last() -> None:
    assert ranking(np.array([1.0, np.nan, 3, 1])).tolist() == [2, 0, 3, 1]


def test_chance_overlap_equals_a_simulation() -> None:
    rng = np.random.default_rng(6)
    drawn = [[set(rng.permutation(20)[:5]) for _ in range(2)] for _ in range(4000)]
    assert chance_jaccard(20, 5) == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in drawn]), abs=0.006)
    assert chance_jaccard(4, 10) == 1
