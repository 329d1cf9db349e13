"""Checks of `boldmill doctor` on a login node: partitions against what SLURM says, and what compute nodes must see."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from boldmill.cluster.slurm import ask, parse_gpus, parse_time
from boldmill.setup.checks import Check, standing

SHARED = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "panfs", "wekafs", "glusterfs"),
    *("orangefs", "9p", "virtiofs", "fuse.glusterfs", "fuse.ceph", "fuse.sshfs", "fuse.cvmfs2", "fuse.juicefs"),
}
"""File systems that other machines can see."""
FEW_INODES = 200_000
"""A run writes some dozens of files per subject; below this many free ones the doctor warns."""


class Partition(NamedTuple):
    """What SLURM says of a partition: limits of its largest node; None is unlimited or unknown."""

    minutes: int | None
    threads: int
    mem_mb: int
    gpus: int


LIMITS = ("max_runtime", "max_threads", "max_mem_mb", "max_gpu")
"""Keys of a partition in profiles/slurm/partitions.yaml that are compared, in the order of :class:`Partition`."""


def login_node(folders: Mapping[str, Path], root: Path | None = None) -> list[Check]:
    """Return the checks of a machine with ``sbatch``; nothing elsewhere.

    Parameters
    ----------
    folders : mapping
        What a folder is -> its path: those that compute nodes must see.
    root : Path or None
        The clone, whose ``profiles/slurm/partitions.yaml`` is read.
    """
    if shutil.which("sbatch") is None:
        return []
    found = []
    if job := os.environ.get("SLURM_JOB_ID"):
        fix = "leave the job and start Snakemake on the login node: it submits the jobs itself"
        found.append(Check("warn", "login node", f"this shell runs inside SLURM job {job}", fix))
    said = sinfo()
    if said and root is not None:
        found += partitions(root / "profiles" / "slurm" / "partitions.yaml", said)
    elif not said:
        fix = "compare profiles/slurm/partitions.yaml with what your site publishes"
        found.append(Check("warn", "partitions", "not compared: sinfo says nothing here", fix))
    several = len(nodes()) != 1  # none: it does not say, and a cluster has several
    found += [visible(name, path, several=several) for name, path in folders.items()]
    found += [inodes(name, path) for name, path in folders.items() if name == "results"]
    return found


def _ask(*words: str) -> list[str]:
    return [line.strip() for line in ask(*words).splitlines() if line.strip()]


def nodes() -> list[str]:
    """Return the names of SLURM's nodes."""
    return sorted(set(_ask("sinfo", "--noheader", "-N", "-o", "%N")))


def sinfo() -> dict[str, Partition]:
    """Return SLURM's partitions."""
    return read_sinfo(_ask("sinfo", "--noheader", "-o", "%R|%l|%c|%m|%G"))


def read_sinfo(lines: list[str]) -> dict[str, Partition]:
    """Read lines of ``sinfo -o "%R|%l|%c|%m|%G"``; several kinds of nodes in a partition count by their largest.

    Other lines (``CLUSTER: name`` of several clusters) are passed over.

    >>> read_sinfo(["gpu|2-00:00:00|64+|512000|gpu:a100:4(S:0-1)"])
    {'gpu': Partition(minutes=2880, threads=64, mem_mb=512000, gpus=4)}
    """
    found: dict[str, Partition] = {}
    for line in lines:
        parts = re.fullmatch(r"([^|]+)\|([^|]+)\|(\d+)\+?\|(\d+)\+?\|(.*)", line)
        if parts is None:
            continue
        name, limit, cores, memory, gres = parts.groups()
        one = Partition(minutes(limit), int(cores), int(memory), parse_gpus(gres))
        old = found.get(name, one)
        bigger = (max(pair) for pair in zip(one[1:], old[1:], strict=True))
        found[name] = Partition(one.minutes, *bigger)
    return found


def minutes(limit: str) -> int | None:
    """Return a time limit of SLURM (``days-hours:minutes:seconds``) in minutes; None where there is none.

    >>> minutes("1-12:00:00"), minutes("30:00"), minutes("infinite")
    (2160, 30, None)
    """
    seconds = parse_time(limit)
    return None if seconds is None else int(seconds // 60)


def partitions(path: Path, said: Mapping[str, Partition]) -> list[Check]:
    """Compare the site's table with SLURM: a name SLURM does not know fails, a limit above SLURM's warns.

    Limits are read as the executor reads them, e.g. ``max_runtime: 2-00:00:00`` of its own generator.
    """
    import yaml
    from snakemake_executor_plugin_slurm.utils import parse_time_to_minutes  # type: ignore[import-untyped]
    from snakemake_interface_common.exceptions import WorkflowError

    fix = f"name your partitions in {path.relative_to(path.parents[2])}: `sinfo -o '%R %l %c %m %G'`"
    try:
        table: dict[str, dict[str, Any]] = {
            str(name): {
                key: parse_time_to_minutes(value) if key == "max_runtime" else int(value)
                for key, value in (limits or {}).items()
                if key in LIMITS and value is not None
            }
            for name, limits in yaml.safe_load(path.read_text(encoding="utf-8"))["partitions"].items()
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, WorkflowError) as error:
        return [Check("fail", "partitions", f"{path} cannot be read: {error}", fix)]
    found = []
    for name, limits in table.items():
        label = f"partition {name}"
        if name not in said:
            found.append(Check("fail", label, f"SLURM has none of that name, but {', '.join(sorted(said))}", fix))
            continue
        have = said[name]
        over = [
            f"{key} {limits[key]}, SLURM has {limit}"
            for key, limit in zip(LIMITS, have, strict=True)
            if limit is not None and limits.get(key, 0) > limit
        ]
        found.append(
            Check("warn", label, "; ".join(over), f"lower them in {path.name}") if over else _fine(label, have)
        )
    if not any(limits.get("max_gpu") for limits in table.values()):
        found.append(Check("warn", "partitions", "none has GPUs (max_gpu)", "training then runs on CPU partitions"))
    return found


def _fine(label: str, have: Partition) -> Check:
    time = "no time limit" if have.minutes is None else f"{have.minutes / 60:.0f} h"
    text = f"{time}, {have.threads} threads, {have.mem_mb / 1000:.0f} GB, {have.gpus} GPUs a node"
    return Check("ok", label, text)


def file_system(path: Path, mounts: str | None = None) -> str:
    """Return the type of the file system that holds a path, by the longest mount point above it."""
    path = standing(path)
    text = Path("/proc/mounts").read_text(encoding="utf-8") if mounts is None else mounts
    kind, depth = "unknown", -1
    for line in text.splitlines():
        _, point, name = line.split()[:3]
        where = Path(point.replace("\\040", " "))
        if path.resolve().is_relative_to(where) and len(where.parts) >= depth:
            kind, depth = name, len(where.parts)
    return kind


def visible(name: str, path: Path, *, several: bool, kind: str | None = None) -> Check:
    """Whether compute nodes can see a folder, as far as its file system tells."""
    path = path.absolute()
    kind = kind or file_system(path)
    if kind in SHARED or not several:
        return Check("ok", f"shared {name}", f"{path} ({kind}{'' if several else ', one node only'})")
    fix = "put it on a file system that all nodes mount (ask your site which)"
    text = f"{path} lies on {kind}, which other nodes may not see"
    return Check("fail" if kind in ("tmpfs", "ramfs") else "warn", f"shared {name}", text, fix)


def inodes(name: str, path: Path, free: int | None = None, total: int | None = None) -> Check:
    """Files that can still be made where the results go."""
    path = standing(path)
    stat = os.statvfs(path)
    free, total = stat.f_favail if free is None else free, stat.f_files if total is None else total
    if not total:
        return Check("ok", f"inodes {name}", "this file system does not count them; see your site's quota")
    text = f"{free:,} files can still be made in {path} (a quota of your own may be lower)"
    if free < FEW_INODES:
        return Check("warn", f"inodes {name}", text, "ask for more, or set `results:` to another disk")
    return Check("ok", f"inodes {name}", text)
