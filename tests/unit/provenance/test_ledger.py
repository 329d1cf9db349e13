"""One row per output, whichever way the records are read."""

import json
from pathlib import Path

import pytest

from boldmill.atomic import write_text
from boldmill.cli import main
from boldmill.paths import Layout
from boldmill.provenance.fold import LOST, SEEN
from boldmill.provenance.ledger import INPUTS, Ledger, write_ledger
from boldmill.provenance.record import Recorder, describe, prov_path
from boldmill.stages import Settings

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)
OUT = LAYOUT.ledger


def settings(stage: str = "preprocess", **config: object) -> Settings:
    return Settings(json.dumps({"stage": stage, "version": 1, "config": config, "overrides": {}}))


def table_bytes() -> tuple[bytes, bytes]:
    return OUT.read_bytes(), OUT.with_name(INPUTS).read_bytes()


def test_every_output_has_one_row_with_its_record(project) -> None:
    ledger = Ledger.load(RESULTS)
    assert ledger.paths == sorted(set(ledger.paths)) and len(ledger.paths) == 25
    row = ledger.row(str(LAYOUT.subject("demo", "01")))
    assert row is not None and row["stage"] == "preprocess" and row["sha256"] == describe(row["path"])["sha256"]
    assert row["mtime_ns"] == Path(row["path"]).stat().st_mtime_ns
    assert [item["path"] for item in ledger.inputs_of(row["record"])] == [
        "raw/sub-01/func/sub-01_task-rest_bold.nii.gz",
        "results/index/tickets/demo_sub-01_task-rest.json",
    ]
    assert ledger.row("results/nothing") is None
    shard = str(LAYOUT.shard("fc", 0, "atlas"))
    row = ledger.row(shard)
    assert row is not None and row["record"] == str(prov_path(shard))  # its own, though another one names it too
    assert ledger.made_with(row["record"]) == [shard]


def test_a_file_of_several_commands_is_the_row_of_the_last(project) -> None:
    common = str(LAYOUT.derivatives("demo") / "dataset_description.json")
    row = Ledger.load(RESULTS).row(common)
    assert row is not None and row["record"] == str(prov_path(LAYOUT.subject("demo", "04")))


def test_the_same_records_give_the_same_bytes_read_anew_or_taken_over(project) -> None:
    write_ledger(RESULTS, OUT, fresh=True)
    whole = table_bytes()
    write_ledger(RESULTS, OUT)
    assert table_bytes() == whole
    for name in (SEEN, LOST):
        OUT.with_name(name).unlink()
    write_ledger(RESULTS, OUT)
    assert table_bytes() == whole


@pytest.mark.parametrize("change", ["new", "again", "removed", "edited"])
def test_a_change_is_taken_up_as_if_all_were_read(project, change: str) -> None:
    last = LAYOUT.subject("demo", "04")
    if change == "new":
        project.snapshot("later")
    elif change == "again":
        project.preprocess("02")
    elif change == "removed":  # then the row of an earlier command stands for the common file
        prov_path(last).unlink()
    else:
        first = prov_path(LAYOUT.snapshot("latest"))  # its values are the first that a reading of all meets
        first.write_text(first.read_text().replace('"host": "', '"host": "x'))
    write_ledger(RESULTS, OUT)
    incremental = table_bytes()
    write_ledger(RESULTS, OUT, fresh=True)
    assert table_bytes() == incremental
    if change == "removed":
        row = Ledger.load(RESULTS).row(str(LAYOUT.derivatives("demo") / "dataset_description.json"))
        assert row is not None and row["record"] == str(prov_path(LAYOUT.subject("demo", "03")))


def test_unchanged_records_are_not_read_again(project, monkeypatch) -> None:
    from boldmill.provenance import fold

    read: list[str] = []
    real = fold._read_all
    monkeypatch.setattr(fold, "_read_all", lambda paths, faults: read.extend(paths) or real(paths, faults))
    project.preprocess("02")
    write_ledger(RESULTS, OUT)
    assert read == [str(prov_path(LAYOUT.subject("demo", "02")))]


def test_an_edited_ledger_is_not_carried_on(project) -> None:
    import pyarrow.parquet as pq

    whole = table_bytes()
    table = pq.read_table(OUT)
    rows = table.to_pylist()
    rows[3]["sha256"] = "0" * 64
    pq.write_table(table.from_pylist(rows, schema=table.schema), OUT)
    write_ledger(RESULTS, OUT)
    assert table_bytes() == whole


def test_a_damaged_record_is_named_and_left_out(project, capsys) -> None:
    victim = prov_path(LAYOUT.subject("demo", "01"))
    victim.write_bytes(victim.read_bytes()[:-40] + b"\xff" * 40)
    write_ledger(RESULTS, OUT)
    assert f"{victim}: the record cannot be read" in capsys.readouterr().err
    assert Ledger.load(RESULTS).row(str(LAYOUT.subject("demo", "01"))) is None


BROKEN = [
    ('"size": ', '"sjze": '),
    ('"sha256"', '"tha256"'),
    ('"path"', '"qath"'),
    ('"size": ', '"size": 0.5'),
    ('"mtime_ns": 1', '"mtime_ns": 9'),  # one bit, and no longer below 2**63
    ('"stage_version": ', '"stage_version": 99999999999'),
    ('"started": "2', '"started": "r'),
    ('"settings": "{', '"settings": "z'),
    ('"settings": "', '"settings": "[1]", "x": "'),
    ('"stage": ', '"stagf": '),
    ('"path": "', '"path": "\\ud8e9'),
    ('"schema": 2', f'"schema": {"[" * 100_000}{"]" * 100_000}'),
]


@pytest.mark.parametrize(("old", "new"), BROKEN, ids=[new[:24] for _, new in BROKEN])
def test_a_record_with_a_broken_field_spoils_no_other_and_no_audit(project, old: str, new: str, capsys) -> None:
    victim = prov_path(LAYOUT.subject("demo", "01"))
    assert old in victim.read_text()
    victim.write_text(victim.read_text().replace(old, new, 1))
    project.ledger()
    assert Ledger.load(RESULTS).row(str(LAYOUT.subject("demo", "02"))) is not None
    assert main(["audit", "verify"]) == 1
    assert f"{victim}: the record" in capsys.readouterr().out
    main(["audit", "stale", "--list"])
    assert main(["audit", "trace", str(LAYOUT.metrics("brainmass")), "--json"]) == 0


def test_a_record_nobody_may_read_is_named(project, capsys) -> None:
    victim = prov_path(LAYOUT.subject("demo", "01"))
    victim.unlink()
    victim.symlink_to("nowhere")
    write_ledger(RESULTS, OUT)
    assert f"{victim}: the record cannot be read (FileNotFoundError)" in capsys.readouterr().err


def test_edited_rows_of_other_records_are_not_carried_on(project) -> None:
    import pyarrow.parquet as pq

    last, lost = LAYOUT.subject("demo", "04"), OUT.with_name(LOST)
    table = pq.read_table(lost)
    rows = [row | {"sha256": "0" * 64} for row in table.to_pylist()]
    assert rows
    pq.write_table(table.from_pylist(rows, schema=table.schema), lost)
    prov_path(last).unlink()  # now one of them stands for the common file
    write_ledger(RESULTS, OUT)
    assert "0" * 64 not in Ledger.load(RESULTS).outputs.column("sha256")


def test_a_results_folder_of_another_working_directory_is_refused(project, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for action in ("verify", "orphans", "stale"):
        assert main(["audit", action, "--results", "../results"]) == 1
        assert "run this in the folder the workflow runs in" in capsys.readouterr().err


@pytest.mark.parametrize("known", [True, False])
def test_an_input_given_as_an_absolute_path_is_the_same_file(project, known: bool) -> None:
    """A chain must not break where one command was given a relative and the next an absolute path."""
    shard = LAYOUT.shard("scans", 0)
    absolute = shard.resolve()
    facts = {"path": str(absolute), "size": shard.stat().st_size, "sha256": describe(shard)["sha256"]}
    with Recorder(settings("snapshot"), out=RESULTS / "manifest.json") as record:
        record.add_input(absolute, facts if known else None)
        write_text(RESULTS / "manifest.json", "{}")
    ledger = Ledger.of_records(RESULTS)
    assert [item["path"] for item in ledger.inputs_of("results/manifest.json.prov.json")] == [str(shard)]


def test_an_empty_folder_gives_an_empty_ledger(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_ledger(RESULTS, OUT) == 0
    assert Ledger.load(RESULTS).paths == []
