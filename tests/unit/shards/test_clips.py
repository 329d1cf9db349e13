"""Flat clips as float16 and as scaled int8: bounded errors, and the original units from the two-line decode."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from boldmill.atomic import canonical_json
from boldmill.cli import main
from boldmill.shards.clips import clip_batch, stored_frames
from boldmill.shards.reader import Snapshot

FINITE = st.floats(-60, 60, width=16)


@given(arrays(np.float16, (5, 7), elements=FINITE))
def test_int8_is_within_half_a_step_of_every_z(frames: np.ndarray) -> None:
    stored, scale = stored_frames(frames, "int8")
    assert stored.dtype == np.int8 and stored.shape == frames.shape and scale > 0
    found = stored * np.float32(scale)
    largest = np.abs(frames.astype(np.float64)).max()
    assert np.abs(found - frames.astype(np.float64)).max() <= scale / 2 * (1 + 1e-5)
    assert not frames.any() or np.isclose(scale, largest / 127)
    assert np.abs(stored.astype(int)).max(initial=0) == (127 if frames.any() else 0)


@given(arrays(np.float16, (5, 7), elements=FINITE))
def test_float16_is_exact(frames: np.ndarray) -> None:
    stored, scale = stored_frames(frames, "float16")
    assert scale == 1.0 and stored.dtype == np.dtype("<f2") and np.array_equal(stored, frames)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_documented_lines_bring_the_original_units_back(make_cohort, tmp_path, dtype: str) -> None:
    cohort = make_cohort(tmp_path, {"01": {"frames": 10}}, n_buckets=1)
    cohort.build()
    words = cohort.clips_words(0)
    config = {"shards": {"clip_frames": 4, "clip_stride": 4, "clip_dtype": dtype}}
    text = canonical_json({"stage": "clips", "version": 1, "config": config, "overrides": {}})
    words[words.index("--config-json") + 1] = text
    assert main(words) == 0
    cohort.snapshot()
    (scan,) = cohort.tickets["01"]
    schema = pq.read_schema(cohort.shard("flat_clips", 0))
    assert schema.field("values").metadata[b"dtype"] == dtype.encode()
    assert schema.metadata[b"method"] == b"as published" and json.loads(schema.metadata[b"grid"])["name"] == "toy"
    rows = pq.read_table(cohort.shard("flat_clips", 0)).to_pylist()
    first = rows[0]
    assert {(row["tr"], row["tr_in"], row["scale"]) for row in rows} == {(1.0, 2.0, first["scale"])}
    flat = np.load(cohort.frames(scan))
    for row in rows:
        kind = {"int8": "i1", "float16": "<f2"}[dtype]
        z = np.frombuffer(row["values"], kind).reshape(row["n_frames"], -1) * np.float32(row["scale"])
        series = z * np.frombuffer(first["std"], "<f4") + np.frombuffer(first["mean"], "<f4")
        exact = flat["frames"][row["start"] : row["start"] + 4].astype(np.float64)
        bound = first["scale"] / 2 if dtype == "int8" else 0
        assert np.abs(z - exact).max() <= bound * (1 + 1e-5)
        assert (np.abs(series - (exact * flat["std"] + flat["mean"])) <= bound * flat["std"] + 1e-5).all()
    clips = Snapshot.load(cohort.layout.snapshot("latest")).rows("flat_clips")
    values = clips.array(0, "values")
    assert values.dtype == np.dtype(dtype) and values.shape == (4, first["n_pixels"])
    batch = clip_batch(clips, [1, 0], "cpu")  # what models take
    assert batch.dtype == {"float16": torch.float16, "int8": torch.float32}[dtype]
    exact = flat["frames"][:8].reshape(2, 4, -1)[::-1].astype(np.float64)
    assert np.abs(batch.numpy() - exact).max() <= (first["scale"] / 2 if dtype == "int8" else 0) * (1 + 1e-5)
