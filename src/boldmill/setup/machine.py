"""Checks of `boldmill doctor` on the machine and the clone: GPU, SLURM, memory, disk, git."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from boldmill.cluster.slurm import SECONDS
from boldmill.config.model import Config
from boldmill.paths import Layout
from boldmill.setup.checks import Check, standing

if TYPE_CHECKING:
    from boldmill.index.read import Index

GIB = 1 << 30


def clone_root() -> Path | None:
    """Return the folder of the clone (where the Snakefile lies), or None for an installed copy."""
    here = Path(__file__).resolve()
    return next((folder for folder in here.parents if (folder / "Snakefile").is_file()), None)


def gpu() -> Check:
    """A GPU torch can use; training on the CPU works, slowly."""
    if importlib.util.find_spec("torch") is None:
        return Check("fail", "GPU", "torch is not installed", "make install")
    import torch

    if torch.cuda.is_available():
        return Check("ok", "GPU", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return Check("ok", "GPU", "none here: training runs on the CPU, or on a cluster's GPU nodes")
    build = f"torch {torch.__version__}"
    fix = f"install a CUDA build of torch=={torch.__version__.split('+')[0]} that fits the driver"
    return Check("warn", "GPU", f"nvidia-smi is there, but {build} sees no GPU", fix)


def slurm() -> Check:
    """A SLURM login node; not needed with --profile local."""
    if shutil.which("sbatch") is None:
        return Check("ok", "SLURM", "no sbatch here; needed for --profile slurm only")
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "-o", "%R %D %G"], capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        how = "took too long" if isinstance(error, subprocess.TimeoutExpired) else f"cannot be run ({error.strerror})"
        return Check("warn", "SLURM", f"sbatch is there, but sinfo {how}", "ask the site whether slurmctld is up")
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"sinfo ended with {done.returncode}"]
        return Check("warn", "SLURM", f"sbatch is there, but {why[0]}", "ask the site whether slurmctld is up")
    partitions = "; ".join(line.strip() for line in done.stdout.splitlines())
    return Check("ok", "SLURM", f"{partitions} (partition, nodes, gres; name them in profiles/slurm/partitions.yaml)")


def expected_bytes(index: Index, config: Config) -> int:
    """Return the disk that what is left to do will take: of buckets without shards, by the table of `boldmill plan`."""
    from boldmill.plan.resources import Resources, work_of
    from boldmill.plan.table import COSTS

    layout, resources = Layout.at(config.results), Resources(index, config)
    left = {bucket for bucket in index.buckets() if not layout.shard("scans", bucket).is_file()}
    work = work_of(scan for scan in index.ok if scan.bucket in left)
    return int(sum(cost.disk_mib(work, resources.kept(stage)) for stage, cost in COSTS.items()) * (1 << 20))


def machine(config: Config) -> list[Check]:
    """Cores, memory, and disk against what the indexed runs will need."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = f"{cores} cores, {memory / GIB:.1f} GiB memory"
    fix = (
        ""
        if memory >= 6 * GIB
        else "a subject at 2 mm needs about 6 GiB: use a larger machine or `spaces.resolution: 4`"
    )
    found = [Check("ok" if not fix else "warn", "cores and memory", size, fix)]
    folder = standing(Path(config.results))
    if not os.access(folder, os.W_OK):
        return [*found, Check("fail", "disk", f"{folder} cannot be written", "set `results:` to a folder of yours")]
    free = shutil.disk_usage(folder).free
    needed = 0
    if os.access(Layout.at(config.results).index, os.F_OK):
        from boldmill.index.read import read_index

        needed = expected_bytes(read_index(config.results), config)
    text = f"{free / GIB:.1f} GiB free in {folder}, about {needed / GIB:.1f} GiB needed for what is left to do"
    if free < max(needed, GIB):
        return [*found, Check("fail", "disk", text, "free some (boldmill clean) or set `results:` to a larger disk")]
    return [*found, Check("ok", "disk", text)]


def clone(root: Path | None = None) -> list[Check]:
    """The clone: git state, and the links that make `--profile slurm` and `--profile local` work by name."""
    root = root or clone_root()
    if root is None:
        return [Check("warn", "clone", "no Snakefile above the package", "run from a clone of the repository")]
    found = []
    for name in ("slurm", "local"):
        link = root / name
        if link.is_symlink() and link.is_dir():
            found.append(Check("ok", f"link {name}", f"-> {link.readlink()}"))
        else:
            kind = (
                "a text file (core.symlinks=false)" if link.is_file() else "broken" if link.is_symlink() else "missing"
            )
            fix = f"git config core.symlinks true && rm -f {name} && git checkout -- {name}"
            found.append(Check("fail", f"link {name}", kind, fix))
    words = ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return [*found, Check("warn", "git", "git cannot be run", "install it: provenance records carry no commit")]
    if done.returncode:
        return [*found, Check("warn", "git", "no git state", "provenance records carry no commit; use a clone")]
    changed = len(done.stdout.splitlines())
    text = f"{changed} changed files" if changed else "clean"
    note = "commit before a run you want to trace: records say the tree was dirty" if changed else ""
    return [*found, Check("warn" if changed else "ok", "git", text, note)]
