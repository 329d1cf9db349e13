"""The tables of an interpretation: regions, strongest edges, one line per map. The same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boldmill.atomic import write_text
from boldmill.evaluate.rows import MISSING, cell
from boldmill.interpret.explain import Map
from boldmill.interpret.maps import chance_jaccard, ranking
from boldmill.spaces.parcels import Parcel

REGIONS = ("task", "map", "rank", "region", "network", "hemisphere", "value", "positive", "negative", "fold_mean",
           "fold_sd", "top_share", "note")  # fmt: skip
EDGES = ("task", "map", "rank", "region_a", "region_b", "value")
SUMMARY = ("task", "map", "subjects", "auc", "folds", "top", "spearman", "jaccard", "jaccard_chance", "shuffled", "gap",
           "positive", "pictures", "note")  # fmt: skip
FILES = {"regions": "regions.tsv", "edges": "edges.tsv", "summary": "summary.tsv"}


@dataclass(slots=True, kw_only=True)
class Tables:
    """Rows as they come, by table."""

    regions: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)
    summary: list[dict[str, Any]] = field(default_factory=list)

    def add(self, task: str, found: Map, parcels: Sequence[Parcel], top: int, edges: int, positive: str) -> None:
        """Add one map: every region by rank, its strongest edges, and its line of the summary."""
        order = ranking(found.value)
        for rank, i in enumerate(order, start=1):
            parcel, stable = parcels[i], found.stable
            self.regions.append(
                {"task": task, "map": found.name, "rank": rank, "region": parcel.name, "network": parcel.network,
                 "hemisphere": parcel.hemisphere, "value": float(found.value[i]), "positive": float(found.positive[i]),
                 "negative": float(found.negative[i]), "fold_mean": float(stable.mean[i]),
                 "fold_sd": float(stable.sd[i]), "top_share": float(stable.share[i]), "note": found.note}
            )  # fmt: skip
        rows, columns = np.triu_indices(len(parcels), k=1)
        for rank, edge in enumerate(ranking(np.abs(found.edges))[:edges], start=1):
            ends = {"region_a": parcels[rows[edge]].name, "region_b": parcels[columns[edge]].name}
            row = {"task": task, "map": found.name, "rank": rank, **ends, "value": float(found.edges[edge])}
            self.edges.append(row)
        self.summary.append(
            {"task": task, "map": found.name, "subjects": found.subjects, "auc": found.auc,
             "folds": found.stable.folds, "top": top, "spearman": found.stable.spearman,
             "jaccard": found.stable.jaccard, "jaccard_chance": chance_jaccard(len(parcels), top),
             "shuffled": found.shuffled, "gap": found.gap, "positive": positive, "pictures": "", "note": found.note}
        )  # fmt: skip

    def refuse(self, task: str, reason: str) -> None:
        """Add the line of a task that cannot be explained."""
        for table in (self.regions, self.summary):
            table.append({"task": task, "map": MISSING, "note": f"n/a: {reason}"})

    def write(self, regions: Path) -> list[Path]:
        """Write all tables beside each other; ``regions`` is the path of the first. Returns the others."""
        named = {"regions": (REGIONS, self.regions), "edges": (EDGES, self.edges), "summary": (SUMMARY, self.summary)}
        written = []
        for name, (columns, rows) in named.items():
            path = regions if name == "regions" else regions.with_name(FILES[name])
            lines = ["\t".join(columns), *("\t".join(cell(row.get(c, "")) for c in columns) for row in rows)]
            written.append(write_text(path, "\n".join(lines) + "\n"))
        return written[1:]
