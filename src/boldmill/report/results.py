"""What the models gave, as the report shows it: evaluation, few-shot, zero-shot, ablation, interpretation.

Every table is optional: what was not configured was not made, and has no section. Columns are read by name, so that a
table may carry more of them.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from boldmill.paths import MODELS, Layout

Rows = list[dict[str, str]]
PICTURES = ("cortex", "flat", "bars", "connectogram")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """Interpretation of one model: regions by rank, one line per map, and its pictures by (task, map)."""

    regions: Rows
    summary: Rows
    pictures: dict[tuple[str, str], list[Path]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Tables by model, in the order of the models; ``read`` names the files."""

    metrics: dict[str, Rows] = field(default_factory=dict)
    few_shot: dict[str, Rows] = field(default_factory=dict)
    zero_shot: dict[str, Rows] = field(default_factory=dict)
    ablation: Rows = field(default_factory=list)
    explained: dict[str, Explained] = field(default_factory=dict)
    read: list[Path] = field(default_factory=list)


def read_results(layout: Layout) -> Results:
    """Read every table of results that is there."""
    read: list[Path] = []

    def tables(name: str) -> dict[str, Rows]:
        found = {model: layout.metrics(model).with_name(name) for model in MODELS}
        return {model: _rows(path, read) for model, path in found.items() if path.is_file()}

    ablation = layout.results / "ablation" / "table.tsv"
    explained = {model: layout.interpretation(model) for model in MODELS}
    return Results(
        metrics=tables(layout.metrics(MODELS[0]).name),
        few_shot=tables("few_shot.tsv"),
        zero_shot=tables("zero_shot.tsv"),
        ablation=_rows(ablation, read) if ablation.is_file() else [],
        explained={model: _explained(path, read) for model, path in explained.items() if path.is_file()},
        read=read,
    )


def _explained(regions: Path, read: list[Path]) -> Explained:
    summary = _rows(regions.with_name("summary.tsv"), read)
    pictures: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for row in summary:
        named = [regions.with_name(name) for name in row["pictures"].split() if name.endswith(".png")]
        pictures[row["task"], row["map"]] = [path for path in named if path.is_file()]
    read += [path for paths in pictures.values() for path in paths]
    return Explained(regions=_rows(regions, read), summary=summary, pictures=dict(pictures))


def _rows(path: Path, read: list[Path]) -> Rows:
    read.append(path)
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))  # no table of ours has quotes
