"""Withdrawal of consent in places that are easy to miss, and what must never be taken for the person."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from boldmill.atomic import read_json, write_json, write_text
from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.errors import ConfigError
from boldmill.index.read import read_index
from boldmill.paths import Layout
from boldmill.provenance.holdings import DELETE, REPORT, find, snakemake_files
from boldmill.provenance.known import person_of
from boldmill.provenance.person import GONE, Person
from boldmill.provenance.record import Recorder, prov_path
from boldmill.stages import Settings, stage_json
from boldmill.train.checkpoint import write_tensors

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)
BEA = Person("one", "bea")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def actions(person: Person = BEA) -> dict[str, str]:
    return {holding.path.as_posix(): holding.action for holding in find(RESULTS, person)}


def state(folder: str, snapshot: str) -> Path:
    header = {"schema": 1, "identity": {"model": "brainmass", "snapshot": snapshot}}
    path = RESULTS / folder / "resume-00000012.safetensors"
    return write_tensors(path, {"module/w": torch.zeros(2)}, header)


def test_a_scan_whose_name_begins_anothers_is_not_taken_for_it() -> None:
    """Scan ids of series have no task: one_sub-1 begins one_sub-12."""
    person = Person("one", "1", ["one_sub-1"], roots=["raw"])
    text = "one_sub-12: ok, one_sub-1: ok, results/index/tickets/one_sub-12.json, someone_sub-1"
    assert not person.named_in("results/index/tickets/one_sub-12.json")
    assert person.redact(text) == text.replace("one_sub-1:", f"{GONE}:")


def test_a_data_set_called_like_a_stage_owns_its_own_files_alone() -> None:
    person = Person("preprocess", "01")
    assert person.owns(PurePosixPath("preprocess/preprocess/sub-01.json"))
    assert person.owns(PurePosixPath("logs/preprocess/preprocess/sub-01.log"))
    for path in ("preprocess/demo/sub-01.json", "logs/preprocess/demo/sub-01.log", "preprocess/sub-01.json"):
        assert not person.owns(PurePosixPath(path)), path


def series(dataset: str = "abide") -> None:
    """Ingest and parcellate an archive whose members are named as ABIDE names them, and a file beside it."""
    names = ["Pitt_0050003", "Pitt_0050004", "Pitt_00500031", "NYU_0050005"]
    Path("raw").mkdir()
    np.savez(f"raw/{dataset}.npz", **{n: np.random.default_rng(i).normal(size=(40, 6)) for i, n in enumerate(names)})
    write_text("raw/pheno.tsv", "participant_id\tage\n" + "".join(f"{name}\t20\n" for name in [*names, "Pitt_0050009"]))
    config = parse({"datasets": [{"name": dataset, "root": f"raw/{dataset}.npz", "kind": "tables", "atlas": "HO111",
                    "phenotypes": "pheno.tsv"}], "shards": {"n_buckets": 1}, "results": "results"})  # fmt: skip
    assert main(["ingest", "--results", "results", "--config-json", stage_json(config, "ingest")]) == 0
    words = ["--subjects", "--tables", LAYOUT.bucket_tables(0), "--operators", "--results", RESULTS]
    words += ["--out", LAYOUT.parcellated(0), "--config-json", stage_json(config, "parcellate")]
    assert main(["parcellate", *map(str, words)]) == 0
    write_text(RESULTS / "logs" / "ingest.log", "Pitt_0050003: short\nPitt_00500031: short\nPitt_0050003_2: x\n")


def test_names_as_written_go_too_where_the_label_is_another(capsys: pytest.CaptureFixture[str]) -> None:
    """Series Pitt_0050003 of an archive is subject Pitt0050003: records, caches and logs name the member."""
    series()
    record = prov_path(LAYOUT.parcellated(0))
    assert "abide.npz::Pitt_0050003" in record.read_text()
    assert main(["audit", "forget", "abide/Pitt0050003", "--delete", "--yes"]) == 0
    left = [item["path"].partition("::")[2] for item in read_json(record)["inputs"] if "::" in item["path"]]
    assert left == ["NYU_0050005", "Pitt_00500031", "Pitt_0050004"]
    assert not (RESULTS / "index/hashes_tables.json").exists()
    assert (RESULTS / "logs/ingest.log").read_text() == f"{GONE}: short\nPitt_00500031: short\nPitt_0050003_2: x\n"
    files = [path.read_text(errors="replace") for path in RESULTS.rglob("*") if path.suffix in (".json", ".tsv")]
    assert not any('Pitt_0050003"' in text or 'Pitt0050003"' in text for text in files)
    assert {scan.subject for scan in read_index(RESULTS).ok} == {"NYU0050005", "Pitt00500031", "Pitt0050004"}


def test_folders_of_hcp_are_raw_files_of_theirs() -> None:
    write_json(LAYOUT.ticket("hcp_sub-100307_task-REST1"), {
        "layout": "hcp", "root": str(Path("raw").absolute()), "series": [],
        "bold": [{"path": "100307/MNINonLinear/Results/r/r_Atlas.dtseries.nii"}]})  # fmt: skip
    from boldmill.provenance.known import raw_files

    files, names = raw_files([LAYOUT.ticket("hcp_sub-100307_task-REST1")])
    person = Person("hcp", "100307", files=files, names=names, roots=["raw"])
    assert person.is_raw("raw/100307/MNINonLinear/Results/r/Movement_Regressors.txt")
    assert not person.is_raw("raw/1003070/x") and not person.is_raw("raw/200/100307x.nii")
    assert person.redact("raw/100307/a.nii: gone, raw/1003070/b") == f"{GONE}: gone, raw/1003070/b"


def test_software_of_snakemake_is_left_alone() -> None:
    """An environment holds files that name a sub-01 of their own."""
    tool = write_text(".snakemake/conda/0a1b/lib/bids/tests/sub-01_bold.json", "sub-01")
    long = f"results/derivatives/one/sub-bea/{'x' * 300}>?.json"  # in base64, also with - and _
    name = urlsafe_b64encode(long.encode()).decode()
    assert "_" in name or "-" in name
    record = write_text(f".snakemake/metadata/@{name[:254]}/{name[254:]}", "{}")
    log = write_text(".snakemake/log/a.log", "one_sub-bea")
    lone = Person("one", "bea", only=True)
    assert sorted(snakemake_files(Path(), lone)) == sorted([record, log])
    assert list(snakemake_files(Path(), Person("one", "01", only=True))) == [] and tool.exists()


def test_the_last_look_is_at_the_folder_that_was_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from boldmill.provenance import forget

    write_text("log/elsewhere/.snakemake/metadata/xx", "results/derivatives/one/sub-bea/x")
    RESULTS.mkdir()
    words = ["audit", "forget", "one/bea", "--delete", "--yes", "--workdir", "log/elsewhere"]
    with monkeypatch.context() as patch:
        patch.setattr(forget, "_clean_snakemake", lambda *_: None)
        assert main(words) == 1
    assert "LEFT: log/elsewhere/.snakemake/metadata/xx" in capsys.readouterr().out
    assert main(words) == 0
    assert not Path("log/elsewhere/.snakemake/metadata/xx").exists()


def test_nobody_is_forgotten_while_snakemake_runs() -> None:
    RESULTS.mkdir()
    write_text(".snakemake/locks/0.input.lock", "results/x\n")
    assert main(["audit", "forget", "one/bea"]) == 0
    assert main(["audit", "forget", "one/bea", "--delete", "--yes"]) == 2


def test_a_namesake_who_is_no_longer_indexed_is_a_namesake() -> None:
    """The label tells nobody alone while files or snapshots of another data set have it."""
    RESULTS.mkdir()
    assert person_of(RESULTS, "one/bea").only
    write_json(LAYOUT.snapshot("first"), {"subjects": {"two/bea": "train", "one/bea": "train"}})
    assert not person_of(RESULTS, "one/bea").only
    LAYOUT.snapshot("first").unlink()
    settings = Settings(json.dumps({"stage": "preprocess", "version": 1, "config": {}, "overrides": {}}))
    out = LAYOUT.subject("two", "bea")
    with Recorder(settings, out=out):
        write_json(out, {"subject": "bea"})
    assert not person_of(RESULTS, "one/bea").only
    before = prov_path(out).read_bytes()
    assert main(["audit", "forget", "one/bea", "--delete", "--yes"]) == 0
    assert prov_path(out).read_bytes() == before and out.exists()


def test_the_state_of_an_interrupted_training_goes_unless_it_never_knew_them() -> None:
    """It has no list of subjects yet, and after the cut nothing can go on from it."""
    write_json(LAYOUT.snapshot("first"), {"id": "aa", "subjects": {"one/bea": "train", "one/ada": "train"}})
    write_json(LAYOUT.snapshot("other"), {"id": "bb", "subjects": {"one/bea": "heldout", "one/ada": "train"}})
    for name, snapshot in (("knew", "aa"), ("never", "bb"), ("gone", "cc")):
        state(f"models/{name}", snapshot)
    name = "resume-00000012.safetensors"
    found = {path: action for path, action in actions().items() if path.startswith("models")}
    assert found == {f"models/gone/{name}": DELETE, f"models/knew/{name}": DELETE}


def test_weights_are_marked_wherever_their_list_lies() -> None:
    write_json(RESULTS / "imported/big/subjects.json", {"subjects": ["one/bea"]})
    write_text(RESULTS / "imported/big/model.safetensors", "w")
    assert actions()["imported/big/model.safetensors"] == "mark"


def test_what_a_killed_command_left_goes() -> None:
    own = write_text(RESULTS / "derivatives/one/x/.tmp-12-0a1b2c3d-sub-bea_bold.nii.gz", "x")
    other = write_text(RESULTS / "derivatives/one/x/.tmp-12-0a1b2c3d-sub-ada_bold.nii.gz", "x")
    shard = write_text(RESULTS / "shards/fc/A/.tmp-12-0a1b2c3d-bucket-000.parquet", "PAR1 cut short")
    found = {path for path, action in actions().items() if action == DELETE}
    assert found == {path.relative_to(RESULTS).as_posix() for path in (own, shard)} and other.exists()


def test_what_cannot_be_cut_is_named_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    write_text(RESULTS / "shards/fc/A/bucket-000.parquet", "PAR1 damaged")
    (RESULTS / "notes.bin").write_bytes(b"\xff\x00 one_sub-bea")
    write_text(RESULTS / "index/buckets/bucket-000.json", '{"one_sub-bea": ')  # damaged: cut as a text
    (RESULTS / "nowhere.json").symlink_to("gone.json")
    assert main(["audit", "forget", "one/bea", "--delete", "--yes"]) == 1
    said = capsys.readouterr().out
    assert "LEFT: shards/fc/A/bucket-000.parquet" in said and "LEFT: notes.bin" in said and said.count("LEFT") == 2
    assert (RESULTS / "index/buckets/bucket-000.json").read_text() == f'{{"{GONE}": '


def test_a_file_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from boldmill.provenance import holdings

    def refuse(path: Path, person: Person) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    write_text(RESULTS / "index/buckets/bucket-000.json", "{}")
    monkeypatch.setattr(holdings, "_holds", refuse)
    assert actions() == {"index/buckets/bucket-000.json": REPORT}


def test_folders_on_another_disk_are_looked_through_and_raw_data_are_not() -> None:
    moved = write_text("disk/derivatives/one/sub-bea/func/x.nii.gz", "x")
    raw = write_text("bids/sub-bea/func/sub-bea_bold.nii.gz", "x")
    RESULTS.mkdir()
    (RESULTS / "derivatives").symlink_to(Path("disk/derivatives").absolute())
    (RESULTS / "work").mkdir()
    (RESULTS / "work" / "one").symlink_to(Path("bids").absolute())
    (RESULTS / "raw").symlink_to(Path("bids").absolute())
    (RESULTS / "shards").mkdir()
    (RESULTS / "shards" / "round").symlink_to(RESULTS.absolute())
    assert actions(Person("one", "bea", roots=["bids"])) == {"derivatives/one/sub-bea": DELETE}
    (RESULTS / "work" / "one").unlink()
    assert main(["audit", "forget", "one/bea", "--delete", "--yes"]) == 0
    assert not moved.exists() and raw.exists()


def test_a_journal_that_was_cut_short_is_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    RESULTS.mkdir()
    journal = RESULTS / "provenance" / "forget.journal"
    about = {"person": "one/bea", "scans": ["one_sub-bea"], "files": ["raw/x.npz::B_ea"], "names": ["B_ea"]}
    write_text(journal, json.dumps(about) + '\n["results/x.json", "ab')
    assert person_of(RESULTS, "one/bea").names == {"B_ea"}
    with pytest.raises(ConfigError, match="one/bea was cut short"):
        person_of(RESULTS, "one/ada")
    assert main(["audit", "forget", "one/bea", "--delete", "--yes"]) == 0
    assert not journal.exists()


def test_a_name_nobody_has_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    RESULTS.mkdir()
    main(["audit", "forget", "one/bae"])
    assert "nobody of the name one/bae is known" in capsys.readouterr().out
