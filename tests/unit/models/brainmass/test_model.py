"""The BrainMass module: published sizes, published features, any number of ROIs, gradients everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from boldmill.errors import ConfigError
from boldmill.models.brainmass.architecture import Architecture, design
from boldmill.models.brainmass.encoder import Block, sinusoid
from boldmill.models.brainmass.losses import Weights, draw_masks, total
from boldmill.models.brainmass.model import BrainMass, clean_fc
from boldmill.models.brainmass.official import rename


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
    ("preset", "whole", "trained"),
    [("S", 14_411_468, 9_512_444), ("B", 25_357_068, 15_191_068), ("L", 67_007_372, 36_427_868)],
)
def test_published_parameter_totals(preset: str, whole: int, trained: int) -> None:
    with torch.device("meta"):
        model = BrainMass(design(preset, 100))
    assert (count(model), count(model, trained=True)) == (whole, trained)


def test_sizes_grow_with_rois_as_the_formula_says() -> None:
    """General count at width = N: 2 (L block + reduction + g) + predictor + 2 heads + extras; 37 heads divide 111."""
    n, f, depth = 111, 1024, 8
    block = 4 * n * n + 9 * n + (2 * n + 1) * f
    encoder = depth * block + 8 * n + 8 + 128 * n * n + 16_432 * n + 1024
    whole = 2 * encoder + 4_201_472 + 2 * ((2 * n + 1) * f + n) + 5 * n
    arch = Architecture(rois=n, width=n, depth=depth, heads=3, ffn=f, latent=1024, hidden=16 * n)
    with torch.device("meta"):
        model = BrainMass(arch)
    assert count(model) == whole == 15_923_033


@pytest.mark.parametrize("preset", ["tiny", "S", "B", "L"])
def test_any_number_of_rois(preset: str) -> None:
    arch = design(preset, 111)
    assert arch.width % arch.heads == 0 and arch.width >= 111 and arch.features == 888
    assert design(preset, 100).width == 100  # as published: no projection


def test_projection_reaches_features_and_reconstructs_whole_rows() -> None:
    model = small(rois=23).eval()
    assert model.arch.width == 25
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


def test_gradient_reaches_everything_that_trains_and_nothing_else() -> None:
    model = small().train()
    masks = [torch.from_numpy(draw_masks(["a", "b", "c"], p, 0, 7, 20, 3)) for p in ("clf", "rec")]
    losses = total(model, (fc(3, 20, 1), fc(3, 20, 2)), masks[0], masks[1], Weights(0.1, 2.0))
    losses["loss"].backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("target.", "unused_norm.")):
            assert parameter.grad is None and not parameter.requires_grad
        else:
            assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def test_uniform_style_sees_order_and_paper_style_does_not() -> None:
    """Features of the published forward permute with the ROIs; with positions in every pass they do not."""
    x = fc(1, 20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    for style, equal in (("paper", True), ("uniform", False)):
        model = small(style=style).eval()
        plain, moved = model.encode(x)[0], model.encode(x[:, order])[0]
        assert torch.allclose(plain[order], moved, atol=1e-5) == equal


def test_masked_rows_are_hidden_and_others_are_not() -> None:
    """What stands in a masked row cannot change the encoding; what stands in another row does."""
    model = small().eval()
    x, masked = fc(1, 20), torch.tensor([[2, 5]])
    base = model.encode(x, masked=masked)
    for row, same in ((2, True), (3, False)):
        changed = x.clone()
        changed[0, row] += 1
        assert torch.equal(base, model.encode(changed, masked=masked)) == same


def test_target_follows_online_by_the_momentum() -> None:
    model = small()
    before = {name: p.clone() for name, p in model.target.named_parameters()}
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter.add_(1.0)
    model.update_target(0.75)
    for name, parameter in model.target.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.25)


def test_features_take_raw_fc() -> None:
    """NaN parcels and any diagonal give what the cleaned matrix gives."""
    model = small().eval()
    raw = fc(2, 20)
    raw[0, 3, :] = raw[0, :, 3] = float("nan")
    assert torch.equal(model.features(raw), model.features(clean_fc(raw)))
    assert torch.isfinite(model.features(raw)).all() and float(clean_fc(raw)[0, 3].sum()) == 1.0


@pytest.mark.data
def test_published_features(golden: Callable[[str], Path]) -> None:
    """Weights and FC of the official code give its 800-d features and its projection to 1e-5."""
    z = np.load(golden("brainmass_official_depth2.npz"), allow_pickle=False)
    arch = Architecture(rois=100, width=100, depth=2, heads=5, ffn=256, latent=1024, hidden=1600, style="paper")
    model = BrainMass(arch).eval()
    assert count(model) == int(z["meta"][3])
    state = rename({name[3:]: torch.from_numpy(z[name]).to(torch.float32) for name in z.files if name[:3] == "sd/"})
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"target", "predictor", "unused_norm"}
    with torch.no_grad():
        features = model.features(torch.from_numpy(z["fc"]))
        projection = model.online.project(features)
    np.testing.assert_allclose(features, z["features_800"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(projection, z["projection_1024"], atol=1e-5, rtol=0)
