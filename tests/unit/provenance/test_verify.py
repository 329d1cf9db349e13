"""Every kind of tampering is caught and named; what is whole is not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.cli import main
from boldmill.errors import BoldmillError
from boldmill.paths import Layout
from boldmill.provenance import hashing
from boldmill.provenance.record import DIGEST, Recorder, prov_path, render
from boldmill.provenance.verify import verify

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)
SHARD, OTHER = LAYOUT.shard("scans", 0), LAYOUT.shard("scans", 1)


def problems(**options: object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, problem in verify(RESULTS, **options).findings:  # type: ignore[arg-type]
        found.setdefault(path, []).append(problem)
    return found


def flip(path: Path, place: int = -1) -> None:
    """Flip one bit, leaving size and modification time as they were."""
    state, data = path.stat(), bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def everything() -> list[Path]:
    skip = ("verify.jsonl", ".seen.parquet", ".lost.parquet")
    return sorted(path for path in RESULTS.rglob("*") if path.is_file() and path.name not in skip)


def test_an_untouched_project_verifies(project, capsys) -> None:
    assert verify(RESULTS).findings == []
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out.strip().endswith("files checked, 0 problems")


def test_one_flipped_byte_in_any_artefact_is_named(project) -> None:
    """Each file on its own, records and ledger included; with its time kept, so that only the bytes tell."""
    victims = [*everything(), *sorted(path for path in Path("raw").rglob("*") if path.is_file())]
    assert len(victims) > 40
    for victim in victims:
        whole = victim.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            flip(victim, place)
            assert victim.as_posix() in problems(), (victim, place)
            victim.write_bytes(whole)


def test_one_flipped_byte_in_every_artefact_at_once_is_named(project) -> None:
    victims = everything()
    whole = {victim: (victim.read_bytes(), victim.stat()) for victim in victims}
    for number, victim in enumerate(victims):
        flip(victim, number % len(whole[victim][0]))
    named = problems()
    assert [victim for victim in victims if victim.as_posix() not in named] == []
    for victim, (data, state) in whole.items():
        victim.write_bytes(data)
        os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert problems() == {}


def test_an_edited_metric_is_named(project, capsys) -> None:
    table = LAYOUT.metrics("brainmass")
    table.write_text(table.read_text().replace("0.75", "0.85"))
    assert main(["audit", "verify"]) == 1
    assert f"{table}: content changed: recorded" in capsys.readouterr().out


def test_two_swapped_shards_are_named_with_each_other(project) -> None:
    SHARD.rename("aside")
    OTHER.rename(SHARD)
    Path("aside").rename(OTHER)
    found = problems()
    assert f"swapped with {OTHER}" in found[str(SHARD)][0]
    assert f"swapped with {SHARD}" in found[str(OTHER)][0]
    assert "was frozen with" in found[str(LAYOUT.snapshot("latest"))][0]


def test_a_copy_of_another_file_says_whose_content_it_is(project) -> None:
    shutil.copy(OTHER, SHARD)
    assert f"it holds what {OTHER} should" in problems()[str(SHARD)][0]


def test_a_backdated_file_is_named_though_its_content_is_right(project) -> None:
    state = SHARD.stat()
    os.utime(SHARD, ns=(state.st_atime_ns, state.st_mtime_ns - 3_600_000_000_001))
    assert [problem.split(":")[0] for problem in problems()[str(SHARD)]] == ["backdated"]
    assert main(["audit", "verify"]) == 1


@pytest.mark.parametrize("unit", [1_000, 1_000_000, 1_000_000_000, 2_000_000_000])
def test_a_file_system_that_keeps_coarse_times_backdates_nothing(project, unit: int) -> None:
    state = SHARD.stat()
    os.utime(SHARD, ns=(state.st_atime_ns, state.st_mtime_ns // unit * unit))
    assert problems() == {}


def test_a_touched_file_is_no_mismatch_but_with_strict_it_is(project, capsys) -> None:
    state = SHARD.stat()
    os.utime(SHARD, ns=(state.st_atime_ns, state.st_mtime_ns + 5_000_000_000))
    assert main(["audit", "verify"]) == 0
    assert "1 files have later times than recorded" in capsys.readouterr().out
    assert [problem.split(":")[0] for problem in problems(strict=True)[str(SHARD)]] == ["newer"]
    assert main(["audit", "verify", "--strict"]) == 1


def test_a_missing_file_is_named(project) -> None:
    LAYOUT.subject("demo", "01").unlink()
    assert problems()[str(LAYOUT.subject("demo", "01"))] == ["missing"]


def test_a_temporary_file_is_not_missed_but_checked_while_it_is_there(project) -> None:
    frames = RESULTS / "flatmap" / "bucket-000.frames" / "demo_sub-01_task-rest.npz"
    with Recorder(project.settings("flatmap"), out=RESULTS / "flatmap" / "bucket-000.json") as record:
        write_json(RESULTS / "flatmap" / "bucket-000.json", {})
        record.add_output(write_json(frames, [1]), temporary=True)
    project.ledger()
    assert problems() == {}
    flip(frames)
    assert "content changed" in problems()[str(frames)][0]
    frames.unlink()
    assert problems() == {}
    assert main(["audit", "orphans"]) == 0


def test_a_file_nobody_recorded_is_named_in_folders_of_artefacts_only(project) -> None:
    for path in ("shards/extra.parquet", "derivatives/demo/sub-01/extra.txt", "notes.txt"):
        RESULTS.joinpath(path).write_text("mine")
    for path in ("logs/x.log", "benchmarks/x.jsonl", "work/x", "preprocess/demo/.cache/x", "shards/.tmp-1-x"):
        RESULTS.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        RESULTS.joinpath(path).write_text("mine")
    assert problems() == {
        f"results/{path}": ["no record knows it"]
        for path in ("derivatives/demo/sub-01/extra.txt", "notes.txt", "shards/extra.parquet")
    }


def test_an_edited_record_is_named(project) -> None:
    record = prov_path(SHARD)
    record.write_text(record.read_text().replace('"stage": "shards"', '"stage": "shades"'))
    assert "the record was edited: it no longer has its own digest" in problems()[str(record)]
    record.write_text(json.dumps({key: value for key, value in read_json(record).items() if key != DIGEST}))
    project.ledger()  # which takes over what the records say
    assert problems()[str(record)] == ["the record was edited: it no longer has its own digest"]


def test_an_edited_record_of_the_ledger_is_named(project) -> None:
    record = prov_path(LAYOUT.ledger)
    record.write_text(record.read_text().replace('"host": "', '"host": "x'))
    assert problems() == {str(record): ["the record was edited: it no longer has its own digest"]}


def test_a_file_forged_together_with_its_record_is_named(project) -> None:
    victim = LAYOUT.subject("demo", "01")
    with Recorder(project.settings("preprocess"), out=victim):
        victim.write_text("forged")
    found = problems()
    assert any("the record changed after the ledger was written" in problem for problem in found[str(victim)])
    assert found[str(prov_path(victim))] == ["the record changed after the ledger was written"]


def test_a_missing_record_is_named(project) -> None:
    prov_path(LAYOUT.subject("demo", "01")).unlink()
    found = problems()[str(LAYOUT.subject("demo", "01"))]
    assert any(problem.startswith("the record is missing") for problem in found)
    assert "no record knows it" in found


def test_an_edited_ledger_is_named_even_when_its_own_record_was_edited_too(project) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(LAYOUT.ledger)
    rows = table.to_pylist()
    place = next(i for i, row in enumerate(rows) if row["path"] == str(SHARD))
    SHARD.write_bytes(b"forged")
    rows[place] |= {"sha256": sha256_file(SHARD), "size": 6}
    pq.write_table(table.from_pylist(rows, schema=table.schema), LAYOUT.ledger)
    assert any("the ledger was edited: recorded" in problem for problem in problems()[str(LAYOUT.ledger)])
    record = read_json(prov_path(LAYOUT.ledger))
    next(o for o in record["outputs"] if o["path"] == str(LAYOUT.ledger))["sha256"] = sha256_file(LAYOUT.ledger)
    prov_path(LAYOUT.ledger).write_text(render(record))
    found = problems()
    assert str(LAYOUT.ledger) not in found
    assert any("the ledger was edited: it says" in problem for problem in found[str(SHARD)])
    assert any("content changed" in problem for problem in found[str(SHARD)])


@pytest.mark.parametrize("damage", ["no text", "no value"])
@pytest.mark.parametrize("name", ["ledger.parquet", "inputs.parquet"])
def test_a_ledger_whose_damaged_bytes_can_be_read_is_named(project, name: str, damage: str, capsys) -> None:
    """What single flipped bytes of it became when all were tried."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = LAYOUT.ledger.with_name(name)
    table = pq.read_table(path)
    texts = table.column("sha256").to_pylist()[1:]
    if damage == "no text":
        bad = pa.array([b"\xff", *map(str.encode, texts)]).view(pa.string())
    else:
        bad = pa.array([None, *texts], pa.string())
    pq.write_table(table.set_column(table.column_names.index("sha256"), "sha256", bad), path)
    assert any("the ledger cannot be read" in problem for problem in problems()[str(path)])
    assert main(["audit", "stale"]) == 1
    assert "run `snakemake audit -R ledger`" in capsys.readouterr().err


def test_edited_settings_in_the_ledger_are_named(project) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(LAYOUT.ledger)
    rows = table.to_pylist()
    rows[0]["host"] = "elsewhere"
    pq.write_table(table.from_pylist(rows, schema=table.schema), LAYOUT.ledger)
    assert any("it does not say of all outputs" in problem for problem in problems()[str(LAYOUT.ledger)])


def test_the_ledger_is_held_against_a_hash_kept_elsewhere(project, capsys) -> None:
    main(["audit", "verify"])
    digest = next(line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("ledger sha256"))
    assert problems(ledger_sha256=digest[:16]) == {}
    assert "the ledger is" in problems(ledger_sha256="0" * 16)[str(LAYOUT.ledger)][0]


def test_a_ledger_written_twice_verifies(project) -> None:
    project.ledger()
    project.ledger()
    assert problems() == {}


def test_an_output_the_ledger_does_not_hold_yet_is_named(project) -> None:
    project.snapshot("later")
    assert "the ledger does not hold it yet" in problems()[str(LAYOUT.snapshot("later"))][0]


def test_a_consumer_of_an_older_file_is_stale(project) -> None:
    project.bold("01").write_text("another bold")
    project.preprocess("01")
    project.ledger()
    found = problems()
    assert f"stale: it was made from an older {LAYOUT.subject('demo', '01')}" in found[str(SHARD)]


def test_a_raw_file_that_two_readers_saw_differently_makes_the_older_reader_stale(project) -> None:
    raw = Path("raw/participants.tsv")
    raw.write_text("another table")
    with Recorder(project.settings("cohort"), out=RESULTS / "reports/x.html", inputs=[raw]):
        (RESULTS / "reports").mkdir()
        (RESULTS / "reports/x.html").write_text("page")
    project.ledger()
    assert problems() == {str(LAYOUT.index): [f"stale: it was made from an older {raw}"]}


def test_a_snapshot_whose_shards_were_made_again_is_named(project) -> None:
    project.families["01"] = "F9"
    project.shards(0)
    project.ledger()
    found = problems()[str(LAYOUT.snapshot("latest"))]
    assert any(
        "snapshot id-latest was frozen with results/shards/scans/bucket-000.parquet" in problem for problem in found
    )


def test_a_checkpoint_that_names_another_snapshot_is_named(project) -> None:
    config = LAYOUT.checkpoint("brainmass").with_name("config.json")
    write_json(config, {"model": "brainmass", "snapshot": "id-other"})
    found = problems()[str(config)]
    assert "it names snapshot id-other, but the record of its training says id-latest" in found


def test_a_checkpoint_of_a_snapshot_that_is_gone_is_named(project) -> None:
    project.snapshot("frozen")
    project.model(snapshot="frozen")
    shutil.rmtree(LAYOUT.snapshot("frozen").parent)
    project.ledger()
    config = LAYOUT.checkpoint("brainmass").with_name("config.json")
    assert (
        f"it names snapshot id-frozen, which is none of those below {RESULTS / 'datasets'}" in problems()[str(config)]
    )


def test_raw_files_can_be_left_out(project) -> None:
    project.bold("01").write_text("changed")
    assert str(project.bold("01")) in problems()
    assert problems(outputs_only=True) == {}


class Stop(Exception):
    pass


def test_a_killed_verification_goes_on_where_it_stopped(project, monkeypatch, capsys) -> None:
    read: list[str] = []
    real = hashing.hash_file

    def dying(path) -> str:
        if len(read) == 12:
            raise Stop
        read.append(str(path))
        return real(path)

    monkeypatch.setattr(hashing, "hash_file", dying)
    with pytest.raises(Stop):
        verify(RESULTS, threads=1)
    journal = LAYOUT.ledger.with_name("verify.jsonl")
    assert len(journal.read_text().splitlines()) == 1 + 12
    with open(journal, "a") as handle:
        handle.write('{"path": "cut')  # the last line of a killed process

    again: list[str] = []
    monkeypatch.setattr(hashing, "hash_file", lambda path: again.append(str(path)) or real(path))
    flip(Path(read[0]))  # after it was read, and with its time set back
    Path(read[1]).write_bytes(Path(read[1]).read_bytes())  # another state, the same bytes
    found = verify(RESULTS, threads=1)
    assert read[0] in {finding.path for finding in found.findings}
    assert found.recalled == 10 and found.begun
    assert set(again).isdisjoint(read[2:]) and {read[0], read[1]} <= set(again)
    assert not journal.exists()
    assert main(["audit", "verify"]) == 1
    assert "were read by a verification begun" not in capsys.readouterr().out


def test_fresh_forgets_the_journal(project) -> None:
    journal = LAYOUT.ledger.with_name("verify.jsonl")
    state = SHARD.stat()
    line = {"path": str(SHARD), "sha256": "0" * 64,
            "state": [state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]}  # fmt: skip
    journal.write_text(json.dumps({"begun": "2026-01-01"}) + "\n" + json.dumps(line) + "\n")
    assert problems(fresh=True) == {}
    journal.write_text(json.dumps({"begun": "2026-01-01"}) + "\n" + json.dumps(line) + "\n")
    assert "content changed" in problems()[str(SHARD)][0]


def test_no_ledger_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BoldmillError, match="snakemake audit"):
        verify(tmp_path)


def test_json_is_one_object_per_mismatch(project, capsys) -> None:
    flip(SHARD)
    assert main(["audit", "verify", "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert str(SHARD) in {one["path"] for one in found}


def test_a_member_of_a_raw_archive_is_read_and_a_damaged_one_named(project) -> None:
    """Wherever the byte is flipped: numpy's own readers raise all kinds of errors on a damaged header."""
    import numpy as np

    archive = Path("raw/series.npz")
    np.savez_compressed(archive, one=np.random.default_rng(0).normal(size=(200, 50)).astype("f4"))
    out = RESULTS / "parcellate" / "x.json"
    known = {"sha256": hashing.look(f"{archive}::one").sha256, "size": None}
    with Recorder(project.settings("parcellate"), out=out) as record:
        write_json(out, {})
        record.add_input(f"{archive}::one", known)
    project.ledger()
    assert problems() == {}
    whole = archive.read_bytes()
    for place in range(160):  # the name of the member and its compressed header
        Path("raw/other.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = hashing.look("raw/other.npz::one")
        assert found.sha256 in (None, known["sha256"])  # where the byte has no meaning
        assert found.sha256 or found.why.startswith("cannot be read")
    archive.unlink()
    assert problems() == {f"{archive}::one": ["missing"]}


def test_results_that_cannot_be_written_are_verified_without_a_journal(project, monkeypatch, capsys) -> None:
    def full(path, mode="r", **options):
        if "a" in mode:
            raise OSError(30, "Read-only file system")
        return open(path, mode, **options)

    monkeypatch.setattr(hashing, "open", full, raising=False)
    monkeypatch.setattr(hashing, "FLUSH_EVERY", 0.0)
    flip(SHARD)
    assert str(SHARD) in problems()
    assert capsys.readouterr().err.count("verify.jsonl: Read-only file system") == 1


def test_folders_behind_links_are_looked_into(project) -> None:
    (RESULTS / "preprocess").rename("scratch")
    (RESULTS / "preprocess").symlink_to("../scratch")
    (Path("scratch") / "demo" / "again").symlink_to("..")  # a circle
    (RESULTS / "preprocess" / "loop").symlink_to("loop")
    project.preprocess("01")
    project.ledger()
    LAYOUT.subject("demo", "01").write_text("edited")
    (RESULTS / "preprocess" / "demo" / "mine.txt").write_text("mine")
    found = problems()
    assert "content changed" in found["scratch/demo/sub-01.json"][0]
    assert found["scratch/demo/mine.txt"] == found["scratch/loop"] == ["no record knows it"]


def test_a_folder_nobody_may_look_into_is_named(project, monkeypatch) -> None:
    real = os.scandir

    def scandir(path):
        if str(path).endswith("preprocess/demo"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    project.ledger()
    assert problems()["results/preprocess/demo"] == ["cannot be looked into"]
    assert main(["audit", "orphans"]) == 1


def test_an_edited_row_is_named_beside_a_row_that_is_behind(project) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(LAYOUT.ledger)
    rows = table.to_pylist()
    rows[-1]["host"] = "elsewhere"
    pq.write_table(table.from_pylist(rows, schema=table.schema), LAYOUT.ledger)
    project.preprocess("01")
    assert any("it does not say of all outputs" in problem for problem in problems()[str(LAYOUT.ledger)])


def test_a_record_of_the_ledger_that_holds_no_number_is_named(project) -> None:
    record = prov_path(LAYOUT.ledger)
    record.write_text(json.dumps(read_json(record) | {"peak_rss_mib": float("nan")}))
    assert problems() == {str(record): ["the record cannot be read (ValueError)"]}


@pytest.mark.parametrize("words", [["--threads", "0"], ["--ledger-sha256", ""], ["--ledger-sha256", "5e7b"]])
def test_a_wrong_command_line_is_refused(project, words: list[str], capsys) -> None:
    """An empty variable of a script must not pass for a check."""
    with pytest.raises(SystemExit) as stop:
        main(["audit", "verify", *words])
    assert stop.value.code == 2


@pytest.mark.parametrize("action", ["verify", "orphans"])
def test_a_name_that_is_no_text_is_printed(project, action: str, monkeypatch) -> None:
    Path(os.fsdecode(b"results/shards/M\xfcller.txt")).write_text("x")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    done = subprocess.run([sys.executable, "-m", "boldmill", "audit", action], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"ller.txt: no record knows it" in done.stdout
