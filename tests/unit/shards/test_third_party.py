"""pandas, polars, DuckDB and HuggingFace `datasets` read every table without our code; two lines decode an array.

Nothing of boldmill is used on the way from the file to the array: dtype and shape come from the Parquet metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from boldmill.rng import generator
from boldmill.shards.rows import TableRows
from boldmill.tables import pairs

TABLES = ("scans", "timeseries", "fc", "pfc", "flat_clips")


def with_pandas(paths: list[Path]) -> list[dict[str, Any]]:
    import pandas as pd

    return pd.concat([pd.read_parquet(path) for path in paths]).to_dict("records")


def with_polars(paths: list[Path]) -> list[dict[str, Any]]:
    import polars as pl

    return pl.read_parquet(paths).to_dicts()


def with_duckdb(paths: list[Path]) -> list[dict[str, Any]]:
    import duckdb

    relation = duckdb.connect().execute("SELECT * FROM read_parquet($paths)", {"paths": [str(path) for path in paths]})
    names = [column[0] for column in relation.description]
    return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]


def with_datasets(paths: list[Path]) -> list[dict[str, Any]]:
    import tempfile

    import datasets

    with tempfile.TemporaryDirectory() as cache:
        files = [str(path) for path in paths]
        return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache).to_list()


READERS = {"pandas": with_pandas, "polars": with_polars, "duckdb": with_duckdb, "datasets": with_datasets}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory) -> Any:
    """HuggingFace `datasets` asks no server, and writes no cache outside the test."""
    import datasets

    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    patch.undo()


def decode(row: dict[str, Any], field: Any) -> np.ndarray:
    """Two lines: dtype and shape are in the metadata of the field."""
    dtype = np.dtype(field.metadata[b"dtype"].decode())
    return np.frombuffer(row["values"], dtype).reshape([row[n] for n in field.metadata[b"shape"].decode().split(",")])


@pytest.fixture(scope="module")
def wide(tmp_path_factory, make_cohort, subjects) -> Any:
    """Seven buckets, one of them empty, one without any T1w: their schemas must be those of the others."""
    people = {name: facts for name, facts in subjects.items() if name != "02"}
    cohort = make_cohort(tmp_path_factory.mktemp("wide") / "results", people, n_buckets=7)
    assert [] in cohort.buckets.values() and ["07"] in cohort.buckets.values()
    cohort.build()
    return cohort


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("table", TABLES)
def test_a_whole_table_is_read_without_our_code(wide, table: str, reader: str) -> None:
    paths = [wide.shard(table, bucket) for bucket in range(wide.n_buckets)]
    rows, ours = READERS[reader](paths), TableRows(paths)
    assert [row["scan_id"] for row in rows] == ours.scan_ids
    assert list(rows[0]) == ours.schemas[0].names
    for number, row in enumerate(rows):
        assert row["pipeline_version"] == ours.column("pipeline_version")[number]
        assert list(row["source_sha256"]) == ours.column("source_sha256")[number]
        assert pairs(row["stage_digests"]) == pairs(ours.column("stage_digests")[number])
        if table == "scans":
            assert row["tr"] == ours.column("tr")[number]
            assert list(row["atlases"]) == ours.column("atlases")[number]
            assert pairs(row["qc"]) == pairs(ours.column("qc")[number])
        elif table == "fc":
            np.testing.assert_array_equal(np.array(row["values"], np.float32), ours.array(number, "values"))
        else:
            values = decode(row, ours.schemas[0].field("values"))
            np.testing.assert_array_equal(values, ours.array(number, "values"))


@pytest.fixture(params=["float16", "int8"])
def clips(request, tmp_path) -> tuple[Path, np.ndarray, dict[str, np.ndarray]]:
    """A shard of one run of 12 frames in clips of 4, and the run."""
    from boldmill import tables
    from boldmill.shards.clips import clip_rows
    from boldmill.shards.write import shard_writer

    rng = generator("third party")
    flat = {
        "frames": rng.standard_normal((12, 31)).astype(np.float16),
        "mean": rng.random(31, dtype=np.float32),
        "std": rng.random(31, dtype=np.float32),
        "tr": np.float64(1.0),
        "tr_in": np.float64(2.0),
    }
    base = {"scan_id": "s", "dataset": "d", "subject": "1", "source_sha256": ["a"], "pipeline_version": "1"}
    path = tmp_path / "clips.parquet"
    schema = tables.schema("flat_clips", dtypes={"values": request.param})
    with shard_writer(path, schema, 2) as writer:
        for row in clip_rows({**base, "stage_digests": []}, flat, length=4, stride=4, dtype=request.param):
            writer.add(row)
    return path, flat["frames"], flat


@pytest.mark.parametrize("reader", READERS)
def test_clips_decode_to_z_scores_and_to_the_unit_of_the_series(clips, reader: str) -> None:
    path, frames, flat = clips
    field = pq.read_schema(path).field("values")
    rows = READERS[reader]([path])
    z = np.concatenate([decode(row, field) * np.float32(row["scale"]) for row in rows])
    step = 0.0 if field.metadata[b"dtype"] == b"float16" else rows[0]["scale"] / 2
    assert (step == 0) == (rows[0]["scale"] == 1.0)
    np.testing.assert_allclose(z, frames, rtol=0, atol=step * 1.001)
    mean, std = (np.frombuffer(rows[0][name], "<f4") for name in ("mean", "std"))
    np.testing.assert_array_equal(mean, flat["mean"])
    np.testing.assert_allclose(z * std + mean, frames * flat["std"] + flat["mean"], atol=step + 1e-6)
    assert rows[1]["mean"] is None
    ours = TableRows([path])
    np.testing.assert_array_equal(np.stack([decode(row, field) for row in rows]), ours.read(range(3), "values"))


def test_sql_filters_without_reading_arrays(cohort) -> None:
    import duckdb

    folder = cohort.layout.shard("scans", 0).parent
    query = f"SELECT site, count(*), avg(mean_fd) FROM '{folder}/*.parquet' GROUP BY site ORDER BY site"
    found = duckdb.connect().execute(query).fetchall()
    scans = with_pandas([cohort.layout.shard("scans", bucket) for bucket in range(3)])
    assert [(site, n) for site, n, _ in found] == [(s, sum(r["site"] == s for r in scans)) for s in ("A", "B")]


def test_polars_scans_lazily(cohort) -> None:
    import polars as pl

    folder = cohort.layout.shard("scans", 0).parent
    moved = pl.scan_parquet(f"{folder}/*.parquet").filter(pl.col("mean_fd") > 0.5).select("scan_id").collect()
    assert moved["scan_id"].to_list() == cohort.tickets["07"]


def test_datasets_streams_rows(cohort) -> None:
    import datasets

    paths = [
        str(cohort.shard("timeseries", b)) for b in range(3) if pq.read_metadata(cohort.shard("timeseries", b)).num_rows
    ]
    stream = datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True)
    seen = {}
    for row in stream:
        seen[row["scan_id"]] = np.frombuffer(row["values"], "<f4").reshape(row["n_volumes"], row["n_parcels"])
    for scan, series in seen.items():
        np.testing.assert_array_equal(series, cohort.series(scan, len(series)))
    assert len(seen) == 11
