"""Rows of a measurement, how they are timed, printed and saved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement.

    Parameters
    ----------
    name : str
        What was measured.
    ours, peer : float
        The two figures; ``peer`` is ``None`` where there is none.
    unit : str
        Unit of both.
    ratio : float
        How many times better ours is (above 1: better).
    goal : str
        The goal in words; empty: none is set.
    met : bool
        Whether the goal is met; ``None`` without a goal.
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    ratio: float | None
    goal: str = ""
    met: bool | None = None


def side_by_side(
    ours: Callable[[], object], peer: Callable[[], object], *, repeats: int, warm_up: int = 1
) -> tuple[float, float]:
    """Return the median seconds of two calls, taken in turns so that a busy machine slows both."""
    for _ in range(warm_up):
        ours(), peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, found in zip((ours, peer), times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def render(rows: Sequence[Row]) -> str:
    """Return the rows as an aligned text table."""
    head = ("name", "ours", "peer", "unit", "ratio", "goal", "met")
    met = {True: "yes", False: "NO", None: "-"}
    lines = [head] + [
        (r.name, _figure(r.ours), _figure(r.peer), r.unit, _figure(r.ratio), r.goal or "-", met[r.met]) for r in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            f"{c:>{w}}" if i in (1, 2, 4) else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list."""
    from boldmill.atomic import write_json

    write_json(path, [asdict(row) for row in rows])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
