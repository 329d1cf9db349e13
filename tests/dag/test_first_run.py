"""One literal command is enough on a first run; looks at the DAG say what is missing; targets exist."""

import subprocess
import sys
from pathlib import Path

import pytest

from boldmill.rng import bucket_of

ROOT = Path(__file__).parents[2]
STAGES = [
    *("ingest", "preprocess", "parcellate", "flatmap", "augment", "shards"),
    *("train", "evaluate", "report", "audit", "all"),
]


@pytest.mark.parametrize("look", ["-n", "--lint", "--unlock", "--rulegraph", "--dag", "--summary"])
def test_without_an_index_a_look_stops_with_one_line_naming_ingest(project, look: str) -> None:
    done = project.snakemake(look, check=False)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("boldmill")]
    assert len(lines) == 1 and "snakemake ingest" in lines[0]
    assert "Traceback" not in done.stderr
    assert not (project.folder / "results" / "index").exists()


def test_a_real_first_run_builds_the_index_says_so_and_goes_on(project) -> None:
    done = project.snakemake("results/templates/template.json", check=False)
    assert "building it before the workflow starts" in done.stderr
    assert (project.folder / "results" / "index" / "runs.parquet").exists()
    assert "rule templates" in done.stdout + done.stderr
    assert "train            0 of 3" in done.stdout + done.stderr  # the closing table


def test_another_configuration_is_not_run_on_the_old_index(project) -> None:
    project.ingest()
    project.config["datasets"] = project.config["datasets"][:1]
    project.write_config()
    done = project.snakemake("-n", check=False)
    assert done.returncode != 0 and "snakemake ingest" in done.stderr


def test_the_index_of_a_running_workflow_is_not_made_anew(project) -> None:
    """Its jobs read it: a second call with another configuration would stop them all."""
    project.ingest()
    index = project.folder / "results" / "index" / "runs.parquet"
    before = index.read_bytes()
    project.config["shards"] = {"n_buckets": 5}
    project.write_config()
    lock = project.folder / ".snakemake" / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("results/index/buckets/bucket-000.json\n")
    done = project.snakemake("shards", check=False)
    assert done.returncode and "another Snakemake works in this folder" in done.stderr
    assert index.read_bytes() == before
    project.snakemake("ingest")
    project.snakemake("--unlock")
    assert not lock.exists()


def test_every_stage_is_a_target(project) -> None:
    project.ingest()
    jobs = {stage: set(project.jobs(stage)) for stage in STAGES[1:]}
    assert all(jobs.values())
    assert all(found <= jobs["all"] for found in jobs.values())
    assert jobs["preprocess"] < jobs["parcellate"] < jobs["augment"] < jobs["shards"] < jobs["train"] < jobs["evaluate"]
    assert jobs["flatmap"] < jobs["shards"]


def test_an_unknown_key_is_refused_with_the_nearest_name(project) -> None:
    project.config["claen"] = {"compcor": 3}
    project.write_config()
    done = project.snakemake("-n", check=False)
    assert done.returncode != 0 and "did you mean 'clean'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_users_datasets_replace_those_of_the_demo(project, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("datasets:\n  - {name: beta, root: beta}\n")
    project.snakemake("ingest", "--configfile", "my.yaml")
    jobs = project.jobs("preprocess", "--configfile", "my.yaml")
    mine = {f"{bucket_of('beta', subject, 3):03d}" for subject in ("01", "02")}
    assert {job for job in jobs if job.startswith("preprocess")} == {f"preprocess_bucket {number}" for number in mine}


@pytest.mark.parametrize("profile", ["local", "slurm"])
def test_the_literal_profile_name_works_from_a_bare_clone(tmp_path: Path, profile: str) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    assert (clone / profile).is_symlink()
    command = [sys.executable, "-m", "snakemake", "--profile", profile, "-n"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False, env=environment)
    assert "snakemake ingest" in done.stderr, done.stderr


def test_no_default_profile_is_shipped() -> None:
    assert not (ROOT / "profiles" / "default").exists()
