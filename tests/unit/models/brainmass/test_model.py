"""The BrainMass module: published sizes, published features, any number of ROIs, gradients everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from boldmill.errors import ConfigError
from boldmill.models.brainmass.architecture import SIZES, Architecture, design
from boldmill.models.brainmass.encoder import Block, sinusoid
from boldmill.models.brainmass.losses import Weights, draw_masks, freeze_untrained, total
from boldmill.models.brainmass.model import BrainMass, clean_fc
from boldmill.train.optim import Recipe, adamw


def fc(batch: int, rois: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    series = rng.standard_normal((batch, 60, rois)) + rng.standard_normal((batch, 60, 1))
    return torch.stack([torch.from_numpy(np.corrcoef(one.T)).float() for one in series])


def small(rois: int = 20, **changes: object) -> BrainMass:
    torch.manual_seed(0)
    values = {**design("tiny", rois).as_dict(), **changes}
    return BrainMass(Architecture(**values))  # type: ignore[arg-type]


def count(module: torch.nn.Module, *, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


@pytest.mark.parametrize(
    ("size", "whole", "trained", "three"),
    [
        ("S", 14_411_468, 9_512_444, 15_461_068),
        ("B", 25_357_068, 15_191_068, 29_553_420),
        ("L", 67_007_372, 36_427_868, 83_788_684),
    ],
)
def test_published_parameter_totals(size: str, whole: int, trained: int, three: int) -> None:
    """What there is, what the optimiser holds, and what a reconstruction head of three layers makes of it."""
    with torch.device("meta"):
        model, deeper = BrainMass(design(size, 100)), BrainMass(design(size, 100, rec_layers=3))
    assert (count(model), count(model, trained=True), count(deeper)) == (whole, trained, three)
    held = adamw(model, Recipe(steps=1, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.0, warmup=0)).param_groups
    assert sum(p.numel() for group in held for p in group["params"]) == trained
    with torch.device("meta"):
        paper = BrainMass(design(size, 100, style="paper", estimator="ledoit_wolf"))
    assert (count(paper), count(paper, trained=True)) == (whole, trained)  # a preset of its own, whatever the size


@pytest.mark.parametrize(("size", "published"), [("S", 9_100_296), ("B", 14_367_272), ("L", 34_780_776)])
def test_the_published_optimiser_forgets_the_heads_and_so_does_the_legacy_switch(size: str, published: int) -> None:
    with torch.device("meta"):
        model = BrainMass(design(size, 100))
    freeze_untrained(model, Weights(1.0, 0.1, 2.0), legacy_frozen_heads=True)
    assert count(model, trained=True) == published


@pytest.mark.parametrize(("size", "known"), [("S", 15_923_033), ("B", 28_145_161), ("L", 74_511_209), ("tiny", None)])
def test_sizes_grow_with_rois_as_the_formula_says(size: str, known: int | None) -> None:
    """General count at width = N: 2 (L block + reduction + g) + predictor + 2 heads + extras; 3 heads divide 111."""
    row = SIZES[size]
    n, f, d = 111, row.ffn, row.latent
    h = 16 * n if row.hidden is None else row.hidden
    block = 4 * n * n + 9 * n + (2 * n + 1) * f
    encoder = row.depth * block + 8 * n + 8 + (8 * n + 3) * h + (h + 1) * d
    whole = 2 * encoder + 4 * d * d + 7 * d + 2 * ((2 * n + 1) * f + n) + 5 * n
    arch = Architecture(rois=n, width=n, depth=row.depth, heads=3, ffn=f, latent=d, hidden=h)
    with torch.device("meta"):
        model = BrainMass(arch)
    assert count(model) == whole == (known or whole)


@pytest.mark.parametrize("size", ["tiny", "S", "B", "L"])
def test_any_number_of_rois(size: str) -> None:
    """Where the heads do not divide N, a learned projection to the published width keeps them."""
    arch = design(size, 111)
    assert (arch.width, arch.heads, arch.features) == (100, design(size, 100).heads, 888)
    assert design(size, 100).width == 100 and design(size, 120).width == 120  # no projection
    with torch.device("meta"):
        model = BrainMass(arch)
    assert tuple(model.online.embed.weight.shape) == (100, 111) and model.head_rec[-1].out_features == 111


def test_projection_reaches_features_and_reconstructs_whole_rows() -> None:
    model = small(rois=23).eval()
    assert model.arch.width == 100
    x = fc(2, 23)
    masked = torch.tensor([[1, 4], [0, 22]])
    predicted, truth = model.masked_predictions(x, masked, model.head_rec)
    assert model.features(x).shape == (2, 184) and predicted.shape == truth.shape == (2, 2, 23)
    torch.testing.assert_close(truth[1, 1], x[1, 22])


def test_heads_that_do_not_divide_the_width_are_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match=r"leave 1 of 111 .*use 115"):
        design("S", 111, width=111)


def test_block_equals_torch_transformer_layer() -> None:
    torch.manual_seed(1)
    ours = Block(20, 5, 32, 0.1).eval()
    theirs = torch.nn.TransformerEncoderLayer(20, 5, 32, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.qkv.weight, "self_attn.in_proj_bias": ours.qkv.bias,
            "self_attn.out_proj.weight": ours.out.weight, "self_attn.out_proj.bias": ours.out.bias,
            "linear1.weight": ours.up.weight, "linear1.bias": ours.up.bias,
            "linear2.weight": ours.down.weight, "linear2.bias": ours.down.bias,
            "norm1.weight": ours.norm1.weight, "norm1.bias": ours.norm1.bias,
            "norm2.weight": ours.norm2.weight, "norm2.bias": ours.norm2.bias,
        }
    )  # fmt: skip
    x = torch.randn(3, 7, 20)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=0)


def test_positions_closed_form() -> None:
    table = sinusoid(5, 7).double().numpy()
    for p in range(5):
        for i in range(7):
            angle = p / 10000 ** (2 * (i // 2) / 7)
            assert table[p, i] == pytest.approx(np.cos(angle) if i % 2 else np.sin(angle), abs=1e-6)


HEADS = ("head_clf", "head_rec", "mask_vector", "cls_token", "dist_token")
ALIGNED = ("predictor", "online.project", "online.reduce")
OPTIONS: dict[str, tuple[dict[str, Any], tuple[float, float, float], bool, tuple[str, ...]]] = {
    # name: architecture, weights (lra, clf, rec), legacy, what must not train beside the target and the unused norm
    "uniform": ({}, (1.0, 0.1, 2.0), False, ()),
    "paper": ({"style": "paper"}, (1.0, 0.1, 2.0), False, ()),
    "projection": ({"rois": 23, "width": 100}, (1.0, 0.1, 2.0), False, ()),
    "columns": ({"mask_columns": True}, (1.0, 0.1, 2.0), False, ()),
    "three layers": ({"rec_layers": 3}, (1.0, 0.1, 2.0), False, ()),
    "no alignment": ({}, (0.0, 0.1, 2.0), False, ALIGNED),
    "no InfoNCE": ({}, (1.0, 0.0, 2.0), False, ("head_clf",)),
    "no reconstruction": ({}, (1.0, 0.1, 0.0), False, ("head_rec",)),
    "alignment alone": ({}, (1.0, 0.0, 0.0), False, HEADS[:3]),
    "alignment alone, paper": ({"style": "paper"}, (1.0, 0.0, 0.0), False, HEADS),
    "legacy": ({}, (1.0, 0.1, 2.0), True, HEADS),
    "legacy, paper": ({"style": "paper"}, (1.0, 0.1, 2.0), True, HEADS),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_gradient_reaches_everything_that_trains_and_nothing_else(option: str) -> None:
    changes, numbers, legacy, frozen = OPTIONS[option]
    model = small(**changes).train()
    weights, n = Weights(*numbers), model.arch.rois
    freeze_untrained(model, weights, legacy_frozen_heads=legacy)
    masks = [torch.from_numpy(draw_masks(["a", "b", "c"], p, 0, 7, n, 3)) for p in ("clf", "rec")]
    total(model, (fc(3, n, 1), fc(3, n, 2)), masks[0], masks[1], weights)["loss"].backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("target.", "unused_norm.", *frozen)):
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def test_a_term_without_weight_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = small().train(), []
    encode = model.encode_all
    monkeypatch.setattr(model, "encode_all", lambda given, **how: passes.extend(given) or encode(given, **how))
    masks = [torch.tensor([[1, 2]] * 3)] * 2
    views = (fc(3, 20, 1), fc(3, 20, 2))
    for numbers, terms, count in (
        ((1.0, 0.1, 2.0), {"lra", "clf", "rec"}, 6),
        ((0.0, 0.1, 2.0), {"clf", "rec"}, 2),
        ((1.0, 0.0, 0.0), {"lra"}, 4),
        ((0.0, 0.0, 2.0), {"rec"}, 1),
    ):
        passes.clear()
        parts = total(model, views, masks[0], masks[1], Weights(*numbers))
        assert set(parts) == {"loss", *terms} and len(passes) == count
        weights = dict(zip(("lra", "clf", "rec"), numbers, strict=True))
        torch.testing.assert_close(parts["loss"], sum(weights[name] * parts[name] for name in terms))


def test_uniform_style_sees_order_and_paper_style_does_not() -> None:
    """Features of the published forward permute with the ROIs; with positions in every pass they do not."""
    x = fc(1, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    for style, equal in (("paper", True), ("uniform", False)):
        model = small(style=style).eval()
        plain, moved = model.encode(x)[0], model.encode(x[:, order])[0]
        assert torch.allclose(plain[order], moved, atol=1e-5) == equal


@pytest.mark.parametrize("style", ["uniform", "paper"])
@pytest.mark.parametrize("columns", [False, True])
def test_masks_hide_exactly_what_they_should(style: str, columns: bool) -> None:
    """Changing a masked row, or a masked column of a visible row, or a visible value: what the encoding sees."""
    model = small(style=style, mask_columns=columns).eval()
    x, masked = fc(1, 20), torch.tensor([[2, 5]])
    base = model.encode(x, masked=masked)
    for row, column, hidden in (
        (2, 7, True),
        (2, 2, True),
        (2, 5, True),
        (3, 5, columns),
        (3, 3, False),
        (3, 7, False),
    ):
        changed = x.clone()
        changed[0, row, column] += 1
        same = torch.equal(base, model.encode(changed, masked=masked))
        assert same == hidden, (row, column)
    _, truth = model.masked_predictions(x, masked, model.head_rec)
    assert torch.equal(truth[0], x[0, [2, 5]]) and not truth.requires_grad  # the target is the whole unmasked row
    both = model.masked_predictions(fc(3, 20), torch.tensor([[2, 5], [0, 1], [7, 19]]), model.head_rec)[0]
    alone = model.masked_predictions(fc(3, 20)[1:2], torch.tensor([[0, 1]]), model.head_rec)[0]
    torch.testing.assert_close(both[1], alone[0], atol=1e-6, rtol=0)  # whoever else is in the batch


def test_target_is_the_exponential_mean_of_all_online_states() -> None:
    """t_k = m^k t_0 + (1 - m) sum_j m^(k-j) o_j, in closed form over five steps; buffers of both stay their own."""
    model, m = small().train(), 0.75
    first = {name: p.detach().double() for name, p in model.target.named_parameters()}
    states = []
    for step in range(5):
        with torch.no_grad():
            for parameter in model.online.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        states.append({name: p.detach().double() for name, p in model.online.named_parameters()})
        model.update_target(m)
    for name, parameter in model.target.named_parameters():
        mean = m**5 * first[name] + (1 - m) * sum(m ** (4 - j) * state[name] for j, state in enumerate(states))
        torch.testing.assert_close(parameter.double(), mean, atol=1e-5, rtol=0)
    before = {name: value.clone() for name, value in model.target.named_buffers()}
    model.project(fc(4, 20))  # moves the running statistics of the online network alone
    model.update_target(m)
    assert all(torch.equal(value, before[name]) for name, value in model.target.named_buffers())
    assert not torch.equal(model.online.project[1].running_mean, model.target.project[1].running_mean)
    model.target_project(*model.target_readouts(fc(4, 20)))  # in train mode the target keeps statistics of its own
    assert float((model.target.project[1].running_mean - before["project.1.running_mean"]).abs().sum()) > 0


def test_features_take_raw_fc() -> None:
    """NaN parcels and any diagonal give what the cleaned matrix gives."""
    model = small().eval()
    raw = fc(2, 20)
    raw[0, 3, :] = raw[0, :, 3] = float("nan")
    assert torch.equal(model.features(raw), model.features(clean_fc(raw)))
    assert torch.isfinite(model.features(raw)).all() and float(clean_fc(raw)[0, 3].sum()) == 1.0
