r"""Start training on the resources of its job, watch the clock, stop it in time, and have it start again.

One process, torchrun with one rank per GPU, or srun with one torchrun per node, by --gpus, --nodes and --ranks. When
SIGUSR1 or SIGTERM comes, or the job's time limit is near (asked of SLURM, also where no signal was ordered), the ranks
save and stop. Inside SLURM the job is then requeued where that is allowed and takes up its run where it stopped;
elsewhere the exit status is 143, and Snakemake's `retries` or the next call goes on from there.

Example: boldmill launch --gpus 2 --nodes 1 --threads 4 -- train --model brainmass --snapshot manifest.json \
    --out results/models/brainmass/model.safetensors --config-json "$(cat settings.json)"
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

MARGIN = 60.0
"""Seconds before the job's limit: the second line of defence, after a signal 120 s before (profiles/slurm)."""
REQUEUES = 100
"""Times a job is started again, against one whose limit is too short for a single step."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of the whole job (default: those SLURM gave)")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the job (default 1)")
    parser.add_argument("--ranks", type=int, default=0, help="ranks of the whole job (default 0: one per GPU)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads on a node; ranks without GPU share them")
    parser.add_argument("--margin", type=float, default=MARGIN, help="stop this many seconds before the limit (60)")
    parser.add_argument("--max-requeues", type=int, default=REQUEUES, help="how often SLURM may start it again (100)")
    parser.add_argument("words", nargs="+", metavar="COMMAND", help="after --: train and its options but --threads")


def run(args: argparse.Namespace) -> int:
    """Run the ranks to their end and return 0, 143 where they can go on later, or their own exit status."""
    from boldmill.cluster.geometry import command, geometry
    from boldmill.cluster.slurm import first_host, own_job, show
    from boldmill.cluster.supervise import open_folder, say, start_again, supervise
    from boldmill.train.command import EXIT_INTERRUPTED

    # GPUs asked for per node (gres) are not counted in --gpus, but this node's are seen
    gpus = args.gpus or args.nodes * int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    shape = geometry(gpus=gpus, nodes=args.nodes, ranks=args.ranks, threads=args.threads)
    job = own_job()
    known = show(job) if job else None
    nodes = known.nodes if known else os.environ.get("SLURM_JOB_NODELIST", "")  # where SLURM does not answer now
    host = first_host(nodes) if shape.nodes > 1 else ""
    where = f"SLURM job {job}" + (f", start {known.restarts + 1}" if known else "") if job else "no SLURM job"
    start = command(shape, args.words, host=host, job=job)
    folder = folder_of(args.words)
    open_folder(folder)
    count = f"{shape.ranks} rank{'s' * (shape.ranks > 1)} on {shape.nodes} node{'s' * (shape.nodes > 1)}"
    say(f"{count}; {where}", folder)
    status = supervise(start, folder, job, args.margin)
    if status == EXIT_INTERRUPTED and job:
        start_again(job, args.max_requeues, folder)
    return status


def folder_of(words: list[str]) -> Path:
    """Return the folder of an unfinished run's history: beside the output."""
    out = Path(words[words.index("--out") + 1]) if "--out" in words[:-1] else Path("out")
    return out.parent / ".launch"
