"""boldmill describe: facts of a shard, a folder and a snapshot against what was put in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from boldmill import tables
from boldmill.atomic import read_json
from boldmill.cli import main
from boldmill.shards.describe_command import aligned, size
from boldmill.shards.rows import TableRows
from boldmill.shards.write import shard_writer


def facts(path, tmp_path, *more: str) -> dict:
    assert main(["describe", str(path), "--json", str(tmp_path / "facts.json"), *more]) == 0
    return read_json(tmp_path / "facts.json")


def columns(table: dict) -> dict[str, dict]:
    return {column["name"]: column for column in table["columns"]}


def test_a_snapshot(cohort, snapshot, tmp_path, capsys) -> None:
    found = facts(cohort.layout.snapshot("latest"), tmp_path, "--rows", "1000")
    text = capsys.readouterr().out
    assert found["snapshot"]["id"] == snapshot.id and snapshot.id in text
    tables = {(table["table"], table["atlas"]): table for table in found["tables"]}
    assert set(tables) == {("scans", ""), ("flat_clips", "")} | {
        (table, atlas) for table in ("timeseries", "fc", "pfc") for atlas in ("Toy-6", "Toy-4")
    }
    for (name, atlas), table in tables.items():
        paths = snapshot.paths(name, atlas or None)
        assert table["rows"] == len(TableRows(paths))
        assert table["bytes"] == sum(path.stat().st_size for path in paths)
        assert f"{table['rows']} rows" in text
    series = columns(tables["timeseries", "Toy-6"])["values"]
    values = np.concatenate([snapshot.timeseries(s).ravel() for s in snapshot.scans(having="timeseries")["scan_id"]])
    assert (series["low"], series["high"]) == (np.nanmin(values), np.nanmax(values))
    assert series["nan"] == pytest.approx(1 / 6, abs=1e-6)
    assert (series["shape"], series["type"], series["codec"]) == ("22..40 x 6", "float32 array", "none")
    assert "22..40 x 6" in text and "16.7%" in text
    clips = tables["flat_clips", ""]
    assert clips["hours"] == pytest.approx(9 * 8 / 3600, abs=1e-4)
    assert clips["bytes_per_hour"] == pytest.approx(clips["bytes"] / (9 * 8 / 3600), rel=0.01)
    assert columns(clips)["mean"]["missing"] == 0.5
    assert columns(clips)["values"]["shape"] == "4 x 53"
    fd = columns(tables["scans", ""])["mean_fd"]
    assert (fd["low"], fd["high"], fd["unit"]) == (0.1, 0.9, "mm")
    site = columns(tables["scans", ""])["site"]
    assert site["distinct"] == 2 and "2 different" in text


def test_arrays_are_sampled_and_it_says_so(cohort, snapshot, tmp_path, capsys, monkeypatch) -> None:
    looked = []
    original = TableRows.find
    monkeypatch.setattr(TableRows, "find", lambda self, row, name: looked.append(row) or original(self, row, name))
    found = facts(cohort.layout.snapshot("latest"), tmp_path, "--table", "pfc", "--atlas", "Toy-6", "--rows", "4")
    (table,) = found["tables"]
    assert table["rows"] == 30 and table["rows_sampled"] == 4
    assert looked == [0, 10, 19, 29]
    assert "(* from 4 of 30 rows" in capsys.readouterr().out
    values = np.stack([snapshot.rows("pfc").array(row, "values") for row in (0, 10, 19, 29)]).astype(float)
    assert columns(table)["values"]["high"] == np.nanmax(values)


@pytest.mark.parametrize(
    ("table", "size_of"),
    [("fc", None), ("pfc", None), ("timeseries", None), ("flat_clips", (10, 16))],
)
def test_pictures(cohort, tmp_path, table, size_of) -> None:
    png = tmp_path / "x.png"
    facts(cohort.layout.shard(table, 0).parent, tmp_path, "--png", str(png))
    first = png.read_bytes()
    image = np.asarray(Image.open(png).convert("RGB"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20  # something is on it
    if size_of:
        assert Image.open(png).size == size_of
    facts(cohort.layout.shard(table, 0).parent, tmp_path, "--png", str(png))
    assert png.read_bytes() == first


def test_a_matrix_is_drawn_as_it_is(cohort, tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr("boldmill.shards.describe_picture._image", lambda path, values, *rest: drawn.append(values))
    path = next(p for b in range(3) if pq.read_metadata(p := cohort.shard("fc", b)).num_rows)
    facts(path, tmp_path, "--png", str(tmp_path / "x.png"))
    rows = TableRows([path])
    (matrix,) = drawn
    assert matrix.shape == (6, 6)
    np.testing.assert_array_equal(matrix[np.triu_indices(6, 1)], rows.array(0, "values"))


def test_an_empty_shard(make_cohort, tmp_path, capsys) -> None:
    cohort = make_cohort(tmp_path / "results", {"01": {}}, n_buckets=3)
    cohort.build()
    empty = next(cohort.shard("fc", b) for b in range(3) if not cohort.buckets[b])
    (table,) = facts(empty, tmp_path)["tables"]
    assert (table["rows"], table["row_groups"], table["bytes_per_row"]) == (0, 0, 0.0)
    assert main(["describe", str(empty), "--png", str(tmp_path / "x.png")]) == 2
    assert "fc has no rows" in capsys.readouterr().err


def test_series_of_unknown_tr_are_left_out_of_the_size_per_hour(tmp_path, capsys) -> None:
    base = {"dataset": "d", "subject": "s", "atlas": "A", "source_sha256": [], "pipeline_version": "1"}
    base |= {"stage_digests": [], "n_parcels": 2}
    with shard_writer(tmp_path / "x.parquet", tables.schema("timeseries", sizes={"n_parcels": 2}), 8) as writer:
        for scan, tr, volumes in (("a", 2.0, 900), ("b", None, 2700)):
            values = np.zeros((volumes, 2), "<f4").tobytes()
            writer.add({**base, "scan_id": scan, "tr": tr, "n_volumes": volumes, "values": values})
    (table,) = facts(tmp_path / "x.parquet", tmp_path)["tables"]
    assert (table["hours"], table["hours_known"]) == (0.5, 0.25)
    assert table["bytes_per_hour"] == round(table["bytes"] * 0.25 / 0.5)
    assert "where the TR is known: 25% of the volumes" in capsys.readouterr().out
    assert columns(table)["tr"]["nan"] == 0.5


def test_other_things_are_refused(cohort, tmp_path, capsys) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    for path, status, message in (
        (tmp_path / "x.parquet", 2, "names no table"),
        (tmp_path / "y.parquet", 1, "no Parquet file"),
        (tmp_path / "empty", 2, "it holds no shards"),
        (tmp_path / "missing.parquet", 1, "missing.parquet"),
        (tmp_path / "missing", 1, "missing"),
    ):
        assert main(["describe", str(path)]) == status
        assert message in capsys.readouterr().err
    manifest = str(cohort.layout.snapshot("latest"))
    assert main(["describe", manifest, "--table", "timeserie"]) == 2
    assert "did you mean 'timeseries'" in capsys.readouterr().err
    assert main(["describe", manifest, "--table", "scans", "--png", str(tmp_path / "x.png")]) == 2
    assert main(["describe", manifest, "--rows", "0"]) == 2


def test_what_is_damaged_or_of_another_kind_has_its_line(cohort, tmp_path, capsys) -> None:
    path = cohort.shard(
        "flat_clips", next(b for b in range(3) if pq.read_metadata(cohort.shard("flat_clips", b)).num_rows)
    )
    group, whole = pq.read_metadata(path).row_group(0), path.read_bytes()
    place = {group.column(n).path_in_schema: group.column(n).data_page_offset for n in range(group.num_columns)}
    for column in ("clip", "mean"):  # one read whole, one by row group
        start = place[column]
        (tmp_path / f"{column}.parquet").write_bytes(whole[:start] + bytes(60) + whole[start + 60 :])
    old = pq.read_table(cohort.shard("fc", 0)).drop_columns("atlas")
    old = old.replace_schema_metadata({**old.schema.metadata, b"schema_version": b"1"})
    pq.write_table(old, tmp_path / "old.parquet")
    (tmp_path / "cut.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    refused = cohort.layout.shard("scans", 0).with_suffix(".quarantine.json")
    for file, status, message in (
        (tmp_path / "clip.parquet", 1, "it is damaged"),
        (tmp_path / "mean.parquet", 1, "it is damaged"),
        (tmp_path / "old.parquet", 1, "its schema version is 1"),
        (tmp_path / "cut.json", 2, "cannot read the snapshot"),
        (tmp_path / "list.json", 2, "no manifest of a snapshot"),
        (refused, 2, "no manifest of a snapshot"),
    ):
        assert main(["describe", str(file)]) == status
        error = capsys.readouterr().err
        assert message in error and file.name in error


def test_words() -> None:
    assert [size(n) for n in (0, 999, 1000, 2_488_416, 1.152e12)] == ["0 B", "999 B", "1 kB", "2.49 MB", "1.15 TB"]
    assert aligned([["a", "b"], ["long", "12"]], right=(1,)) == ["a      b", "long  12"]
