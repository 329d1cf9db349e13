"""Networks as fits: reproducible, blind to the test fold, able to learn, and leaving the given model alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from boldmill.evaluate.deep import NetworkFit, carve, one_group, train_network
from boldmill.evaluate.finetune import EncoderClassifier, PublishedHead, classifier, layered
from boldmill.evaluate.methods_config import Budget, FinetuneConfig, MlpConfig
from boldmill.evaluate.networks import BrainNetCnn, CrossConvolution, Matrices, Perceptron, as_they_are, scaled
from boldmill.evaluate.packed import facts, pack
from boldmill.models.brainmass.architecture import Architecture
from boldmill.models.brainmass.model import BrainMass
from boldmill.represent.fc import unvectorise

N, PARCELS = 48, 10
EDGES = PARCELS * (PARCELS - 1) // 2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return BrainMass(Architecture(rois=PARCELS, width=PARCELS, depth=2, heads=2, ffn=32, latent=16, hidden=32)).eval()


@pytest.fixture
def problem():
    """Packed FC edges (48, 3 + 45) with a strong effect, labels, values, and a training fold."""
    rng = np.random.default_rng(3)
    label = (np.arange(N) % 2).astype(float)
    edges = rng.uniform(-0.3, 0.3, (N, EDGES))
    edges[:, :15] += 0.35 * label[:, None]
    edges[4, 9:17] = np.nan
    about = facts([f"p{i // 2}" for i in range(N)], ["s"] * N, np.zeros((N, 0)))
    value = 10 + 4 * label + 0.2 * rng.standard_normal(N)
    return pack(about, edges), label, value, (np.arange(N) < 36)[None]


def fit_of(kind, build, budget, groups=one_group, prepare=as_they_are):
    return NetworkFit(build=build, groups=groups, prepare=prepare, kind=kind, budget=budget, covariates=0, key=("t", 7))


def fits(kind, model):
    quick = {"epochs": 25, "patience": 25, "batch": 12, "lr": 3e-3}
    return {
        "mlp": fit_of(kind, partial(Perceptron, EDGES, 16, 0.1), MlpConfig(**quick), prepare=scaled),
        "brainnetcnn": fit_of(kind, partial(BrainNetCnn, PARCELS, 4, 0.1), Budget(**quick)),
        "transformer": fit_of(
            kind, classifier(model, fresh=True, head="linear", kind=kind, dropout=0.1), Budget(**quick), layered
        ),
        "finetune": fit_of(
            kind, classifier(model, fresh=False, head="published", kind=kind, dropout=0.1), Budget(**quick), layered
        ),
    }


NAMES = ["mlp", "brainnetcnn", "transformer", "finetune"]


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_planted_effect_and_repeats_itself(name, model, problem):
    features, label, value, train = problem
    test = ~train[0]
    fit = fits("classification", model)[name]
    scores = fit(features, label[None], train)
    assert ((scores[0] > 0) == label)[test].mean() >= 0.8
    torch.manual_seed(99)
    state = torch.get_rng_state()
    both = fit(features, np.stack([1 - label, label]), np.concatenate([train, train]))
    assert both[1].tobytes() == scores[0].tobytes()  # whatever stands beside it
    assert torch.equal(torch.get_rng_state(), state)
    found = fits("regression", model)[name](features, value[None], train)[0]
    assert np.abs(found - value)[test].mean() < 0.75 * np.abs(value[train[0]].mean() - value)[test].mean()


@pytest.mark.parametrize("name", NAMES)
def test_the_test_fold_does_not_matter(name, model, problem):
    features, label, _, train = problem
    fit = fits("classification", model)[name]
    before = fit(features, label[None], train)[0]
    moved = features.copy()
    moved[40, 3:] += 0.4
    after = fit(moved, np.where(train, label, 1 - label), train)[0]
    rest = np.arange(N) != 40
    np.testing.assert_allclose(after[rest], before[rest], atol=1e-5)
    assert abs(after[40] - before[40]) > 1e-3
    moved = features.copy()
    moved[:36, 3:] = moved[35::-1, 3:]
    assert np.abs(fit(moved, label[None], train)[0] - before)[36:].max() > 1e-3


def test_fine_tuning_changes_a_copy_only(model, problem):
    features, label, _, train = problem
    before = {key: value.clone() for key, value in model.state_dict().items()}
    built = []

    def build():
        built.append(classifier(model, fresh=False, head="linear", kind="classification", dropout=0.0)())
        return built[-1]

    start = {key: value.clone() for key, value in build().model.state_dict().items()}
    for key, value in start.items():
        assert torch.equal(value, before[key]), key
    fit_of("classification", build, Budget(epochs=2, batch=12), layered)(features, label[None], train)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    after = built[-1].model.state_dict()
    trained = [key for key in after if key.startswith(("online.blocks", "online.reduce", "cls_token", "dist_token"))]
    assert len(trained) > 20
    for key in trained:
        if "qkv.bias" not in key:  # the bias of a key has no effect
            assert not torch.equal(after[key], before[key]), key


def test_from_random_weights_nothing_of_the_checkpoint_is_left(model):
    torch.manual_seed(5)
    network = classifier(model, fresh=True, head="linear", kind="classification", dropout=0.0)()
    assert isinstance(network, EncoderClassifier)
    for key, value in network.model.state_dict().items():
        if key.endswith(("qkv.weight", "up.weight", "down.weight")):
            assert not torch.equal(value, model.state_dict()[key])


def test_layer_decay(model):
    network = classifier(model, fresh=False, head="published", kind="classification", dropout=0.0)()
    groups = layered(network, FinetuneConfig(lr=1e-3, layer_decay=0.5))
    assert [group["lr"] for group in groups] == [1.25e-4, 2.5e-4, 5e-4, 1e-3]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    blocks = network.model.online.blocks
    assert any(p is blocks[1].qkv.weight for p in groups[2]["params"])
    assert any(p is network.model.cls_token for p in groups[0]["params"])


def test_the_published_head_has_its_layers():
    head = PublishedHead(800, 2, 0.3)
    shapes = [tuple(layer.weight.shape) for layer in head.layers if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(256, 800), (32, 256), (2, 32)]
    x = torch.randn(6, 800)
    head.eval()
    two = head.layers(x)
    target = torch.tensor([0, 1, 1, 0, 1, 0])
    ours = torch.nn.functional.binary_cross_entropy_with_logits(head(x)[:, 0], target.float())
    assert torch.allclose(ours, torch.nn.functional.cross_entropy(two, target), atol=1e-6)
    assert PublishedHead(800, 1, 0.3)(x).shape == (6, 1)


def test_the_best_pass_is_kept():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
    inputs, target = torch.randn(20, 3), torch.randn(20)
    learn, carved = np.arange(14), np.arange(14, 20)
    budget = Budget(epochs=40, patience=3, batch=7, lr=0.3, weight_decay=0)
    history = train_network(
        network, inputs, target, torch.ones(20), learn, carved,
        regression=True, budget=budget, groups=one_group(network, budget), key=("k",),
    )  # fmt: skip
    assert len(history) < 40 and len(history) == int(np.argmin(history)) + 4
    with torch.no_grad():
        assert float(((network(inputs[14:]) - target[14:]) ** 2).mean()) == pytest.approx(min(history), rel=1e-5)


def test_carving_keeps_groups_and_classes():
    group = np.repeat(np.arange(40), 2)
    label = (group % 4 == 0).astype(float)
    train = np.arange(80) < 72
    carved = carve(group, label, train, "classification", 0.2, ("k",))
    assert not (carved & ~train).any()
    assert not set(group[carved]) & set(group[train & ~carved])
    assert label[carved].sum() / 2 == round(0.2 * 9) and (carved.sum() - label[carved].sum()) / 2 == round(0.2 * 27)
    assert not carve(group, label, train, "classification", 0.0, ("k",)).any()
    few = np.zeros(80, dtype=bool)
    few[:8] = True  # one group of class 1
    assert not carve(group, label, few, "classification", 0.2, ("k",)).any()
    assert carve(group, label, few, "regression", 0.25, ("k",)).sum() == 2


def test_carving_never_leaves_one_class():
    group = np.repeat(np.arange(8), 2)
    label = np.zeros(16)
    label[[1, 3]] = 1.0  # the only positives are relatives of a negative first member
    train = np.ones(16, dtype=bool)
    found = [carve(group, label, train, "classification", 0.4, (draw,)) for draw in range(60)]
    assert any(carved.any() for carved in found) and any(not carved.any() for carved in found)
    assert all(len(np.unique(label[~carved])) == 2 for carved in found)


@pytest.mark.parametrize("count", [3, 7])
def test_a_small_batch_is_never_a_single_scan(model, problem, count):
    features, label, _, _ = problem
    train = (np.arange(N) < count)[None]
    build = classifier(model, fresh=True, head="linear", kind="classification", dropout=0.1)
    fit = fit_of("classification", build, Budget(epochs=1, batch=2), layered)
    assert np.isfinite(fit(features, label[None], train)).all()


def test_two_scans_of_training_are_enough_and_one_class_is_not(model, problem):
    features, label, _, _ = problem
    train = np.zeros((2, N), dtype=bool)
    train[0, :2], train[1, [0, 2]] = True, True
    for fit in fits("classification", model).values():
        scores = fit(features, np.stack([label, label]), train)
        assert np.isfinite(scores[0]).all() and np.isnan(scores[1]).all()


def test_matrices_are_those_of_the_package():
    edges = np.random.default_rng(0).uniform(-1, 1, (3, EDGES)).astype(np.float32)
    want = unvectorise(edges)
    np.testing.assert_array_equal(Matrices(PARCELS)(torch.from_numpy(edges)).numpy(), want)
    edges[1, 4] = np.nan
    assert Matrices(PARCELS)(torch.from_numpy(edges))[1, 0, 5] == 0


def test_cross_convolution_is_the_sum_of_two_convolutions():
    layer, x = CrossConvolution(3, 5, 7), torch.randn(2, 3, 7, 7)
    weight = [part.weight.view(5, 3, 7) for part in (layer.row, layer.column)]
    rows = torch.nn.functional.conv2d(x, weight[0][:, :, None, :], layer.row.bias)  # (2, 5, 7, 1)
    columns = torch.nn.functional.conv2d(x, weight[1][:, :, :, None])  # (2, 5, 1, 7)
    assert torch.allclose(layer(x), rows + columns, atol=1e-5)
