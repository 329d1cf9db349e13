"""The literal `snakemake --profile slurm` on a real one-node SLURM (started by .ci/slurm.sh), from a bare clone."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
GPU_RULES = {"train_model", "evaluate_model", "few_shot_model", "zero_shot_model", "interpret_model"}
TINY = """
shards: {n_buckets: 2}
snapshot: {heldout: 0.2, validation: 0}
clean: {motion: '6', compcor: 2, drift: linear, band_low: null, band_high: null}
preprocess: {n4_iterations: [10, 10], head_syn_iterations: [10, 5], brain_syn_iterations: [10, 5]}
flatmap: {movie_frames: 0}
models:
  brainmass: {epochs: 2, warmup_epochs: 1, batch: 4}
  fmri_mae: {steps: 3, batch: 2}
  fm_app: {epochs_fmri: 2, epochs_t1w: 2, unseen: []}
evaluate: {folds: 2, repeats: 1, bootstrap: 100, permutations: 99, max_clips: 1}
"""


@pytest.fixture(scope="module")
def ran(cluster: None, tmp_path_factory: pytest.TempPathFactory):
    """The tiny cohort through SLURM; the profile's waits are cut short, nothing else is changed."""
    spec = importlib.util.spec_from_file_location("slurm_line", ROOT / "tests" / "e2e" / "line.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clone = tmp_path_factory.mktemp("slurm") / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    line = module.Line(clone)
    line.cohort("--tiny")
    (clone / "tiny.yaml").write_text(TINY)
    # No accounting database on this node, and seconds instead of minutes between looks at the queue.
    quick = ["--slurm-no-account", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]
    quick += ["--seconds-between-status-checks", "2", "--slurm-status-command", "squeue", "--verbose"]
    quick += ["--max-threads", "2"]  # of the node
    line.done = line.run("snakemake", "--profile", "slurm", *quick, "--configfile", "tiny.yaml")
    return line


def submissions(text: str) -> dict[str, list[str]]:
    """Return rule -> its sbatch command lines, as the executor printed them."""
    found: dict[str, list[str]] = {}
    for command in re.findall(r"sbatch call: (sbatch .+)", text):
        rule = re.search(r"--comment \"?'?(?:rule_)?([a-z_]+?)(?:_wildcards|['\"\s])", command)
        assert rule, command
        found.setdefault(rule[1], []).append(command)
    return found


def test_the_tiny_cohort_goes_through(ran) -> None:
    for path in ("report/index.html", "provenance/ledger.parquet", "models/fmri_mae/model.safetensors"):
        assert (ran.results / path).exists()
    good = set(ran.demo["good_scans"])
    done = {scan_id for scan_id, scan in ran.scans().items() if scan["status"] == "ok"}
    assert good and good <= done


def test_jobs_ran_inside_slurm(ran) -> None:
    for path in ("preprocess/demo/sub-01.json", "models/brainmass/model.safetensors", "evaluate/fm_app/metrics.tsv"):
        record = json.loads((ran.results / f"{path}.prov.json").read_text())
        assert record["environment"]["slurm_job"]


def test_gpu_rules_ask_for_a_gpu_and_no_other_does(ran) -> None:
    calls = submissions(ran.done.stdout + ran.done.stderr)
    assert set(calls) >= GPU_RULES | {"preprocess_bucket", "parcellate_bucket", "shard_bucket"}
    for rule, commands in calls.items():
        for command in commands:
            assert ("--gpus=1" in command) == (rule in GPU_RULES), command
            assert re.search(r"(?:-p|--partition)[ =]'?gpu\b", command) if rule in GPU_RULES else "gpu" not in command


def test_a_gpu_job_saw_its_gpu(ran) -> None:
    record = json.loads((ran.results / "models/brainmass/model.safetensors.prov.json").read_text())
    assert record["environment"]["gpu"] not in (None, "", "NoDevFiles")
