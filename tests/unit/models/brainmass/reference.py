"""BrainMass's total loss in plain loops and float64, written from its description: no code of the module is used.

Axes: N ROIs, C token width, S sequence, M masked ROIs, F features, D latent. One sample at a time, but for BatchNorm.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Reference:
    """The loss of a state dict; dropout is off, BatchNorm takes the statistics of the batch."""

    def __init__(self, state: dict[str, Any], *, heads: int, depth: int, style: str, mask_columns: bool) -> None:
        self.w = {name: value.double().numpy() for name, value in state.items()}
        self.heads, self.depth, self.style, self.mask_columns = heads, depth, style, mask_columns

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name: str, x: Array) -> Array:
        out = np.empty_like(x)
        for i, row in enumerate(x):
            centred = row - row.mean()
            out[i] = centred / math.sqrt((centred**2).mean() + 1e-5)
        return out * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attend(self, name: str, x: Array) -> Array:
        """Scaled dot-product attention, one head and one query at a time, (S, C) -> (S, C)."""
        q, k, v = np.split(self.linear(f"{name}.qkv", x), 3, axis=1)
        width = x.shape[1] // self.heads
        mixed = np.empty_like(x)
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            for i in range(len(x)):
                scores = np.array([q[i, part] @ k[j, part] / math.sqrt(width) for j in range(len(x))])
                weights = np.exp(scores - scores.max())
                mixed[i, part] = (weights / weights.sum()) @ v[:, part]
        return self.linear(f"{name}.out", mixed)

    def blocks(self, network: str, x: Array) -> Array:
        for number in range(self.depth):
            name = f"{network}.blocks.{number}"
            x = self.norm(f"{name}.norm1", x + self.attend(name, x))
            x = self.norm(f"{name}.norm2", x + self.linear(f"{name}.down", np.maximum(self.linear(f"{name}.up", x), 0)))
        return x

    def tokens(self, network: str, fc: Array) -> Array:
        return self.linear(f"{network}.embed", fc) if f"{network}.embed.weight" in self.w else fc.copy()

    def with_extras(self, x: Array) -> Array:
        """Prepend cls and dist, add sines at even and cosines at odd channels."""
        x = np.concatenate([self.w["cls_token"][0], self.w["dist_token"][0], x])
        for p in range(x.shape[0]):
            for c in range(x.shape[1]):
                angle = p / 10000 ** (2 * (c // 2) / x.shape[1])
                x[p, c] += math.cos(angle) if c % 2 else math.sin(angle)
        return x

    def plain(self, network: str, fc: Array) -> Array:
        """An unmasked pass of one sample, (N, N) -> (F,)."""
        x = self.tokens(network, fc)
        encoded = self.blocks(network, x) if self.style == "paper" else self.blocks(network, self.with_extras(x))[2:]
        reduced = self.linear(f"{network}.reduce", encoded)
        return np.where(reduced > 0, reduced, 0.01 * reduced).reshape(-1)

    def mlp(self, name: str, x: Array) -> Array:
        """Linear, BatchNorm over the batch, ReLU, linear: (B, F) -> (B, D)."""
        x = self.linear(f"{name}.0", x)
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * self.w[f"{name}.1.weight"] + self.w[f"{name}.1.bias"]
        return self.linear(f"{name}.3", np.maximum(x, 0))

    def latent(self, network: str, view: Array) -> Array:
        return self.mlp(f"{network}.project", np.stack([self.plain(network, one) for one in view]))

    def head(self, name: str, x: Array) -> Array:
        layers = sorted({int(key.split(".")[1]) for key in self.w if key.startswith(f"{name}.")})
        for layer in layers:
            x = self.linear(f"{name}.{layer}", x if layer == 0 else np.where(x > 0, x, 0.01 * x))
        return x

    def masked(self, fc: Array, masked: list[int], head: str) -> tuple[Array, Array]:
        """Predicted and true rows of the masked ROIs of one sample, (M, N) each."""
        seen = fc.copy()
        if self.mask_columns:
            for row in range(len(fc)):
                for column in masked:
                    seen[row, column] = 0.0
        x = self.tokens("online", seen)
        for row in masked:
            x[row] = self.w["mask_vector"][0, 0]
        encoded = self.blocks("online", self.with_extras(x))[2:]
        return self.head(head, encoded[masked]), fc[masked]

    def total(self, views: tuple[Array, Array], clf: Any, rec: Any, weights: tuple[float, float, float]) -> Any:
        """Return loss, lra, clf, rec."""
        online = [self.mlp("predictor", self.latent("online", view)) for view in views]
        target = [self.latent("target", view) for view in views]
        batch = len(views[0])
        lra = nce = mse = 0.0
        for b in range(batch):
            for one, other in ((0, 1), (1, 0)):
                p, z = online[one][b], target[other][b]
                lra += (2 - 2 * (p @ z) / math.sqrt(p @ p) / math.sqrt(z @ z)) / batch
            c, x = self.masked(views[0][b], list(clf[b]), "head_clf")
            for i in range(len(x)):
                scores = [x[i] @ c[j] for j in range(len(x))]
                nce -= (scores[i] - math.log(sum(math.exp(s) for s in scores))) / (batch * len(x))
            r, x = self.masked(views[0][b], list(rec[b]), "head_rec")
            for i in range(len(x)):
                for k in range(x.shape[1]):
                    mse += (r[i, k] - x[i, k]) ** 2 / (batch * x.size)
        return weights[0] * lra + weights[1] * nce + weights[2] * mse, lra, nce, mse
