"""What an auditor asks of the machine and the code: versions, git state, host, job and graphics cards."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from boldmill import __version__
from boldmill.atomic import canonical_json, sha256_text

NAMED = ("numpy", "scipy", "nibabel", "nilearn", "nipype", "simpleitk", "dipy", "torch", "pyarrow", "snakemake")
"""Packages whose versions are named; all others are in the digest."""
PACKAGE = Path(__file__).resolve().parents[1]
DRIVER = Path("/proc/driver/nvidia/gpus")
SLURM = {
    "job": "SLURM_JOB_ID",
    "array_job": "SLURM_ARRAY_JOB_ID",
    "array_task": "SLURM_ARRAY_TASK_ID",
    "step": "SLURM_STEP_ID",
    "partition": "SLURM_JOB_PARTITION",
    "nodes": "SLURM_JOB_NODELIST",
    "restarts": "SLURM_RESTART_COUNT",
}


@cache
def packages() -> tuple[str, dict[str, str]]:
    """Return the digest (16 hex digits) of all installed packages, and their versions by name."""
    from importlib.metadata import distributions

    versions: dict[str, str] = {}
    for one in distributions():  # in the order of sys.path: of two of one name, the first is the one that is imported
        if name := one.metadata["Name"]:
            versions.setdefault(name.lower(), one.version)
    return sha256_text(canonical_json(versions))[:16], versions


@cache
def git() -> dict[str, Any]:
    """Return commit, whether tracked files differ from it, and the sha256 of that difference.

    Empty in a wheel, and where git is not installed (`code_sha256` tells the code apart there too). A clone may belong
    to somebody else: whose code runs here may be asked for its commit.
    """

    def ask(*words: str) -> bytes:
        command = ["git", "-c", "safe.directory=*", "-C", str(PACKAGE), *words]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError:
            return b""
        return done.stdout.strip() if done.returncode == 0 else b""

    tracked = ask("ls-files", "--error-unmatch", str(PACKAGE / "__init__.py"))  # a wheel may lie in a clone of others
    if not tracked:
        return {"commit": "", "dirty": False, "diff_sha256": None}
    dirty = bool(ask("status", "--porcelain", "--untracked-files=no"))
    diff = hashlib.sha256(ask("diff", "HEAD", "--binary", "--no-ext-diff")).hexdigest() if dirty else None
    return {"commit": ask("rev-parse", "HEAD").decode(), "dirty": dirty, "diff_sha256": diff}


@cache
def code() -> str:
    """Return the sha256 over every source file of the installed package: the same for a clone and its wheel."""
    total = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        total.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def user() -> str:
    """Return the name of the account the process runs under, or its number."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def cards() -> list[dict[str, str]]:
    """Return model and uuid of the graphics cards: those torch uses where it is loaded, else those of the driver."""
    torch = sys.modules.get("torch")  # never imported for this
    if torch is not None and torch.cuda.is_available():
        seen = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
        return [{"model": str(p.name), "uuid": str(getattr(p, "uuid", ""))} for p in seen]
    found = []
    for path in sorted(DRIVER.glob("*/information")) if torch is None else ():
        facts = dict(line.partition(":")[::2] for line in path.read_text(errors="replace").splitlines())
        found.append({"model": facts.get("Model", "").strip(), "uuid": facts.get("GPU UUID", "").strip()})
    return found


def slurm() -> dict[str, str]:
    """Return what SLURM says of the job, by our names; empty outside a job."""
    return {name: os.environ[key] for name, key in SLURM.items() if os.environ.get(key)}


def environment() -> dict[str, Any]:
    """Return all of it."""
    digest, versions = packages()
    return {
        "boldmill": __version__,
        "code_sha256": code(),
        "python": platform.python_version(),
        "packages_digest": digest,
        "packages": {name: versions[name] for name in NAMED if name in versions},
        "git": git(),
        "host": platform.node(),
        "user": user(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm": slurm(),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "cards": cards(),
    }
