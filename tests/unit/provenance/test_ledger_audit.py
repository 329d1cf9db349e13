"""Records, ledger and audit: every kind of tampering is caught and named."""

import json
from pathlib import Path

import pytest

from boldmill.atomic import write_text
from boldmill.cli import main
from boldmill.errors import BoldmillError
from boldmill.provenance.audit import read_ledger, trace, verify
from boldmill.provenance.ledger import write_ledger
from boldmill.provenance.record import Recorder, prov_path
from boldmill.stages import Settings

RESULTS = Path("results")
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
        out = RESULTS / f"sub-{subject}.json"
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


@pytest.mark.parametrize("victim", ["raw/sub-01_bold.nii.gz", "results/sub-02.json", "results/shards/fc.parquet"])
def test_one_flipped_byte_is_named(chain: Path, victim: str) -> None:
    data = bytearray(Path(victim).read_bytes())
    data[0] ^= 1
    Path(victim).write_bytes(data)
    _, findings = verify(RESULTS)
    assert [f.path for f in findings] == [victim]
    assert "content changed" in findings[0].problem
    assert main(["audit", "verify"]) == 1


def test_a_missing_file_is_named(chain: Path) -> None:
    (RESULTS / "sub-01.json").unlink()
    assert [(f.path, f.problem) for f in verify(RESULTS)[1]] == [("results/sub-01.json", "missing")]


def test_swapped_files_are_named(chain: Path) -> None:
    one, two = RESULTS / "sub-01.json", RESULTS / "sub-02.json"
    text = one.read_text()
    one.write_text(two.read_text())
    two.write_text(text)
    assert {f.path for f in verify(RESULTS)[1]} == {"results/sub-01.json", "results/sub-02.json"}


def test_a_file_changed_together_with_its_record_is_named(chain: Path) -> None:
    victim = RESULTS / "sub-01.json"
    with Recorder(settings("preprocess", fwhm=9), out=victim):
        victim.write_text("forged")
    problems = {f.problem.split(":")[0] for f in verify(RESULTS)[1] if f.path == "results/sub-01.json"}
    assert problems == {"content changed", "its record changed after the ledger was written"}


def test_a_consumer_of_an_older_file_is_stale(chain: Path) -> None:
    with Recorder(settings("preprocess", fwhm=9), out=RESULTS / "sub-01.json"):
        (RESULTS / "sub-01.json").write_text("made again")
    write_ledger(RESULTS, LEDGER)
    assert [(f.path, f.problem) for f in verify(RESULTS)[1]] == [
        ("results/shards/fc.parquet", "stale: it was made from an older results/sub-01.json")
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
