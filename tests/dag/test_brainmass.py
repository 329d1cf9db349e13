"""Few-shot, zero-shot, ablation and the ABIDE target: their jobs, and what a change reruns."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from boldmill.config.load import merge, read_yaml
from boldmill.rng import bucket_of

ROOT = Path(__file__).parents[2]
ABIDE = ROOT / "workflow" / "configs" / "abide.yaml"
N_BUCKETS = 3
PEOPLE = [f"p{i}" for i in range(1, 7)]
AFTER = {"report_page", "ledger"}


def write_series(path: Path) -> None:
    members = {name: np.random.default_rng(i).normal(size=(40, 6)) for i, name in enumerate(PEOPLE)}
    np.savez(path, **members)


BASE: dict[str, Any] = {
    "datasets": [{"name": "tables", "root": "series.npz", "kind": "tables", "atlas": "HO111"}],
    "shards": {"n_buckets": N_BUCKETS},
    "models": {"train": ["brainmass"]},
    "evaluate": {
        "tasks": [{"name": "group", "column": "group"}],
        "few_shot": {"shots": [1, 2]},
        "transfers": [{"name": "held", "source": "group", "target": "group"}],
    },
    "ablation": {
        "variants": [
            {"name": "full", "group": "loss"},
            {"name": "mrm", "group": "loss", "set": {"models.brainmass.weight_rec": 0.0}},
        ]
    },
}


def prepare(project) -> Any:
    write_series(project.folder / "series.npz")
    project.config |= BASE
    project.write_config()
    project.ingest()
    project.finish()
    assert not project.jobs()
    return project


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, dag):
    return prepare(dag.Project(tmp_path_factory.mktemp("brainmass")))


@pytest.fixture
def brainmass(template, tmp_path: Path):
    import copy

    copied = copy.deepcopy(template)
    copied.folder = tmp_path / "project"
    shutil.copytree(template.folder, copied.folder, symlinks=True)
    return copied


def jobs_after(project, change: dict[str, Any]) -> set[str]:
    base = project.config
    project.config = merge(base, change)
    project.write_config()
    found = set(project.jobs())
    project.config = base
    project.write_config()
    return found


def test_each_setting_reruns_its_own_job(brainmass) -> None:
    few = jobs_after(brainmass, {"evaluate": {"few_shot": {"shots": [1, 2, 4]}}})
    assert few == {"few_shot_model brainmass"} | AFTER
    transfers = [{"name": "other", "source": "group", "target": "group"}]
    zero = jobs_after(brainmass, {"evaluate": {"transfers": transfers}})
    assert zero == {"zero_shot_model brainmass"} | AFTER
    folds = jobs_after(brainmass, {"evaluate": {"folds": 3}})
    variants = {f"evaluate_ablation {name}" for name in ("full", "mrm")}
    models = {"evaluate_model brainmass", "interpret_model brainmass"}
    assert folds == models | AFTER  # variants are evaluated on the split alone
    edges = jobs_after(brainmass, {"evaluate": {"select_edges": 7}})
    assert edges == {"evaluate_model brainmass", "ablation_table"} | variants | AFTER


def test_a_variant_reruns_its_own_three_jobs(brainmass) -> None:
    variants = [dict(v) for v in BASE["ablation"]["variants"]]
    variants[1] = {**variants[1], "set": {"models.brainmass.weight_rec": 0.5}}
    mine = {"train_ablation mrm", "evaluate_ablation mrm", "ablation_table"}
    assert jobs_after(brainmass, {"ablation": {"variants": variants}}) == mine | AFTER
    added = [*BASE["ablation"]["variants"], {"name": "block", "set": {"augment.mode": "block"}}]
    mine = {"train_ablation block", "evaluate_ablation block", "ablation_table"}
    assert jobs_after(brainmass, {"ablation": {"variants": added}}) == mine | AFTER


def test_the_base_model_reruns_itself_and_every_variant(brainmass) -> None:
    found = jobs_after(brainmass, {"models": {"brainmass": {"epochs": 3}}})
    variants = {f"{job}_ablation {name}" for job in ("train", "evaluate") for name in ("full", "mrm")}
    assert found == variants | AFTER | {"ablation_table", "train_model brainmass"} | {
        f"{job}_model brainmass" for job in ("evaluate", "interpret", "few_shot", "zero_shot")
    }


def test_a_target_runs_what_it_needs(brainmass) -> None:
    shutil.rmtree(brainmass.folder / "results" / "ablation")
    (brainmass.folder / "results" / "evaluate" / "brainmass" / "few_shot.tsv").unlink()
    assert set(brainmass.jobs("few_shot")) == {"few_shot_model brainmass"}
    variants = {f"{job}_ablation {name}" for job in ("train", "evaluate") for name in ("full", "mrm")}
    assert set(brainmass.jobs("ablation")) == variants | {"ablation_table"}
    assert not brainmass.jobs("zero_shot")
    assert set(brainmass.jobs("all")) == {"few_shot_model brainmass", "ablation_table"} | variants | AFTER


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("few_shot", "evaluate.few_shot.shots"),
        ("zero_shot", "evaluate.transfers"),
        ("ablation", "workflow/configs/ablation.yaml"),
        ("abide", "workflow/configs/abide.yaml"),
    ],
)
def test_a_target_without_its_settings_stops_with_one_line(project, target: str, named: str) -> None:
    done = project.snakemake(target, "-n", check=False)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("boldmill")]
    assert len(lines) == 1 and named in lines[0] and "Traceback" not in done.stderr


def test_a_variant_that_cannot_be_stops_before_anything_runs(project) -> None:
    project.config["ablation"] = {"variants": [{"name": "full", "set": {"models.brainmass.epoch": 3}}]}
    project.write_config()
    done = project.snakemake("-n", check=False)
    assert done.returncode != 0 and "did you mean 'epochs'?" in done.stderr and "Traceback" not in done.stderr


def test_the_shipped_ablation_is_laid_over_the_users_configuration(project) -> None:
    project.ingest()
    overlay = ROOT / "workflow" / "configs" / "ablation.yaml"
    jobs = set(project.jobs("ablation", "--configfile", str(overlay)))
    names = [variant["name"] for variant in read_yaml(overlay)["ablation"]["variants"]]
    for name in names:
        assert {f"train_ablation {name}", f"evaluate_ablation {name}"} <= jobs
    assert "ablation_table" in jobs and not any(job.startswith("train_model") for job in jobs)


@pytest.fixture
def abide(project):
    """The shipped configuration over a small archive that stands for the real one, results below the project."""
    folder = project.folder / "resources" / "abide"
    folder.mkdir(parents=True)
    write_series(folder / "abide_ho111_cpac_filt_noglobal.npz")
    lines = [
        "FILE_ID,SITE_ID,DX_GROUP,SEX",
        *(f"{name},{('PITT', 'NYU')[i % 2]},{1 + i % 2},1" for i, name in enumerate(PEOPLE)),
    ]
    (folder / "abide_phenotypes.csv").write_text("\n".join(lines) + "\n")
    shutil.copy(ROOT / "config.yaml", project.folder / "config.yaml")
    return project


def abide_jobs(project, path: Path) -> set[str]:
    words = ("--configfile", str(path))
    project.snakemake("ingest", *words)
    return set(project.jobs("abide", *words))


def expected(n_buckets: int, dataset: str = "abide") -> set[str]:
    buckets = {f"{bucket_of(dataset, name, n_buckets):03d}" for name in PEOPLE}
    per_bucket = {f"{j}_bucket {b}" for j in ("parcellate", "augment", "clips", "shard") for b in buckets}
    models = {f"{job}_model brainmass" for job in ("train", "evaluate", "interpret", "few_shot", "zero_shot")}
    return per_bucket | models | {"snapshot", "report_page", "cohort_page", "ledger"}


def test_abide_plans_shards_training_evaluation_and_report(abide) -> None:
    jobs = abide_jobs(abide, ABIDE)
    assert jobs == expected(4)


def test_abide_runs_with_other_sites_and_other_data(abide) -> None:
    shipped = read_yaml(ABIDE)
    path = abide.folder / "other.yaml"
    path.write_text(yaml.safe_dump(merge(shipped, {"snapshot": {"heldout_sites": ["NYU"]}})))
    assert abide_jobs(abide, path) == expected(4)
    shutil.copy(abide.folder / "resources" / "abide" / "abide_ho111_cpac_filt_noglobal.npz", abide.folder / "mine.npz")
    mine = {"name": "mine", "root": "mine.npz", "kind": "tables", "atlas": "Mine"}
    path.write_text(yaml.safe_dump(shipped | {"datasets": [mine]}))
    assert abide_jobs(abide, path) == expected(4, "mine")
