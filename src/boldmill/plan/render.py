"""A plan as text: what will run and why, what it costs, one line at the end."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boldmill.plan.table import COSTS, MEASURED_ON
from boldmill.plan.words import title

if TYPE_CHECKING:
    from boldmill.plan.estimate import Machine, Row

WIDTH = 118


def stage_line(title: str, scans: int, jobs: int, why: str) -> str:
    """Return one line of what will run.

    >>> stage_line("preprocess", 412, 16, "clean.band_high changed 0.1 -> 0.08")
    'preprocess: 412 scans in 16 jobs, because clean.band_high changed 0.1 -> 0.08'
    >>> stage_line("snapshot", 0, 1, "follows shards")
    'snapshot: 1 job, because follows shards'
    >>> stage_line("train brainmass", 0, 0, "snapshot first is frozen")
    'train brainmass: nothing (snapshot first is frozen)'
    """
    if not jobs:
        return f"{title}: nothing ({why})"
    return f"{title}: {count(scans, 'scan') + ' in ' if scans else ''}{count(jobs, 'job')}, because {why}"


def count(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "job"), count(12345, "job")
    ('1 job', '12,345 jobs')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def table(rows: Sequence[Row], everything: Row) -> list[str]:
    """Return the costs as aligned lines, one per stage, then all."""
    head = ("stage", "jobs", "scans", "CPU-h", "GPU-h", "memory", "disk", "figures")
    body = [_cells(row, figures(row)) for row in rows]
    last = _cells(everything, "")
    lines = [head, *body, last]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    out = [
        "  ".join(
            f"{cell:<{width}}" if i in (0, len(head) - 1) else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, out))
    return [out[0], rule, *out[1:-1], rule, out[-1]]


def figures(row: Row) -> str:
    """Return where the figures of a row come from."""
    return f"this project ({count(row.measured, 'job')})" if row.measured else "default"


def _cells(row: Row, source: str) -> tuple[str, ...]:
    return (
        title(row.stage),
        f"{row.jobs:,}",
        f"{row.scans:,}" if row.scans else "",
        hours(row.cpu_s),
        hours(row.gpu_s) if row.gpu_s else "",
        size(row.memory_mib),
        size(row.disk_mib) if row.disk_mib else "",
        source,
    )


def hours(seconds: float) -> str:
    """Return hours with a useful number of digits.

    >>> hours(36), hours(7200), hours(3.6e6)
    ('0.01', '2.0', '1,000')
    """
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def size(mib: float) -> str:
    """Return a size in the unit that suits it.

    >>> size(0.5), size(540), size(2048), size(3 * 1024**2)
    ('1 MiB', '540 MiB', '2.0 GiB', '3.0 TiB')
    """
    if mib >= 1024**2:
        return f"{mib / 1024**2:.1f} TiB"
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{max(1, round(mib))} MiB"


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(40), duration(3000), duration(5400), duration(200_000)
    ('1 min', '50 min', '1.5 h', '2.3 days')
    """
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86400 else f"{seconds / 86400:.1f} days"


def summary(everything: Row, machine: Machine) -> str:
    """Return the one line that says it all."""
    gpu = f", {hours(everything.gpu_s)} GPU-hours" if everything.gpu_s else ""
    on = f"{count(machine.cores, 'core')}" + (f" and {count(machine.gpus, 'GPU')}" if everything.gpu_s else "")
    return (
        f"{count(everything.jobs, 'job')}: {hours(everything.cpu_s)} CPU-hours{gpu}, "
        f"at most {size(everything.memory_mib)} per job, {size(everything.disk_mib)} of disk; "
        f"about {duration(everything.wall_s)} on {on}"
    )


def notes(rows: Sequence[Row], machine: Machine) -> list[str]:
    """Return what the figures rest on: where the defaults were measured, and what is assumed."""
    lines = []
    defaults = [row.stage for row in rows if not row.measured]
    if defaults:
        on = [what for what in MEASURED_ON if any(what in COSTS[stage].source for stage in defaults)]
        lines.append(f"default: measured on two cores of an AMD EPYC ({'; '.join(on)}); --json says which per stage.")
    if any(row.measured for row in rows):
        lines.append(
            "this project: the defaults times what results/benchmarks and the records say of that many jobs (time: all "
            "together; memory: the largest; disk: all together)."
        )
    if any(row.gpu_s for row in rows):
        lines.append(
            "GPU-hours are an assumption, not a measurement: operations counted from the settings, at "
            f"{machine.tflops:g} TFLOP/s sustained per GPU (--gpu-tflops), and the time of the rest as on a core."
        )
    if passing := sum(row.temporary_mib for row in rows):
        lines.append(
            f"Up to {size(passing)} more for a while: frames of flat maps, removed as they become clips (flatmap.keep)."
        )
    lines.append(
        "Disk is what stays. What is remembered of earlier runs (steps, unchanged subjects) is not counted as saved. "
        "Jobs ask for 1.6 times the memory and 3 times the time, twice as much on the second attempt."
    )
    return [line for text in lines for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
