"""Networks as fits: trained anew in every training fold, stopped by scans carved out of that fold.

Axes: B fits, N scans, n training scans, P features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.methods_config import Budget
from boldmill.evaluate.packed import unpack
from boldmill.rng import generator, key128

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Prepare = Callable[[Floats, Mask], Floats]
"""(features (N, P), training rows (N,)) -> what the network reads, (N, ...), fitted on training rows only."""

SCORED = 64
"""Scans per forward pass without gradient."""
MIN_UNITS = 4
"""Fewest subjects (or families) of a class, or in a regression, from which some are carved out."""
CLIP = 1.0
"""Largest norm of a gradient."""


@dataclass(frozen=True, kw_only=True)
class NetworkFit:
    """A fit (:data:`boldmill.evaluate.crossval.Fit`) that trains a network for each of its rows.

    Every draw (weights, order, dropout, carved-out scans) is keyed by the training rows and their labels: a fold gives
    the same numbers alone or among others.

    Parameters
    ----------
    build : callable
        () -> a new network, (batch, ...) -> scores (batch,); called with torch seeded for the fold.
    groups : callable
        (network, budget) -> parameter groups of AdamW, each with its ``lr``.
    prepare : callable
        What the network reads of the features.
    kind : str
        ``"classification"`` (balanced cross-entropy) or ``"regression"`` (squared error of the z-scored target).
    budget : Budget
        How long it is trained.
    covariates : int
        Columns of covariates in the packed features (:mod:`boldmill.evaluate.packed`).
    key : tuple
        What the draws belong to besides the fold: method, task, seed.
    device : str
        Torch device.
    """

    build: Callable[[], nn.Module]
    groups: Callable[[nn.Module, Budget], list[dict[str, Any]]]
    prepare: Prepare
    kind: str
    budget: Budget
    covariates: int
    key: tuple[str | int, ...]
    device: str = "cpu"

    def __call__(self, features: Floats, truth: Floats, train: Mask) -> Floats:
        """Score packed features (N, 3 + C + P) for labels (B, N) and training rows (B, N)."""
        import torch

        about, plain = unpack(features, self.covariates)
        out = np.full(truth.shape, np.nan)
        for fit, (labels, mask) in enumerate(zip(truth, train, strict=True)):
            known = np.where(mask, labels, 0.0)
            if mask.sum() < 2 or (self.kind == "classification" and np.unique(labels[mask]).size < 2):
                continue
            fold = key128(np.packbits(mask).tobytes().hex(), known.tobytes().hex())
            key = (*self.key, f"{fold:032x}")
            inputs = torch.from_numpy(self.prepare(plain, mask).astype(np.float32)).to(self.device)
            carved = carve(about.group, known, mask, self.kind, self.budget.validation, key)
            with torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []):
                out[fit] = self._one(inputs, known, mask & ~carved, carved, key)
        return out

    def _one(self, inputs: Tensor, labels: Floats, learn: Mask, carved: Mask, key: tuple[str | int, ...]) -> Floats:
        import torch

        from boldmill.train.device import seed_step

        seed_step(*key)
        network = self.build().to(self.device)
        centre, spread, weight = 0.0, 1.0, np.ones(len(labels))
        if self.kind == "regression":
            centre, spread = float(labels[learn].mean()), float(labels[learn].std()) or 1.0
        else:
            positive = labels[learn].mean()
            weight = np.where(labels > 0.5, 0.5 / positive, 0.5 / (1 - positive))
        target = torch.from_numpy(((labels - centre) / spread).astype(np.float32)).to(self.device)
        weights = torch.from_numpy(weight.astype(np.float32)).to(self.device)
        train_network(
            network,
            inputs,
            target,
            weights,
            np.flatnonzero(learn),
            np.flatnonzero(carved),
            regression=self.kind == "regression",
            budget=self.budget,
            groups=self.groups(network, self.budget),
            key=key,
        )
        return scores_of(network, inputs) * spread + centre


def train_network(
    network: nn.Module,
    inputs: Tensor,
    target: Tensor,
    weights: Tensor,
    learn: NDArray[np.int64],
    carved: NDArray[np.int64],
    *,
    regression: bool,
    budget: Budget,
    groups: list[dict[str, Any]],
    key: tuple[str | int, ...],
) -> list[float]:
    """Train in place and leave the weights of the pass with the lowest validation loss (the last one without carving).

    Parameters
    ----------
    inputs, target, weights : Tensor
        (N, ...), (N,) and (N,): what is read, the label, and the weight of its loss.
    learn, carved : int array
        Rows trained on, and rows that choose the pass.

    Returns
    -------
    list of float
        Validation loss of each pass; empty without carved-out rows.
    """
    import torch

    def loss_of(rows: Any) -> Tensor:
        scores = network(inputs[rows])
        if regression:
            losses = (scores - target[rows]) ** 2
        else:
            losses = torch.nn.functional.binary_cross_entropy_with_logits(scores, target[rows], reduction="none")
        mean: Tensor = (losses * weights[rows]).sum() / weights[rows].sum()
        return mean

    optimiser = torch.optim.AdamW(groups, weight_decay=budget.weight_decay)
    rates = [group["lr"] for group in optimiser.param_groups]
    parts = max(1, min(round(len(learn) / budget.batch), len(learn) // 2))  # batch norm cannot take a batch of one
    parameters = [p for group in groups for p in group["params"]]
    best, waited, history = float("inf"), 0, []
    kept: dict[str, Tensor] = {}
    for epoch in range(budget.epochs):
        network.train()
        order = learn[generator(*key, "order", epoch).permutation(len(learn))]
        for place, rows in enumerate(np.array_split(order, parts)):
            if epoch == 0:  # the first pass warms up
                for group, rate in zip(optimiser.param_groups, rates, strict=True):
                    group["lr"] = rate * (place + 1) / parts
            optimiser.zero_grad(set_to_none=True)
            loss_of(torch.from_numpy(rows).to(inputs.device)).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
        if not len(carved):
            continue
        network.eval()
        with torch.no_grad():
            pieces = np.array_split(carved, -(-len(carved) // SCORED))
            total = sum(
                float(loss_of(torch.from_numpy(rows).to(inputs.device)))
                * float(weights[torch.from_numpy(rows).to(inputs.device)].sum())
                for rows in pieces
            )
            history.append(total / float(weights[torch.from_numpy(carved).to(inputs.device)].sum()))
        if history[-1] < best:
            best, waited = history[-1], 0
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        else:
            waited += 1
            if waited >= budget.patience:
                break
    if kept:
        network.load_state_dict(kept)
    return history


def scores_of(network: nn.Module, inputs: Tensor) -> Floats:
    """Return the scores (N,) of a network in evaluation mode."""
    import torch

    network.eval()
    with torch.no_grad():
        parts = [network(part).float().cpu().numpy() for part in torch.split(inputs, SCORED)]
    return np.concatenate(parts).astype(np.float64)


def carve(
    group: NDArray[np.int64], labels: Floats, train: Mask, kind: str, share: float, key: tuple[str | int, ...]
) -> Mask:
    """Return the training rows (N,) that choose the pass: whole groups, the same share of each class.

    None are carved out where a class (or a regression) has fewer than :data:`MIN_UNITS` groups, or where the rest would
    be of one class: the network is then trained for all its passes.
    """
    carved = np.zeros(len(train), dtype=bool)
    if share == 0:
        return carved
    names, first = np.unique(group[train], return_index=True)
    label = labels[train][first] > 0.5 if kind == "classification" else np.zeros(len(names), dtype=bool)
    order = generator(*key, "carve").permutation(len(names))
    picked: list[int] = []
    for value in np.unique(label):
        own = [int(names[i]) for i in order if label[i] == value]
        if len(own) < MIN_UNITS:
            return carved
        picked += own[: max(1, round(share * len(own)))]
    found = np.asarray(train & np.isin(group, picked))
    left = labels[train & ~found] > 0.5
    return carved if kind == "classification" and left.all() | (~left).all() else found


def one_group(network: nn.Module, budget: Budget) -> list[dict[str, Any]]:
    """Return all parameters as one group."""
    return [{"params": [p for p in network.parameters() if p.requires_grad], "lr": budget.lr}]
