"""How many processes train, where, and the command that starts them.

One process without torchrun where one rank is asked for; torchrun with one rank per GPU on one node; and on several
nodes one torchrun per node, started by srun inside the job's own allocation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from boldmill.errors import ConfigError

TORCHRUN = "boldmill.train.torchrun"
"""Module that starts the ranks of one node and hands signals on to them."""
FIRST_PORT, PORTS = 20000, 20000
"""Ports the ranks of several nodes meet at, one per job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Ranks of a training job.

    Parameters
    ----------
    nodes : int
        Nodes of the job.
    per_node : int
        Ranks on each.
    threads : int
        CPU threads of each rank.
    gpus : bool
        Whether each rank has a GPU of its own.
    """

    nodes: int
    per_node: int
    threads: int
    gpus: bool

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.nodes * self.per_node


def geometry(*, gpus: int, nodes: int, ranks: int, threads: int) -> Geometry:
    """Return the geometry of a job.

    Parameters
    ----------
    gpus : int
        GPUs of the whole job, 0 for none.
    nodes : int
        Nodes of the job.
    ranks : int
        Ranks of the whole job; 0 for one per GPU, or one where there is no GPU.
    threads : int
        CPU threads of the job on one node; ranks without GPUs share them.

    Raises
    ------
    ConfigError
        The ranks cannot be spread evenly over the nodes.

    >>> geometry(gpus=8, nodes=2, ranks=0, threads=4)
    Geometry(nodes=2, per_node=4, threads=4, gpus=True)
    """
    total = ranks or max(gpus, nodes)
    if nodes < 1 or total % nodes:
        raise ConfigError("cannot spread the ranks", "training job", f"{total} ranks on {nodes} nodes",
                          "ask for a multiple of the nodes: gpu (or ranks) = nodes x per node")  # fmt: skip
    per_node = total // nodes
    return Geometry(
        nodes=nodes, per_node=per_node, threads=threads if gpus else max(1, threads // per_node), gpus=gpus > 0
    )


def command(shape: Geometry, words: Sequence[str], *, host: str = "", job: str = "") -> list[str]:
    """Return the command that starts all ranks of ``boldmill <words>``.

    Parameters
    ----------
    host, job : str
        First node and SLURM job id (:func:`boldmill.cluster.slurm.own_job`), for ranks on several nodes.
    """
    arguments = ["-m", "boldmill", *words, "--threads", str(shape.threads)]
    if shape.ranks == 1:
        return [sys.executable, *arguments]
    run = [sys.executable, "-m", TORCHRUN, "--nnodes", str(shape.nodes), "--nproc-per-node", str(shape.per_node)]
    run += ["--max-restarts", "0", "--rdzv-backend", "c10d"]
    if shape.nodes == 1:
        return [*run, "--rdzv-endpoint", "localhost:0", "--rdzv-id", "boldmill", *arguments]
    number = job.replace("_", "")  # of a task of an array: array_task
    if not (host and number.isdigit()):
        raise ConfigError("cannot start ranks on several nodes", "training job", "SLURM names no job and first node",
                          "run it as a SLURM job (--profile slurm), or on one node")  # fmt: skip
    run += ["--rdzv-endpoint", f"{host}:{FIRST_PORT + int(number) % PORTS}", "--rdzv-id", f"boldmill-{job}"]
    # --overlap: the step that runs this rule holds the allocation already; --mpi=none: torchrun needs no MPI, and the
    # site's default may need a library that is not on the node
    step = ["srun", "--overlap", "--kill-on-bad-exit=1", f"--nodes={shape.nodes}", f"--ntasks={shape.nodes}"]
    step += ["--ntasks-per-node=1", "--cpu-bind=none", "--mpi=none", "--export=ALL"]
    step += [f"--gpus-per-node={shape.per_node}"] if shape.gpus else []
    return [*step, *run, *arguments]
