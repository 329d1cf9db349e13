"""Parcellation, flat maps, pFC and shard reading beside their peers, on the same input in memory, in one run.

A floor is what no method can beat on this machine: the bytes read once, or the arithmetic at the measured rate of a
large matrix product. Both are measured in the same run, on the same threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from boldmill.bench.table import Row

OPTIONS = ("quick", "long")


def measure(repeats: int, *, quick: bool = False, long: bool = False) -> list[Row]:
    """Return the rows of the table.

    Parameters
    ----------
    repeats : int
        Timings per figure; the median counts.
    quick : bool
        Small sizes, in seconds: shows that everything runs; no goals.
    long : bool
        Also the memory of a run of 1,200 volumes of 2 mm.
    """
    from boldmill.bench import representations_maps as maps
    from boldmill.bench import representations_memory as memory
    from boldmill.bench import representations_pfc as pfc
    from boldmill.bench import representations_shards as shards
    from boldmill.bench.representations_case import FULL, QUICK, draw

    size = QUICK if quick else FULL
    _say("drawing a run")
    case = draw(size)
    parts: dict[str, Callable[[], list[Row]]] = {
        "parcellation": lambda: maps.parcel_rows(case, repeats),
        "flat maps": lambda: maps.flat_rows(case, repeats),
        "pFC": lambda: pfc.rows(size, repeats),
        "shard reading": lambda: shards.rows(size, repeats),
    }
    if long:
        parts["memory of a long run"] = lambda: memory.rows(case)
    rows: list[Row] = []
    for name, part in parts.items():
        _say(name)
        rows += part()
    if quick:  # the goals are those of the full sizes
        rows = [replace(row, goal="", met=None) for row in rows]
    return rows


def _say(text: str) -> None:
    print(f"bench representations: {text}", file=sys.stderr, flush=True)
