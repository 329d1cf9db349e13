"""The fast path on a CPU against plain autograd: values, gradients, dropout, precision, threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boldmill.errors import MachineFault
from boldmill.models.brainmass import block_cpu, encoder, run_cpu
from boldmill.models.brainmass.architecture import Architecture, design
from boldmill.models.brainmass.dropout import Masks
from boldmill.models.brainmass.encoder import Block
from boldmill.models.brainmass.losses import Weights, draw_masks, total
from boldmill.models.brainmass.model import BrainMass
from boldmill.models.brainmass.run_cpu import PIECE, run_blocks


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def blocks(rate: float, *, heads: int = 5, width: int = 20, ffn: int = 300) -> nn.ModuleList:
    """Feed-forward columns do not come out even, and norms are not the identity."""
    torch.manual_seed(3)
    made = nn.ModuleList(Block(width, heads, ffn, rate) for _ in range(2))
    for name, parameter in made.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.normal_(parameter, float("norm" in name and "weight" in name), 0.3)
    return made


def fc(batch: int, rois: int, seed: int) -> Tensor:
    series = np.random.default_rng(seed).standard_normal((batch, 60, rois))
    return torch.stack([torch.from_numpy(np.corrcoef(one.T)).float() for one in series])


def gradients(found: Tensor, weight: Tensor, x: Tensor, module: nn.Module) -> dict[str, Tensor]:
    named = dict(module.named_parameters())
    grads = torch.autograd.grad((found * weight).sum(), [x, *named.values()])
    return dict(zip(["x", *named], grads, strict=True))


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], relative: float) -> None:
    for name, reference in theirs.items():
        scale = float(reference.abs().max())
        assert float((ours[name] - reference).abs().max()) <= relative * scale, name


def reference(x: Tensor, layers: nn.ModuleList, masks: Masks) -> Tensor:
    """One piece in plain autograd, masks taken in the order of the fast path."""
    for layer in layers:
        batch, length, width = x.shape
        heads, up = layer.heads, layer.up.out_features
        masks.fill(batch * length * (heads * length + 2 * width + up))

        def drop(shape: tuple[int, ...]) -> Tensor:
            return masks.keep(torch.empty(shape)).double() / (1 - masks.rate)

        q, k, v = layer.qkv(x).view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        soft = torch.softmax(q @ k.mT / math.sqrt(width // heads), -1)
        soft = soft * drop((batch * heads, length, length)).view(soft.shape)
        attended = layer.out((soft @ v).transpose(1, 2).reshape(x.shape))
        y = layer.norm1(x + attended * drop(tuple(x.shape)))
        hidden = F.relu(layer.up(y))
        step = block_cpu.COLUMNS
        keep = [drop((batch * length, min(step, up - at))) for at in range(0, up, step)]
        x = layer.norm2(y + layer.down(hidden * torch.cat(keep, 1).view(hidden.shape)) * drop(tuple(x.shape)))
    return x


def test_equals_the_plain_blocks(threads: int) -> None:
    layers = blocks(0.0)
    x = torch.randn(2 * PIECE + 1, 9, 20, requires_grad=True)
    weight = torch.randn(x.shape)
    plain = x
    for layer in layers:
        plain = layer(plain)
    fast = run_blocks(x, list(layers), "fp32")
    torch.testing.assert_close(fast, plain, atol=2e-6, rtol=0)
    close(gradients(fast, weight, x, layers), gradients(plain, weight, x, layers), 1e-5)


def test_dropout_equals_plain_autograd_with_the_same_masks(threads: int) -> None:
    layers = blocks(0.3)
    x = torch.randn(PIECE + 2, 9, 20, requires_grad=True)
    weight = torch.randn(x.shape)
    torch.manual_seed(11)
    seed = int(torch.randint(2**63 - 1, ()))
    torch.manual_seed(11)
    fast = run_blocks(x, list(layers), "fp32")
    exact, twin = x.detach().double().requires_grad_(), blocks(0.3).double()
    plain = torch.cat([reference(part, twin, Masks(0.3, seed, i)) for i, part in enumerate(exact.split(PIECE))])
    torch.testing.assert_close(fast.double(), plain, atol=1e-5, rtol=0)
    close(gradients(fast, weight, x, layers), gradients(plain, weight, exact, twin), 1e-5)


@pytest.mark.parametrize("heads", [5, 20])
def test_groups_of_scans_in_attention_change_nothing(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x = blocks(0.0, heads=heads), torch.randn(PIECE, 9, 20)
    whole = run_blocks(x, list(layers), "fp32")
    monkeypatch.setattr("boldmill.models.brainmass.attention_cpu.GROUP", 1)
    torch.testing.assert_close(run_blocks(x, list(layers), "fp32"), whole, atol=1e-6, rtol=0)


def test_total_loss_and_its_gradients_are_those_of_separate_plain_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All passes in one batch by hand, against one pass after another in plain autograd in float64; training mode."""
    arch = Architecture(**{**design("tiny", 23).as_dict(), "dropout": 0.0})
    masks = [torch.from_numpy(draw_masks(list("abcdefghijkl"), p, 0, 7, 23, 3)) for p in ("clf", "rec")]
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        model = BrainMass(arch).train().to(dtype)
        if dtype == torch.float64:
            monkeypatch.setattr(model, "encode_all", partial(_one_by_one, model))
        views = fc(12, 23, 1).to(dtype), fc(12, 23, 2).to(dtype)
        parts = total(model, views, masks[0], masks[1], Weights(1.0, 0.1, 2.0))
        parts["loss"].backward()
        grads = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
        found.append(({name: float(part.detach()) for name, part in parts.items()}, grads))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[1][1].items():  # batch statistics amplify rounding
        torch.testing.assert_close(found[0][1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def _one_by_one(model: BrainMass, passes: list[tuple[Tensor, Tensor | None]], **how: encoder.Encoder) -> list[Tensor]:
    return [BrainMass.encode_all(model, [one], **how)[0] for one in passes]


def test_same_seed_same_bytes_other_seed_other_masks(threads: int) -> None:
    layers, x = blocks(0.1), torch.randn(3 * PIECE, 9, 20)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return run_blocks(x, list(layers), "fp32")

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    same = torch.cat([x[:1]] * 2 * PIECE)  # no scan shares a mask with another one
    assert len({tuple(one.flatten().tolist()) for one in run_blocks(same, list(layers), "fp32")}) == len(same)


def test_any_number_of_threads_gives_the_same_output() -> None:
    layers, x, found = blocks(0.1), torch.randn(3 * PIECE, 9, 20), []
    before = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        torch.manual_seed(4)
        found.append(run_blocks(x, list(layers), "fp32"))
    torch.set_num_threads(before)
    assert torch.equal(*found)


def test_bf16_products_stay_close_and_keep_fp32_outside() -> None:
    layers = blocks(0.0)
    x = torch.randn(PIECE, 9, 20, requires_grad=True)
    weight = torch.randn(x.shape)
    full, half = (run_blocks(x, list(layers), precision) for precision in ("fp32", "bf16"))
    assert half.dtype == torch.float32 and not torch.equal(full, half)
    torch.testing.assert_close(half, full, atol=0.1, rtol=0)
    found = gradients(half, weight, x, layers)
    assert all(one.dtype == torch.float32 for one in found.values())
    for name, reference_ in gradients(full, weight, x, layers).items():
        cosine = F.cosine_similarity(found[name].flatten(), reference_.flatten(), dim=0)
        assert float(cosine) > 0.99, name


def test_evaluation_and_a_frozen_encoder_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(encoder, "run_blocks", lambda x, *_: called.append(1) or x)
    model = BrainMass(design("tiny", 20))
    model.eval().encode(fc(2, 20, 1))
    assert not called
    model.train().encode(fc(2, 20, 1))
    assert called


def test_compiled_blocks_are_the_plain_ones_and_a_failing_compiler_is_named() -> None:
    from torch._dynamo.exc import TorchDynamoException

    arch = Architecture(**{**design("tiny", 20).as_dict(), "dropout": 0.0})
    network, x = encoder.Encoder(arch).double().train(), torch.randn(3, 20, 20, dtype=torch.float64)
    plain = network.run(x)
    network.compiled = torch.compile(Block.forward, backend="eager")
    torch.testing.assert_close(network.run(x), plain)

    def fails(block: Block, tokens: Tensor) -> Tensor:
        raise TorchDynamoException("no compiler")

    network.compiled = fails
    with pytest.raises(MachineFault, match=r"no compiler.*compile: false"):
        network.run(x)
    network.eval().run(x)  # evaluation never compiles


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.25, 0.001])
def test_masks_are_independent_draws_of_the_exact_rate(rate: float) -> None:
    n, rounds = 40_000, 20
    masks, dropped = Masks(rate, 1, 2), []
    for _ in range(rounds):
        masks.fill(n)
        dropped.append(1 - masks.keep(torch.empty(n // 4, 4)).flatten())
    drawn = torch.stack(dropped).double()

    def within(share: float, expected: float, draws: int) -> None:
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / draws)

    within(float(drawn.mean()), rate, n * rounds)
    for lag in (1, 4, 8):
        within(float((drawn[:, lag:] * drawn[:, :-lag]).mean()), rate**2, (n - lag) * rounds)
    within(float((drawn[1:] * drawn[:-1]).mean()), rate**2, n * (rounds - 1))
    for place in range(8):  # every byte of a word
        within(float(drawn[:, place::8].mean()), rate, n * rounds // 8)


def test_the_sparse_part_of_the_masks_is_a_bernoulli_process() -> None:
    masks = Masks(0.1, 5)
    assert masks.level == 25 and masks.level / 256 + (1 - masks.level / 256) * masks.rest == pytest.approx(0.1)
    masks.rest = 0.02
    hits = np.zeros(500)
    for _ in range(2000):
        hits[masks._sparse(500)] += 1
    assert abs(hits.mean() / 2000 - 0.02) < 5 * math.sqrt(0.02 * 0.98 / 1e6)
    assert abs(hits[[0, -1]] - 40).max() < 5 * math.sqrt(40)  # the ends are hit as often as the middle


def test_failure_in_a_thread_is_raised_and_threads_are_restored() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def broken(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError):
        run_cpu._share(broken, 3, 2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
