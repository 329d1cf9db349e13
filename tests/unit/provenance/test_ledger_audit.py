"""Records, ledger and audit: every kind of tampering is caught and named."""

import json
from pathlib import Path

import pytest

from boldmill.atomic import write_text
from boldmill.cli import main
from boldmill.errors import BoldmillError
from boldmill.provenance.ledger import read_ledger, write_ledger
from boldmill.provenance.record import Recorder, describe, prov_path
from boldmill.provenance.trace import trace
from boldmill.provenance.verify import verify
from boldmill.stages import Settings

RESULTS = Path("results")
PEOPLE = RESULTS / "preprocess" / "demo"
LEDGER = RESULTS / "provenance" / "ledger.parquet"


def settings(stage: str, **config: object) -> Settings:
    return Settings(json.dumps({"stage": stage, "version": 1, "config": config, "overrides": {}}))


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two subjects: raw -> series -> one shard."""
    monkeypatch.chdir(tmp_path)
    series = []
    for subject in ("01", "02"):
        raw = write_text(f"raw/sub-{subject}_bold.nii.gz", f"raw {subject}")
        out = RESULTS / "preprocess" / "demo" / f"sub-{subject}.json"
        with Recorder(settings("preprocess", fwhm=4), out=out, inputs=[raw]):
            write_text(out, f"series {subject}")
        series.append(out)
    shard = RESULTS / "shards" / "fc.parquet"
    with Recorder(settings("shards"), out=shard, inputs=series):
        write_text(shard, "shard")
    write_ledger(RESULTS, LEDGER)
    return tmp_path


def test_untouched_files_verify(chain: Path) -> None:
    count, findings = verify(RESULTS)
    assert (count, findings) == (5, [])


@pytest.mark.parametrize(
    "victim", ["raw/sub-01_bold.nii.gz", "results/preprocess/demo/sub-02.json", "results/shards/fc.parquet"]
)
def test_one_flipped_byte_is_named(chain: Path, victim: str) -> None:
    data = bytearray(Path(victim).read_bytes())
    data[0] ^= 1
    Path(victim).write_bytes(data)
    _, findings = verify(RESULTS)
    assert [f.path for f in findings] == [victim]
    assert "content changed" in findings[0].problem
    assert main(["audit", "verify"]) == 1


def test_a_missing_file_is_named(chain: Path) -> None:
    (PEOPLE / "sub-01.json").unlink()
    assert [(f.path, f.problem) for f in verify(RESULTS)[1]] == [("results/preprocess/demo/sub-01.json", "missing")]


def test_swapped_files_are_named(chain: Path) -> None:
    one, two = PEOPLE / "sub-01.json", PEOPLE / "sub-02.json"
    text = one.read_text()
    one.write_text(two.read_text())
    two.write_text(text)
    assert {f.path for f in verify(RESULTS)[1]} == {one.as_posix(), two.as_posix()}


def test_a_file_changed_together_with_its_record_is_named(chain: Path) -> None:
    victim = PEOPLE / "sub-01.json"
    with Recorder(settings("preprocess", fwhm=9), out=victim):
        victim.write_text("forged")
    problems = {f.problem.split(":")[0] for f in verify(RESULTS)[1] if f.path == "results/preprocess/demo/sub-01.json"}
    assert problems == {"content changed", "its record changed after the ledger was written"}


def test_a_consumer_of_an_older_file_is_stale(chain: Path) -> None:
    with Recorder(settings("preprocess", fwhm=9), out=PEOPLE / "sub-01.json"):
        (PEOPLE / "sub-01.json").write_text("made again")
    write_ledger(RESULTS, LEDGER)
    assert [(f.path, f.problem) for f in verify(RESULTS)[1]] == [
        ("results/shards/fc.parquet", "stale: it was made from an older results/preprocess/demo/sub-01.json")
    ]


def test_trace_goes_down_to_raw_files_with_settings(chain: Path) -> None:
    lines = trace(read_ledger(RESULTS), "results/shards/fc.parquet")
    text = "\n".join(lines)
    assert lines[0].startswith("results/shards/fc.parquet")
    assert '"fwhm":4' in text.replace(" ", "")
    assert sum("[source]" in line for line in lines) == 2


def test_trace_of_one_row_shows_one_subject(chain: Path) -> None:
    text = "\n".join(trace(read_ledger(RESULTS), "results/shards/fc.parquet#scan=demo_sub-02_task-rest"))
    assert "sub-02_bold.nii.gz" in text
    assert "sub-01" not in text


def test_trace_of_an_unknown_file_says_so(chain: Path) -> None:
    with pytest.raises(BoldmillError, match="no recorded command wrote it"):
        trace(read_ledger(RESULTS), "results/other.json")


def test_a_failed_command_leaves_no_record(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    with pytest.raises(RuntimeError), Recorder(settings("preprocess"), out=out):
        write_text(out, "half")
        raise RuntimeError
    assert not prov_path(out).exists()


def test_no_ledger_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BoldmillError, match="snakemake audit"):
        read_ledger(tmp_path)


def test_a_ledger_written_twice_verifies(chain: Path) -> None:
    """The record of the last ledger holds the hash of a file that is no more."""
    for _ in range(2):
        with Recorder(settings("ledger"), out=LEDGER):
            write_ledger(RESULTS, LEDGER)
    assert verify(RESULTS)[1] == []


@pytest.mark.parametrize("known", [True, False])
def test_an_input_given_as_an_absolute_path_is_the_same_file(chain: Path, known: bool) -> None:
    """A chain must not break where one command was given a relative and the next an absolute path."""
    shard = RESULTS / "shards" / "fc.parquet"
    absolute = shard.resolve()
    facts = {"path": str(absolute), "size": shard.stat().st_size, "sha256": describe(shard)["sha256"]}
    with Recorder(settings("snapshot"), out=RESULTS / "manifest.json") as record:
        record.add_input(absolute, facts if known else None)
        write_text(RESULTS / "manifest.json", "{}")
    write_ledger(RESULTS, LEDGER)
    assert sum("[source]" in line for line in trace(read_ledger(RESULTS), "results/manifest.json")) == 2


def test_a_linked_raw_file_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text("raw/.git/annex/objects/MD5E-s3--abc.nii.gz", "raw")
    Path("raw/sub-01_bold.nii.gz").symlink_to(".git/annex/objects/MD5E-s3--abc.nii.gz")
    assert describe("raw/sub-01_bold.nii.gz")["path"] == "raw/sub-01_bold.nii.gz"


def test_trace_of_one_row_leaves_out_the_same_label_of_another_data_set(chain: Path) -> None:
    other = RESULTS / "preprocess" / "other" / "sub-02.json"
    raw = write_text("elsewhere/sub-02_T1w.nii.gz", "another person")
    with Recorder(settings("preprocess"), out=other, inputs=[raw]):
        write_text(other, "series of another person")
    shard = RESULTS / "shards" / "fc.parquet"
    with Recorder(settings("shards"), out=shard, inputs=[PEOPLE / "sub-01.json", PEOPLE / "sub-02.json", other]):
        write_text(shard, "shard")
    write_ledger(RESULTS, LEDGER)
    text = "\n".join(trace(read_ledger(RESULTS), "results/shards/fc.parquet#scan=demo_sub-02_task-rest"))
    assert "raw/sub-02_bold.nii.gz" in text
    assert "other" not in text and "elsewhere" not in text


def test_trace_of_a_scan_that_is_not_in_the_file_says_so(chain: Path) -> None:
    with pytest.raises(BoldmillError, match="nothing of that subject went into it"):
        trace(read_ledger(RESULTS), "results/shards/fc.parquet#scan=demo_sub-99_task-rest")


def test_trace_of_a_row_that_is_no_scan_id_says_how_to_write_it(chain: Path) -> None:
    with pytest.raises(BoldmillError, match="#scan="):
        trace(read_ledger(RESULTS), "results/shards/fc.parquet#sub-02")
