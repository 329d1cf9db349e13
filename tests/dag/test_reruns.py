"""What reruns when what changes: the exact set of jobs, asked of the real Snakefile by a dry run."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from boldmill.paths import MODELS
from boldmill.rng import bucket_of

N_BUCKETS = 3
SUBJECTS = {("alpha", f"{i:02d}") for i in range(1, 5)} | {("beta", f"{i:02d}") for i in range(1, 3)}
MODEL_JOBS = {f"{job} {model}" for job in ("train_model", "evaluate_model") for model in MODELS}
MODEL_JOBS |= {"interpret_model brainmass"}
AFTER_SHARDS = {"snapshot", "report_page", "ledger"} | MODEL_JOBS
PAGES = ("pages_bucket",)
"""Pages of the subjects: made from what preprocessing left, so they follow its manifests only."""


def bucket(dataset: str, subject: str) -> str:
    return f"{bucket_of(dataset, subject, N_BUCKETS):03d}"


BUCKETS = {bucket(*subject) for subject in SUBJECTS}


def per_bucket(*jobs: str, buckets: set[str] = BUCKETS) -> set[str]:
    return {f"{job} {number}" for job in jobs for number in buckets}


def preprocessed(*who: tuple[str, str]) -> set[str]:
    """The jobs that preprocess these subjects, or everybody."""
    return {f"preprocess_bucket {bucket(*one)}" for one in who or SUBJECTS}


FIRST, SECOND = "Schaefer2018-100Parcels7Networks", "Schaefer2018-400Parcels17Networks"
REPRESENT = ("parcellate_bucket", "flatmap_bucket", "augment_bucket", "shard_bucket")


def downstream(*touched: str, buckets: set[str] = BUCKETS) -> set[str]:
    """Everything after the subjects of these buckets."""
    return set(touched) | per_bucket(*REPRESENT, *PAGES, buckets=buckets) | {"cohort_page"} | AFTER_SHARDS


def parcellated(*touched: str) -> set[str]:
    """Everything after an atlas: no flat map, and no page of a subject."""
    jobs = per_bucket("parcellate_bucket", "augment_bucket", "shard_bucket")
    return set(touched) | jobs | {"cohort_page"} | AFTER_SHARDS


SETTINGS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("clean.compcor", {"clean": {"compcor": 3}}, downstream(*preprocessed())),
    ("preprocess.n4_grid", {"preprocess": {"n4_grid": 5.0}}, downstream(*preprocessed())),
    (
        "spaces.resolution",
        {"spaces": {"resolution": 3.0}},
        downstream(f"atlas {FIRST}", f"operator_parcels {FIRST}", "operator_ribbon", *preprocessed()),
    ),
    (
        "spaces.surface_source",
        {"spaces": {"surface_source": "templateflow"}},
        parcellated(f"atlas {FIRST}", f"operator_parcels {FIRST}"),
    ),
    (
        "spaces.further_atlases",
        {"spaces": {"further_atlases": ["Schaefer2018 400Parcels17Networks"]}},
        parcellated(f"atlas {SECOND}", f"operator_parcels {SECOND}"),
    ),
    (
        "spaces.flat",
        {"spaces": {"flat": "hcp"}},
        per_bucket("flatmap_bucket", "shard_bucket")
        | {"operator_flat", "operator_ribbon", "operator_meshes"}
        | AFTER_SHARDS,
    ),
    (
        "flatmap.depths",
        {"flatmap": {"depths": 3}},
        per_bucket("flatmap_bucket", "shard_bucket") | {"operator_ribbon"} | AFTER_SHARDS,
    ),
    ("flatmap.preset", {"flatmap": {"preset": "v1"}}, per_bucket("flatmap_bucket", "shard_bucket") | AFTER_SHARDS),
    (
        "parcellate.fc_estimator",
        {"parcellate": {"fc_estimator": "ledoit_wolf"}},
        per_bucket("shard_bucket") | AFTER_SHARDS,
    ),
    ("parcellate.fisher_z", {"parcellate": {"fisher_z": True}}, per_bucket("shard_bucket") | AFTER_SHARDS),
    ("shards.clip_dtype", {"shards": {"clip_dtype": "int8"}}, per_bucket("shard_bucket") | AFTER_SHARDS),
    (
        "parcellate.min_coverage",
        {"parcellate": {"min_coverage": 0.4}},
        parcellated(),
    ),
    (
        "flatmap.target_tr",
        {"flatmap": {"target_tr": 0.8}},
        per_bucket("flatmap_bucket", "shard_bucket") | AFTER_SHARDS,
    ),
    (
        "augment.drop_rate",
        {"augment": {"drop_rate": 0.3}},
        per_bucket("augment_bucket") | AFTER_SHARDS,
    ),
    ("shards.clip_stride", {"shards": {"clip_stride": 8}}, per_bucket("shard_bucket") | AFTER_SHARDS),
    ("snapshot.heldout", {"snapshot": {"heldout": 0.5}}, AFTER_SHARDS),
    (
        "models.fmri_mae.steps",
        {"models": {"fmri_mae": {"steps": 7}}},
        {"train_model fmri_mae", "evaluate_model fmri_mae", "report_page", "ledger"},
    ),
    (
        "evaluate.folds",
        {"evaluate": {"folds": 3}},
        {f"evaluate_model {m}" for m in MODELS} | {"interpret_model brainmass", "report_page", "ledger"},
    ),
    (
        "evaluate.bootstrap",
        {"evaluate": {"bootstrap": 200}},
        {f"evaluate_model {m}" for m in MODELS} | {"report_page", "ledger"},
    ),
    ("interpret.top", {"interpret": {"top": 5}}, {"interpret_model brainmass", "report_page", "ledger"}),
    ("report.dpi", {"report": {"dpi": 90}}, per_bucket(*PAGES) | {"report_page", "ledger"}),
    ("project", {"project": "renamed"}, per_bucket(*PAGES) | {"report_page", "cohort_page", "ledger"}),
    ("inclusion.max_mean_fd", {"inclusion": {"max_mean_fd": 0.3}}, {"cohort_page"} | AFTER_SHARDS),
    ("clean.strategy", {"clean": {"strategy": "36P"}}, downstream(*preprocessed())),
    ("preprocess.keep", {"preprocess": {"keep": ["clean"]}}, downstream(*preprocessed())),
    (
        "preset",
        {"preset": "fmriprep_36p"},
        downstream(*preprocessed()),
    ),
]


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def test_a_setting_reruns_its_stage_and_what_follows(finished) -> None:
    base = finished.config
    for name, change, expected in SETTINGS:
        finished.config = merged(base, change)
        finished.write_config()
        assert set(finished.jobs()) == expected, name
    finished.config = base
    finished.write_config()
    assert finished.jobs() == Counter()


def test_an_override_reruns_its_data_set_and_the_buckets_it_is_in(finished) -> None:
    finished.config["datasets"][1]["overrides"] = {"clean": {"compcor": 2}}
    finished.write_config()
    mine = {bucket("beta", s) for d, s in SUBJECTS if d == "beta"}
    assert set(finished.jobs()) == downstream(*per_bucket("preprocess_bucket", buckets=mine), buckets=mine)


def touch(project) -> set[str]:
    path = project.bold("alpha", "01")
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 100))
    return set()


def change(project) -> set[str]:
    project.add_subject("alpha", "01", value=1)
    return downstream(*preprocessed(("alpha", "01")), buckets={bucket("alpha", "01")})


def add(project) -> set[str]:
    project.participants["alpha"]["05"] = {"group": "a", "age": 33}
    project.add_subject("alpha", "05")
    project.write_participants("alpha")
    return downstream(*preprocessed(("alpha", "05")), buckets={bucket("alpha", "05")})


def remove(project) -> set[str]:
    project.remove_subject("alpha", "02")
    project.write_participants("alpha")
    mine = bucket("alpha", "02")
    left = {bucket(d, s) for d, s in SUBJECTS - {("alpha", "02")}}
    return downstream(*per_bucket("preprocess_bucket", buckets={mine} & left), buckets={mine} & left)


def phenotype(project) -> set[str]:
    project.participants["beta"]["01"]["age"] = 99
    project.write_participants("beta")
    return per_bucket("shard_bucket", buckets={bucket("beta", "01")}) | AFTER_SHARDS


def sidecar(project) -> set[str]:
    project.bold("alpha", "03").parent.joinpath("sub-03_task-rest_bold.json").write_text('{"RepetitionTime": 2.5}')
    return downstream(*preprocessed(("alpha", "03")), buckets={bucket("alpha", "03")})


@pytest.mark.parametrize("mutate", [touch, change, add, remove, phenotype, sidecar], ids=lambda f: f.__name__)
def test_a_data_update_reruns_only_what_it_touches(finished, mutate: Callable[..., set[str]]) -> None:
    expected = mutate(finished)
    finished.ingest()
    assert set(finished.jobs()) == expected


def test_nothing_to_do_says_so(finished) -> None:
    assert "Nothing to be done" in finished.snakemake("-n").stderr + finished.snakemake("-n").stdout


def test_a_lost_intermediate_reruns_nothing(finished) -> None:
    (finished.folder / "results" / "parcellate" / f"bucket-{bucket('alpha', '01')}.json").unlink()
    assert not finished.jobs()


def test_lost_pages_are_made_again_alone(finished) -> None:
    mine = bucket("alpha", "01")
    (finished.folder / "results" / "reports" / f"bucket-{mine}.json").unlink()
    assert set(finished.jobs()) == {f"pages_bucket {mine}", "ledger"}


def test_a_lost_shard_is_made_again(finished) -> None:
    mine = bucket("alpha", "01")
    (finished.folder / "results" / "shards" / "pfc" / FIRST / f"bucket-{mine}.parquet").unlink()
    assert set(finished.jobs()) == {f"augment_bucket {mine}"} | AFTER_SHARDS


def test_a_raised_stage_version_reruns_the_stage(finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is part of the tracked value, so a code change that raises it reruns the stage."""
    from boldmill.config.load import load
    from boldmill.stages import STAGES, stage_json

    config = load(finished.folder / "config.yaml")
    before = stage_json(config, "flatmap")
    old = STAGES["flatmap"]
    monkeypatch.setitem(STAGES, "flatmap", type(old)(version=old.version + 1, reads=old.reads, module=old.module))
    assert stage_json(config, "flatmap") != before
