"""Networks that are trained from scratch in the training fold: a perceptron and a BrainNetCNN.

Axes: B batch, D features, E edges, P parcels, C channels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boldmill.evaluate.probes import design

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Perceptron(nn.Module):
    """One hidden layer with ReLU and dropout: (B, D) -> (B,)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return one score per row."""
        y: Tensor = self.layers(x)[:, 0]
        return y


class Matrices(nn.Module):
    """Upper triangles (B, E) to matrices (B, P, P) with diagonal 1; an edge without data is 0."""

    def __init__(self, parcels: int) -> None:
        super().__init__()
        rows, cols = np.triu_indices(parcels, k=1)
        place = np.full((parcels, parcels), len(rows), dtype=np.int64)
        place[rows, cols] = place[cols, rows] = np.arange(len(rows))
        self.place: Tensor
        self.register_buffer("place", torch.from_numpy(place), persistent=False)

    def forward(self, edges: Tensor) -> Tensor:
        """Return the matrices."""
        filled = torch.nan_to_num(edges, nan=0.0)
        return torch.cat([filled, filled.new_ones(len(filled), 1)], dim=1)[:, self.place]


class CrossConvolution(nn.Module):
    """Edge-to-edge layer: each edge becomes a weighted sum of the edges of both its nodes (Kawahara 2017, eq. 1).

    (B, C, P, P) -> (B, C', P, P). The two one-dimensional convolutions are matrix products over a row or a column.
    """

    def __init__(self, channels: int, out: int, parcels: int) -> None:
        super().__init__()
        self.row = nn.Linear(channels * parcels, out)
        self.column = nn.Linear(channels * parcels, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new edges."""
        of_rows = self.row(x.transpose(1, 2).flatten(2)).transpose(1, 2)
        of_columns = self.column(x.permute(0, 3, 1, 2).flatten(2)).transpose(1, 2)
        y: Tensor = of_rows[:, :, :, None] + of_columns[:, :, None, :]
        return y


class BrainNetCnn(nn.Module):
    """Two edge-to-edge layers, edge-to-node, node-to-graph and three dense layers: (B, E) -> (B,).

    Kawahara et al. 2017, NeuroImage 146:1038-1049: channels 32, 32, 64, 256, dense layers 128, 30, leaky ReLU with
    slope 1/3; here they are ``width`` times 1, 1, 2, 8 and 4, 30.
    """

    def __init__(self, parcels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.matrices = Matrices(parcels)
        self.edges = nn.ModuleList([CrossConvolution(1, width, parcels), CrossConvolution(width, width, parcels)])
        self.to_nodes = nn.Linear(width * parcels, 2 * width)
        self.to_graph = nn.Linear(2 * width * parcels, 8 * width)
        self.dense = nn.Sequential(
            nn.Linear(8 * width, 4 * width),
            nn.LeakyReLU(1 / 3),
            nn.Dropout(dropout),
            nn.Linear(4 * width, 30),
            nn.LeakyReLU(1 / 3),
            nn.Linear(30, 1),
        )
        self.dropout = dropout

    def forward(self, edges: Tensor) -> Tensor:
        """Return one score per scan."""
        leaky = nn.functional.leaky_relu
        x = self.matrices(edges)[:, None]
        for layer in self.edges:
            x = leaky(layer(x), 1 / 3)
        x = leaky(self.to_nodes(x.transpose(1, 2).flatten(2)), 1 / 3)
        x = nn.functional.dropout(leaky(self.to_graph(x.flatten(1)), 1 / 3), self.dropout, self.training)
        y: Tensor = self.dense(x)[:, 0]
        return y


def scaled(features: Floats, train: Mask) -> Floats:
    """Return features z-scored with training statistics; a missing one is the training mean."""
    return np.asarray(design(features, np.zeros((1, len(train))), train[None], keep=features.shape[1], scale=True)[0])


def as_they_are(features: Floats, train: Mask) -> Floats:
    """Return features unchanged: the network cleans them itself."""
    return features
