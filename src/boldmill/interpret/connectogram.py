"""Connectogram: regions on a circle, grouped by side and network, and the strongest edges between them.

Also the bar chart that stands in for the cortex where an atlas has no surface.

Axes: N regions in column order, E = N (N - 1) / 2 edges (upper triangle, row by row).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.interpret import canvas
from boldmill.interpret.maps import ranking
from boldmill.spaces.parcels import Parcel

Floats = NDArray[np.float64]
SIDES = {"L": 0, "": 1, "R": 2}
GAP = 1.6
"""Empty places between two groups, in regions."""
STEPS = 40
LABELLED = 24
"""Most regions named around the circle."""
LEAST = 0.055
"""Least angle between two names, radians: the height of a line of text at their radius."""
NAMES, ARCS = 1.10, 1.56
"""Radii of names and of the groups' arcs: the longest name ends before the arc."""


def circle_order(regions: Sequence[Parcel]) -> list[list[int]]:
    """Return the groups around the circle, each a list of columns: left networks down one side, right up the other.

    The right hemisphere mirrors the left one, so that homologous networks face each other; regions of neither side
    stand between the hemispheres.
    """
    networks = list(dict.fromkeys(region.network for region in regions))
    place = {network: i for i, network in enumerate(networks)}

    def key(column: int) -> tuple[int, int]:
        region = regions[column]
        side, rank = SIDES.get(region.hemisphere, 1), place[region.network]
        return side, -rank if side == 2 else rank

    order = sorted(range(len(regions)), key=lambda column: (*key(column), column))
    return [list(group) for _, group in groupby(order, key=key)]


def angles(groups: Sequence[Sequence[int]]) -> Floats:
    """Return the angle of every region (N,), radians: counter-clockwise from the top, a gap between groups."""
    total = sum(len(group) + GAP for group in groups)
    out = np.zeros(sum(len(group) for group in groups))
    place = GAP / 2
    for group in groups:
        out[list(group)] = np.pi / 2 + 2 * np.pi * (place + np.arange(len(group)) + 0.5) / total
        place += len(group) + GAP
    return out


def spread(wanted: Floats, least: float) -> Floats:
    """Return angles (K,) nearest to the wanted ones (least squares) with at least ``least`` between neighbours.

    The circle is cut in its widest gap; along the rest this is an isotonic regression of the angles less their rank
    times ``least``.

    >>> spread(np.array([1.0, 0.0, 1.0]), 0.2).round(1).tolist()
    [0.9, 0.0, 1.1]
    """
    from scipy.optimize import isotonic_regression

    if len(wanted) < 2:
        return np.array(wanted, dtype=float)
    order = np.argsort(wanted % (2 * np.pi), kind="stable")
    ring = (wanted % (2 * np.pi))[order]
    cut = int(np.argmax(np.diff(ring, append=ring[0] + 2 * np.pi))) + 1
    order, ring = np.roll(order, -cut), np.roll(ring, -cut)
    ring[ring < ring[0]] += 2 * np.pi
    steps = np.arange(len(ring)) * min(least, 2 * np.pi / len(ring))
    out = np.empty(len(ring))
    out[order] = isotonic_regression(ring - steps).x + steps
    return out


def chord(start: Floats, end: Floats) -> Floats:
    """Return a curve (STEPS, 2) between two points of the unit circle, bent towards the middle."""
    t = np.linspace(0, 1, STEPS)[:, None]
    bend = 0.25 * (start + end) / 2
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)


def draw_connectogram(
    path: Path, edges: Floats, regions: Sequence[Parcel], title: str, legend: tuple[str, str], most: int
) -> Path:
    """Draw the strongest edges (E,): width by size, red above 0, blue below; their regions are named.

    ``legend`` says what red and blue mean; ``{high}`` in it is the size of the strongest edge.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    groups = circle_order(regions)
    angle = angles(groups)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rows, columns = np.triu_indices(len(regions), k=1)
    strongest = [int(edge) for edge in ranking(np.abs(edges))[:most] if edges[edge] != 0]
    high = max((abs(float(edges[edge])) for edge in strongest), default=1.0)
    figure = canvas.new(7.0, 7.0)
    axes = figure.add_subplot()
    share = np.array([abs(float(edges[edge])) / high for edge in strongest])
    drawn = LineCollection(
        [chord(points[rows[edge]], points[columns[edge]]) for edge in reversed(strongest)],
        colors=[canvas.WARM if edges[edge] > 0 else canvas.COLD for edge in reversed(strongest)],
        linewidths=(0.4 + 2.8 * share)[::-1].tolist(),
        alpha=0.75,
        capstyle="round",
    )
    axes.add_collection(drawn)
    axes.scatter(
        *(1.03 * points).T,
        s=16 * min(1.0, 120 / len(regions)),
        c=[canvas.colour_of(region.network) for region in regions],
        zorder=3,
    )
    _groups(axes, groups, regions, angle)
    ends = list(dict.fromkeys(int(place) for edge in strongest for place in (rows[edge], columns[edge])))
    named = ends[:LABELLED]
    for place, turn in zip(named, spread(angle[named], LEAST), strict=True):
        foot, head = 1.05 * points[place], (NAMES - 0.01) * np.array([np.cos(turn), np.sin(turn)])
        axes.plot(*np.stack([foot, head]).T, color="#b6bcc2", linewidth=0.5, zorder=2)
        _around(axes, float(turn), NAMES, _short(regions[place]), 6.0, "#30363c")
    lines = [
        Line2D([], [], color=colour, label=words.format(high=f"{high:.2g}"))
        for colour, words in zip((canvas.WARM, canvas.COLD), legend, strict=True)
    ]
    axes.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, -0.06), fontsize=7.5, ncols=2, frameon=False)
    reach = 1.88 if any(region.network or region.hemisphere for region in regions) else 1.36
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.axis("off")
    known = f", {len(named)} of their {len(ends)} regions named" if len(named) < len(ends) else ""
    axes.set_title(f"{title}\n{len(strongest)} strongest of {len(edges)} edges{known}", fontsize=10)
    return canvas.save(figure, path)


def _groups(axes: Any, groups: Sequence[Sequence[int]], regions: Sequence[Parcel], angle: Floats) -> None:
    """Draw an arc and a name outside of each group that has one."""
    for group in groups:
        region = regions[group[0]]
        name = " ".join(part for part in (region.hemisphere, region.network) if part)
        if not name:
            continue
        ends = np.linspace(angle[group[0]] - 0.02, angle[group[-1]] + 0.02, STEPS)
        axes.plot(ARCS * np.cos(ends), ARCS * np.sin(ends), color=canvas.colour_of(region.network), linewidth=4)
        _around(axes, float(ends.mean()), ARCS + 0.04, name, 8.0, canvas.colour_of(region.network))


def _around(axes: Any, angle: float, radius: float, text: str, size: float, colour: str) -> None:
    """Write a text along a ray, never upside down."""
    turned = np.degrees(angle) % 360
    flipped = 90 < turned < 270
    axes.text(
        radius * np.cos(angle), radius * np.sin(angle), text.replace("$", r"\$"), fontsize=size, color=colour,
        rotation=turned - 180 if flipped else turned, rotation_mode="anchor", va="center",
        ha="right" if flipped else "left",
    )  # fmt: skip


def _short(region: Parcel) -> str:
    """Return a name without what its group already says; a bare number keeps its network.

    >>> _short(Parcel(id=1, name="LH_Default_PFC_3", network="Default", hemisphere="L"))
    'PFC_3'
    """
    short = region.name.removeprefix("LH_").removeprefix("RH_")
    within = short.removeprefix(f"{region.network}_") if region.network else short
    short = short if within.isdigit() else within
    return short if len(short) <= 14 else f"{short[:12]}.."


def draw_bars(
    path: Path, values: Floats, spread: Floats, regions: Sequence[Parcel], title: str, unit: str, top: int
) -> Path:
    """Draw the top regions as bars by name, with one SD over folds where it is known."""
    order = ranking(values)[:top][::-1]
    figure = canvas.new(5.6, 0.9 + 0.27 * len(order))
    axes = figure.add_subplot()
    error = np.where(np.isfinite(spread[order]), spread[order], 0.0)
    colours = [canvas.colour_of(regions[i].network) for i in order]
    axes.barh(range(len(order)), values[order], xerr=error, color=colours, ecolor="#30363c", capsize=2)
    axes.set_yticks(range(len(order)), [regions[i].name.replace("$", r"\$") for i in order], fontsize=8)
    axes.set_xlabel(f"{unit} (bars: 1 SD over folds)" if error.any() else unit, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
    return canvas.save(figure, path)
