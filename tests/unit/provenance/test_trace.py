"""Any file, row or metric is traced down to the raw files, and what is wrong on the way is said."""

import json
from pathlib import Path

import pytest

from boldmill.atomic import sha256_file, write_json, write_text
from boldmill.cli import main
from boldmill.errors import BoldmillError
from boldmill.paths import Layout
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import Recorder
from boldmill.provenance.trace import ALIKE, alike, trace
from boldmill.stages import STAGES

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)
FC = LAYOUT.shard("fc", 0, "atlas")


def text(target: object, **options: object) -> str:
    return "\n".join(trace(Ledger.load(RESULTS), str(target), **options))


def test_a_checkpoint_is_traced_to_raw_files_with_hashes_and_settings(project) -> None:
    found = text(LAYOUT.checkpoint("brainmass"))
    assert found.startswith("the same command also wrote 2 files:")
    for subject in ("01", "02", "03", "04"):
        assert f"{project.bold(subject)}  sha256 {sha256_file(project.bold(subject))[:12]}  [source]" in found
    for stage in ("train_brainmass", "snapshot", "shards", "preprocess", "ingest"):
        assert f"[{stage} v{STAGES[stage].version}, settings " in found
    assert '"smoothing":' in found and "raw/participants.tsv" in found
    assert "stale" not in found and "CHANGED" not in found and "gone" not in found


def test_a_derivative_is_traced_though_it_was_written_beside(project) -> None:
    image = LAYOUT.derivatives("demo") / "sub-02/func/sub-02_task-rest_boldref.nii.gz"
    found = text(image)
    assert f"{image}  sha256" in found and "  raw/sub-02/func/sub-02_task-rest_bold.nii.gz  sha256" in found
    assert f"  {LAYOUT.subject('demo', '02')}" in found  # written by the same command
    assert "sub-01" not in found


def test_one_row_shows_its_subject_only_and_what_it_holds(project) -> None:
    found = text(f"{FC}#scan=demo_sub-02_task-rest")
    assert found.startswith("1 rows with scan_id=demo_sub-02_task-rest; sha256 of their values ")
    assert "values=(18 values)" in found
    assert "sub-02_task-rest_bold.nii.gz" in found and "sub-01" not in found


def test_a_row_that_is_not_in_the_file_is_refused_even_if_its_subject_went_into_it(project) -> None:
    with pytest.raises(BoldmillError, match=r"no such row: scan_id 'demo_sub-01_task-nback'.*did you mean"):
        text(f"{FC}#scan=demo_sub-01_task-nback")


def test_a_metric_is_traced_with_its_row(project) -> None:
    found = text(f"{LAYOUT.metrics('brainmass')}#task=group,method=fc_logistic,metric=auc")
    assert "task=group, method=fc_logistic, model=baseline, metric=auc, value=0.75" in found
    assert "model.safetensors" in found and "sub-01_task-rest_bold.nii.gz" in found


def test_predictions_of_a_subject_are_traced_with_everything_they_were_learned_from(project) -> None:
    found = text(f"{LAYOUT.metrics('brainmass').with_name('predictions.parquet')}#subject=demo/04")
    assert found.startswith("2 rows with subject=demo/04")
    assert "sub-01_task-rest_bold.nii.gz" in found


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        ("metod=fc", "there is no column 'metod' \\(did you mean 'method'"),
        ("method=fc_logistc", "no such row: method 'fc_logistc' \\(did you mean 'fc_logistic'"),
        ("method=fc_logistic,metric=acc", "no such row: metric 'acc'"),
        ("group", "chooses no row"),
    ],
)
def test_a_wrong_selection_says_what_there_is(project, selection: str, why: str) -> None:
    with pytest.raises(BoldmillError, match=why):
        text(f"{LAYOUT.metrics('brainmass')}#{selection}")


def test_an_unknown_file_says_so(project) -> None:
    with pytest.raises(BoldmillError, match="no recorded command wrote it"):
        text("results/other.json")
    assert main(["audit", "trace", "results/other.json"]) == 1


def test_the_same_label_of_another_data_set_is_left_out(project) -> None:
    other = LAYOUT.subject("other", "02")
    raw = write_text("elsewhere/sub-02_T1w.nii.gz", "another person")
    with Recorder(project.settings("preprocess"), out=other, inputs=[raw]):
        write_text(other, "series of another person")
    with Recorder(project.settings("shards"), out=FC, inputs=[LAYOUT.subject("demo", "02"), other]):
        FC.touch()
    project.ledger()
    found = text(f"{FC}#scan=demo_sub-02_task-rest")
    assert "raw/sub-02/func" in found and "other" not in found and "elsewhere" not in found


def test_what_is_wrong_on_the_way_is_said(project) -> None:
    project.bold("01").write_text("another bold")
    project.preprocess("01")
    LAYOUT.subject("demo", "02").unlink()
    project.ledger()
    found = {line.split()[0]: line for line in text(LAYOUT.shard("scans", 0)).splitlines() if "sha256" in line}
    assert "stale: made again since; what was read had sha256" in found[str(LAYOUT.subject("demo", "01"))]
    assert ", gone]" in found[str(LAYOUT.subject("demo", "02"))]
    assert "[source]" in found[str(project.bold("02"))]
    project.bold("02").write_text("edited")
    assert "CHANGED: its sha256 is" in text(LAYOUT.subject("demo", "02"))


def test_the_present_configuration_is_held_against_the_tree(project, capsys) -> None:
    write_json("other.json", {"clean": {"band_high": 0.08}})
    assert main(["audit", "trace", str(FC), "--config", "config.yaml", "other.json"]) == 0
    assert "stale: clean.band_high changed 0.1 -> 0.08" in capsys.readouterr().out


def test_depth_and_json(project, capsys) -> None:
    assert main(["audit", "trace", str(LAYOUT.metrics("brainmass")), "--depth", "1"]) == 0
    shown = capsys.readouterr().out
    assert "... made from 4 files (--depth)" in shown and "raw/" not in shown
    assert main(["audit", "trace", f"{FC}#scan=demo_sub-01_task-rest", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["rows"]["count"] == 1 and value["tree"]["stage"] == "shards"
    names = []
    todo = [value["tree"]]
    while todo:
        node = todo.pop()
        names.append(node["path"])
        todo += node["inputs"]
    assert "raw/sub-01/func/sub-01_task-rest_bold.nii.gz" in names and "raw/participants.tsv" in names


def test_of_many_files_that_are_alike_some_are_shown_and_the_rest_counted(project) -> None:
    inputs = [write_text(f"many/sub-{i:03d}_bold.nii.gz", str(i)) for i in range(60)]
    out = RESULTS / "shards" / "many.parquet"
    with Recorder(project.settings("shards"), out=out, inputs=inputs):
        write_text(out, "x")
    project.ledger()
    found = text(out)
    assert found.count("_bold.nii.gz  sha256") == ALIKE
    assert "  ... and 40 more like it: source sub-*_bold.nii.gz" in found
    assert text(out, full=True).count("_bold.nii.gz  sha256") == 60


def test_files_differ_in_kind_by_what_is_neither_label_nor_number() -> None:
    assert alike("a/demo_sub-1_run-2_bold.nii.gz", "x") == alike("b/other_sub-9_run-1_bold.nii.gz", "x")
    assert alike("a/sub-1_T1w.nii.gz", "x") != alike("a/sub-1_bold.nii.gz", "x")


def test_what_is_cut_off_by_the_depth_in_one_place_is_shown_where_there_is_room(project) -> None:
    top, one, last = (RESULTS / "shards" / f"{name}.json" for name in ("top", "a", "z"))
    for out, inputs in ((last, [project.bold("01")]), (one, [last]), (top, [one, last])):
        with Recorder(project.settings("shards"), out=out, inputs=inputs):
            write_text(out, out.name)
    project.ledger()
    assert str(project.bold("01")) in text(top, depth=2)


def test_a_folder_that_is_called_like_a_subject_hides_nobody(project) -> None:
    raw = write_text("sub-projects/rest/sub-02/sub-02_bold.nii.gz", "bold")
    with Recorder(project.settings("preprocess"), out=LAYOUT.subject("demo", "02"), inputs=[raw]):
        LAYOUT.subject("demo", "02").touch()
    project.ledger()
    assert str(raw) in text(f"{FC}#scan=demo_sub-02_task-rest")


def test_a_damaged_ticket_is_shown_as_changed(project) -> None:
    ticket = LAYOUT.ticket("demo_sub-01_task-rest")
    ticket.write_text(ticket.read_text()[:-9])
    line = next(x for x in text(f"{FC}#scan=demo_sub-01_task-rest").splitlines() if str(ticket) in x)
    assert "CHANGED" in line
