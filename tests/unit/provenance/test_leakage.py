"""Who was tested is held against who was in pre-training, and an overlap has names."""

import json
from pathlib import Path

from boldmill.atomic import write_json
from boldmill.cli import main
from boldmill.paths import Layout
from boldmill.provenance.leakage import audit
from boldmill.provenance.ledger import Ledger

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)


def found() -> list:
    return audit(RESULTS, Ledger.load(RESULTS))


def test_a_model_tested_on_held_out_subjects_passes(project, capsys) -> None:
    (one,) = found()
    assert (one.pretraining, one.tested, one.overlap, one.bad) == (3, 1, [], False)
    assert one.table == str(LAYOUT.metrics("brainmass"))
    assert main(["audit", "leakage"]) == 0
    assert "cannot be known from labels" in capsys.readouterr().out


def test_a_tested_subject_of_pre_training_is_named(project, capsys) -> None:
    project.evaluate(tested=("demo/04", "demo/02"))
    project.ledger()
    assert found()[0].overlap == ["demo/02"]
    assert main(["audit", "leakage"]) == 1
    assert "seen in pre-training: demo/02" in capsys.readouterr().out


def test_methods_with_random_weights_and_baselines_do_not_count(project) -> None:
    assert found()[0].tested == 1  # the random twin was scored on all four


def test_a_relative_of_a_tested_subject_counts(project) -> None:
    project.families["04"] = "F1"
    project.shards(1)
    project.ledger()
    tables = {one.table: one.overlap for one in found()}
    assert tables == {"its own snapshot": ["demo/04"], str(LAYOUT.metrics("brainmass")): ["demo/04"]}


def test_the_same_raw_bytes_under_another_name_count(project) -> None:
    project.bold("04").write_bytes(project.bold("01").read_bytes())
    project.shards(1)
    project.ledger()
    assert found()[0].overlap == ["demo/04"]


def test_a_list_that_names_somebody_its_own_snapshot_holds_out_fails(project) -> None:
    project.model(("demo/01", "demo/04"))
    project.evaluate(tested=())
    project.ledger()
    assert next((one.table, one.overlap) for one in found()) == ("its own snapshot", ["demo/04"])
    assert main(["audit", "leakage"]) == 1


def test_without_a_list_a_tested_model_fails(project) -> None:
    LAYOUT.checkpoint("brainmass").with_name("subjects.json").unlink()
    (one,) = found()
    assert one.bad and any("unproved" in note for note in one.notes)


def test_a_frozen_snapshot_that_holds_out_somebody_it_has_seen_is_named(project) -> None:
    project.snapshot("frozen", {"demo/01": "heldout", "demo/04": "train"})
    project.ledger()
    (one,) = found()
    assert one.notes == ["must not be tested on snapshot frozen: it holds out 1 it has seen"] and not one.bad


def test_a_snapshot_that_is_gone_is_said(project) -> None:
    LAYOUT.snapshot("latest").unlink()
    assert "is not there any more" in found()[0].notes[0]


def test_imported_weights_are_audited_and_their_vouching_is_said(project) -> None:
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings

    out = Path("weights/model.safetensors")
    out.parent.mkdir()
    with Recorder(Settings('{"stage":"import-weights","version":1,"config":{}}'), out=RESULTS / "x" / "list") as record:
        (RESULTS / "x").mkdir()
        (RESULTS / "x" / "list").write_text("x")
        out.write_text("weights")
        record.add_output(out)
        record.add_output(write_json(out.with_name("subjects.json"), {"subjects": []}))
        record.add_output(write_json(out.with_name("config.json"), {"model": "brainmass", "unseen_data": True}))
    project.ledger()
    one = next(one for one in found() if one.model == str(out))
    assert one.table == "not tested" and any("vouches" in note for note in one.notes)


def test_json_names_everybody(project, capsys) -> None:
    project.evaluate(tested=("demo/01", "demo/02"))
    project.ledger()
    capsys.readouterr()
    assert main(["audit", "leakage", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["overlap"] == ["demo/01", "demo/02"]
