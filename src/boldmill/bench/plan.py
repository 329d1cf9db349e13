"""How long a dry run, a plan and a dry run with nothing to do take for a large study, and how much memory.

70,000 made-up scans in 30 data sets, in buckets as `boldmill init` deals them. The peer is Snakemake on a Snakefile of
one rule; with ``--long`` also on one with seven jobs per subject, not per bucket. Every figure is that of a whole
command; CPU seconds beside wall seconds, because a busy machine changes the latter only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boldmill.bench.plan_case import study, write_study
from boldmill.bench.table import Row
from boldmill.errors import BoldmillError
from boldmill.plan.command import snakefile

OPTIONS = ("quick", "long")
SCANS, QUICK_SCANS = 70_000, 3_000
JOBS_A_BUCKET = 7
NOTHING, QUICK_NOTHING = 10_000, 500
"""Jobs of the finished project."""

SECONDS, NOTHING_SECONDS, GIB = 60.0, 30.0, 2.0
"""Goals: a dry run and a plan, a dry run with nothing to do, memory of either."""

ONE_RULE = 'rule all:\n    output: "made"\n    shell: "touch {output}"\n'

PER_SUBJECT = """
SUBJECTS = [line.strip() for line in open("subjects.txt")]
STAGES = ["preprocess", "parcellate", "flatmap", "augment", "clips", "shards", "pages"]
rule all:
    input: expand("made/{stage}/{subject}", stage=STAGES, subject=SUBJECTS)
rule preprocess:
    output: "made/preprocess/{subject}"
    shell: "touch {output}"
rule other:
    input: "made/preprocess/{subject}"
    output: "made/{stage}/{subject}"
    wildcard_constraints: stage="parcellate|flatmap|augment|clips|shards|pages"
    shell: "touch {output}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """What one command took: wall and CPU seconds, peak memory, and what it printed."""

    wall_s: float
    cpu_s: float
    gib: float
    text: str


def command(words: Sequence[str], folder: Path) -> Took:
    """Run a command of this interpreter in a folder and return what it took.

    Raises
    ------
    BoldmillError
        It failed.
    """
    import time

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "XDG_CONFIG_HOME": str(folder / ".xdg")}
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", *words], cwd=folder, stdout=out, stderr=out, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode(errors="replace")
    if child.returncode:
        raise BoldmillError(
            "cannot measure", " ".join(words[:3]), (text.strip() or "it said nothing").splitlines()[-1], "correct that"
        )
    return Took(wall_s=wall, cpu_s=usage.ru_utime + usage.ru_stime, gib=usage.ru_maxrss / 2**20, text=text)


def measure(repeats: int, *, quick: bool = False, long: bool = False) -> list[Row]:
    """Return the rows; each command runs once, because it takes long enough."""
    del repeats
    scans, nothing = (QUICK_SCANS, QUICK_NOTHING) if quick else (SCANS, NOTHING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = _bare(folder / "bare", ONE_RULE)
        rows = _large(folder / "large", scans, bare, quick)
        rows += _nothing(folder / "done", nothing, bare, quick)
        if long:
            rows += _per_subject(folder / "large", folder / "subjects", rows[0])
    return rows


def _large(folder: Path, scans: int, bare: Took, quick: bool) -> list[Row]:
    write_study(folder, study(scans), scans)
    words = ["snakemake", "-s", str(snakefile()), "--cores", "2"]
    parsed = command([*words, "--list-rules"], folder)
    dry = command([*words, "-n", "--quiet", "rules"], folder)
    planned = command(["boldmill", "plan", "--snakefile", str(snakefile()), "--cores", "2"], folder)
    said = f"{scans:,} scans, {n_jobs(dry.text):,} jobs"
    return [
        *_rows(f"dry run, {said}", dry, bare, None if quick else SECONDS),
        *_rows(f"boldmill plan, {said}", planned, bare, None if quick else SECONDS),
        Row(
            name="start of each job (reads the Snakefile and the index), CPU", ours=parsed.cpu_s, peer=bare.cpu_s,
            unit="s", ratio=bare.cpu_s / parsed.cpu_s,
        ),
    ]  # fmt: skip


def _nothing(folder: Path, jobs: int, bare: Took, quick: bool) -> list[Row]:
    buckets = -(-jobs // JOBS_A_BUCKET)
    write_study(folder, study(buckets * 40, buckets), buckets * 40)
    finished = command(["boldmill.bench.plan_finish", "-s", str(snakefile())], folder)
    dry = command(["snakemake", "-s", str(snakefile()), "--cores", "2", "-n"], folder)
    if "Nothing to be done" not in dry.text:
        raise BoldmillError("cannot measure", folder, "a finished project has jobs left", "see snakemake -n")
    made = int(finished.text.split()[-1])
    return _rows(f"dry run, {made:,} jobs finished: nothing to do", dry, bare, None if quick else NOTHING_SECONDS)


def _per_subject(large: Path, folder: Path, ours: Row) -> list[Row]:
    from boldmill.index.read import read_index

    subjects = [f"{dataset}-{subject}" for dataset, subject in read_index(large / "results").subjects()]
    folder.mkdir()
    (folder / "subjects.txt").write_text("\n".join(subjects))
    peer = _bare(folder, PER_SUBJECT)
    said = f"the same with {JOBS_A_BUCKET} jobs per subject ({len(subjects) * JOBS_A_BUCKET:,})"
    return [
        Row(name=f"dry run (peer: {said})", ours=ours.ours, peer=peer.wall_s, unit="s", ratio=peer.wall_s / ours.ours),
        Row(name=f"memory of {said}", ours=peer.gib, peer=None, unit="GiB", ratio=None),
    ]


def _bare(folder: Path, text: str) -> Took:
    folder.mkdir(exist_ok=True)
    (folder / "Snakefile").write_text(text)
    return command(["snakemake", "-n", "--cores", "2", "--quiet", "rules"], folder)


def _rows(name: str, took: Took, bare: Took, seconds: float | None) -> list[Row]:
    goals = ("", "", None, None) if seconds is None else (
        f"<= {seconds:g} s", f"<= {GIB:g} GiB", took.wall_s <= seconds, took.gib <= GIB
    )  # fmt: skip
    return [
        Row(name=f"{name} (peer: one rule)", ours=took.wall_s, peer=bare.wall_s, unit="s",
            ratio=bare.wall_s / took.wall_s, goal=goals[0], met=goals[2]),
        Row(name=f"{name}, CPU", ours=took.cpu_s, peer=bare.cpu_s, unit="s", ratio=bare.cpu_s / took.cpu_s),
        Row(name=f"{name}, memory", ours=took.gib, peer=bare.gib, unit="GiB", ratio=bare.gib / took.gib,
            goal=goals[1], met=goals[3]),
    ]  # fmt: skip


def n_jobs(text: str) -> int:
    """Return the number of jobs Snakemake's table of a dry run counts."""
    counts = job_counts(text)
    return sum(counts.values())


def job_counts(text: str) -> dict[str, int]:
    r"""Return jobs by rule of a dry run's table, targets without files left out.

    >>> job_counts("job    count\n-----  -----\ncohort_page  1\nall  1\ntotal  2\n")
    {'cohort_page': 1}
    """
    counts: dict[str, int] = {}
    for line in text.partition("job ")[2].splitlines()[2:]:
        words = line.split()
        if len(words) != 2 or words[0] == "total":
            break
        counts[words[0]] = int(words[1])
    counts.pop("all", None)
    return counts
