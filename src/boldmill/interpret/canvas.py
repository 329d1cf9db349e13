"""What all drawings share: colours, scale and deterministic PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic

DPI = 110
WARM, COLD = "#b2182b", "#2166ac"
"""Towards the positive class, and away from it (colour-blind safe)."""
NETWORKS = {"Vis": "#781286", "SomMot": "#4682B4", "DorsAttn": "#00760E", "SalVentAttn": "#C43AFA",
            "Limbic": "#A8B86B", "Cont": "#E69422", "Default": "#CD3E3A"}  # fmt: skip
"""The usual colours of the seven networks (limbic darkened, to be seen on white)."""
OTHER = "#8a8f94"


def new(width: float, height: float) -> Any:
    """Return an empty figure (inches) that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG; neither date nor software name goes into the file."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    return path


def scale(values: NDArray[np.float64], *, signed: bool) -> tuple[float, float, str]:
    """Return low end, high end and colour map of a drawing: from the smallest to the largest, or around 0."""
    known = values[np.isfinite(values)]
    high = float(np.abs(known).max(initial=0.0)) or 1.0
    if signed:
        return -high, high, "RdBu_r"
    return min(float(known.min(initial=0.0)), high), high, "YlOrRd"


def colour_of(network: str) -> str:
    """Return the colour of a network; grey for none, or one without a usual colour."""
    return NETWORKS.get(network, OTHER)


def bar(figure: Any, low: float, high: float, cmap: str, unit: str, axes: Any) -> None:
    """Add a horizontal colour bar with its unit."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    made = figure.colorbar(
        ScalarMappable(Normalize(low, high), cmap), ax=axes, orientation="horizontal", shrink=0.45, aspect=30, pad=0.02
    )
    made.set_label(unit, fontsize=8)
    made.ax.tick_params(labelsize=7)
