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


def few_shot() -> Path:
    from boldmill.atomic import write_text
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings

    out, settings = LAYOUT.few_shot("brainmass"), Settings('{"stage":"few_shot","version":1,"config":{}}')
    with Recorder(settings, out=out, inputs=[LAYOUT.snapshot("latest"), LAYOUT.checkpoint("brainmass")]):
        write_text(out, "task\n")
    return out


def unknown() -> dict[str, str]:
    """Table -> why nothing can be told of it; the command fails exactly where there is one."""
    told = {one.table: one.unknown for one in found() if one.unknown}
    assert main(["audit", "leakage"]) == (1 if told else 0)
    return told


METRICS = str(LAYOUT.metrics("brainmass"))


def test_predictions_that_are_gone_or_edited_prove_nothing(project, capsys) -> None:
    predictions = LAYOUT.metrics("brainmass").with_name("predictions.parquet")
    assert unknown() == {}
    whole = predictions.read_bytes()
    predictions.unlink()
    assert unknown() == {METRICS: "predictions.parquet is gone"}
    assert f"-> {METRICS}: cannot be told: predictions.parquet is gone" in capsys.readouterr().out
    predictions.write_bytes(whole[:-1] + b"!")
    assert unknown() == {METRICS: "predictions.parquet is not what was recorded"}


def test_predictions_that_lack_a_method_of_the_model_prove_nothing(project) -> None:
    project.evaluate(tested=())
    project.ledger()
    assert unknown() == {METRICS: "predictions.parquet says nobody of brainmass_frozen"}


def test_controls_of_several_draws_keep_no_predictions_beside_those_of_the_rungs(project) -> None:
    row = "memory\tzeroshot_f_permuted_text_fmri\tbrainmass\tpearson_r\t0.1\n"
    project.evaluate(more=row)
    project.ledger()
    assert unknown() == {}
    project.evaluate(tested=(), more=row)
    project.ledger()
    assert METRICS in unknown()


def test_a_method_that_scored_nobody_needs_no_predictions(project) -> None:
    project.evaluate(more="memory\tbrainmass_mlp\tbrainmass\tauc\tn/a\n")
    project.ledger()
    assert unknown() == {}


def test_a_model_that_was_trained_again_since_is_not_the_one_that_was_tested(project) -> None:
    project.model(("demo/01",))
    LAYOUT.checkpoint("brainmass").write_text("other weights")
    from boldmill.atomic import read_json, write_text
    from boldmill.provenance.record import describe_output, prov_path, render

    record = prov_path(LAYOUT.checkpoint("brainmass"))
    made = read_json(record)
    write_text(record, render(made | {"outputs": [describe_output(item["path"]) for item in made["outputs"]]}))
    project.ledger()
    assert unknown() == {METRICS: "other weights lie there than it was made with: evaluate again"}


def test_a_split_table_of_another_snapshot_proves_nothing(project) -> None:
    few_shot()
    project.ledger()
    assert unknown() == {} and {one.tested for one in found()} == {1}
    project.snapshot("latest", {"demo/01": "train", "demo/02": "heldout", "demo/03": "train", "demo/04": "train"})
    project.ledger()
    assert "is another now: evaluate again" in unknown()[str(LAYOUT.few_shot("brainmass"))]


def test_a_table_the_ledger_does_not_know_is_named(project) -> None:
    table = few_shot()
    assert unknown() == {str(table): "the ledger does not know it: run `snakemake audit`"}


def test_a_table_whose_weights_are_gone_is_named(project) -> None:
    LAYOUT.checkpoint("brainmass").unlink()
    assert "the weights it was made with are not there" in unknown()[METRICS]


def test_a_list_of_subjects_that_was_edited_proves_nothing(project) -> None:
    write_json(LAYOUT.checkpoint("brainmass").with_name("subjects.json"), {"subjects": ["demo/01"]})
    (one,) = found()
    assert one.bad and "unproved: its list of pre-training is not what was recorded" in one.notes


def test_a_list_of_subjects_that_is_in_no_record_proves_nothing(project) -> None:
    from boldmill.atomic import read_json, write_text
    from boldmill.provenance.record import prov_path, render

    record = prov_path(LAYOUT.checkpoint("brainmass"))
    made = read_json(record)
    kept = [item for item in made["outputs"] if not item["path"].endswith("subjects.json")]
    write_text(record, render(made | {"outputs": kept}))
    project.ledger()
    (one,) = found()
    assert one.bad and "unproved: its list of pre-training is in no record" in one.notes


def test_without_its_configuration_nobody_knows_which_rows_are_the_models(project) -> None:
    LAYOUT.checkpoint("brainmass").with_name("config.json").unlink()
    assert "config.json beside the weights says ''" in unknown()[METRICS]


def test_a_family_that_a_later_table_no_longer_names_still_counts(project) -> None:
    project.families["04"] = "F1"
    project.shards(1)
    frozen = RESULTS / "datasets/first/shards/scans/bucket-001.parquet"
    frozen.parent.mkdir(parents=True)
    frozen.write_bytes(LAYOUT.shard("scans", 1).read_bytes())
    project.families["04"] = ""
    project.shards(1)
    project.ledger()
    assert {one.table: one.overlap for one in found()}[METRICS] == ["demo/04"]


def test_the_same_label_in_another_data_set_is_said(project, capsys) -> None:
    """Two pipelines' series of one study: other bytes, other data set, the same people."""
    project.evaluate(tested=("demo/04", "gsr/01", "gsr/09"))
    project.ledger()
    (one,) = found()
    assert not one.bad
    said = "1 tested have the label of somebody of another data set in pre-training (gsr/01 and demo/01): the same?"
    assert one.notes == [said]
    assert main(["audit", "leakage"]) == 0 and said in capsys.readouterr().out


def test_what_could_not_be_compared_is_said(project) -> None:
    LAYOUT.shard("scans", 0).write_text("damaged")
    (one,) = found()
    assert one.notes == [
        "2 of its pre-training are in no shard: their raw files cannot be compared",
        "1 shards of scans cannot be read: who is in them is not compared",
    ]
