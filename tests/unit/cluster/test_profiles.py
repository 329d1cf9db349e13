"""Profiles: Snakemake reads them all, they name rules that there are, and an overlay does not lose the signal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from boldmill.workflow import parse_options

ROOT = Path(__file__).parents[3]
PROFILES = sorted(path.name for path in (ROOT / "profiles").iterdir() if path.is_dir())
TRAINING = {"train_model", "train_ablation"}


def read(name: str) -> dict[str, Any]:
    (path,) = (ROOT / "profiles" / name).glob("config.*yaml")
    return dict(yaml.safe_load(path.read_text()))


def rules() -> dict[str, str]:
    """Rule -> its text."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    return {part.split(":", 1)[0]: part for part in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]}


def test_there_are_these_profiles() -> None:
    assert {"local", "slurm", "slurm-gpu", "slurm-test", "test"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_snakemake_reads_a_profile(name: str) -> None:
    options = parse_options(["--profile", str(ROOT / "profiles" / name), "-n"])
    for key, value in read(name).items():
        if isinstance(value, bool | int) and key != "jobs":
            assert getattr(options, key.replace("-", "_")) == value, key


@pytest.mark.parametrize("name", PROFILES)
def test_resources_are_set_for_rules_that_there_are(name: str) -> None:
    assert set(read(name).get("set-resources", {})) <= set(rules())
    assert "slurm_partition" not in str(read(name))


@pytest.mark.parametrize("name", ["slurm", "slurm-gpu", "slurm-test"])
def test_training_is_told_before_its_limit(name: str) -> None:
    for rule in TRAINING:
        extra = read(name)["set-resources"][rule]["slurm_extra"]
        assert re.fullmatch(r"--signal=USR1@\d+", extra), "B: would reach the batch shell alone"


def test_the_overlay_speaks_of_exactly_the_rules_with_a_gpu() -> None:
    with_gpu = {name for name, text in rules().items() if re.search(r"^\s+gpu=1,", text, flags=re.MULTILINE)}
    assert set(read("slurm-gpu")["set-resources"]) == with_gpu


def test_the_overlay_replaces_only_what_it_sets() -> None:
    words = [word for name in ("slurm", "slurm-gpu") for word in ("--profile", str(ROOT / "profiles" / name))]
    both = parse_options([*words, "-n"])
    assert both.executor == "slurm" and both.slurm_requeue and both.retries == 2
    resources = both.set_resources["train_model"]
    assert {"gpu_model", "gpu", "cpus_per_gpu", "slurm_extra"} == set(dict(resources))


@pytest.mark.parametrize("name", ["slurm", "slurm-test"])
def test_the_executor_reads_the_partitions(name: str) -> None:
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    found = {one.name: one for one in read_partition_file(ROOT / "profiles" / name / "partitions.yaml")}
    assert {"cpu", "gpu"} <= set(found)


def test_training_rules_start_the_launcher_in_the_place_of_their_shell() -> None:
    for rule in TRAINING:
        text = rules()[rule]
        assert '"exec python -m boldmill launch --gpus {resources.gpu} --nodes {resources.nodes}' in text
        assert re.search(r"nodes=1,\s+ranks=0,", text)
