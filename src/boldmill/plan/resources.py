"""Memory and time that rules ask for: the measured table, the scans of the job, a margin, and the attempt.

A profile's ``set-resources`` wins over both. The Snakefile imports this at parse time: nothing heavy is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from boldmill.plan.table import COSTS, Work, image_mib, training_s, voxels_of

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.index.read import Index, ScanRow

MEMORY_MARGIN = 1.6
"""Jobs ask for this much more than was measured; the next attempt asks for twice as much."""

TIME_MARGIN = 3.0
"""The same for time: nodes differ more in speed than in memory."""

MIN_MINUTES, DAY_MINUTES = 20, 24 * 60
MIN_MB, STEP_MB = 1000, 100
TABLE = "table"
"""Kind of a scan that needs no preprocessing (:data:`boldmill.index.read.TABLE`, which needs pyarrow)."""

CUDA_MIB = 2500
"""Main memory a process takes on a GPU beyond what was measured without one: an assumption, not measured."""

MB_PER_MIB = 1.048576
TRAIN = "train_"
UNKNOWN_VOLUMES = 300
"""Volumes assumed for a scan whose index row has none."""


def work_of(scans: Iterable[ScanRow]) -> Work:
    """Return the work of a job on these scans."""
    images = volumes = tables = longest = 0
    people: set[tuple[str, str]] = set()
    for scan in scans:
        if scan.kind == TABLE:
            tables += 1
            continue
        length = (UNKNOWN_VOLUMES if scan.n_volumes is None else scan.n_volumes) if scan.kind != "anat" else 0
        images, volumes, longest = images + 1, volumes + length, max(longest, length)
        people.add((scan.dataset, scan.subject))
    return Work(scans=images, volumes=volumes, subjects=len(people), tables=tables, longest=longest)


class Resources:
    """The ``mem_mb`` and ``runtime`` callables of the rules.

    Parameters
    ----------
    index : Index or None
        The scans; None where there is no index yet.
    config : Config
        Its output grid sets the figures per volume, its models the operations of a training.
    """

    def __init__(self, index: Index | None, config: Config) -> None:
        self.index, self.config = index, config
        self.voxels = voxels_of(config.spaces.resolution)
        self._buckets: dict[int, Work] = {}

    @cached_property
    def _all(self) -> Work:
        return work_of(self.index.ok) if self.index else Work()

    def work(self, stage: str, bucket: int | None = None) -> Work:
        """Return the work of the job of a bucket, or of a stage's one job on all scans."""
        if bucket is not None and self.index is not None:
            if bucket not in self._buckets:
                self._buckets[bucket] = work_of(self.index.scans_in(bucket))
            return self._buckets[bucket]
        if stage.startswith(TRAIN):
            from boldmill.plan.flops import train_flops

            return replace(self._all, flops=train_flops(self.config, stage.removeprefix(TRAIN), self._all))
        return self._all

    def kept(self, stage: str) -> float:
        """Return the disk of the 4D images that a stage leaves where the configuration keeps them, MiB per volume."""
        if stage != "preprocess":
            return 0.0
        of = self.config.preprocess
        return (len(of.keep) + len(of.output_spaces)) * image_mib(self.config.spaces.resolution)

    def memory(self, stage: str) -> Callable[..., int]:
        """Return ``mem_mb`` of a rule: of one bucket where the job has one, else of all scans; doubled per attempt."""

        def mem_mb(wildcards: Any, attempt: int, threads: int = 1) -> int:
            name = stage.format(**dict(wildcards.items()))
            work = self.work(name, _bucket(wildcards))
            peak = COSTS[name].memory_mib(work, threads, self.voxels) + (CUDA_MIB if COSTS[name].gpu else 0)
            wanted = MEMORY_MARGIN * MB_PER_MIB * peak
            return max(MIN_MB, STEP_MB * math.ceil(wanted / STEP_MB)) * int(2 ** (attempt - 1))

        return mem_mb

    def minutes(self, stage: str) -> Callable[..., int]:
        """Return ``runtime`` of a rule; doubled per attempt, at most a day unless a single scan needs more."""

        def runtime(wildcards: Any, attempt: int, threads: int = 1) -> int:
            name = stage.format(**dict(wildcards.items()))
            cost, work = COSTS[name], self.work(name, _bucket(wildcards))
            at_once = max(1, min(threads, work.subjects)) if cost.pool else 1
            whole = limit(cost.seconds(work, self.voxels) / at_once + training_s(work))
            alone = Work(scans=1, subjects=1, volumes=work.longest, longest=work.longest)
            ceiling = max(DAY_MINUTES, limit(cost.seconds(alone, self.voxels)))
            return min(whole * int(2 ** (attempt - 1)), ceiling)

        return runtime


def limit(seconds: float) -> int:
    """Return the minutes to ask for where a job is expected to take ``seconds``.

    >>> limit(20), limit(3600)
    (20, 180)
    """
    return max(MIN_MINUTES, math.ceil(TIME_MARGIN * seconds / 60))


def _bucket(wildcards: Any) -> int | None:
    value = wildcards.get("bucket")
    return None if value is None else int(value)
