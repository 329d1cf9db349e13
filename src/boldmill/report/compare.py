"""Rows of an evaluation as a comparison: per task and protocol one table of methods and one forest plot.

Nothing is computed but where a mark stands on its axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from boldmill.evaluate.comparison import LEADING

Row = Mapping[str, str]

WORDS = {"auc": "AUC", "macro_auc": "macro AUC", "macro_f1": "macro F1", "pearson_r": "Pearson r", "mae": "MAE",
         "r2": "R2", "f1": "F1"}  # fmt: skip
CHANCE = {"auc": 0.5, "macro_auc": 0.5, "pearson_r": 0.0}
"""What a method without any knowledge gets."""
PROTOCOLS = {
    "cv": "repeated cross-validation over all subjects; no method that was pre-trained on any of them",
    "heldout": "the folds of the cross-validation, scored on subjects that no model saw in pre-training",
    "split": "fitted once on the training split, tested on held-out subjects, pooled over sites",
    "paper": "70 / 15 / 15 %, stratified by site, repeated, as published",
    "leave-one-site-out": "every site tested by methods fitted on all others; pooled over sites",
    "external": "fitted on the task's own data sets, tested unchanged on others",
    "nested": "cross-validation whose hyperparameters are chosen by inner folds of the training part",
}
PRETRAINED, BASELINE, CONSTANT = "pre-trained", "no pre-training", "constant"
CONSTANTS = ("majority", "mean")
MISSING = "n/a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One value with its interval on the axis of a forest plot; places are shares of its width, None if off it."""

    label: str
    kind: str
    value: float
    low: float
    high: float
    place: float | None
    start: float | None
    end: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """A forest plot: marks from top to bottom, ticks and the line of chance as shares of the width."""

    metric: str
    marks: list[Mark]
    ticks: list[tuple[float, str]]
    chance: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One line of a comparison."""

    name: str
    model: str
    kind: str
    values: dict[str, Row]
    gain: Row | None
    lead: Row
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One task under one protocol."""

    task: str
    kind: str
    protocol: str
    words: str
    metrics: list[str]
    methods: list[Method]
    refused: list[tuple[str, str]]
    forest: Forest
    sites: list[dict[str, str]]


def number(text: str | None) -> float:
    """Return a cell as a number, NaN where it holds none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def words_of(metric: str) -> str:
    """Return a metric as people write it.

    >>> words_of("auc"), words_of("balanced_accuracy")
    ('AUC', 'balanced accuracy')
    """
    return WORDS.get(metric, metric.replace("_", " "))


def kind_of(row: Row) -> str:
    """Return whether a method was pre-trained, from its epochs or, in a table without them, from its model."""
    if row["method"] in CONSTANTS:
        return CONSTANT
    if row["method"].startswith(f"{row['model']}_random"):
        return BASELINE
    known = row.get("epochs", MISSING) not in (MISSING, "")
    return PRETRAINED if known or row["model"] != "baseline" else BASELINE


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Return one comparison per task and protocol, in the order of the table."""
    keys = dict.fromkeys((row["task"], row["kind"], row["protocol"]) for row in rows)
    return [_comparison(*key, [r for r in rows if (r["task"], r["kind"], r["protocol"]) == key]) for key in keys]


def _comparison(task: str, kind: str, protocol: str, rows: Sequence[Row]) -> Comparison:
    pooled = [row for row in rows if row.get("fold", "all") == "all"]
    present = {row["metric"] for row in pooled}
    shown = [name for name in LEADING.get(kind, ()) if name in present]
    methods, refused = [], []
    for name, model in dict.fromkeys((row["method"], row["model"]) for row in pooled):
        own = {row["metric"]: row for row in pooled if (row["method"], row["model"]) == (name, model)}
        lead = own.get(shown[0]) if shown else None
        if lead is None:
            refused.append((name, next(iter(own.values()))["note"]))
            continue
        gain = next((row for metric, row in own.items() if "_over_" in metric), None)
        notes = [lead["note"], f"gain: {gain['note']}" if gain and gain["note"] != MISSING else ""]
        notes = [note for note in notes if note not in ("", MISSING)]
        methods.append(
            Method(name=name, model=model, kind=kind_of(lead), values=own, gain=gain, lead=lead, notes=notes)
        )
    bars = [(method.name, method.kind, method.lead) for method in methods]
    drawn = forest(shown[0] if shown else "", bars)
    return Comparison(
        task=task, kind=kind, protocol=protocol, words=PROTOCOLS.get(protocol, ""), metrics=shown, methods=methods,
        refused=refused, forest=drawn, sites=_sites(rows, shown[0]) if shown else [],
    )  # fmt: skip


def forest(metric: str, bars: Sequence[tuple[str, str, Row]]) -> Forest:
    """Place values and intervals on one axis that holds all of them, and chance.

    Parameters
    ----------
    bars : sequence of (label, kind, row)
        Rows with ``value``, ``ci_low`` and ``ci_high``.
    """
    numbers = [[number(row.get(name)) for name in ("value", "ci_low", "ci_high")] for _, _, row in bars]
    known = [value for three in numbers for value in three if math.isfinite(value)]
    chance = CHANCE.get(metric)
    ends = [*known, *([] if chance is None else [chance])] or [0.0, 1.0]
    low, high = min(ends), max(ends)
    room = 0.04 * ((high - low) or 1.0)
    low, high = low - room, high + room

    def place(value: float) -> float | None:
        return (value - low) / (high - low) if math.isfinite(value) else None

    marks = [
        Mark(label=label, kind=kind, value=three[0], low=three[1], high=three[2], place=place(three[0]),
             start=place(three[1]), end=place(three[2]))
        for (label, kind, _), three in zip(bars, numbers, strict=True)
    ]  # fmt: skip
    ticks = [((tick - low) / (high - low), f"{tick:g}") for tick in nice_ticks(low, high)]
    return Forest(metric=metric, marks=marks, ticks=ticks, chance=None if chance is None else place(chance))


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two ends, at most ``most``.

    >>> nice_ticks(0.41, 0.93)
    [0.5, 0.6, 0.7, 0.8, 0.9]
    """
    size = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(size * factor for factor in (1, 2, 5, 10) if (high - low) / (size * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(step * count, 10) for count in range(first, math.floor(high / step + 1e-9) + 1)]


def _sites(rows: Sequence[Row], metric: str) -> list[dict[str, str]]:
    """Return one line per tested site: how many, and the leading metric of every method."""
    own = [row for row in rows if row.get("fold", "all") != "all" and row["metric"] == metric]
    lines = []
    for site in dict.fromkeys(row["fold"] for row in own):
        here = [row for row in own if row["fold"] == site]
        count = max(int(number(row["n_test"])) for row in here)
        lines.append({"site": site, "n test": str(count), **{row["method"]: row["value"] for row in here}})
    return lines
