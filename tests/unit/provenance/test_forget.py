"""Withdrawal of consent: everything is found, cut to the bytes of a run without the person, and stays away."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path, PurePosixPath
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from boldmill.atomic import read_json, sha256_file, write_json, write_text
from boldmill.cli import main
from boldmill.errors import BoldmillError, ConfigError
from boldmill.index.read import read_index
from boldmill.paths import Layout
from boldmill.provenance import withdrawn
from boldmill.provenance.claims import checkpoint_claims
from boldmill.provenance.holdings import DELETE, find
from boldmill.provenance.known import person_of
from boldmill.provenance.person import GONE, Person
from boldmill.provenance.record import Recorder, describe_output, prov_path, render
from boldmill.provenance.verify import verify
from boldmill.rng import bucket_of
from boldmill.shards.reader import Snapshot
from boldmill.stages import Settings, stage_json
from boldmill.train.checkpoint import checkpoint_note

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)
WHO = "one/bea"
LABEL = "HO111"


@pytest.fixture(scope="module")
def finished(withdrawal: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole project, with a model and a ledger."""
    folder = tmp_path_factory.mktemp("whole")
    here = Path.cwd()
    os.chdir(folder)
    withdrawal.line(withdrawal.PEOPLE)
    for name in ("brainmass", "fm_app"):
        withdrawal.model(name)
    subjects = LAYOUT.checkpoint("fm_app").with_name("subjects.json")  # this one never saw the person
    left = [who for who in read_json(subjects)["subjects"] if who != WHO]
    write_json(subjects, {"schema": 1, "subjects": left})
    record = read_json(prov_path(LAYOUT.checkpoint("fm_app")))
    record["outputs"] = [describe_output(item["path"]) for item in record["outputs"]]
    write_text(prov_path(LAYOUT.checkpoint("fm_app")), render(record))
    withdrawal.ledger()
    os.chdir(here)
    return folder


@pytest.fixture
def whole(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def without(withdrawal: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it would be had the person never been in it."""
    folder = tmp_path_factory.mktemp("without")
    here = Path.cwd()
    os.chdir(folder)
    withdrawal.line(withdrawal.people_without(*WHO.split("/")))
    os.chdir(here)
    return folder


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def forget(*words: str) -> int:
    return main(["audit", "forget", WHO, "--delete", "--yes", *words])


def problems() -> list[tuple[str, str]]:
    return [(finding.path, finding.problem) for finding in verify(RESULTS).findings]


def names(folder: Path) -> set[str]:
    """Files that name the person, by path or by bytes."""
    pattern = re.compile(rb"one_sub-bea|one/sub-bea|one/bea|raw/one/sub-bea")
    found = {p for p in folder.rglob("*") if p.is_file() and pattern.search(p.read_bytes())}
    return {p.relative_to(folder).as_posix() for p in found | set(folder.rglob("*bea*"))}


def test_the_project_is_sound_and_names_the_person_in_many_places(whole: Path) -> None:
    assert problems() == []
    assert len(names(RESULTS)) > 15


def test_a_list_changes_nothing(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert main(["audit", "forget", WHO]) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    said = capsys.readouterr().out
    named = [
        *("index/tickets/one_sub-bea_task-rest.json", "index/runs.parquet", "index/tables/bucket-"),
        *("participants/bucket-", "parcellate/bucket-", "parcellate/one/one_sub-bea", "shards/scans/bucket-"),
        *(f"shards/fc/{LABEL}/", f"shards/pfc/{LABEL}/", f"shards/timeseries/{LABEL}/"),
        *("datasets/latest/manifest.json", "models/brainmass/model.safetensors"),
        *("evaluate/brainmass/predictions.parquet", "evaluate/fm_app/predictions.parquet", "nothing was changed"),
    ]
    for part in named:
        assert part in said, part
    assert "models/fm_app/model.safetensors" not in said  # never trained on them


def test_nothing_of_the_person_is_left_and_everything_verifies(whole: Path) -> None:
    assert forget() == 0
    assert names(RESULTS) == set()
    assert problems() == []
    assert forget() == 0  # a second call finds nothing


def test_shards_and_lists_are_those_of_a_run_without_the_person(whole: Path, without: Path) -> None:
    assert forget() == 0
    parts = ("shards", "parcellate", "index/tables", "index/participants", "index/tickets")
    files = [p for part in parts for p in sorted((without / "results" / part).rglob("*")) if p.is_file()]
    wanted = [p for p in files if ".prov." not in p.name]
    assert len([p for p in wanted if p.suffix == ".parquet"]) == 10
    for path in wanted:
        cut = whole / path.relative_to(without)
        assert cut.read_bytes() == path.read_bytes(), path.relative_to(without)
    ours = {p.relative_to(whole) for part in parts for p in (whole / "results" / part).rglob("*") if p.is_file()}
    assert ours == {p.relative_to(without) for p in files}


def test_a_snapshot_keeps_everybody_elses_split_and_loads(whole: Path) -> None:
    path = LAYOUT.snapshot("latest")
    before = read_json(path)
    forget()
    after = read_json(path)
    assert after["subjects"] == {who: split for who, split in before["subjects"].items() if who != WHO}
    split = before["subjects"][WHO]
    assert after["counts"][split]["subjects"] == before["counts"][split]["subjects"] - 1
    assert after["counts"][split]["scans"] == before["counts"][split]["scans"] - 1
    assert after["id"] != before["id"]
    snapshot = Snapshot.load(path)
    snapshot.verify()
    assert snapshot.id == after["id"] and len(snapshot.scans()) == 7


def test_no_file_is_newer_than_before(whole: Path) -> None:
    """Whatever a job reads or wrote keeps its time, so that no job runs again."""
    old = {p: p.stat().st_mtime_ns for p in RESULTS.rglob("*") if p.is_file()}
    forget()
    for path, time in old.items():
        if path.exists() and not path.name.startswith("."):  # those are caches of the ledger, which no job reads
            assert path.stat().st_mtime_ns == time, path


@pytest.mark.parametrize("linked", [True, False])
def test_a_frozen_snapshot_is_cut_too_and_stays_one_file_with_its_shards(
    whole: Path, withdrawal: ModuleType, linked: bool
) -> None:
    """Frozen shards are hard links of the present ones, or copies, where a disk has no links."""
    frozen = LAYOUT.snapshot("first").parent
    fc = Path("fc") / LABEL / f"bucket-{bucket_of(*WHO.split('/'), 2):03d}.parquet"
    for path in frozen.rglob("*.parquet"):
        live = RESULTS / path.relative_to(frozen)
        path.unlink()  # the project was copied, and its links with it
        os.link(live, path) if linked else shutil.copy2(live, path)
    before = {name: read_json(LAYOUT.snapshot(name))["id"] for name in ("latest", "first")}
    assert forget() == 0
    assert names(RESULTS) == set() and problems() == []
    after = {name: read_json(LAYOUT.snapshot(name))["id"] for name in ("latest", "first")}
    assert after["first"] != before["first"]
    listed = read_json(LAYOUT.frozen("first"))
    assert listed["snapshot"] == after["latest"] and listed["shards"] == read_json(LAYOUT.snapshot("first"))["shards"]
    for shard in listed["shards"]:
        path = frozen / shard["path"]
        assert (sha256_file(path), path.stat().st_size) == (shard["sha256"], shard["size"])
    assert (frozen / "shards" / fc).samefile(RESULTS / "shards" / fc) == linked
    assert (frozen / "shards" / fc).read_bytes() == (RESULTS / "shards" / fc).read_bytes()
    Snapshot.load(LAYOUT.snapshot("first")).verify()
    mark = read_json(LAYOUT.checkpoint("brainmass").with_name("withdrawn.json"))
    assert mark["snapshots"] == {before[name]: after[name] for name in before}
    settings = stage_json(withdrawal.config(), "freeze")
    words = ["--frozen", str(LAYOUT.frozen("first")), "--out", str(LAYOUT.snapshot("first"))]
    assert main(["snapshot", *words, "--config-json", settings]) == 0  # it can be split anew


def test_models_are_marked_and_say_so(whole: Path) -> None:
    weights = LAYOUT.checkpoint("brainmass")
    digest, read = sha256_file(weights), sha256_file(LAYOUT.snapshot("first"))
    assert "withdrew" not in checkpoint_note(weights)
    forget()
    assert sha256_file(weights) == digest
    assert "trained on 1 person who withdrew consent since" in checkpoint_note(weights)
    assert list(withdrawn.marked(RESULTS)) == ["models/brainmass"]
    record = read_json(prov_path(weights))
    assert record["withdrawn"][0]["read"] == {LAYOUT.snapshot("first").as_posix(): read}  # what it was trained on
    assert WHO not in read_json(weights.with_name("subjects.json"))["subjects"]


def test_a_model_that_was_trained_again_is_no_longer_marked(whole: Path) -> None:
    """Nothing removes the mark: the record of the new training tells that it is over, of each person by itself."""
    weights = LAYOUT.checkpoint("brainmass")
    forget()
    mark = weights.with_name("withdrawn.json")
    record = read_json(prov_path(weights))
    write_text(prov_path(weights), render(record | {"started": "2999-01-01T00:00:00.123+00:00"}))
    assert withdrawn.marked(RESULTS) == {} and "withdrew" not in checkpoint_note(weights)
    withdrawn.mark(mark.parent, "somebody else", date="2999-01-02T00:00:00+00:00", snapshots={})
    assert "trained on 1 person who withdrew consent since (last 2999-01-02)" in checkpoint_note(weights)
    prov_path(weights).unlink()
    assert "2 people" in checkpoint_note(weights)


def test_weights_outside_the_results_are_named(whole: Path, withdrawal: ModuleType, capsys) -> None:
    settings = Settings(json.dumps({"stage": "import-weights", "version": 1, "config": {}, "overrides": {}}))
    for folder, who in (("theirs", WHO), ("others", "one/ada")):
        with Recorder(
            settings, out=write_json(Path("weights") / folder / "subjects.json", {"subjects": [who]})
        ) as made:
            write_json(RESULTS / "x" / "note.json", {})
            made.own.append(RESULTS / "x" / f"{folder}.json")
            made.add_output(write_json(RESULTS / "x" / f"{folder}.json", {}))
    withdrawal.ledger()
    assert main(["audit", "forget", WHO]) == 0
    said = capsys.readouterr().out
    assert (
        "weights/theirs/subjects.json: weights beside it were trained on them" in said and "weights/others" not in said
    )


def test_models_go_where_asked(whole: Path) -> None:
    assert forget("--delete-models") == 0
    assert not LAYOUT.checkpoint("brainmass").parent.exists() and not LAYOUT.metrics("brainmass").parent.exists()
    assert LAYOUT.checkpoint("fm_app").exists() and LAYOUT.metrics("fm_app").exists()
    assert problems() == [] and withdrawn.marked(RESULTS) == {}


def test_predictions_lose_their_rows_and_metrics_stay(whole: Path) -> None:
    metrics = LAYOUT.metrics("brainmass").read_bytes()
    forget()
    rows = pq.read_table(LAYOUT.metrics("brainmass").with_name("predictions.parquet")).column("subject").to_pylist()
    assert WHO not in rows and len(rows) == 7
    assert LAYOUT.metrics("brainmass").read_bytes() == metrics


def test_a_namesake_of_another_data_set_stays(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "forget", "one/ada", "--delete", "--yes"]) == 0
    assert "two/ada has the same label: if it is the same person, forget it too" in capsys.readouterr().out
    assert LAYOUT.ticket("two_sub-ada_task-rest").exists() and not LAYOUT.ticket("one_sub-ada_task-rest").exists()
    subjects = read_json(LAYOUT.snapshot("latest"))["subjects"]
    assert "two/ada" in subjects and "one/ada" not in subjects
    assert problems() == []


def test_the_next_ingest_refuses_them_although_the_raw_data_are_there(whole: Path, withdrawal: ModuleType) -> None:
    forget()
    kept = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (RESULTS / "index").rglob("bucket-*.json")}
    assert Path("raw/one/sub-bea_task-rest.npy").exists()
    withdrawal.ingest()
    (row,) = read_index(RESULTS).quarantined
    assert (row.dataset, row.subject, row.reason, row.site) == ("one", "bea", "consent withdrawn", "")
    assert not LAYOUT.ticket("one_sub-bea_task-rest").exists()
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (RESULTS / "index").rglob("bucket-*.json")} == kept
    assert "two/ada" in {f"{scan.dataset}/{scan.subject}" for scan in read_index(RESULTS).ok}
    withdrawal.ledger()
    assert problems() == []


def test_a_tombstone_names_nobody(whole: Path) -> None:
    forget()
    lines = withdrawn.tombstones(RESULTS).read_text().splitlines()
    # The form, not the absence of "bea": those three are hexadecimal digits, and the salt is drawn.
    assert len(lines) == 2 and re.fullmatch(r"[0-9a-f]{64}\t\d{4}-\d\d-\d\dT[\d:+]+(\t\d+){4}", lines[1])
    salt = withdrawn.salt_file(RESULTS).read_text().strip()
    assert lines[1].split("\t")[0] == withdrawn.fingerprint(salt, "one", "bea")
    assert lines[1].split("\t")[2] == "1" and lines[1].split("\t")[5] == "1"  # one scan, one model
    assert withdrawn.Forgotten.read(RESULTS).holds("one", "bea")
    assert not withdrawn.Forgotten.read(RESULTS).holds("two", "bea")
    assert withdrawn.fingerprint("other", "one", "bea") != withdrawn.fingerprint(salt, "one", "bea")


def test_the_first_date_of_a_tombstone_stays(tmp_path: Path) -> None:
    counts = dict.fromkeys(("scans", "deleted", "rewritten", "models"), 3)
    withdrawn.bury(tmp_path, "d", "s", date="2026-01-01", counts=counts)
    withdrawn.bury(tmp_path, "d", "s", date="2027-01-01", counts=dict.fromkeys(counts, 0))
    withdrawn.bury(tmp_path, "d", "t", date="2026-06-01", counts=counts)
    rows = [line.split("\t")[1:] for line in withdrawn.tombstones(tmp_path).read_text().splitlines()[1:]]
    assert rows == [["2026-01-01", "3", "3", "3", "3"], ["2026-06-01", "3", "3", "3", "3"]]


def test_tombstones_without_their_salt_stop_everything(whole: Path, withdrawal: ModuleType) -> None:
    """A new salt would recognise nobody, and the next ingest would take everybody in again."""
    forget()
    withdrawn.salt_file(RESULTS).unlink()
    before = withdrawn.tombstones(RESULTS).read_bytes()
    with pytest.raises(BoldmillError, match="put it back"):
        withdrawn.Forgotten.read(RESULTS)
    assert main(["audit", "forget", "one/ada", "--delete", "--yes"]) == 1
    assert withdrawn.tombstones(RESULTS).read_bytes() == before and not withdrawn.salt_file(RESULTS).exists()
    assert LAYOUT.ticket("one_sub-ada_task-rest").exists()


def test_from_another_folder_nothing_is_changed(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Records name files from where Snakemake runs: from elsewhere they would not follow."""
    monkeypatch.chdir(tmp_path)
    words = ["audit", "forget", WHO, "--results", str(whole / "results"), "--workdir", str(whole)]
    assert main(words) == 0
    assert main([*words, "--delete", "--yes"]) == 2
    assert (whole / LAYOUT.ticket("one_sub-bea_task-rest")).exists()


def test_pages_of_everybody_go(whole: Path, withdrawal: ModuleType) -> None:
    """A table that one command wrote with a page, and that names nobody, stays with its record."""
    page, table = RESULTS / "report" / "index.html", RESULTS / "quarantine.tsv"
    settings = Settings(json.dumps({"stage": "report", "version": 1, "config": {}, "overrides": {}}))
    with Recorder(settings, out=page, inputs=[LAYOUT.snapshot("latest")]) as record:
        write_text(page, "<p>one_sub-bea</p>")
        record.add_output(write_text(table, "scan_id\tdataset\tsubject\n"))
    cohort = RESULTS / "reports" / "cohort.tsv"
    with Recorder(settings, out=cohort):
        write_text(cohort, "scan_id\tdataset\tsubject\none_sub-bea\tone\tbea\n")
    withdrawal.ledger()
    assert problems() == []
    assert forget() == 0
    assert not page.exists() and not cohort.exists() and table.exists()
    assert problems() == []


def test_the_last_person_of_a_data_set_takes_its_folders(whole: Path) -> None:
    about = write_text(RESULTS / "derivatives" / "two" / "dataset_description.json", "{}")
    for name in ("ada", "gus"):
        assert about.exists()
        assert main(["audit", "forget", f"two/{name}", "--delete", "--yes"]) == 0
    assert not about.parent.exists() and not (RESULTS / "parcellate" / "two").exists()
    assert problems() == []


def test_files_of_others_stay_though_the_index_no_longer_knows_them(whole: Path, withdrawal: ModuleType) -> None:
    """The data set was taken out of the configuration, and the number of buckets changed: all others' files stay."""
    mine = write_text(RESULTS / "derivatives" / "two" / "sub-ada" / "x.nii.gz", "x")
    others = write_text(RESULTS / "derivatives" / "two" / "sub-gus" / "x.nii.gz", "x")
    orphans = [write_text(RESULTS / kind / "bucket-099.json", "{}") for kind in ("parcellate", "mine")]
    made = withdrawal.config()
    made = made.model_copy(update={"datasets": [one for one in made.datasets if one.name == "one"]})
    assert main(["ingest", "--results", "results", "--config-json", stage_json(made, "ingest")]) == 0
    assert main(["audit", "forget", "two/ada", "--delete", "--yes"]) == 0
    assert not mine.exists() and others.exists() and all(path.exists() for path in orphans)
    assert list((RESULTS / "parcellate" / "two").glob("two_sub-gus*"))


def test_logs_lose_the_name(whole: Path) -> None:
    log = RESULTS / "logs" / "parcellate" / "bucket-000.log"
    write_text(log, "one_sub-bea: done\nraw/one/sub-bea_task-rest.npy: read\nsub-bea of one: ok\ntwo_sub-ada: done\n")
    own = Path(".snakemake/log/2026.snakemake.log")
    write_text(own, "rule x: one/sub-bea\n")
    assert forget() == 0
    assert log.read_text() == f"{GONE}: done\n{GONE}: read\n{GONE}: ok\ntwo_sub-ada: done\n"
    assert own.read_text() == f"rule x: {GONE}\n"


@pytest.mark.parametrize("killed", [False, True])
def test_the_last_person_of_a_bucket_takes_its_files(
    withdrawal: ModuleType, tmp_path: Path, monkeypatch, killed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    withdrawal.line(withdrawal.PEOPLE, n_buckets=64)
    withdrawal.ledger()
    bucket = bucket_of("one", "bea", 64)
    assert read_index(RESULTS).scans_in(bucket)[0].subject == "bea" and len(read_index(RESULTS).scans_in(bucket)) == 1
    if killed:  # after everything of theirs is gone, before the records follow
        with monkeypatch.context() as patch:
            patch.setattr("boldmill.provenance.remove.recount", die)
            with pytest.raises(KeyboardInterrupt):
                forget()
    assert forget() == 0
    assert not [p for p in RESULTS.rglob(f"bucket-{bucket:03d}.*") if p.parts[1] != "datasets"]
    shards = {shard["bucket"] for shard in read_json(LAYOUT.snapshot("latest"))["shards"]}
    assert f"bucket-{bucket:03d}" not in shards
    for name in ("latest", "first"):  # a frozen one keeps the shard, without rows
        Snapshot.load(LAYOUT.snapshot(name)).verify()
    assert problems() == []


@pytest.mark.parametrize("before", ["recount", "follow", "_ledger"])
def test_a_killed_call_goes_on(whole: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    from boldmill.provenance import remove

    ids = [read_json(LAYOUT.snapshot(name))["id"] for name in ("first", "latest")]
    log = write_text(RESULTS / "report" / "late.txt", "sub-bea: the label is unique\n")
    page = write_text(RESULTS / "report" / "index.html", "one_sub-bea")
    with Recorder(Settings(json.dumps({"stage": "report", "version": 1, "config": {}, "overrides": {}})), out=log) as r:
        r.add_output(page)
    with monkeypatch.context() as patch:
        patch.setattr(remove, before, die)
        with pytest.raises(KeyboardInterrupt):
            forget()
    assert withdrawn.Forgotten.read(RESULTS).holds("one", "bea")
    write_text(RESULTS / "logs" / "late.log", "sub-bea: the label is unique\n")
    assert forget() == 0
    assert names(RESULTS) == set() and problems() == []
    assert list(withdrawn.marked(RESULTS)) == ["models/brainmass"]
    now = [read_json(LAYOUT.snapshot(name))["id"] for name in ("first", "latest")]
    mark = read_json(LAYOUT.checkpoint("brainmass").with_name("withdrawn.json"))
    assert mark["snapshots"] == dict(zip(ids, now, strict=True))
    assert read_json(prov_path(LAYOUT.snapshot("first")))["snapshot"] == now[0] != ids[0]
    assert (RESULTS / "logs" / "late.log").read_text() == log.read_text() == f"{GONE}: the label is unique\n"


def test_images_of_every_stage_are_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = [
        *("derivatives/demo/sub-01/func/sub-01_bold.nii.gz", "preprocess/demo/sub-01.json"),
        *("preprocess/demo/sub-01.json.prov.json", "preprocess/demo/.cache/sub-01/anat.json"),
        *("preprocess/demo/.cache/sub-01/demo_sub-01_task-rest.fit/motion/matrices.npy",),
        *("preprocess/demo/recipes/demo_sub-01_task-rest.json", "preprocess/demo/figures/sub-01_anat.npz"),
        *("preprocess/demo/figures/demo_sub-01_task-rest.npz", "flatmap/demo/demo_sub-01_task-rest.npz"),
        *("flatmap/demo/demo_sub-01_task-rest.png", "parcellate/demo/sub-01_morphometry.tsv"),
        *("parcellate/demo/demo_sub-01_task-rest_atlas-X_timeseries.tsv", "reports/demo/sub-01.html"),
        *("reports/demo/sub-01_methods.md", "logs/preprocess/demo/sub-01.log", "work/demo/sub-01/x.nii"),
        *("index/tickets/demo_sub-01_task-rest.json", "benchmarks/preprocess/demo/sub-01.jsonl"),
    ]
    others = [re.sub(r"sub-01", "sub-011", path) for path in own] + [re.sub("demo", "other", path) for path in own]
    for path in (*own, *others):
        write_text(RESULTS / path, "x")
    holdings = find(RESULTS, Person("demo", "01"))
    assert {holding.action for holding in holdings} == {DELETE}

    def found(path: str) -> bool:
        return any(PurePosixPath(path).is_relative_to(holding.path) for holding in holdings)

    assert all(map(found, own)) and not any(map(found, others))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("demo_sub-01_task-rest", f"{GONE}_task-rest"),
        ("see demo/01, demo/011 and xdemo/01", f"see {GONE}, demo/011 and xdemo/01"),
        ("results/demo/sub-01/func", f"results/{GONE}/func"),
        ("demo_sub-012 other_sub-01", "demo_sub-012 other_sub-01"),
        ("data/raw/sub-01/func/x.nii.gz: gone", f"{GONE}: gone"),
        ("2026/demo/01/x", "2026/demo/01/x"),
    ],
)
def test_texts_lose_this_person_and_nobody_else(text: str, left: str) -> None:
    assert Person("demo", "01", roots=["data/raw"]).redact(text) == left


def test_a_label_that_is_unique_tells_the_person(whole: Path) -> None:
    assert person_of(RESULTS, "one/bea").named_in("file sub-bea_bold.nii.gz")
    assert not person_of(RESULTS, "one/ada").named_in("file sub-ada_bold.nii.gz")  # there are two


@pytest.mark.parametrize("name", ["bea", "one/", "one/x/y", "/bea", "../x/bea", "one/b*", "one/b_ea"])
def test_a_name_that_is_none_is_refused(whole: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="DATASET/SUBJECT"):
        person_of(RESULTS, name)


def test_nothing_is_deleted_without_a_yes(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["audit", "forget", WHO, "--delete"]) == 2  # no terminal to ask
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "one/fay")
    assert main(["audit", "forget", WHO, "--delete"]) == 1
    assert LAYOUT.ticket("one_sub-bea_task-rest").exists()
    assert main(["audit", "forget", WHO, "--delete-models"]) == 2


def test_a_release_that_lists_them_is_named(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "export", "--out", "release"]) == 0
    assert main(["audit", "forget", WHO, "--also", "release"]) == 0
    assert re.search(r"release: \d+ files of theirs are listed", capsys.readouterr().out)


def test_the_audit_says_that_a_model_knew_them(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`stale` fails for it, `leakage` says it, and the snapshot it was trained on is still found under its new name."""
    config = LAYOUT.checkpoint("brainmass").with_name("config.json")
    write_json(config, {"model": "brainmass", "snapshot": read_json(LAYOUT.snapshot("first"))["id"]})
    assert not list(checkpoint_claims(RESULTS))
    forget()
    assert not list(checkpoint_claims(RESULTS))
    config.with_name("withdrawn.json").rename(config.with_name("away"))
    assert len(list(checkpoint_claims(RESULTS))) == 1  # without the mark nobody could tell
    config.with_name("away").rename(config.with_name("withdrawn.json"))
    capsys.readouterr()
    assert main(["audit", "stale", "--results", "results"]) == 1
    assert "trained on 1 person who withdrew consent" in capsys.readouterr().out
    main(["audit", "leakage"])
    assert "models/brainmass/model.safetensors: trained on 1 person who withdrew" in capsys.readouterr().out


def test_a_model_that_never_knew_them_still_finds_its_snapshot(whole: Path) -> None:
    """Its snapshot has another identity now; it is not marked as one to be trained again."""
    weights = LAYOUT.checkpoint("fm_app")
    write_json(
        weights.with_name("config.json"), {"model": "fm_app", "snapshot": read_json(LAYOUT.snapshot("first"))["id"]}
    )
    assert not list(checkpoint_claims(RESULTS))
    assert forget() == 0
    assert main(["audit", "forget", "one/cyd", "--delete", "--yes"]) == 0
    assert not list(checkpoint_claims(RESULTS))
    assert "models/fm_app/withdrawn.json" not in {path for path, _ in problems()}


def test_a_record_that_was_edited_is_not_made_sound(whole: Path) -> None:
    record = prov_path(LAYOUT.shard("scans", bucket_of(*WHO.split("/"), 2)))
    forged = read_json(record) | {"seed": 666}
    record.write_text(json.dumps(forged))
    forget()
    assert (record.as_posix(), "the record was edited: it no longer has its own digest") in problems()
