import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boldmill import tables
from boldmill.errors import BoldmillError, ConfigError


def one_series(volumes: int = 4) -> pa.Table:
    schema = tables.schema("timeseries", sizes={"n_parcels": 3})
    row = {"scan_id": "a", "dataset": "d", "subject": "01", "atlas": "A", "tr": 2.0, "n_volumes": 4, "n_parcels": 3}
    row |= {"values": np.zeros((volumes, 3), "<f4").tobytes(), "source_sha256": ["0"], "pipeline_version": "1"}
    row |= {"stage_digests": [("shards", "x")]}
    return pa.Table.from_pylist([row], schema=schema)


@pytest.mark.parametrize("name", tables.TABLES)
@pytest.mark.parametrize("sizes", [{}, {"n_parcels": 3, "n_edges": 3, "n_features": 9}], ids=["unknown", "known"])
def test_an_empty_table_survives_parquet(name: str, sizes: dict[str, int], tmp_path) -> None:
    pq.write_table(tables.schema(name, sizes=sizes).empty_table(), tmp_path / "x.parquet")
    tables.validate(pq.read_table(tmp_path / "x.parquet"), name)


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_column_says_what_it_is(name: str) -> None:
    schema = tables.schema(name)
    assert {"scan_id", "source_sha256", "pipeline_version", "stage_digests"} <= set(schema.names)
    for field in schema:
        assert field.metadata[b"description"]
        assert field.metadata[b"source"]
        if pa.types.is_large_binary(field.type):
            assert field.metadata[b"dtype"].decode() in tables.DTYPES
            assert set(field.metadata[b"shape"].decode().split(",")) <= set(schema.names)


def test_a_good_table_is_accepted() -> None:
    tables.validate(one_series(), "timeseries")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.replace_schema_metadata({**t.schema.metadata, b"schema_version": b"0"}), "schema version is 0"),
        (lambda t: t.replace_schema_metadata({}), "schema version is none"),
        (lambda t: t.drop_columns(["tr"]), "columns are"),
        (lambda t: t.set_column(4, "tr", pa.array([2])), "column tr is int64, expected double"),
        (lambda t: t.set_column(7, "values", t["values"]), "values has dtype none"),
        (lambda t: pa.concat_tables([t, t]), "not sorted, or not unique"),
        (lambda t: one_series(volumes=3), "values has 36 bytes, its shape needs 48"),
        (lambda t: t.set_column(5, t.schema.field("n_volumes"), pa.array([None], pa.int32())), "1 missing"),
    ],
)
def test_every_damage_is_named(damage, message: str) -> None:
    with pytest.raises(BoldmillError, match=message):
        tables.validate(damage(one_series()), "timeseries")


def test_an_unknown_table_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'timeseries'"):
        tables.columns("timeserie")
