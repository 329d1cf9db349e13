"""Few-shot curves, zero-shot transfers, the ablation and the interpretation as sections of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.report.compare import BASELINE, CHANCE, CONSTANT, MISSING, PRETRAINED, Forest, Row, forest, number
from boldmill.report.results import Explained

LEADS = ("auc", "macro_auc", "pearson_r")
"""Metrics drawn where a table has them, one per kind of task."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers; markers differ too."""
MARKERS = "osD^vPX"
SHARP = 96
"""Lowest resolution of a picture with small text, dots per inch."""
WHAT = {
    "rollout": "Attention rollout (Abnar and Zuidema 2020): where attention leads. Value: class difference (Cohen's d, "
    "absolute) over held-out subjects, descriptive and not tested; by class: mean relevance, 1 where no region "
    "stands out.",
    "integrated_gradients": "Integrated gradients (Sundararajan et al. 2017) of the linear probe's log-odds. Value: "
    "mean absolute attribution of a region's edges, log-odds; by class: mean signed attribution.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A titled forest plot with its table: column heads and lines of text."""

    title: str
    forest: Forest
    heads: list[str]
    lines: list[list[str]]
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapView:
    """One map of one task: its line of the summary, its top regions, its pictures (caption, data URI)."""

    task: str
    map: str
    words: str
    summary: Row
    top: Sequence[Row]
    pictures: list[tuple[str, str]]


def lead_of(rows: Sequence[Row]) -> str:
    """Return the metric of some rows that is drawn."""
    present = list(dict.fromkeys(row["metric"] for row in rows))
    return next((name for name in LEADS if name in present), present[0] if present else "")


def shown(row: Row | None) -> str:
    """Return a value with its interval as text.

    >>> shown({"value": "0.71234", "ci_low": "0.6", "ci_high": "0.8"})
    '0.712 [0.600, 0.800]'
    """
    value, low, high = (number(row.get(name)) if row else math.nan for name in ("value", "ci_low", "ci_high"))
    if math.isnan(value):
        return MISSING
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def transfers(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per zero-shot transfer."""
    panels = []
    for task, source, target in dict.fromkeys((row["task"], row["source"], row["target"]) for row in rows):
        own = [row for row in rows if (row["task"], row["source"], row["target"]) == (task, source, target)]
        lead = lead_of(own)
        led = [row for row in own if row["metric"] == lead]
        bars = [(row["method"], CONSTANT if row["method"] == "chance" else _kind(row["method"]), row) for row in led]
        others = [name for name in dict.fromkeys(row["metric"] for row in own) if name not in (lead, MISSING)]
        lines = []
        for row in led:
            same = {other["metric"]: other for other in own if other["method"] == row["method"]}
            values = [shown(same.get(name)) for name in others]
            lines.append([row["method"], shown(row), *values, row.get("p_permutation", MISSING), row["n_test"]])
        heads = ["method", lead, *others, "p", "n test"]
        panels.append(
            Panel(title=f"{task}: {source} to {target}", forest=forest(lead, bars), heads=heads, lines=lines,
                  notes=_notes(own))
        )  # fmt: skip
    return panels


def ablation(rows: Sequence[Row]) -> list[Panel]:
    """Return one panel per task and protocol: every variant, its change and its gain over the full model."""
    panels = []
    for task, protocol in dict.fromkeys((row["task"], row["protocol"]) for row in rows):
        own = [row for row in rows if (row["task"], row["protocol"]) == (task, protocol)]
        lead = lead_of(own)
        led = [row for row in own if row["metric"] == lead]
        several = len({row["method"] for row in led if row["variant"] != "baseline"}) > 1
        bars, lines = [], []
        for row in led:
            plain = row["variant"] == "baseline"
            label = row["method"] if plain else f"{row['group']}: {row['variant']}"
            label = f"{label}, {row['method']}" if several and not plain else label
            kind = (CONSTANT if row["method"] in ("majority", "mean") else BASELINE) if plain else PRETRAINED
            bars.append((label, kind, row))
            same = ("variant", "method", "group")
            gain = next(
                (g for g in own if g["metric"].startswith(f"{lead}_over_") and all(g[c] == row[c] for c in same)), None
            )
            epochs = row.get("epochs", MISSING)
            lines.append([label, row["overrides"], shown(row), shown(gain), row["n_test"], epochs])
        heads = ["variant", "changed", lead, "gain over the full model", "n test", "epochs"]
        panels.append(
            Panel(title=f"{task}, {protocol}", forest=forest(lead, bars), heads=heads, lines=lines, notes=_notes(own))
        )
    return panels


def few_shot_curves(rows: Sequence[Row], dpi: int) -> dict[str, bytes]:
    """Draw the curves of every task: the leading metric against subjects per class, with intervals."""
    return {
        task: _curve([row for row in rows if row["task"] == task], task, dpi)
        for task in dict.fromkeys(row["task"] for row in rows)
        if any(row["metric"] in LEADS for row in rows if row["task"] == task)
    }


def _curve(rows: Sequence[Row], task: str, dpi: int) -> bytes:
    from boldmill.report import figures

    plt = figures.start()
    lead = lead_of(rows)
    led = [row for row in rows if row["metric"] == lead and row["k"] not in ("0", MISSING)]
    shots = sorted({int(row["k"]) for row in led if row["k"].isdigit()})
    places = {str(k): float(i) for i, k in enumerate(shots)} | {"all": len(shots) + 0.4}
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for count, method in enumerate(dict.fromkeys(row["method"] for row in led)):
        colour, marker = COLOURS[count % len(COLOURS)], MARKERS[count % len(MARKERS)]
        drawn = [row for row in led if row["method"] == method and row["k"] in places]
        for part in ([row for row in drawn if row["k"] != "all"], [row for row in drawn if row["k"] == "all"]):
            if not part:
                continue
            x = [places[row["k"]] + 0.07 * count for row in part]
            y, low, high = ([number(row[name]) for row in part] for name in ("value", "ci_low", "ci_high"))
            name = method.replace("$", r"\$") if part[0]["k"] != "all" else "_"
            axis.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.2, label=name)
            axis.vlines(x, low, high, color=colour, linewidth=0.8, alpha=0.7)
    if lead in CHANCE:
        axis.axhline(CHANCE[lead], color="#5c6670", linestyle="--", linewidth=0.9)
        axis.text(0.99, CHANCE[lead], "chance", transform=axis.get_yaxis_transform(), fontsize=7, color="#5c6670",
                  va="bottom", ha="right")  # fmt: skip
    used = [k for k in places if any(row["k"] == k for row in led)]
    axis.set_xticks([places[k] for k in used], used, fontsize=8)
    axis.set_xlabel("labelled training subjects per class", fontsize=8)
    axis.set_ylabel(f"{lead.upper() if lead == 'auc' else lead} (95 % interval)", fontsize=8)
    axis.set_title(task, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figures.png(figure, max(dpi, SHARP))


def explained(found: Explained) -> tuple[list[MapView], list[tuple[str, str]]]:
    """Return the maps of a model, and the tasks that have none with the reason."""
    views, refused = [], []
    for line in found.summary:
        task, name = line["task"], line["map"]
        if name == MISSING:
            refused.append((task, line["note"]))
            continue
        own = [row for row in found.regions if (row["task"], row["map"]) == (task, name)]
        top = sorted(own, key=lambda row: int(row["rank"]))[: int(line["top"])]
        pictures = [(path.stem.rpartition("_")[2], picture(path)) for path in found.pictures.get((task, name), [])]
        views.append(MapView(task=task, map=name, words=WHAT[name], summary=line, top=top, pictures=pictures))
    return views, refused


def picture(path: Path) -> str:
    """Return a picture as a WebP data URI, several times smaller than its PNG."""
    import numpy as np
    from PIL import Image

    from boldmill.report.svg import webp

    with Image.open(path) as image:
        pixels: Any = np.asarray(image.convert("RGB"))
    return webp(pixels, quality=80)


def _kind(method: str) -> str:
    """Return the kind of a method that has only its name to tell it."""
    trained = any(word in method for word in ("frozen", "finetune", "fine_tune"))
    return PRETRAINED if trained else BASELINE


def _notes(rows: Sequence[Row]) -> list[str]:
    return [note for note in dict.fromkeys(row.get("note", "") for row in rows) if note not in ("", MISSING)]
