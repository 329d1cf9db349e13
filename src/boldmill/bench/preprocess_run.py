"""Run the preprocessing commands on the phantom in child processes, and measure what each child used.

``os.wait4`` gives the CPU-seconds and the peak resident memory of exactly that child and what it waited for. A child's
peak starts at that of the process it was split off from, so a small interpreter starts each command, not this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json, sha256_file
from boldmill.errors import MachineFault

DATASET = "phantom"
SCAN = f"{DATASET}_sub-01_task-rest"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
LAUNCH = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
with open(sys.argv[1], "w") as stream:
    json.dump([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss], stream)
"""
MEMORY_UNIT = 1024 if sys.platform.startswith("linux") else 1
"""``ru_maxrss`` is in KiB on Linux, in bytes on macOS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """``cpu_s`` of all threads and children, ``peak_bytes`` resident."""

    cpu_s: float
    peak_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One preprocessed phantom: its results folder, manifest, what the command used, and CPU-s of each step."""

    results: Path
    manifest: dict[str, Any]
    used: Used
    costs: dict[str, float]

    @property
    def anat(self) -> dict[str, Path]:
        """Files of the anatomy by the manifest's keys."""
        return {key: self.results / path for key, path in self.manifest["anat"]["files"].items()}

    @property
    def scan(self) -> dict[str, Any]:
        """The run's entry in the manifest."""
        entry: dict[str, Any] = self.manifest["scans"][SCAN]
        return entry

    @property
    def run(self) -> dict[str, Path]:
        """Files of the run by the manifest's keys."""
        return {key: self.results / path for key, path in self.scan["files"].items()}


def measured(command: Sequence[str], folder: Path) -> Used:
    """Run a command in ``folder`` with one thread, and return what it used.

    Raises
    ------
    MachineFault
        The command failed; the end of its messages is in the fault.
    """
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    log = folder / "command.log"
    with log.open("wb") as stream:
        launch = [sys.executable, "-S", "-c", LAUNCH, "command.json", *command]
        subprocess.run(launch, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=True)
    code, cpu_s, peak = read_json(folder / "command.json")
    if code != 0:
        said = log.read_text(errors="replace")[-2000:]
        raise MachineFault("a benchmark command failed", " ".join(command[:5]), said, "run the command on its own")
    return Used(cpu_s=cpu_s, peak_bytes=float(peak * MEMORY_UNIT))


def prepare(root: Path, settings: dict[str, Any] | None = None) -> Any:
    """Index the phantom below ``root`` and read its template; return the configuration."""
    from boldmill.config.load import parse
    from boldmill.demo.parameters import SPACE

    given = {
        "datasets": [{"name": DATASET, "root": str((root / "bids").resolve())}],
        "spaces": {"template_source": "demo", "template": SPACE, "demo_template": str((root / "template").resolve())},
        **(settings or {}),
    }
    config = parse(given)
    _stage(root, config, "ingest", "--results", "results")
    _stage(root, config, "templates", "--out", "results/templates/template.json")
    return config


def preprocess(root: Path, config: Any, results: str = "results") -> Outcome:
    """Run ``boldmill preprocess`` on the phantom and return its outcome.

    Raises
    ------
    MachineFault
        The command failed, or it quarantined the phantom.
    """
    out = f"{results}/preprocess/{DATASET}/sub-01.json"
    ticket = f"results/index/tickets/{SCAN}.json"
    words = ["--tickets", ticket, "--template", "results/templates/template.json", "--results", results, "--out", out]
    used = _stage(root, config, "preprocess", *words, dataset=DATASET)
    manifest = read_json(root / out)
    entry = manifest["scans"][SCAN]
    if entry["status"] != "ok":
        raise MachineFault("the phantom was quarantined", SCAN, str(entry.get("reason")), str(entry.get("fix")))
    noted = read_json(root / f"{out}.prov.json")
    return Outcome(results=root / results, manifest=manifest, used=used, costs=_costs(noted))


def different_files(one: Path, other: Path, folder: str = "derivatives") -> tuple[int, list[str]]:
    """Return how many files two results folders share and the paths whose bytes differ or that only one has.

    Provenance records are left out: they hold times.
    """
    names = [
        {p.relative_to(r).as_posix() for p in (r / folder).rglob("*") if p.is_file() and ".prov." not in p.name}
        for r in (one, other)
    ]
    shared = sorted(names[0] & names[1])
    wrong = [name for name in shared if sha256_file(one / name) != sha256_file(other / name)]
    return len(shared), sorted([*wrong, *(names[0] ^ names[1])])


def _stage(root: Path, config: Any, stage: str, *words: str, dataset: str | None = None) -> Used:
    from boldmill.stages import stage_json

    settings = stage_json(config, stage, {dataset}) if dataset else stage_json(config, stage)
    command = [sys.executable, "-m", "boldmill", stage, *words, "--config-json", settings]
    return measured(command, root)


def _costs(record: dict[str, Any]) -> dict[str, float]:
    """Return CPU-s by step of a provenance record, wherever its note lies."""
    found: dict[str, float] = {}

    def walk(value: Any, name: str = "") -> None:
        if isinstance(value, dict):
            if "cpu_s" in value:
                found[name] = float(value["cpu_s"])
            else:
                for key, part in value.items():
                    walk(part, str(key))

    walk(record)
    return found
