"""`boldmill plan` over the real Snakefile: the jobs are Snakemake's, and the words are exact."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boldmill.config.load import load
from boldmill.index.buckets import subject_list
from boldmill.index.read import read_index
from boldmill.paths import Layout
from boldmill.provenance.record import Recorder
from boldmill.rng import bucket_of
from boldmill.stages import STAGES, Settings, stage_json

ROOT = Path(__file__).parents[2]
N_BUCKETS = 3
TRAINED = ("brainmass", "fmri_mae", "fm_app")


def bucket(dataset: str, subject: str) -> int:
    return bucket_of(dataset, subject, N_BUCKETS)


def finish_with_records(project) -> None:
    """Pretend that everything ran, with the records that the commands of a bucket write."""
    for path in project.outputs():
        if path.suffix != ".frames":  # temporary, and gone when a run ends
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}\n" if path.suffix == ".json" else f"made: {path.name}\n")
    before = Path.cwd()
    os.chdir(project.folder)
    try:
        config = load("config.yaml")
        layout, index = Layout.at(config.results), read_index(config.results)
        names = ("preprocess", "parcellate", "augment", "shards")
        settings = {stage: Settings(stage_json(config, stage)) for stage in names}
        for number in index.preprocessed_buckets():
            people = index.subjects_in(number)
            for who in people:
                tickets = [layout.results / scan.ticket for scan in index.scans_of(*who)]
                with Recorder(settings["preprocess"], out=layout.subject(*who), inputs=tickets):
                    layout.subject(*who).parent.mkdir(parents=True, exist_ok=True)
                    layout.subject(*who).write_text("{}")
            manifests = {"/".join(who): layout.subject(*who) for who in people}
            layout.preprocessed(number).write_text(json.dumps(subject_list(layout.results, manifests)))
            own = [layout.bucket(number), *manifests.values()]
            with Recorder(settings["preprocess"], out=layout.preprocessed(number), inputs=own):
                pass
            tickets = [layout.results / scan.ticket for scan in index.scans_in(number)]
            read = [layout.bucket(number), *tickets, layout.participants(number)]
            with Recorder(settings["shards"], out=layout.shard("scans", number), inputs=read):
                pass
    finally:
        os.chdir(before)
    project.snakemake("--touch", "--forceall", "all")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, dag):
    made = dag.Project(tmp_path_factory.mktemp("plan"))
    made.ingest()
    finish_with_records(made)
    return made


@pytest.fixture
def done(template, tmp_path: Path):
    copied = copy.deepcopy(template)
    copied.folder = tmp_path / "project"
    shutil.copytree(template.folder, copied.folder, symlinks=True)
    return copied


def boldmill(project, *words: str, source: Path = ROOT, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "XDG_CONFIG_HOME": str(project.folder / ".xdg")}
    command = [sys.executable, "-m", "boldmill", "plan", "--snakefile", str(source / "Snakefile"), *words]
    ran = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran


def because(project, *words: str, source: Path = ROOT) -> dict[str, str]:
    """Return what follows the colon of every line of a stage."""
    text = boldmill(project, *words, source=source).stdout
    return dict(line.split(": ", 1) for line in text.split("\n\n")[0].splitlines())


FROZEN = "nothing (snapshot first is frozen; shards are newer: name a new snapshot to train on them)"
AFTER_SHARDS = {"report": "1 job, because follows snapshot", **{f"train {model}": FROZEN for model in TRAINED}}


def scans(n: int) -> str:
    return "1 scan" if n == 1 else f"{n} scans"


def in_bucket(number: int) -> int:
    people = [("alpha", f"{i:02d}") for i in range(1, 5)] + [("beta", "01"), ("beta", "02")]
    return sum(bucket(*who) == number for who in people)


def test_nothing_to_do_says_so(done) -> None:
    assert boldmill(done).stdout == "Nothing to do: every output is there and up to date.\n"


def test_a_changed_setting_is_named_with_both_values(done) -> None:
    done.config |= {"clean": {"band_high": 0.08}, "flatmap": {"target_tr": 0.8}}
    done.write_config()
    found = because(done)
    assert found == AFTER_SHARDS | {
        "preprocess": "6 scans in 3 jobs, because clean.band_high changed 0.1 -> 0.08",
        "parcellate": "6 scans in 3 jobs, because follows preprocess",
        "flatmap": "6 scans in 3 jobs, because flatmap.target_tr changed 1.0 -> 0.8; follows preprocess",
        "clips": "6 scans in 3 jobs, because follows flatmap",
        "augment": "6 scans in 3 jobs, because follows parcellate",
        "shards": "6 scans in 3 jobs, because follows clips, parcellate",
        "pages": "6 scans in 3 jobs, because follows preprocess",
        "cohort": "1 job, because follows parcellate",
        "snapshot": "1 job, because follows augment, shards",
        "ledger": "1 job, because follows cohort, pages, report",
    }


def test_an_override_is_named_for_its_data_set_and_its_buckets_only(done) -> None:
    done.config["datasets"][1]["overrides"] = {"clean": {"compcor": 2}}
    done.write_config()
    mine = {bucket("beta", "01"), bucket("beta", "02")}
    n = sum(map(in_bucket, mine))
    jobs = "1 job" if len(mine) == 1 else f"{len(mine)} jobs"
    expected = f"{scans(n)} in {jobs}, because for data set beta, clean.compcor is set to 2"
    assert because(done)["preprocess"] == expected


def test_a_changed_raw_file_is_one_scan(done) -> None:
    done.add_subject("alpha", "01", value=1)
    done.ingest()
    found = because(done)
    assert found["preprocess"] == "1 scan in 1 job, because raw files of 1 scan changed"
    n = in_bucket(bucket("alpha", "01"))
    assert found["parcellate"] == f"{scans(n)} in 1 job, because follows preprocess"
    assert found["shards"] == f"{scans(n)} in 1 job, because raw files of 1 scan changed; follows clips, parcellate"


def test_a_new_subject_is_one_scan_more(done) -> None:
    done.participants["alpha"]["05"] = {"group": "a", "age": 33}
    done.add_subject("alpha", "05")
    done.write_participants("alpha")
    done.ingest()
    assert because(done)["preprocess"] == "1 scan in 1 job, because 1 scan is new"


def test_a_subject_that_left_needs_nobody_preprocessed(done) -> None:
    label = next(f"{i:02d}" for i in range(1, 5) if in_bucket(bucket("alpha", f"{i:02d}")) > 1)
    done.remove_subject("alpha", label)
    done.write_participants("alpha")
    done.ingest()
    assert because(done)["preprocess"] == "1 job, because 1 subject left"


def test_phenotypes_are_read_by_shards_and_cohort_page_alone(done) -> None:
    done.participants["beta"]["01"]["age"] = 99
    done.write_participants("beta")
    done.ingest()
    n = in_bucket(bucket("beta", "01"))
    found = because(done)
    assert found["shards"] == f"{scans(n)} in 1 job, because participants.tsv changed"
    assert "preprocess" not in found and found["snapshot"] == "1 job, because follows shards"


def test_a_new_name_of_the_snapshot_trains_on_it(done) -> None:
    done.config["snapshot"] = {"name": "second"}
    done.write_config()
    assert because(done) == {
        "freeze-shards": "1 job, because not made yet",
        "freeze": "1 job, because not made yet",
        **{f"train {model}": "1 job, because follows freeze" for model in TRAINED},
        "evaluate": "3 jobs, because follows train brainmass, train fm_app, train fmri_mae",
        "interpret": "1 job, because follows train brainmass",
        "report": "1 job, because follows evaluate, interpret",
        "ledger": "1 job, because follows report",
    }


def test_a_setting_of_clips_needs_the_frames_again(done) -> None:
    done.config["shards"]["clip_stride"] = 8
    done.write_config()
    found = because(done)
    assert found["flatmap"] == "6 scans in 3 jobs, because its temporary output is needed again"
    assert found["clips"] == "6 scans in 3 jobs, because shards.clip_stride changed 16 -> 8; follows flatmap"
    assert "preprocess" not in found


def test_a_lost_output_is_missing(done) -> None:
    number = bucket("alpha", "01")
    (done.folder / "results" / "reports" / f"bucket-{number:03d}.json").unlink()
    assert because(done) == {
        "pages": f"{scans(in_bucket(number))} in 1 job, because output is missing",
        "ledger": "1 job, because follows pages",
    }


def test_what_is_asked_for_again_says_so(done) -> None:
    found = because(done, "--forcerun", "cohort_page")
    assert found == {"cohort": "1 job, because asked for (forced)", "ledger": "1 job, because follows cohort"}


def test_a_raised_stage_version_is_named(done, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("src", "workflow"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", clone / "Snakefile")
    stages = clone / "src" / "boldmill" / "stages.py"
    head, mark, tail = stages.read_text().partition('"cohort": Stage(version=')
    version = STAGES["cohort"].version
    assert mark and tail.startswith(str(version))
    stages.write_text(f"{head}{mark}{version + 1}{tail.removeprefix(str(version))}")
    expected = f"1 job, because stage version {version} -> {version + 1}"
    assert because(done, source=clone)["cohort"] == expected


def test_the_jobs_of_a_first_run_are_those_of_snakemake(project, tmp_path: Path) -> None:
    project.ingest()
    path = tmp_path / "plan.json"
    text = boldmill(project, "--cores", "2", "--gpus", "2", "--json", str(path)).stdout
    plan: dict[str, Any] = json.loads(path.read_text())
    found = {" ".join([job["rule"], *job["wildcards"].values()]) for job in plan["jobs"]}
    assert found == set(project.jobs()) and plan["total"]["jobs"] == len(plan["jobs"])
    assert "preprocess: 6 scans in 3 jobs, because not made yet" in text
    assert "GPU-hours are an assumption" in text and text.splitlines()[-1].endswith("on 2 cores and 2 GPUs")
    for row in plan["costs"]:
        assert row["default"] and row["measured"] == 0 and row["cpu_s"] > 0
    assert plan["total"]["cpu_s"] == pytest.approx(sum(row["cpu_s"] for row in plan["costs"]))


def test_without_an_index_the_plan_says_what_makes_one(project) -> None:
    error = boldmill(project, code=2).stderr
    assert "snakemake ingest" in error and "Traceback" not in error and len(error.splitlines()) == 1


def test_an_unknown_target_is_named(project) -> None:
    project.ingest()
    error = boldmill(project, "shardz", code=1).stderr
    assert "shardz" in error and "Traceback" not in error and len(error.splitlines()) == 1
