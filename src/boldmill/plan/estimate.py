"""What the jobs of a run will cost: CPU hours, GPU hours, memory, disk, and the time it will take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from boldmill.plan.measured import Factors
from boldmill.plan.resources import work_of
from boldmill.plan.table import COSTS, GPU_TFLOPS, Work, training_s

if TYPE_CHECKING:
    from boldmill.plan.causes import Why
    from boldmill.plan.dryrun import Job
    from boldmill.plan.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the run has.

    Parameters
    ----------
    cores : int
        Cores used at the same time.
    gpus : int
        GPUs at the same time; 0: trainings run on the cores.
    tflops : float
        Sustained rate of one GPU, 1e12 operations per second.
    """

    cores: int
    gpus: int = 0
    tflops: float = GPU_TFLOPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the jobs of one stage cost in all.

    Parameters
    ----------
    stage : str
        Name of the stage.
    jobs, scans : int
        Jobs, and scans they work on.
    cpu_s, gpu_s : float
        Seconds of cores and of GPUs.
    memory_mib : float
        Peak of the largest job.
    disk_mib : float
        What stays on the disk.
    temporary_mib : float
        What is there for a while beside it.
    wall_s : float
        Time from the first to the last of them, where they are alone.
    busy_s : float
        Seconds of cores that are held, working or not.
    measured : int
        Jobs of this project the figures rest on; 0: the measured defaults.
    """

    stage: str
    jobs: int
    scans: int
    cpu_s: float
    gpu_s: float
    memory_mib: float
    disk_mib: float
    wall_s: float
    busy_s: float
    temporary_mib: float = 0.0
    measured: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one job costs: core seconds, GPU seconds, seconds from start to end, peak memory and disk (MiB)."""

    cpu_s: float
    gpu_s: float
    wall_s: float
    memory_mib: float
    disk_mib: float


def work_for(job: Job, why: Why | None, resources: Resources) -> Work:
    """Return the work of a job: that of its bucket, or of the subjects whose scans are to be done again."""
    work = resources.work(job.stage, job.bucket)
    index, again = resources.index, why.only_scans if why is not None else None
    if again is None or index is None or job.bucket is None or not COSTS[job.stage].pool:
        return work
    scans = index.scans_in(job.bucket)
    people = {(scan.dataset, scan.subject) for scan in scans if scan.scan_id in again}
    return work_of(scan for scan in scans if (scan.dataset, scan.subject) in people)


def spent(job: Job, work: Work, factors: Factors, resources: Resources, machine: Machine) -> Spent:
    """Return what one job costs.

    A training on a GPU lasts as long as its operations take at the assumed rate; a job that asks for a GPU holds it
    while it runs.
    """
    cost, voxels = COSTS[job.stage], resources.voxels
    base = cost.seconds(work, voxels) * factors.seconds
    at_once = max(1, min(job.threads, work.subjects)) if cost.pool else 1
    on_gpu = bool(job.gpu and machine.gpus)
    if on_gpu:
        seconds = base + work.flops / (machine.tflops * 1e12) / job.gpu
        cpu = seconds
    else:
        seconds = (base + training_s(work) * factors.seconds) / at_once
        cpu = base + training_s(work) * factors.seconds * min(2, job.threads)
    return Spent(
        cpu_s=cpu,
        gpu_s=seconds * job.gpu if on_gpu else 0.0,
        wall_s=seconds,
        memory_mib=cost.memory_mib(work, job.threads, voxels) * factors.memory,
        disk_mib=cost.disk_mib(work, resources.kept(job.stage)) * factors.disk,
    )


def estimate(
    jobs: Sequence[Job],
    reasons: Mapping[int, Why],
    resources: Resources,
    factors: Mapping[str, Factors],
    machine: Machine,
) -> list[Row]:
    """Return one row per stage, in the order of the run.

    Parameters
    ----------
    jobs : sequence of Job
        The jobs that will run, in the order of their levels.
    reasons : mapping of int to Why
        Why each runs, by its place.
    factors : mapping of str to Factors
        What this project's own runs say, by stage.
    """
    by_stage: dict[str, list[tuple[Job, Work]]] = {}
    for i, job in enumerate(jobs):
        by_stage.setdefault(job.stage, []).append((job, work_for(job, reasons.get(i), resources)))
    rows = []
    for stage, held in by_stage.items():
        of = factors.get(stage, Factors())
        each = [spent(job, work, of, resources, machine) for job, work in held]
        passing = sum(COSTS[stage].temporary_mib * work.volumes for _, work in held)
        kept = passing if "frames" in resources.config.flatmap.keep else 0.0
        rows.append(
            Row(
                stage=stage,
                jobs=len(held),
                scans=sum(
                    work.scans + work.tables * COSTS[stage].tables for job, work in held if job.bucket is not None
                ),
                cpu_s=sum(one.cpu_s for one in each),
                gpu_s=sum(one.gpu_s for one in each),
                memory_mib=max(one.memory_mib for one in each),
                disk_mib=sum(one.disk_mib for one in each) + kept,
                temporary_mib=passing - kept,
                wall_s=makespan([one.wall_s for one in each], slots(held[0][0], machine)),
                busy_s=sum(one.wall_s * max(1, job.threads) for one, (job, _) in zip(each, held, strict=True)),
                measured=of.jobs,
            )
        )
    return rows


def slots(job: Job, machine: Machine) -> int:
    """Return how many jobs like this one run at the same time."""
    fit = max(1, machine.cores // max(1, job.threads))
    return min(fit, max(1, machine.gpus // job.gpu)) if job.gpu and machine.gpus else fit


def makespan(seconds: Iterable[float], slots: int) -> float:
    """Return about how long jobs take on so many slots: no less than the longest, nor than an even share.

    >>> makespan([60, 60, 60], 2), makespan([100, 1, 1], 2)
    (90.0, 100.0)
    """
    seconds = list(seconds)
    return float(max(max(seconds, default=0.0), math.fsum(seconds) / slots))


def wall_s(jobs: Sequence[Job], rows: Sequence[Row], machine: Machine) -> float:
    """Return about how long the run takes: stages that wait for each other in turn, the others side by side.

    A level of stages takes as long as its longest stage, or as all its jobs need of the cores.
    """
    waits: dict[str, set[str]] = {}
    for job in jobs:
        waits.setdefault(job.stage, set()).update(job.after)
    levels: dict[str, int] = {}
    for job in jobs:  # in the order of the DAG, so that what a stage waits for is known before it
        before = [levels.get(stage, -1) for stage in waits[job.stage] - {job.stage}]
        levels[job.stage] = max(levels.get(job.stage, 0), 1 + max(before, default=-1))
    by_level: dict[int, list[Row]] = {}
    for row in rows:
        by_level.setdefault(levels[row.stage], []).append(row)
    return math.fsum(
        max(max(row.wall_s for row in held), math.fsum(row.busy_s for row in held) / machine.cores)
        for held in by_level.values()
    )


def total(rows: Sequence[Row], wall: float) -> Row:
    """Return all stages together."""
    base = Row(stage="total", jobs=0, scans=0, cpu_s=0, gpu_s=0, memory_mib=0, disk_mib=0, wall_s=wall, busy_s=0)
    return replace(
        base,
        jobs=sum(row.jobs for row in rows),
        cpu_s=math.fsum(row.cpu_s for row in rows),
        gpu_s=math.fsum(row.gpu_s for row in rows),
        memory_mib=max((row.memory_mib for row in rows), default=0.0),
        disk_mib=math.fsum(row.disk_mib for row in rows),
        temporary_mib=math.fsum(row.temporary_mib for row in rows),
    )
