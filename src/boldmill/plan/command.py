"""Say what will run and why, and what it will cost, before anything runs.

The jobs are Snakemake's own, from its dry run of the Snakefile; the reasons compare what each output was made with (the
record beside it) with the settings, stage versions and tickets of now. Costs are measured figures per stage, scan and
volume, replaced by this project's own once a few of its jobs have run; each row says which.

Examples:
  boldmill plan --config my.yaml
  boldmill plan --config my.yaml --profile profiles/slurm train
  boldmill plan --config my.yaml --cores 16 --json plan.json
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.errors import EXIT_OK, ConfigError
from boldmill.plan.table import COSTS, GPU_TFLOPS

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.index.read import Index
    from boldmill.plan.causes import Why
    from boldmill.plan.dryrun import DryRun, Job
    from boldmill.plan.estimate import Machine, Row

NVIDIA = Path("/dev/nvidiactl")
TRAINING = {"all", "train", "evaluate", "interpret", "report", "audit"}
"""Targets that a training may belong to."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("targets", nargs="*", help="targets as for snakemake, e.g. shards (default: all)")
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, as for --configfile")
    parser.add_argument("--profile", action="append", default=[], metavar="DIR", help="Snakemake profile, repeatable")
    parser.add_argument("--cores", type=int, metavar="N", help="cores (default: the profile's, else this machine's)")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="GPUs at the same time (default: the profile's jobs, or 0)"
    )
    parser.add_argument(
        "--gpu-tflops", type=float, default=GPU_TFLOPS, metavar="X",
        help=f"sustained rate of one GPU, TFLOP/s: an assumption (default {GPU_TFLOPS:g})",
    )  # fmt: skip
    parser.add_argument("--forcerun", nargs="+", default=[], metavar="RULE", help="as for snakemake: run these anyway")
    parser.add_argument("--snakefile", type=Path, metavar="FILE", help="Snakefile (default: that of this clone)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan here too")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan: Snakemake's jobs with reasons, costs per stage, and the machine they are counted for."""

    run: DryRun
    reasons: dict[int, Why]
    stages: list[dict[str, Any]]
    rows: list[Row]
    total: Row
    machine: Machine


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from boldmill.plan import render

    planned = make(args)
    for line in lines(planned):
        print(line)
    if planned.rows:
        print()
        for line in render.table(planned.rows, planned.total):
            print(line)
        print()
        for line in render.notes(planned.rows, planned.machine):
            print(line)
        print()
        print(render.summary(planned.total, planned.machine))
    if args.json is not None:
        from boldmill.atomic import write_json

        write_json(args.json, as_json(planned))
    return EXIT_OK


def make(args: argparse.Namespace) -> Planned:
    """Ask Snakemake, then the records, then the table."""
    from boldmill.config.load import parse
    from boldmill.index.read import read_index
    from boldmill.plan.dryrun import dry_run
    from boldmill.plan.estimate import estimate, total, wall_s
    from boldmill.plan.measured import factors, observed
    from boldmill.plan.resources import Resources

    found = dry_run(words(args), snakefile=args.snakefile or snakefile())
    if other := sorted({job.stage for job in found.jobs} - COSTS.keys()):
        why = "it runs on this machine, before the jobs that a plan is about"
        raise ConfigError("no plan", f"snakemake {' '.join(other)}", why, "run it; `snakemake -n` shows its command")
    config = parse(found.config)
    results = Path(config.results)
    index = read_index(results)
    resources = Resources(index, config)
    reasons = why_each(found, index, results)
    seen = observed(results, resources) if found.jobs else {}
    known = {stage: factors(stage, jobs, resources.voxels, resources.kept(stage)) for stage, jobs in seen.items()}
    machine = machine_of(found, args)
    rows = estimate(found.jobs, reasons, resources, known, machine)
    everything = total(rows, wall_s(found.jobs, rows, machine))
    return Planned(
        run=found,
        reasons=reasons,
        stages=[*told(found, reasons, rows), *held_back(found, config, args.targets)],
        rows=rows,
        total=everything,
        machine=machine,
    )


def words(args: argparse.Namespace) -> list[str]:
    """Return Snakemake's words for these options."""
    found = list(args.targets)
    found += ["--configfile", *args.config] if args.config else []
    for profile in args.profile:
        found += ["--profile", profile]
    found += ["--cores", str(args.cores)] if args.cores else []
    found += ["--forcerun", *args.forcerun] if args.forcerun else []
    return found


def snakefile() -> Path:
    """Return the Snakefile of this clone, or of the working directory."""
    from boldmill.setup.machine import clone_root

    folder = clone_root()
    path = (folder or Path()) / "Snakefile"
    if not path.is_file():
        raise ConfigError("cannot plan", path, "there is no Snakefile", "run in the clone, or give --snakefile FILE")
    return path


def machine_of(found: DryRun, args: argparse.Namespace) -> Machine:
    """Return cores and GPUs: of the options, else of the profile, else of this machine.

    A cluster runs ``jobs`` at a time, of as many cores as each asks for, and has GPUs.
    """
    from boldmill.plan.estimate import Machine

    widest = max((job.threads for job in found.jobs), default=1)
    cores = args.cores or (found.n_jobs * widest if found.cluster else found.cores) or os.cpu_count() or 1
    gpus = args.gpus if args.gpus is not None else (found.n_jobs if found.cluster else int(NVIDIA.exists()))
    return Machine(cores=cores, gpus=gpus, tflops=args.gpu_tflops)


def why_each(found: DryRun, index: Index, results: Path) -> dict[int, Why]:
    """Return why each job runs, by its place."""
    from boldmill.plan.causes import why

    return {i: why(job, _tickets(job, index), results) for i, job in enumerate(found.jobs)}


def _tickets(job: Job, index: Index) -> dict[str, str]:
    """Return the hashes of the tickets a job reads: of images, of tables, or of both, by its stage."""
    from boldmill.index.read import TABLE

    if job.bucket is None:
        return {}
    only = {"preprocess": False, "parcellate": True}.get(job.stage)
    scans = index.scans_in(job.bucket)
    return {scan.scan_id: scan.ticket_sha256 for scan in scans if only in (None, scan.kind == TABLE)}


def told(found: DryRun, reasons: dict[int, Why], rows: list[Row]) -> list[dict[str, Any]]:
    """Return what will run by stage, with the reason in words."""
    from boldmill.plan.causes import in_words

    by_stage: dict[str, list[Why]] = {}
    for i, job in enumerate(found.jobs):
        by_stage.setdefault(job.stage, []).append(reasons[i])
    scans = {row.stage: row.scans for row in rows}
    before = {stage: {name for one in held for name in one.follows} for stage, held in by_stage.items()}
    reach: dict[str, set[str]] = {}
    for stage, names in before.items():  # in the order of the DAG
        reach[stage] = names.union(*(reach.get(name, set()) for name in names))

    def implied(stage: str) -> frozenset[str]:
        return frozenset[str]().union(*(reach.get(name, set()) for name in before[stage]))

    return [
        {"stage": stage, "jobs": len(held), "scans": scans[stage], "because": in_words(held, implied(stage))}
        for stage, held in by_stage.items()
    ]


def held_back(found: DryRun, config: Config, targets: list[str]) -> list[dict[str, Any]]:
    """Return the trainings that do not run although there is newer data, because their snapshot is frozen."""
    from boldmill.paths import ROLLING, Layout
    from boldmill.shards.staleness import staleness

    name, stages = config.snapshot.name, {job.stage for job in found.jobs}
    if name == ROLLING or (targets and not TRAINING & set(targets)):
        return []
    if not Layout.at(config.results).snapshot(name).is_file():
        return []
    if "snapshot" not in stages and not staleness(config.results, name):
        return []
    because = f"snapshot {name} is frozen; shards are newer: name a new snapshot to train on them"
    trained = [f"train_{model}" for model in config.models.train]
    return [{"stage": one, "jobs": 0, "scans": 0, "because": because} for one in trained if one not in stages]


def lines(planned: Planned) -> list[str]:
    """Return what will run and why, one line per stage."""
    from boldmill.plan.render import stage_line
    from boldmill.plan.words import title

    found = [] if planned.run.jobs else ["Nothing to do: every output is there and up to date."]
    return found + [
        stage_line(title(one["stage"]), one["scans"], one["jobs"], one["because"]) for one in planned.stages
    ]


def as_json(planned: Planned) -> dict[str, Any]:
    """Return the plan as plain values: stages with reasons, costs, and every job."""
    return {
        "schema": 1,
        "stages": planned.stages,
        "costs": [{**asdict(row), "default": COSTS[row.stage].source} for row in planned.rows],
        "total": asdict(planned.total),
        "machine": asdict(planned.machine),
        "jobs": [
            {"rule": job.rule, "wildcards": job.wildcards, "stage": job.stage, "threads": job.threads,
             "mem_mb": job.mem_mb, "runtime": job.runtime, "gpu": job.gpu}
            for job in planned.run.jobs
        ],
    }  # fmt: skip
