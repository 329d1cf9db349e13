import pickle
import shutil

import numpy as np
import pytest

from boldmill.atomic import read_json, write_json
from boldmill.errors import BoldmillError, ConfigError, DataFault
from boldmill.represent.config import AugmentConfig
from boldmill.represent.pfc import pfc_views
from boldmill.shards.reader import Snapshot


def test_series_fc_and_morphometry_are_those_of_the_inputs(cohort, snapshot) -> None:
    for scan in snapshot.scans(having="timeseries")["scan_id"]:
        volumes = 22 if "sub-04" in scan else 40
        series = snapshot.timeseries(scan)
        np.testing.assert_array_equal(series, cohort.series(scan, volumes))
        expected = np.corrcoef(series.astype(np.float64), rowvar=False)
        np.testing.assert_allclose(snapshot.fc_matrix(scan), expected, atol=1e-7)
    assert snapshot.parcels() == [f"p{i}" for i in range(6)]
    assert snapshot.morphometry(cohort.tickets["00"][0]).shape == (6, 9)
    with pytest.raises(DataFault, match="no usable T1w"):
        snapshot.morphometry(cohort.tickets["07"][0])


def test_stored_views_are_the_views_made_on_the_fly(snapshot) -> None:
    cfg = AugmentConfig(n_views=3, min_timepoints=20)
    scans = snapshot.scans(having="pfc")["scan_id"]
    assert len(scans) == 10
    for scan in scans:
        stored = snapshot.pfc(scan)
        assert stored.dtype == np.float16
        for view in range(3):
            fly = pfc_views(snapshot.timeseries(scan), scan, [view], 7, cfg)[0]
            np.testing.assert_array_equal(stored[view], fly.astype(np.float16))


def test_filters(snapshot) -> None:
    every = snapshot.scans()
    assert list(every["scan_id"]) == sorted(every["scan_id"])
    parts = [snapshot.scans(split=s) for s in ("train", "validation", "heldout")]
    assert sorted(s for p in parts for s in p["scan_id"]) == list(every["scan_id"])
    assert set(snapshot.scans(site="A")["site"]) == {"A"}
    assert len(snapshot.scans(site=["A", "B"])) == len(every)
    assert len(snapshot.scans(dataset="other")) == 0
    assert list(snapshot.scans(columns=["scan_id", "split"]).columns) == ["scan_id", "split"]
    assert not snapshot.scans(having="flat_clips")["scan_id"].str.contains("sub-07").any()
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        snapshot.scans(split="trian")
    with pytest.raises(ConfigError, match="did you mean 'flat_clips'"):
        snapshot.scans(having="flat_clip")


def test_splits_of_scans_are_those_of_their_subjects(snapshot) -> None:
    table = snapshot.scans()
    assert list(table["split"]) == [snapshot.subjects[f"{d}/{s}"] for d, s in table[["dataset", "subject"]].values]
    assert table.groupby("subject")["split"].nunique().max() == 1


def test_phenotypes_and_their_words(snapshot) -> None:
    scans = list(snapshot.scans()["scan_id"])[:3][::-1]
    table = snapshot.phenotypes(scans)
    assert list(table.index) == scans
    assert list(table["age"]) == [22, 22, 22]
    assert table["missing"].isna().all()
    assert snapshot.descriptions["toy"]["age"]["Description"] == "age at scan"


def test_an_unknown_scan_is_refused_with_the_nearest_name(snapshot) -> None:
    with pytest.raises(BoldmillError, match="did you mean 'toy_sub-00_task-rest_run-1'"):
        snapshot.timeseries("toy_sub-00_task-rest_run1")


def test_rows_can_be_sent_to_another_process(snapshot) -> None:
    rows = snapshot.rows("timeseries")
    first = rows.array(0, "values")
    copy = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(copy.array(0, "values"), first)
    with pytest.raises(IndexError):
        rows.array(len(rows), "values")


def test_a_moved_results_folder_still_reads(cohort, tmp_path) -> None:
    shutil.copytree(cohort.results, tmp_path / "moved")
    moved = Snapshot.load(tmp_path / "moved" / "datasets" / "latest" / "manifest.json")
    moved.verify()
    assert moved.paths("fc")[0].is_relative_to(tmp_path)


def test_changed_missing_and_foreign_shards_are_refused(cohort, tmp_path) -> None:
    shutil.copytree(cohort.results, tmp_path / "r")
    manifest = tmp_path / "r" / "datasets" / "latest" / "manifest.json"
    shard = tmp_path / "r" / "shards" / "fc" / "Toy-6" / "bucket-001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(BoldmillError, match=r"fc/Toy-6/bucket-001.parquet: its sha256"):
        Snapshot.load(manifest).verify()
    shard.write_bytes(whole + b" ")
    with pytest.raises(BoldmillError, match=r"fc/Toy-6/bucket-001.parquet: its sha256"):
        Snapshot.load(manifest)  # another size is seen at once
    shard.unlink()
    with pytest.raises(BoldmillError, match="shard is missing"):
        Snapshot.load(manifest)
    write_json(manifest, {**read_json(manifest), "table_schema": 0})
    with pytest.raises(ConfigError, match="schema version 0"):
        Snapshot.load(manifest)
    with pytest.raises(ConfigError, match="cannot read the snapshot"):
        Snapshot.load(tmp_path / "none.json")


def test_flat_mask(snapshot) -> None:
    assert np.array_equal(snapshot.flat_mask, np.arange(80).reshape(8, 10) % 3 != 0)


def test_a_cohort_without_scans_reads_as_empty(make_cohort, tmp_path) -> None:
    snapshot = Snapshot.load(make_cohort(tmp_path, {}, n_buckets=1).build())
    assert len(snapshot.scans()) == len(snapshot.scans(split="train", having="pfc")) == 0
    assert list(snapshot.scans(columns=["scan_id", "mean_fd"]).columns) == ["scan_id", "mean_fd"]
    assert snapshot.parcels() == []
    assert len(snapshot.phenotypes()) == 0
    with pytest.raises(BoldmillError, match="no shard has flat clips"):
        _ = snapshot.flat_mask
