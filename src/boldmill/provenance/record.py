"""Layer 1 of provenance: ``<output>.prov.json`` beside every output, written atomically on success only."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from boldmill import __version__
from boldmill.atomic import canonical_json, sha256_file, sha256_text, write_json
from boldmill.stages import Settings

SCHEMA = 1
SUFFIX = ".prov.json"
MEMBER = "::"
"""Between the path of an archive and the name of its member."""


def prov_path(output: str | Path) -> Path:
    """Return where the record of an output lies."""
    return Path(f"{output}{SUFFIX}")


@cache
def _packages() -> tuple[str, dict[str, str]]:
    from importlib.metadata import distributions

    versions = {d.metadata["Name"].lower(): d.version for d in distributions() if d.metadata["Name"]}
    return sha256_text(canonical_json(versions))[:16], versions


@cache
def _git() -> dict[str, Any]:
    root = Path(__file__).resolve().parent

    def ask(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def environment() -> dict[str, Any]:
    """Return versions, git state, host and job: what an auditor asks of the machine."""
    digest, versions = _packages()
    named = ("numpy", "scipy", "nibabel", "nilearn", "nipype", "simpleitk", "dipy", "torch", "pyarrow", "snakemake")
    return {
        "boldmill": __version__,
        "python": platform.python_version(),
        "packages_digest": digest,
        "packages": {name: versions[name] for name in named if name in versions},
        "git": _git(),
        "host": platform.node(),
        "user": os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid()),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def shown(path: str | Path) -> str:
    """Return a path as records name it: the same text for the same file, however it was given.

    Relative to the working directory where it lies below it, else absolute. Links to folders are followed; a linked
    file keeps its own name, because a git-annex object's name says nothing.
    """
    absolute = Path(path).parent.resolve() / Path(path).name
    return (absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute).as_posix()


def member_path(path: str | Path, member: str) -> str:
    """Return how records name a part of a file: a member of an archive, known by the hash of its own content."""
    return f"{path}{MEMBER}{member}" if member else str(path)


def describe(path: str | Path) -> dict[str, Any]:
    """Return path, size and sha256 of a file."""
    return {"path": shown(path), "size": Path(path).stat().st_size, "sha256": sha256_file(path)}


class Recorder:
    """Record one command: ``with Recorder(settings, out=..., inputs=[...]) as record: ...``.

    On a clean exit every input and output is hashed and one record is written beside ``out``, and beside
    every further output given by :meth:`add_output` with ``own_record=True``. On an error nothing is written.
    """

    def __init__(self, settings: Settings, *, out: str | Path, inputs: Iterable[str | Path] = ()) -> None:
        self.settings = settings
        self.out = Path(out)
        self.inputs: dict[str, dict[str, Any] | None] = {str(p): None for p in inputs}
        self.outputs: dict[str, Path] = {str(self.out): self.out}
        self.temporary: set[str] = set()
        self.own: list[Path] = [self.out]
        self.extra: dict[str, Any] = {}

    def add_input(self, path: str | Path, known: dict[str, Any] | None = None) -> None:
        """Add an input; ``known`` (size, sha256) spares hashing a file whose hash is already certain."""
        self.inputs[str(path)] = None if known is None else {**known, "path": shown(path)}

    def add_output(self, path: str | Path, *, own_record: bool = False, temporary: bool = False) -> None:
        """Add an output of the same command; a ``temporary`` one is not missed once it is gone."""
        self.outputs[str(path)] = Path(path)
        if temporary:
            self.temporary.add(str(path))
        if own_record:
            self.own.append(Path(path))

    def note(self, **values: Any) -> None:
        """Add facts to the record (device, seeds, counts)."""
        self.extra.update(values)

    def __enter__(self) -> Recorder:
        self.started = datetime.now(UTC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        record = {
            "schema": SCHEMA,
            "stage": self.settings.stage,
            "stage_version": self.settings.version,
            "settings": self.settings.text,
            "settings_digest": self.settings.digest,
            "command": ["boldmill", *sys.argv[1:]],
            "inputs": [known or describe(path) for path, known in sorted(self.inputs.items())],
            "outputs": [
                {**describe(path), **({"temporary": True} if name in self.temporary else {})}
                for name, path in sorted(self.outputs.items())
            ],
            "environment": environment(),
            "started": self.started.isoformat(timespec="milliseconds"),
            "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "peak_rss_mib": round(peak / 1024, 1),
            **self.extra,
        }
        for path in self.own:
            write_json(prov_path(path), record)
