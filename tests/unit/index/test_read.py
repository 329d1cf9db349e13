"""The reader the Snakefile uses: its questions, its size, its complaints."""

import subprocess
import sys

import pytest

from boldmill.errors import ConfigError
from boldmill.index.read import Index, ScanRow, read_index, settings_digest
from boldmill.index.write import write_index


def row(i: int, *, ok: bool = True, subjects: int = 10**9, buckets: int = 64) -> ScanRow:
    subject = f"{i % subjects:05d}"
    return ScanRow(
        scan_id=f"ds_sub-{subject}_task-rest_run-{i}",
        dataset="ds",
        subject=subject,
        session="",
        task="rest",
        run=str(i),
        kind="volume",
        status="ok" if ok else "quarantined",
        bucket=(i % subjects) % buckets,
        site="A",
        licence="CC0",
        tr=2.0,
        n_volumes=100,
        has_t1w=True,
        ticket=f"index/tickets/ds_sub-{subject}_task-rest_run-{i}.json" if ok else "",
        ticket_sha256="",
        reason="" if ok else "why",
        fix="",
        flags="",
    )


def test_seventy_thousand_rows(tmp_path):
    path = tmp_path / "index" / "runs.parquet"
    write_index(path, [row(i, subjects=35_000, ok=i % 7 > 0) for i in range(70_000)], "d", 64)
    index = read_index(tmp_path)
    assert len(index.scans) == 70_000
    assert (len(index.ok), len(index.quarantined)) == (60_000, 10_000)
    assert index.buckets() == list(range(64))
    assert sum(len(index.scans_in(bucket)) for bucket in index.buckets()) == 60_000
    assert len(index.subjects()) == 35_000 - 5_000  # 35,000 = 0 mod 7, so one subject's two runs fail together
    assert sum(len(index.scans_of(*who)) for who in index.subjects()) == 60_000
    assert sum(len(index.subjects_in(bucket)) for bucket in index.buckets()) == 30_000


def test_questions_on_a_small_index(tmp_path):
    index = Index(tmp_path, [row(0), row(1, ok=False), row(64), row(65)])
    assert index.subjects() == [("ds", "00000"), ("ds", "00064"), ("ds", "00065")]
    assert index.buckets() == [0, 1]
    assert index.subjects_in(0) == [("ds", "00000"), ("ds", "00064")]
    assert [scan.ticket for scan in index.scans_in(1)] == ["index/tickets/ds_sub-00065_task-rest_run-65.json"]
    assert index.scans_of("ds", "00001") == []
    assert index.scans_in(7) == []


def test_missing_index_names_the_command(tmp_path):
    with pytest.raises(ConfigError, match="snakemake ingest"):
        read_index(tmp_path)


def test_foreign_or_damaged_index_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "index" / "runs.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ConfigError, match="schema None"):
        read_index(tmp_path)
    path.write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="cannot read the index"):
        read_index(tmp_path)


def test_no_flipped_byte_of_an_index_is_a_traceback(tmp_path):
    """Nor is it in a value that is no longer a text: whoever reads the rows later would stumble over it."""
    path = tmp_path / "index" / "runs.parquet"
    write_index(path, [row(i, ok=i % 3 > 0) for i in range(9)], "d", 64)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :])
        try:
            index = read_index(tmp_path)
        except ConfigError:
            refused += 1
            continue
        "".join(scan.scan_id for scan in index.scans).encode()
    assert refused > 100


def test_same_rows_in_any_order_give_the_same_bytes(tmp_path):
    rows = [row(i) for i in range(50)]
    write_index(tmp_path / "a", rows, "d", 64)
    write_index(tmp_path / "b", rows[::-1], "d", 64)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_index_is_stale_after_a_change_that_matters_only(tree):
    from boldmill.config.model import Config
    from boldmill.stages import stage_json

    tree.good("01")
    tree.ingest()
    index = read_index(tree.results)

    def text(**changes):
        return stage_json(Config.model_validate({**tree.settings(), **changes}), "ingest")

    assert not index.is_stale(text())
    assert index.is_stale(text(shards={"n_buckets": 9}))
    assert index.is_stale(text(index={"min_volumes": 30}))
    entry = tree.settings()["datasets"][0]
    assert not index.is_stale(text(datasets=[{**entry, "overrides": {"clean": {"compcor": 3}}}]))
    assert index.is_stale(text(datasets=[{**entry, "overrides": {"index": {"min_volumes": 30}}}]))
    assert settings_digest(text()) == index.digest


def test_reading_imports_nothing_heavy():
    code = (
        "import sys, boldmill.index.read as r\n"
        "assert 'pyarrow' not in sys.modules\n"
        "try: r.read_index('/nonexistent')\n"
        "except r.ConfigError: pass\n"
        "import pyarrow.parquet\n"
        "bad = {'pandas', 'nibabel', 'scipy', 'torch', 'pydantic', 'bids2table'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tables_are_nobody_to_preprocess(tmp_path):
    rows = [row(i, buckets=4)._replace(kind="table" if i % 2 else "volume") for i in range(12)]
    index = Index(tmp_path, rows)
    assert [who[1] for who in index.subjects()] == [f"{i:05d}" for i in range(0, 12, 2)]
    assert (index.buckets(), index.preprocessed_buckets()) == ([0, 1, 2, 3], [0, 2])
    assert (index.subjects_in(1), index.has_tables(1), index.has_tables(0)) == ([], True, False)
    assert len(index.scans_in(1)) == 3
