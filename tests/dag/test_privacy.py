"""Labels of people never leave `results/`: not into Snakemake's logs and records, not into a scheduler's names.

Two data sets with unmistakable labels go through the real Snakefile, with the options of the shipped profiles: parcel
series that succeed, and a raw run whose file vanished, so that its job fails and says so in its own log.
"""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
GOOD, BAD, VALUE = "PRIVATE1", "PRIVATE2", "SECRETVALUE9"
SECRETS = (GOOD, BAD, VALUE)
BASE64 = re.compile(rb"[A-Za-z0-9+/]{12,}={0,2}")


@pytest.fixture
def private(project):
    """Tables of somebody, images of somebody else whose series vanishes after ingest."""
    series = project.folder / "series"
    series.mkdir()
    for label in (GOOD, "OTHER"):
        np.save(series / f"sub-{label}_task-rest.npy", np.random.default_rng(3).normal(size=(40, 6)))
    (series / "participants.tsv").write_text(f"participant_id\tnote\nsub-{GOOD}\t{VALUE}\nsub-OTHER\tx\n")
    for path in (project.folder / "beta").rglob("sub-01*"):
        if path.is_file():
            path.rename(path.with_name(path.name.replace("sub-01", f"sub-{BAD}")))
    (project.folder / "beta" / "sub-01").rename(project.folder / "beta" / f"sub-{BAD}")
    project.participants["beta"] = {BAD: {"group": VALUE, "age": 41}, "02": {"group": "a", "age": 42}}
    project.write_participants("beta")
    tables = {"name": "alpha", "root": "series", "kind": "tables", "atlas": "HO111", "phenotypes": "participants.tsv"}
    project.config |= {"datasets": [tables, {"name": "beta", "root": "beta"}], "models": {"train": ["brainmass"]}}
    project.config["shards"] = {"n_buckets": 1}
    project.write_config()
    return project


def outside(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file outside results and raw data: its path, and its bytes with whatever they hold in base64."""
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_file() and place.parts[0] not in ("results", "alpha", "beta", "series", "bin"):
            yield place.as_posix(), decoded(place.as_posix().encode() + b"\n" + path.read_bytes())


def decoded(data: bytes) -> bytes:
    """Return bytes, followed by what their base64 words decode to."""
    found = [data]
    for word in BASE64.findall(data):
        for cut in range(4):  # a word may follow other letters
            part = word.rstrip(b"=")[cut:]
            found.append(base64.b64decode(part[: len(part) // 4 * 4]))
    return b"\n".join(found)


def leaks(folder: Path) -> dict[str, list[str]]:
    """Return file outside results -> secrets it holds."""
    found = {name: [s for s in SECRETS if s.encode() in data] for name, data in outside(folder)}
    return {name: secrets for name, secrets in found.items() if secrets}


def seen_by(project, profile: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as a user does: with a shipped profile; `test` is the one that says most."""
    return project.snakemake("--profile", str(ROOT / "profiles" / profile), "--cores", "2", *words, check=False)


def test_the_search_sees_labels_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"x {GOOD}")
    (tmp_path / "b").write_bytes(b"--args " + base64.b64encode(f'{{"subject": "{BAD}"}}'.encode()))
    (tmp_path / base64.b64encode(f"results/sub-{GOOD}.json".encode()).decode()).write_text("{}")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "c").write_text(GOOD)
    assert len(leaks(tmp_path)) == 3


def test_labels_stay_below_results_whether_jobs_succeed_or_fail(private) -> None:
    private.ingest()
    assert private.config["shards"]["n_buckets"] == 1  # one bucket: who fails and who succeeds share its files
    (private.folder / "beta" / f"sub-{BAD}" / "func" / f"sub-{BAD}_task-rest_bold.nii.gz").unlink()
    template = private.folder / "results" / "templates" / "template.json"
    template.parent.mkdir(parents=True)
    template.write_text("{}")
    failed = seen_by(private, "test", "preprocess")
    assert failed.returncode != 0
    log = private.folder / "results" / "logs" / "preprocess" / "bucket-000.log"
    assert BAD in log.read_text()  # the reason is there, below results
    told = failed.stdout + failed.stderr
    assert "preprocess_bucket (bucket=000), attempt 1: failed, its log says why" in told
    assert "read results/logs/preprocess/bucket-000.log" in told and BAD not in told
    private.config["datasets"] = private.config["datasets"][:1]
    private.write_config()
    private.ingest()
    done = seen_by(private, "local", "shards")
    assert done.returncode == 0, done.stderr
    assert GOOD in (private.folder / "results" / "index" / "tables" / "bucket-000.json").read_text()
    records = [name for name, _ in outside(private.folder) if name.startswith(".snakemake/metadata/")]
    assert len(records) >= 6 and any(name.startswith(".snakemake/log/") for name, _ in outside(private.folder))
    assert leaks(private.folder) == {}


def test_a_scheduler_learns_no_label(private) -> None:
    """The executor's own command lines: job names, comments, log folders, and what it encodes for the node."""
    private.ingest()
    (private.folder / "results" / "templates").mkdir(parents=True)
    (private.folder / "results" / "templates" / "template.json").write_text("{}")
    bin_folder = private.folder / "bin"
    bin_folder.mkdir()
    said = private.folder / "said.txt"
    for name, answer in {
        "sbatch": "exit 1",
        "sinfo": "true",
        "squeue": "true",
        "sacct": "true",
        "scancel": "true",
    }.items():
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "{name}" "$@" >> "{said}"\nenv >> "{said}"\n{answer}\n')
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")]
    command += ["--profile", str(ROOT / "profiles" / "slurm"), "--slurm-no-account", "--retries", "0", "preprocess"]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")},
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_CONFIG_HOME": str(private.folder / ".xdg"),
    }
    subprocess.run(command, cwd=private.folder, env=environment, capture_output=True, timeout=120, check=False)
    text = said.read_text()
    assert "sbatch" in text and "preprocess_bucket" in text  # it was asked, by rule and bucket
    assert leaks(private.folder) == {}


def test_no_shipped_profile_prints_the_logs_of_failed_jobs() -> None:
    """Snakemake would copy them into its own log: they name people."""
    for profile in sorted((ROOT / "profiles").glob("*/config*.yaml")):
        assert not re.search(r"^show-failed-logs:\s*true", profile.read_text(), flags=re.MULTILINE), profile
