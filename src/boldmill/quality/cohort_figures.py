"""Distributions of the quality figures by site, as PNG bytes: the same bytes for the same cohort.

Axes: N scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from boldmill.quality.cohort import Cohort, CohortScan, Rules
from boldmill.quality.inclusion import RULES
from boldmill.quality.measures import Measure
from boldmill.rng import generator

KEPT, LEFT = "#1f4e79", "#d1495b"
DPI = 84
MIN_BOX = 4
"""Fewer values are drawn as points alone."""
MAX_DRAWN = 400
"""Points drawn of one site; the box is of all of them."""


def distribution(cohort: Cohort, measure: Measure, rules: Rules) -> bytes:
    """Draw one figure by site: a box of all scans, a point per scan, the limit of its inclusion rule.

    Parameters
    ----------
    cohort : Cohort
        The scans.
    measure : Measure
        The figure to draw; at least one scan has it.
    rules : callable
        Inclusion rules of a data set.

    Returns
    -------
    bytes
        A PNG: included scans blue, excluded ones red.
    """
    from boldmill.report.figures import label, png, start

    plt = start()
    by_site: dict[str, list[CohortScan]] = {}
    for scan in cohort.scans:
        if measure.name in scan.figures:
            by_site.setdefault(scan.site, []).append(scan)
    sites = sorted(by_site)
    width = float(np.clip(1.2 + 0.34 * len(sites), 2.9, 16.0))
    figure, axis = plt.subplots(figsize=(width, 2.2))
    for place, site in enumerate(sites):
        here = by_site[site]
        values = [scan.figures[measure.name] for scan in here]
        look = {"color": "#8a949e", "linewidth": 0.9}
        if len(values) >= MIN_BOX:
            parts = {f"{part}props": look for part in ("box", "whisker", "cap")}
            middle = {"color": "#1b1f24", "linewidth": 1.4}
            axis.boxplot(values, positions=[place], widths=0.6, showfliers=False, medianprops=middle, **parts)
        for kept, colour, size in ((True, KEPT, 4), (False, LEFT, 7)):
            x, y = _points(here, measure.name, site, kept)
            axis.plot(place + x, y, ".", color=colour, alpha=0.6, markersize=size, markeredgewidth=0, zorder=3)
    for limit in _limits(cohort, measure.name, rules):
        axis.axhline(limit, color=LEFT, linestyle="--", linewidth=0.9)
    axis.set_xlim(-0.6, len(sites) - 0.4)
    tilt = {} if len(sites) <= 4 else {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(sites)), [label(site) for site in sites], fontsize=7, **tilt)
    axis.set_title(f"{measure.label}{f' ({measure.unit})' if measure.unit else ''}", fontsize=9)
    axis.tick_params(axis="y", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    return png(figure, DPI)


def _points(scans: Sequence[CohortScan], name: str, site: str, kept: bool) -> tuple[Any, Any]:
    """Return jitter and value of the scans to draw, evenly thinned where there are too many."""
    chosen = sorted(scan.figures[name] for scan in scans if scan.included is kept)
    values = np.array(chosen, dtype=np.float64)
    if len(values) > MAX_DRAWN:
        values = values[np.linspace(0, len(values) - 1, MAX_DRAWN).round().astype(int)]
    return generator("cohort page", name, site, str(kept)).uniform(-0.2, 0.2, len(values)), values


def _limits(cohort: Cohort, name: str, rules: Rules) -> list[float]:
    """Return the limits of the rule on a figure, one for each value the data sets give it."""
    keys = [rule.key for rule in RULES if rule.figure == name]
    datasets = sorted({scan.dataset for scan in cohort.scans})
    return sorted({float(v) for d in datasets for key in keys if (v := getattr(rules(d), key)) is not None})
