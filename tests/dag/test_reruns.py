"""What reruns when data, versions or files change: the exact set of jobs, asked of the real Snakefile by a dry run."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from boldmill.rng import bucket_of
from boldmill.stages import STAGES

N_BUCKETS = 3
SUBJECTS = {("alpha", f"{i:02d}") for i in range(1, 5)} | {("beta", f"{i:02d}") for i in range(1, 3)}
FIRST = "Schaefer2018-100Parcels7Networks"


def bucket(dataset: str, subject: str) -> str:
    return f"{bucket_of(dataset, subject, N_BUCKETS):03d}"


BUCKETS = tuple(sorted({bucket(*subject) for subject in SUBJECTS}))


@pytest.fixture(scope="session")
def line(dag_line):
    """What follows what in the project of these tests."""
    return dag_line(buckets=BUCKETS)


def people(number: str) -> set[tuple[str, str]]:
    return {who for who in SUBJECTS if bucket(*who) == number}


def touch(project: Any, line: Any) -> set[str]:
    path = project.bold("alpha", "01")
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 100))
    return set()


def change(project: Any, line: Any) -> set[str]:
    project.add_subject("alpha", "01", value=1)
    return line.after(f"preprocess_bucket {bucket('alpha', '01')}")


def sidecar(project: Any, line: Any) -> set[str]:
    project.bold("alpha", "03").parent.joinpath("sub-03_task-rest_bold.json").write_text('{"RepetitionTime": 2.5}')
    return line.after(f"preprocess_bucket {bucket('alpha', '03')}")


def add(project: Any, line: Any) -> set[str]:
    project.participants["alpha"]["05"] = {"group": "a", "age": 33}
    project.add_subject("alpha", "05")
    project.write_participants("alpha")
    return line.after(f"preprocess_bucket {bucket('alpha', '05')}")


def remove(project: Any, line: Any) -> set[str]:
    """The bucket has others left."""
    who = next(who for who in sorted(SUBJECTS) if len(people(bucket(*who))) > 1)
    project.remove_subject(*who)
    project.write_participants(who[0])
    return line.after(f"preprocess_bucket {bucket(*who)}")


def empty(project: Any, line: Any) -> set[str]:
    """Nobody of a bucket is left: no job of it, and none of another."""
    number = min(BUCKETS, key=lambda one: len(people(one)))
    for who in people(number):
        project.remove_subject(*who)
        project.write_participants(who[0])
    return {"cohort_page", "snapshot", "report_page", "ledger"}


def phenotype(project: Any, line: Any) -> set[str]:
    """No image, parcel series or clip knows it; the cohort page reads the sites, which lie in the same file."""
    project.participants["beta"]["01"]["age"] = 99
    project.write_participants("beta")
    return line.after(f"shard_bucket {bucket('beta', '01')}", "cohort_page")


def column(project: Any, line: Any) -> set[str]:
    """Shards carry every column, one that no task names, too."""
    for row in project.participants["beta"].values():
        row["iq"] = 100
    project.write_participants("beta", "iq")
    return line.after("cohort_page", *{f"shard_bucket {bucket(*who)}" for who in SUBJECTS if who[0] == "beta"})


def refused(project: Any, line: Any) -> set[str]:
    """No ticket, so no list of a bucket: but the tables of refused scans are no longer all."""
    project.add_subject("alpha", "05")
    project.bold("alpha", "05").write_bytes(b"no image")
    shutil.rmtree(project.folder / "alpha" / "sub-05" / "anat")
    return line.after("cohort_page", "report_page")


def order(project: Any, line: Any) -> set[str]:
    """The same table in another order says the same."""
    path = project.folder / "alpha" / "participants.tsv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *rows[::-1]]) + "\n")
    return set()


def dataset(project: Any, line: Any) -> set[str]:
    """A new data set reruns the buckets its subjects fall into."""
    project.participants["gamma"] = {"01": {"group": "a", "age": 20}}
    project.write_description("gamma")
    project.add_subject("gamma", "01")
    project.write_participants("gamma")
    project.config["datasets"].append({"name": "gamma", "root": "gamma"})
    project.write_config()
    return line.after(f"preprocess_bucket {bucket('gamma', '01')}")


MUTATIONS = [touch, change, sidecar, add, remove, empty, phenotype, column, refused, order, dataset]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_a_data_update_reruns_only_what_it_touches(finished, line, mutate: Callable[..., set[str]]) -> None:
    """Never freeze and never training: models read the frozen snapshot."""
    expected = mutate(finished, line)
    assert not {job for job in expected if job.startswith(("freeze", "train", "evaluate"))}
    finished.ingest()
    assert set(finished.jobs()) == expected


def test_where_training_follows_every_update_it_does(finished, dag_line) -> None:
    finished.config["snapshot"] = {"name": "latest"}
    finished.write_config()
    follows = dag_line(buckets=BUCKETS, frozen=False)
    models = {job for job in follows.after("snapshot") if job != "snapshot"}
    assert set(finished.jobs()) == models  # another manifest than the frozen one
    finished.finish()
    assert not finished.jobs()
    expected = phenotype(finished, follows)
    finished.ingest()
    assert set(finished.jobs()) == expected
    assert {f"train_model {model}" for model in follows.models} < expected


def test_an_override_reruns_the_buckets_its_data_set_is_in(finished, line) -> None:
    finished.config["datasets"][1]["overrides"] = {"clean": {"compcor": 2}}
    finished.write_config()
    mine = {bucket(*who) for who in SUBJECTS if who[0] == "beta"}
    assert mine < set(BUCKETS)
    assert set(finished.jobs()) == line.after(*{f"preprocess_bucket {number}" for number in mine})


def test_a_new_name_freezes_the_present_shards_and_trains_on_them(finished, line) -> None:
    expected = phenotype(finished, line)
    finished.ingest()
    finished.config["snapshot"] = {"name": "second"}
    finished.write_config()
    assert set(finished.jobs()) == expected | line.after("freeze_shards")
    assert set(finished.jobs("freeze")) == {job for job in expected if job.startswith(("shard", "snapshot"))} | {
        "freeze_shards",
        "freeze",
    }


def test_a_new_setting_beside_new_data_is_not_passed_over(finished, line) -> None:
    """Snakemake asks no job below a running one for its own settings; models do not lie below the shards."""
    expected = phenotype(finished, line)
    finished.ingest()
    finished.config["models"] = {"brainmass": {"epochs": 3}}
    finished.write_config()
    assert set(finished.jobs()) == expected | line.after("train_model brainmass")
    finished.config = {**finished.config, "models": {}, "snapshot": {"heldout": 0.4}}
    finished.write_config()
    assert set(finished.jobs()) == expected | line.after("freeze", "snapshot")


OF_STAGE = {
    **{name: (f"{name}_bucket",) for name in ("preprocess", "parcellate", "flatmap", "clips", "augment", "pages")},
    **{f"train_{model}": (f"train_model {model}",) for model in ("brainmass", "fmri_mae", "fm_app")},
    **{name: (f"{name}_model",) for name in ("evaluate", "interpret")},
    **{f"operator_{name}": (f"operator_{name}",) for name in ("ribbon", "flat", "meshes")},
    "operator_parcels": (f"operator_parcels {FIRST}",),
    "atlas": (f"atlas {FIRST}",),
    "shards": ("shard_bucket",),
    "cohort": ("cohort_page",),
    "report": ("report_page",),
    **{name: (name,) for name in ("templates", "snapshot", "freeze", "ledger")},
    "freeze_shards": (),  # frozen shards stay as they are, whatever would freeze them now
    **dict.fromkeys(("few_shot", "zero_shot", "ablation"), ()),  # not configured here
}
"""Stage -> the rules that run it."""


def test_a_raised_stage_version_reruns_the_stage_and_what_follows(finished, line) -> None:
    assert set(OF_STAGE) == set(STAGES) - {"ingest"}
    for stage, rules in OF_STAGE.items():
        own = {job for rule in rules for job in ([rule] if " " in rule else line.jobs(rule))}
        assert set(finished.jobs(bump=stage)) == line.after(*own), stage
    assert "snakemake ingest" in finished.refused(bump="ingest")


LOST: list[tuple[str, tuple[str, ...]]] = [
    ("templates/template.json", ()),
    (f"atlas/{FIRST}/atlas.json", ()),
    (f"operators/parcels-{FIRST}.json", ()),
    ("operators/ribbon.json", ()),
    ("preprocess/bucket-{b}.json", ()),
    ("parcellate/bucket-{b}.json", ()),
    ("flatmap/bucket-{b}.json", ()),
    ("shards/flat_clips/bucket-{b}.parquet", ("clips_bucket {b}",)),
    ("shards/scans/bucket-{b}.parquet", ("shard_bucket {b}",)),
    ("shards/pfc/" + FIRST + "/bucket-{b}.parquet", ("augment_bucket {b}",)),
    ("datasets/latest/manifest.json", ("snapshot",)),
    ("datasets/first/manifest.json", ("freeze",)),
    ("models/fm_app/model.safetensors", ("train_model fm_app",)),
    ("evaluate/fm_app/metrics.tsv", ("evaluate_model fm_app",)),
    ("interpret/brainmass/regions.tsv", ("interpret_model brainmass",)),
    ("reports/bucket-{b}.json", ("pages_bucket {b}",)),
    ("reports/cohort.html", ("cohort_page",)),
    ("report/index.html", ("report_page",)),
    ("provenance/ledger.parquet", ("ledger",)),
]
"""A lost file -> the jobs that make it again: none where it is read on the way only, and what it was for is there."""


def test_a_lost_file_is_made_again_only_where_it_is_asked_for(finished, line) -> None:
    number = BUCKETS[0]
    for name, jobs in LOST:
        path = finished.folder / "results" / name.replace("{b}", number)
        content = path.read_bytes()
        stat = path.stat()
        path.unlink()
        assert set(finished.jobs()) == line.after(*(job.replace("{b}", number) for job in jobs)), name
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not finished.jobs()


def test_frames_are_gone_when_a_run_ends_and_nobody_misses_them(finished, line) -> None:
    """Only other clips ask for them; what made the maps is not run again."""
    assert not list(finished.folder.glob("results/flatmap/*.frames")) and not finished.jobs()
    finished.config["flatmap"] = {"keep": ["frames"]}
    finished.write_config()
    assert not finished.jobs()
    for number in BUCKETS:
        (finished.folder / "results" / "flatmap" / f"bucket-{number}.frames").mkdir()
    finished.config["shards"]["clip_stride"] = 8
    finished.write_config()
    kept = set(finished.jobs())
    assert kept == line.after(*(f"clips_bucket {number}" for number in BUCKETS), kept=True)
    assert not {job for job in kept if job.startswith("flatmap")}
    for number in BUCKETS:
        (finished.folder / "results" / "flatmap" / f"bucket-{number}.frames").rmdir()
    assert set(finished.jobs()) == line.after(*(f"clips_bucket {number}" for number in BUCKETS))
    assert not {job for job in finished.jobs() if job.startswith(("preprocess", "parcellate", "operator"))}


def test_a_stage_up_to_its_name_leaves_no_work_for_the_next(finished, line) -> None:
    """`snakemake flatmap` cuts the clips, too: else `snakemake shards` would map everything again."""
    shutil.rmtree(finished.folder / "results" / "flatmap")
    shutil.rmtree(finished.folder / "results" / "shards" / "flat_clips")
    wanted = {f"{job}_bucket {number}" for job in ("flatmap", "clips") for number in BUCKETS}
    assert set(finished.jobs("flatmap")) == wanted


def test_nothing_to_do_says_so(finished) -> None:
    done = finished.snakemake("-n")
    assert "Nothing to be done" in done.stderr + done.stdout


def test_a_dry_run_in_a_fork_is_that_of_the_command_line(finished, line) -> None:
    """The other tests ask a fork that has Snakemake imported; this one asks the program, too."""
    number = bucket("alpha", "01")
    (finished.folder / "results" / "shards" / "pfc" / FIRST / f"bucket-{number}.parquet").unlink()
    text = finished.snakemake("-n").stdout
    jobs = set(finished.jobs())
    assert jobs == line.after(f"augment_bucket {number}")
    table = {words[0]: int(words[1]) for words in map(str.split, text.splitlines()) if words[1:] and words[1].isdigit()}
    rules = [job.split()[0] for job in jobs]
    assert {rule: table.get(rule) for rule in rules} == {rule: rules.count(rule) for rule in rules}
    assert table["total"] == len(jobs) + 1  # all
