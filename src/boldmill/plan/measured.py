"""Figures of this project's own runs: they correct the measured defaults once there are a few.

For a stage, what was observed divided by what the table expected of the same jobs gives one factor each for time,
memory and disk, so that the figures still follow the volumes of a scan.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import read_json
from boldmill.paths import Layout
from boldmill.plan.past import SUFFIX
from boldmill.plan.table import COSTS, Work, training_s

if TYPE_CHECKING:
    from boldmill.plan.resources import Resources

ENOUGH = 3
"""Jobs that must be measured before they replace the defaults; one, where a stage has one job."""

MOST = 48
"""Jobs of a stage that are read, evenly over all there are: records of large buckets are long."""

SINGLE = ("templates", "snapshot", "freeze_shards", "freeze", "cohort", "report", "ledger")
FOLDERS = {"operators": "operator_", "train": "train_"}
"""Benchmark folders whose stages are named by folder and file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One job that ran: its work, CPU seconds, peak memory and bytes written (MiB); None where not measured."""

    work: Work
    seconds: float | None = None
    memory_mib: float | None = None
    disk_mib: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What to multiply the figures of the table by, and on how many jobs that rests (0: the defaults hold)."""

    seconds: float = 1.0
    memory: float = 1.0
    disk: float = 1.0
    jobs: int = 0


def factors(stage: str, seen: Iterable[Seen], voxels: float, kept: float = 0.0) -> Factors:
    """Return the factors of a stage from jobs that ran; ``kept`` as for :meth:`boldmill.plan.table.Cost.disk_mib`.

    >>> ran = [Seen(work=Work(), seconds=36.0, memory_mib=270.0)]
    >>> factors("templates", ran, 1.0)
    Factors(seconds=2.0, memory=0.5, disk=1.0, jobs=1)
    """
    seen, cost = list(seen), COSTS[stage]
    if len(seen) < (1 if stage in SINGLE or stage.startswith(("train_", "operator_")) else ENOUGH):
        return Factors()
    timed = [(one.seconds, cost.seconds(one.work, voxels) + training_s(one.work)) for one in seen if one.seconds]
    held = [one.memory_mib / cost.memory_mib(one.work, 1, voxels) for one in seen if one.memory_mib]
    written = [(one.disk_mib, cost.disk_mib(one.work, kept)) for one in seen if one.disk_mib is not None]
    expected = sum(right for _, right in written)
    return Factors(
        seconds=sum(left for left, _ in timed) / sum(right for _, right in timed) if timed else 1.0,
        memory=max(held, default=1.0),
        disk=sum(left for left, _ in written) / expected if expected else 1.0,
        jobs=len(seen),
    )


def observed(results: Path, resources: Resources) -> dict[str, list[Seen]]:
    """Return the jobs that ran below a results folder, by stage."""
    found: dict[str, list[Seen]] = {}
    for stage, paths in _benchmarks(results).items():
        if stage in COSTS and stage != "preprocess":
            found[stage] = [one for path in _some(paths) if (one := _benchmarked(path, stage, results, resources))]
    people = list(_subjects(results, resources))
    return found | ({"preprocess": people} if people else {})


def _some(paths: list[Path]) -> list[Path]:
    step = max(1, len(paths) / MOST)
    return [paths[int(i * step)] for i in range(min(MOST, len(paths)))]


def _benchmarks(results: Path) -> dict[str, list[Path]]:
    root, found = results / "benchmarks", dict[str, list[Path]]()
    for path in sorted(root.rglob("*.jsonl")):
        parts = path.relative_to(root).with_suffix("").parts
        stage = parts[0]
        if stage in FOLDERS:
            stage = FOLDERS[stage] + parts[-1].partition("-")[0]
        found.setdefault(stage, []).append(path)
    return found


def _benchmarked(path: Path, stage: str, results: Path, resources: Resources) -> Seen | None:
    try:
        last = json.loads(path.read_text().splitlines()[-1])
        seconds, memory = float(last["s"]), float(last["max_rss"])
    except (ValueError, KeyError, IndexError, TypeError):  # "NA" where a job was too short to be sampled
        return None
    number = path.stem.removeprefix("bucket-")
    bucket = int(number) if path.stem.startswith("bucket-") and number.isdigit() else None
    record = _record(_output(results, stage, path.stem, bucket))
    stays = [item["size"] for item in record["outputs"] if not item.get("temporary")] if record else []
    written = None if record is None else sum(stays) / 2**20
    if record is not None:
        memory = max(memory, float(record["peak_rss_mib"]))  # the kernel's own mark; a benchmark looks now and then
    known = None if stage.startswith("train_") and not _whole_on_cpu(record) else seconds
    return Seen(work=resources.work(stage, bucket), seconds=known, memory_mib=memory or None, disk_mib=written)


def _whole_on_cpu(record: dict[str, Any] | None) -> bool:
    """Whether a benchmark of a training tells the time of all of it on a CPU, which is what the table holds.

    A GPU takes a fraction of that time, and of a training that SLURM started again the last start alone is measured.
    """
    if record is None:
        return True
    again = ((record.get("environment") or {}).get("slurm") or {}).get("restarts") or "0"
    return not str(record.get("device", "")).startswith("cuda") and str(again) == "0"


def _output(results: Path, stage: str, name: str, bucket: int | None) -> Path | None:
    layout = Layout.at(results)
    if bucket is None:
        return layout.checkpoint(name) if stage.startswith("train_") else None
    per_bucket = {"parcellate": layout.parcellated, "flatmap": layout.flat, "pages": layout.pages}
    if stage in per_bucket:
        return per_bucket[stage](bucket)
    table = {"clips": "flat_clips", "shards": "scans"}.get(stage)
    return layout.shard(table, bucket) if table else None


def _subjects(results: Path, resources: Resources) -> Iterator[Seen]:
    """Yield preprocessed subjects, each measured on its own in its record."""
    index = resources.index
    if index is None:
        return
    from boldmill.plan.resources import work_of

    layout = Layout.at(results)
    done = [(who, path) for who in index.subjects() if (path := layout.subject(*who)).is_file()]
    step = max(1, len(done) / MOST)
    for i in range(min(MOST, len(done))):
        who, path = done[int(i * step)]
        record = _record(path)
        if record is None:
            continue
        costs = record.get("cost_cpu_s") or {}
        spent = sum(step["cpu_s"] for part in costs.values() for step in part.values())
        wall = (datetime.fromisoformat(record["ended"]) - datetime.fromisoformat(record["started"])).total_seconds()
        yield Seen(
            work=work_of(index.scans_of(*who)),
            seconds=max(spent, wall) if spent else None,
            memory_mib=float(record["peak_rss_mib"]),
            disk_mib=sum(item["size"] for item in record["outputs"]) / 2**20,
        )


def _record(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        found = read_json(f"{path}{SUFFIX}")
        return found if {"outputs", "peak_rss_mib", "started", "ended"} <= found.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
