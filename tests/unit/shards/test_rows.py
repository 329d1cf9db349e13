"""Rows read straight from the file equal what pyarrow decodes, whatever the layout."""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boldmill import tables
from boldmill.errors import BoldmillError
from boldmill.shards.pages import OpenFiles, offsets_before
from boldmill.shards.rows import TableRows
from boldmill.shards.write import shard_writer

BASE = {"dataset": "d", "subject": "s", "source_sha256": [], "pipeline_version": "", "stage_digests": []}
VIEW = {**BASE, "atlas": "A", "scan_id": "a", "n_kept": 9}
PIXELS, FRAMES, SCANS, CLIPS = 37, 4, 5, 3


def clip_row(scan: int, clip: int) -> dict:
    values = (np.arange(FRAMES * PIXELS) + 1000 * scan + 100 * clip).astype("<f2")
    mean = np.full(PIXELS, scan, "<f4").tobytes() if clip == 0 else None
    row = {"scan_id": f"s{scan}", "clip": clip, "start": FRAMES * clip, "tr": 1.0, "tr_in": 2.0, "n_frames": FRAMES}
    row |= {"n_pixels": PIXELS, "values": values.tobytes(), "scale": 1.0, "mean": mean, "std": mean}
    return {**BASE, **row}


@pytest.fixture
def shards(tmp_path):
    """Two shards of flat clips, two clips in a row group."""
    paths = [tmp_path / f"bucket-{i}.parquet" for i in range(2)]
    for number, path in enumerate(paths):
        with shard_writer(path, tables.schema("flat_clips"), 2) as writer:
            for scan in range(number, SCANS, 2):
                for clip in range(CLIPS):
                    writer.add(clip_row(scan, clip))
    return paths


def expected(paths) -> list[np.ndarray]:
    rows = [value for path in paths for value in pq.read_table(path, columns=["values"])["values"].to_pylist()]
    return [np.frombuffer(value, "<f2").reshape(FRAMES, PIXELS) for value in rows]


def count_decoded(monkeypatch) -> list:
    reads = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, *a, **k: reads.append(a) or original(self, *a, **k)
    )
    return reads


def test_values_are_read_from_their_place_without_decoding(shards, monkeypatch) -> None:
    rows, wanted, reads = TableRows(shards), expected(shards), count_decoded(monkeypatch)
    assert len(rows) == SCANS * CLIPS
    for index, values in enumerate(wanted):
        np.testing.assert_array_equal(rows.array(index, "values"), values)
    order = [7, 8, 9, 2, 2, 0, 14, 3, 4, 5, 6]  # neighbours, twice the same, across groups and shards
    np.testing.assert_array_equal(rows.read(order, "values"), np.stack([wanted[i] for i in order]))
    assert reads == []


def test_neighbours_are_fetched_together(shards, monkeypatch) -> None:
    rows, calls = TableRows(shards), []
    original = OpenFiles.fill
    monkeypatch.setattr(OpenFiles, "fill", lambda self, n, at, b: calls.append(len(b)) or original(self, n, at, b))
    rows.read([0, 1, 2, 3], "values")
    assert calls == [4, 4]  # two row groups of two clips, each with its stored length


def test_a_given_buffer_is_filled(shards) -> None:
    out = np.full((2, FRAMES, PIXELS), np.nan, np.float16)
    assert TableRows(shards).read([3, 1], "values", out) is out
    np.testing.assert_array_equal(out, [expected(shards)[3], expected(shards)[1]])


@pytest.mark.parametrize("how", [{"compression": "zstd"}, {"use_dictionary": True, "compression": "none"}, {
    "compression": "none", "use_dictionary": False, "data_page_size": 1, "write_batch_size": 1}])  # fmt: skip
def test_other_layouts_are_decoded(shards, monkeypatch, how) -> None:
    wanted = expected(shards)
    for path in shards:
        pq.write_table(pq.read_table(path), path, row_group_size=4, **how)
    rows, reads = TableRows(shards), count_decoded(monkeypatch)
    for index, values in enumerate(wanted):
        np.testing.assert_array_equal(rows.array(index, "values"), values)
    np.testing.assert_array_equal(rows.read(range(len(rows)), "values"), wanted)
    assert len(reads) == len(rows._groups)  # each group once: its neighbours are kept


@given(st.integers(0, 12), st.integers(1, 200), st.integers(1, 40), st.integers(1, 60), st.booleans())
@settings(max_examples=60, deadline=None)
def test_headers_between_pages_shift_no_row(edges: int, rows: int, batch: int, page: int, second: bool) -> None:
    """Headers of later pages may be as long as some rows together: every stored length would look right."""
    values = [np.full(edges, view, "<f2") for view in range(rows)]
    path = Path(tempfile.mkdtemp()) / "x.parquet"
    with shard_writer(path, tables.schema("pfc"), rows) as writer:
        for view, value in enumerate(values):
            writer.add({**VIEW, "view": view, "n_edges": edges, "values": value.tobytes()})
    how = {"compression": "none", "use_dictionary": False, "data_page_version": "2.0" if second else "1.0"}
    pq.write_table(pq.read_table(path), path, data_page_size=page, write_batch_size=batch, **how)
    found = TableRows([path])
    for view, value in enumerate(values):
        np.testing.assert_array_equal(found.array(view, "values"), value)
    shutil.rmtree(path.parent)


def test_a_group_of_many_small_rows_is_one_page(tmp_path, monkeypatch) -> None:
    """pyarrow begins a new page after 20,480 rows unless told otherwise."""
    path, n, reads = tmp_path / "x.parquet", 21_000, count_decoded(monkeypatch)
    with shard_writer(path, tables.schema("pfc"), n) as writer:
        for view in range(n):
            value = np.full(3, view % 1000, "<f2").tobytes()
            writer.add({**VIEW, "view": view, "n_edges": 3, "values": value})
    rows = TableRows([path])
    np.testing.assert_array_equal(rows.read(range(n), "values")[:, 0], np.arange(n) % 1000)
    assert len(rows._groups) == 1 and reads == []


def test_a_shard_written_again_is_refused(shards) -> None:
    """Rows of equal shape lie in equal places: they would be read as those of other scans."""
    known, sent = TableRows(shards), TableRows(shards)
    wanted = known.array(0, "values").copy()
    sent.column("n_frames")  # its footers are known, no array was read
    sent = pickle.loads(pickle.dumps(sent))
    with shard_writer(tmp := shards[0].with_name("new.parquet"), tables.schema("flat_clips"), 2) as writer:
        for scan in range(10, 10 + SCANS, 2):
            for clip in range(CLIPS):
                writer.add(clip_row(scan, clip))
    tmp.replace(shards[0])
    os.utime(shards[0], ns=(0, 1))  # another date, however coarse the clock of the disk
    np.testing.assert_array_equal(known.array(0, "values"), wanted)  # the old file is open
    for read in (lambda: sent.array(0, "values"), lambda: sent.column("clip")):
        with pytest.raises(BoldmillError, match=r"written again.*bucket-0"):
            read()


def test_missing_and_nullable_values(shards) -> None:
    rows = TableRows(shards)
    for index in range(len(rows)):
        row = rows.row(index, ["scan_id", "clip"])
        found = rows.find(index, "mean")
        assert (found is None) == (row["clip"] != 0)
        if found is not None:
            np.testing.assert_array_equal(found, np.full(PIXELS, int(row["scan_id"][1:]), "<f4"))
    with pytest.raises(BoldmillError, match="null"):
        rows.array(1, "mean")


def test_rows_of_several_shapes_are_not_stacked(tmp_path) -> None:
    with shard_writer(tmp_path / "x.parquet", tables.schema("pfc"), 8) as writer:
        for view, edges in enumerate((3, 6, 3)):
            values = np.arange(edges, dtype="<f2").tobytes()
            writer.add(
                {**BASE, "atlas": "A", "scan_id": "a", "view": view, "n_kept": 9, "n_edges": edges, "values": values}
            )
    rows = TableRows([tmp_path / "x.parquet"])
    np.testing.assert_array_equal(rows.array(1, "values"), np.arange(6))
    assert rows.read([0, 2], "values").shape == (2, 3)
    with pytest.raises(BoldmillError, match="differ"):
        rows.read([0, 1], "values")


def test_a_shard_cut_short_is_named(shards) -> None:
    rows = TableRows(shards)
    rows.array(0, "values")  # positions are known
    os.truncate(shards[1], 10)
    with pytest.raises(BoldmillError, match=r"cut short: .*bucket-1"):
        rows.array(len(rows) - 1, "values")


def test_columns_are_typed(shards) -> None:
    rows = TableRows(shards)
    assert rows.column("clip").tolist() == [0, 1, 2] * SCANS
    assert rows.column("scan_id").tolist() == [f"s{i}" for i in (0, 2, 4, 1, 3) for _ in range(CLIPS)]
    assert rows.column("source_sha256").tolist() == [[]] * (SCANS * CLIPS)
    assert rows.row(4, ["scan_id", "clip", "tr"]) == {"scan_id": "s2", "clip": 1, "tr": 1.0}
    assert type(rows.row(4, ["clip"])["clip"]) is int
    with pytest.raises(IndexError):
        rows.row(SCANS * CLIPS, ["clip"])


def test_only_asked_columns_are_read(shards, monkeypatch) -> None:
    asked = []
    original = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda self, columns=None, **k: asked.extend(columns) or original(self, columns, **k)
    )
    TableRows(shards).read([1, 2], "values")
    assert set(asked) == {"n_frames", "n_pixels"}


def test_a_copy_works_in_a_fresh_process(shards, tmp_path) -> None:
    rows = TableRows(shards)
    wanted = rows.array(9, "values")
    (tmp_path / "rows.bin").write_bytes(pickle.dumps(rows))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).array(9, 'values').tobytes().hex())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rows.bin")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == wanted.tobytes().hex()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(0, 1000))
def test_positions_of_values(lengths: list[int], header: int) -> None:
    page, starts = b"h" * header, []
    for length in lengths:
        starts.append(len(page) + 4)
        page += length.to_bytes(4, "little") + b"v" * length
    assert offsets_before(len(page), np.array(lengths)).tolist() == starts


def test_more_buffers_than_one_call_takes(tmp_path) -> None:
    data = np.random.default_rng(0).bytes(5000)
    (tmp_path / "f").write_bytes(data)
    buffers = [bytearray(2) for _ in range(2400)]
    OpenFiles([tmp_path / "f"]).fill(0, 100, buffers)
    assert b"".join(buffers) == data[100:4900]


def test_an_empty_table(tmp_path) -> None:
    assert len(TableRows([])) == 0 and TableRows([]).scan_ids == []
    with shard_writer(tmp_path / "x.parquet", tables.schema("flat_clips"), 2):
        pass
    rows = TableRows([tmp_path / "x.parquet"])
    assert len(rows) == 0 and rows.column("clip").tolist() == []
    assert pa.types.is_large_binary(rows.schemas[0].field("values").type)


def test_a_shard_without_any_value_of_a_column_has_none_and_knows_no_size(tmp_path) -> None:
    row = {**BASE, "scan_id": "s0", "kind": "table", "bucket": 0, "tr": None, "n_volumes": 9, "mean_fd": None}
    row |= dict.fromkeys(("session", "task", "run", "site", "family", "licence", "space"), "")
    row |= {"phenotypes": "{}", "qc": [], "entities": [], "flags": [], "atlases": ["HO"], "n_clips": 0}
    with shard_writer(tmp_path / "bucket-000.parquet", tables.schema("scans"), 2) as writer:
        writer.add({**row, "morphometry": None})
    rows = TableRows([tmp_path / "bucket-000.parquet"])
    assert rows.find(0, "morphometry") is None
    with pytest.raises(BoldmillError, match="it is null"):
        rows.array(0, "morphometry")
