"""Files that no record knows, or behind which no scan of the index stands."""

import json
from pathlib import Path
from types import SimpleNamespace

from boldmill.atomic import write_text
from boldmill.cli import main
from boldmill.index.read import read_index
from boldmill.paths import Layout
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.orphans import Living, orphans
from boldmill.provenance.record import Recorder
from boldmill.provenance.verify import verify

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)


def found() -> dict[str, str]:
    return dict(orphans(RESULTS, Ledger.load(RESULTS).paths, read_index(RESULTS)))


def test_a_finished_project_has_none(project, capsys) -> None:
    assert found() == {}
    assert main(["audit", "orphans"]) == 0
    assert capsys.readouterr().out.strip() == "0 orphans"


def test_a_file_nobody_recorded_and_what_a_killed_command_left(project) -> None:
    write_text("results/shards/mine.parquet", "x")
    write_text("results/shards/.tmp-1-abc-x.parquet", "x")
    write_text("results/logs/x.log", "x")
    assert found() == {
        "results/shards/mine.parquet": "no record knows it",
        "results/shards/.tmp-1-abc-x.parquet": "left by a command that was killed",
    }
    assert main(["audit", "orphans"]) == 1


def test_the_state_of_an_interrupted_training_is_named_but_no_stranger_to_verify(project) -> None:
    state = LAYOUT.checkpoint("brainmass").with_name("resume-0000012.safetensors")
    write_text(state, "x")
    assert found() == {str(state): "state of a training that did not end: the same command goes on from it"}
    assert verify(RESULTS).findings == []


def test_a_removed_subject_is_named_with_its_tombstone_down_to_the_rows(project) -> None:
    remaining = {"01": 0, "02": 0, "03": 1}
    cache = LAYOUT.subject("demo", "04").parent / ".cache" / "sub-04"
    cache.mkdir(parents=True)
    project.ingest(remaining)
    project.ledger()
    why = "its scan left the index: no longer in the data sets, or filtered out"
    subject = "its subject is not in the index: no longer in the data sets, or filtered out"
    assert found() == {
        "results/derivatives/demo/sub-04/func/sub-04_task-rest_boldref.nii.gz": why,
        "results/preprocess/demo/sub-04.json": subject,
        "results/preprocess/demo/.cache/sub-04": f"a cache: {subject}",
        **{
            str(shard): "holds rows of 1 scans that left the index: demo_sub-04_task-rest; run `snakemake shards`"
            for shard in (LAYOUT.shard("scans", 1), LAYOUT.shard("fc", 1, "atlas"))
        },
    }


def test_a_bucket_nobody_is_in_any_more(project) -> None:
    project.ingest({"01": 0, "02": 0})
    assert found()[str(LAYOUT.shard("scans", 1))] == "nobody is in its bucket any more"


def test_nothing_is_deleted(project) -> None:
    project.ingest({"01": 0, "02": 0})
    before = set(RESULTS.rglob("*"))
    assert main(["audit", "orphans"]) == 1
    assert set(RESULTS.rglob("*")) == before


def test_a_scan_is_told_from_one_whose_name_it_begins_with() -> None:
    scan = SimpleNamespace(scan_id="demo_sub-01_task-rest", dataset="demo", subject="01")
    index = SimpleNamespace(ok=[scan], buckets=lambda: [0])
    living = Living(index, {"demo_sub-01_task-rest_run-2": "gone"})  # type: ignore[arg-type]
    assert living.why_not("demo", "01", "sub-01_task-rest_desc-x_bold.nii.gz") is None
    assert living.why_not("demo", "01", "sub-01_task-rest_run-2_desc-x_bold.nii.gz") == "its scan left the index: gone"
    assert living.why_not("demo", "01", "sub-01_task-rest_run-21_desc-x_bold.nii.gz") is None
    assert living.why_not("demo", "01", "demo_sub-01_task-rest.npz") is None
    assert living.why_not("demo", "01", "sub-01_desc-preproc_T1w.nii.gz") is None
    assert living.why_not("demo", "010", "sub-010.json") == "its subject is not in the index"


def test_json(project, capsys) -> None:
    write_text("results/shards/mine.parquet", "x")
    assert main(["audit", "orphans", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"path": "results/shards/mine.parquet", "why": "no record knows it"}


def test_frozen_shards_of_a_bucket_nobody_is_in_any_more_are_none(project) -> None:
    kept = RESULTS / "datasets" / "first" / "shards" / "fc" / "atlas" / "bucket-001.parquet"
    with Recorder(project.settings("freeze_shards"), out=kept):
        write_text(kept, "x")
    project.ledger()
    project.ingest({"01": 0, "02": 0})
    assert str(LAYOUT.shard("scans", 1)) in found() and str(kept) not in found()
