"""Every way a job can die on a cluster ends in one clear line, and the next run is clean."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slurm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
spec = importlib.util.spec_from_file_location("slurm_project", HERE / "project.py")
assert spec is not None and spec.loader is not None
projects = importlib.util.module_from_spec(spec)
spec.loader.exec_module(projects)
helpers = projects.load(HERE / "conftest.py")
FAULTS = ["snakemake", "-s", str(HERE / "faults.smk"), "--keep-going", "--slurm-no-requeue", *helpers.QUICK]
FAULTS += ["--slurm-partition-config", str(ROOT / "profiles" / "slurm-test" / "partitions.yaml")]


def failures(folder: Path) -> list[str]:
    return helpers.call(folder, "boldmill", "status", "--failures").splitlines()


def state(job: str) -> str:
    words = ["squeue", "-h", "-t", "all", "-j", job, "-o", "%T %N"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture(scope="module")
def faulty(cluster: None, tmp_path_factory: pytest.TempPathFactory):
    """One run whose jobs run out of memory, lose their node, reach their limit and are cancelled."""
    folder = tmp_path_factory.mktemp("faults")
    running = helpers.start(folder, *FAULTS)

    def running_job(rule: str) -> tuple[str, str]:
        def found() -> tuple[str, str] | None:
            job = re.search(rf"with SLURM jobid (\d+) \(log: \S+rule_{rule}/", (folder / "run.log").read_text())
            what, _, node = state(job[1]).partition(" ") if job else ("", "", "")
            return (job[1], node) if job and what == "RUNNING" else None

        return helpers.wait_for(found, 120, f"{rule} runs", running)  # type: ignore[return-value]

    unwanted, _ = running_job("unwanted")
    subprocess.run(["scancel", unwanted], check=True)
    _, node = running_job("sleepy")
    try:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"], check=True)
        running.wait(timeout=400)
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
    lines = failures(folder)
    (folder / "again").touch()
    clean = helpers.start(folder, *FAULTS)
    return folder, running.returncode, lines, clean.wait(timeout=300)


def only(lines: list[str], rule: str) -> str:
    found = [line for line in lines if line.startswith(f"{rule}, ")]
    assert len(found) == 1, lines
    return found[0]


def test_a_job_out_of_memory_is_killed_and_gets_twice_as_much(faulty) -> None:
    folder, _, lines, _ = faulty
    assert re.fullmatch(
        r"hungry, attempt 1, SLURM job \d+: memory ran out \((\d+ MB used, )?450 MB asked for\); "
        r"attempt 2 with mem_mb 450 -> 900 went well",
        only(lines, "hungry"),
    )
    assert (folder / "hungry.txt").exists()


def test_a_failed_node_is_named_as_such(faulty) -> None:
    assert re.search(r"SLURM job \d+: its node failed; not tried again\. Fix: run again", only(faulty[2], "sleepy"))


def test_a_reached_limit_says_how_to_raise_it(faulty) -> None:
    line = only(faulty[2], "slow")
    assert "the time limit of 1 min was reached" in line and "--set-resources slow:runtime=2" in line


def test_a_cancelled_job_says_so(faulty) -> None:
    assert "it was cancelled" in only(faulty[2], "unwanted")


def test_the_next_run_is_clean(faulty) -> None:
    folder, first, _, second = faulty
    assert first != 0 and second == 0
    assert all((folder / f"{name}.txt").exists() for name in ("hungry", "sleepy", "slow", "unwanted"))
    assert failures(folder) == ["No job of the last run failed."]


def test_a_full_disk_is_one_line_and_a_clean_rerun(cluster: None, tmp_path: Path) -> None:
    folder = projects.project(tmp_path, steps=2)
    disk = folder / "results"
    held = folder / "held"
    disk.rename(held)
    disk.mkdir()
    size = sum(path.stat().st_size for path in held.rglob("*")) + 300_000
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        shutil.copytree(held, disk, dirs_exist_ok=True)
        command = projects.training(*helpers.QUICK, "--set-resources", "train_model:slurm_partition=gpu")
        assert helpers.start(folder, *command).wait(timeout=300) != 0
        (line,) = failures(folder)
        assert re.search(
            r"train_model \(model=brainmass\), attempt 1, SLURM job \d+: cannot write: .*No space left", line
        )
        assert "Fix: free space" in line
        subprocess.run(["mount", "-o", "remount,size=50000000", str(disk)], check=True)
        assert helpers.start(folder, *command).wait(timeout=300) == 0
        assert (folder / projects.TARGET).exists() and not list(disk.rglob(".tmp-*"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_the_overlay_asks_for_a_model_of_gpu(cluster: None, tmp_path: Path) -> None:
    folder = projects.project(tmp_path, steps=2)
    overlay = folder / "gpus"
    overlay.mkdir()
    content = yaml.safe_load((ROOT / "profiles" / "slurm-gpu" / "config.v9+.yaml").read_text())
    content["set-resources"]["train_model"] |= {"gpu_model": "fake", "gpu": 2, "cpus_per_gpu": 1}
    content["set-resources"] = {"train_model": content["set-resources"]["train_model"]}
    (overlay / "config.yaml").write_text(yaml.safe_dump(content))
    profiles = ["--profile", str(ROOT / "profiles" / "slurm-test"), "--profile", str(overlay), "--verbose"]
    assert helpers.start(folder, *projects.training(*profiles)).wait(timeout=300) == 0
    (sbatch,) = re.findall(r"sbatch call: (sbatch .+?) --wrap", (folder / "run.log").read_text())
    for word in ("--gpus=fake:2", "--cpus-per-gpu=1", "--signal=USR1@120", "--nodes=1", "--requeue", "-p gpu"):
        assert word in sbatch, sbatch
    record = json.loads((folder / f"{projects.TARGET}.prov.json").read_text())
    assert '"ranks": 2' in json.dumps(record)


def test_a_vanished_raw_file_is_named_and_the_others_are_kept(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "unit"))
    made = importlib.import_module("preprocess.test_bucket")
    mill = made.Mill(tmp_path, shards={"n_buckets": 1}, results=str(tmp_path / "results"))
    made.made.describe(mill.root, "XCP-D")
    for number, subject in enumerate(made.PEOPLE):
        made.series(mill.root, subject, number)
    mill.ingest()
    mill.template()
    (tmp_path / "project.json").write_text(json.dumps(mill.config.model_dump(mode="json")))
    raw = next((mill.root / "sub-02").rglob("*timeseries.tsv"))
    content = raw.read_bytes()
    raw.unlink()
    command = ["snakemake", str(mill.results / "preprocess" / "bucket-000.json"), "-s", str(ROOT / "Snakefile")]
    command += ["--configfile", "project.json", *helpers.QUICK, "--rerun-triggers", "mtime"]
    command += ["--default-resources", "slurm_partition=cpu"]
    assert helpers.start(tmp_path, *command).wait(timeout=300) != 0
    (line,) = failures(tmp_path)
    assert re.search(r"preprocess_bucket \(bucket=000\), attempt 1, SLURM job \d+: raw file vanished: .*sub-02", line)
    raw.write_bytes(content)
    assert helpers.start(tmp_path, *command).wait(timeout=300) == 0
    record = json.loads((mill.results / "preprocess" / "bucket-000.json.prov.json").read_text())
    assert record["reused"] == 2
