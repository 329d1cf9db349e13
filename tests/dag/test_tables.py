"""Tables of parcel series in the DAG: no job preprocesses them, and a project of nothing else plans no template."""

import numpy as np
import pytest

from boldmill.rng import bucket_of

N_BUCKETS = 3
PEOPLE = [f"p{i}" for i in range(1, 7)]
BUCKETS = {f"{bucket_of('tables', name, N_BUCKETS):03d}" for name in PEOPLE}
LABEL = "Schaefer2018-100Parcels7Networks"
ATLAS = (f"atlas {LABEL}", f"operator_parcels {LABEL}")
TABLES = {"name": "tables", "root": "series.npz", "kind": "tables", "atlas": "HO111"}
SHARDS = {
    *(
        f"{job} {bucket}"
        for job in ("parcellate_bucket", "augment_bucket", "clips_bucket", "shard_bucket")
        for bucket in BUCKETS
    ),
    *("snapshot", "freeze_shards", "freeze"),
}


def write(project, **changed: int) -> None:
    members = {
        name: np.random.default_rng([i, changed.get(name, 0)]).normal(size=(40, 6)) for i, name in enumerate(PEOPLE)
    }
    np.savez(project.folder / "series.npz", **members)


@pytest.fixture
def tables(project):
    write(project)
    project.config |= {"datasets": [TABLES], "models": {"train": ["brainmass"]}}
    project.write_config()
    project.ingest()
    return project


def test_tables_alone_need_neither_templates_nor_operators_nor_flat_maps(tables) -> None:
    assert set(tables.jobs("shards")) == SHARDS
    more = {
        "train_model brainmass",
        "evaluate_model brainmass",
        "interpret_model brainmass",
        "cohort_page",
        "report_page",
        "ledger",
    }
    assert set(tables.jobs("all")) == SHARDS | more
    assert not tables.jobs("preprocess") and not tables.jobs("flatmap")


def test_tables_of_the_configured_atlas_need_it(tables) -> None:
    tables.config["datasets"] = [{**TABLES, "atlas": ""}]
    tables.write_config()
    tables.ingest()
    assert set(tables.jobs("shards")) == SHARDS | {"templates", *ATLAS}


def test_beside_images_tables_join_their_buckets(tables) -> None:
    alone = set(tables.jobs("shards"))
    tables.config["datasets"] = [TABLES, {"name": "beta", "root": "beta"}]
    tables.write_config()
    tables.ingest()
    images = {f"{bucket_of('beta', s, N_BUCKETS):03d}" for s in ("01", "02")}
    jobs = set(tables.jobs("shards"))
    assert jobs - alone - {f"{j}_bucket {b}" for j in ("parcellate", "augment", "clips", "shard") for b in images} == {
        *("templates", *ATLAS, *(f"preprocess_bucket {bucket}" for bucket in images)),
        *(f"operator_{name}" for name in ("ribbon", "flat", "meshes")),
        *(f"flatmap_bucket {bucket}" for bucket in images),
    }


def test_another_series_reruns_its_bucket_only(tables) -> None:
    tables.finish()
    assert not tables.jobs()
    write(tables, p2=1)
    tables.ingest()
    bucket = f"{bucket_of('tables', 'p2', N_BUCKETS):03d}"
    expected = {f"{job}_bucket {bucket}" for job in ("parcellate", "augment", "clips", "shard")}
    assert {job for job in tables.jobs() if "_bucket" in job} == expected


def test_given_weights_are_an_input_of_the_training_that_starts_from_them(tables) -> None:
    """Absent ones are named before anything runs; other ones train again, and nothing else."""
    weights = tables.folder / "weights" / "model.safetensors"
    tables.config["models"] = {
        "train": ["brainmass"],
        "brainmass": {"init": "weights/model.safetensors", "preset": "paper", "epochs": 0},
    }
    tables.write_config()
    done = tables.snakemake("-n", check=False)
    assert done.returncode and "weights/model.safetensors" in done.stdout + done.stderr
    weights.parent.mkdir()
    weights.write_text("first")
    tables.finish()
    assert not tables.jobs()
    weights.write_text("second")
    models = {f"{job}_model brainmass" for job in ("train", "evaluate", "interpret")}
    assert set(tables.jobs()) == {*models, "report_page", "ledger"}
