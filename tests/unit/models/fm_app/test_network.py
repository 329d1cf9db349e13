from __future__ import annotations

import pytest
import torch

from boldmill.models.fm_app.active_map import PhenotypeMap, sinkhorn
from boldmill.models.fm_app.architecture import Architecture
from boldmill.models.fm_app.encoder import T1Adapter, column_scale
from boldmill.models.fm_app.losses import masked_mse, transfer_loss
from boldmill.models.fm_app.network import FmApp, fisher_rows


def small(mode="softmax", k=3, legacy=False):
    torch.manual_seed(0)
    names = tuple("abcdefg"[:k])
    arch = Architecture.of("tiny", rois=10, features=9, text=16, seen=names, map=mode, legacy=legacy)
    network = FmApp(arch).eval()
    network.text.copy_(torch.nn.functional.normalize(torch.randn(k, 16), dim=1))
    return network


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("k", "total"), [(28, 11_305_474), (24, 11_301_378)])
def test_published_parameter_counts(k, total):
    names = tuple(map(str, range(k)))
    with torch.device("meta"):
        network = FmApp(Architecture(rois=333, features=9, seen=names, map="sinkhorn", legacy=True))
    assert count(network.encoder_fmri) == 11_014_656
    assert count(network.encoder_fmri) + count(network.map) + count(network.heads) == total
    assert count(network.adapter) + count(network.encoder_t1w) == 11_018_652


def test_legacy_network_runs():
    network = small("sinkhorn", legacy=True).train()
    out = network.seen(network.roi_fmri(torch.rand(4, 10, 10)))
    assert out.shape == (4, 3)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("mode", ["softmax", "sinkhorn"])
def test_columns_of_the_map_sum_to_one(mode):
    torch.manual_seed(1)
    layer = PhenotypeMap(8, 16, mode)
    active = layer(torch.randn(5, 12, 8), torch.randn(4, 16))
    torch.testing.assert_close(active.sum(dim=1), torch.ones(5, 4))
    rows = active.sum(dim=2)
    if mode == "sinkhorn":
        torch.testing.assert_close(rows, torch.full((5, 12), 4 / 12), atol=1e-4, rtol=0)
    else:
        assert (rows - 4 / 12).abs().max() > 0.01


def test_sinkhorn_stops_early_and_agrees_with_many_rounds():
    torch.manual_seed(0)
    logits = torch.randn(2, 333, 28, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(logits), sinkhorn(logits, tolerance=0.0), atol=1e-6, rtol=1e-4)


def test_text_half_has_no_variance_over_subjects():
    network = small()
    pooled, _ = network.pool(network.roi_fmri(torch.rand(6, 10, 10)), network.text)
    text_part = torch.einsum("bke,ke->bk", pooled[..., 48:], network.heads.weight[:, 48:])
    image_part = torch.einsum("bke,ke->bk", pooled[..., :48], network.heads.weight[:, :48])
    assert text_part.var(dim=0).max() == 0
    assert image_part.var(dim=0).min() > 0
    assert text_part.abs().max() > 0


@pytest.mark.parametrize("mode", ["softmax", "sinkhorn"])
def test_zero_shot_depends_on_the_text_and_on_nothing_else(mode):
    network = small(mode)
    fc = torch.rand(6, 10, 10)
    weight, text = torch.randn(48 + 16), torch.nn.functional.normalize(torch.randn(16), dim=0)
    with torch.no_grad():
        score = network.unseen(network.roi_fmri(fc), text, weight)
        other = network.unseen(network.roi_fmri(fc), torch.roll(text, 3), weight)
        alone = torch.cat([network.unseen(network.roi_fmri(fc[i : i + 1]), text, weight) for i in range(6)])
        network.text.copy_(network.text.flip(0))
        reordered = network.unseen(network.roi_fmri(fc), text, weight)
    image_changed = (score - score.mean()) - (other - other.mean())
    assert image_changed.abs().max() > 1e-4  # beyond the intercept
    torch.testing.assert_close(alone, score, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reordered, score, atol=1e-4, rtol=1e-4)


def test_seen_predictions_do_not_depend_on_the_other_phenotypes_with_softmax():
    network = small()
    roi = network.roi_fmri(torch.rand(4, 10, 10))
    whole = network.pool(roi, network.text)[0]
    torch.testing.assert_close(network.pool(roi, network.text[1:2])[0][:, 0], whole[:, 1])


def test_undefined_edges_are_the_training_mean():
    network = small()
    fc = torch.rand(5, 10, 10) * 0.5
    network.fit_fc(fc)
    hole = fc[:1].clone()
    hole[:, 2, :] = torch.nan
    filled = fc[:1].clone()
    filled[:, 2, :] = torch.tanh(network.fc_mean[2])
    torch.testing.assert_close(network.roi_fmri(hole), network.roi_fmri(filled), atol=1e-4, rtol=1e-4)
    assert torch.diagonal(fisher_rows(torch.ones(1, 4, 4)), dim1=1, dim2=2).abs().max() == 0


def test_adapter_uses_training_statistics():
    network = small()
    train = torch.randn(30, 10, 9) * 7 + 100
    train[0, 0, 0] = torch.nan
    adapter: T1Adapter = network.adapter
    adapter.fit(train)
    mean, sd = column_scale(train)
    torch.testing.assert_close(adapter.mean, mean)
    z = (train - mean) / sd
    plain = T1Adapter(network.arch)
    plain.load_state_dict({**adapter.state_dict(), "mean": torch.zeros(10, 9), "sd": torch.ones(10, 9)})
    torch.testing.assert_close(plain(torch.nan_to_num(z, nan=0.0)), adapter(train), atol=1e-5, rtol=1e-5)


def test_unknown_labels_give_no_loss_and_no_gradient():
    predicted = torch.zeros(2, 2, requires_grad=True)
    truth = torch.tensor([[1.0, torch.nan], [torch.nan, 3.0]])
    loss = masked_mse(predicted, truth)
    assert loss.item() == pytest.approx((1 + 9) / 2)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [[-1.0, 0.0], [0.0, -3.0]]
    assert masked_mse(predicted, torch.full((2, 2), torch.nan)).item() == 0


def test_transfer_loss_weighs_parcels_by_the_map():
    target, learner = torch.zeros(1, 4, 2), torch.zeros(1, 4, 2)
    learner[0, 1] = 1.0
    uniform = torch.full((1, 4, 3), 0.25)
    assert transfer_loss(target, learner).item() == pytest.approx(0.25)
    assert transfer_loss(target, learner, uniform).item() == pytest.approx(0.25)
    focused = torch.zeros(1, 4, 3)
    focused[0, 1] = 1.0
    assert transfer_loss(target, learner, focused).item() == pytest.approx(1.0)
    focused = torch.roll(focused, 1, dims=1)
    assert transfer_loss(target, learner, focused).item() == 0


def test_a_balanced_map_does_not_depend_on_its_batch():
    """Maps need different numbers of rounds; each stops by itself, so pieces of a batch train as the whole does."""
    from boldmill.models.fm_app.active_map import sinkhorn

    logits = torch.randn(6, 9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = logits * torch.tensor([0.01, 0.1, 1.0, 3.0, 5.0, 8.0], dtype=torch.float64)[:, None, None]
    whole = sinkhorn(logits)
    alone = torch.cat([sinkhorn(one[None]) for one in logits])
    torch.testing.assert_close(whole, alone, atol=1e-12, rtol=0)
