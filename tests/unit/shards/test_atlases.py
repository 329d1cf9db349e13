"""Several atlases, FC of every estimator, and tables of parcel series, from manifests to the snapshot."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from boldmill.atomic import canonical_json, read_json, write_json
from boldmill.cli import main
from boldmill.errors import BoldmillError, ConfigError
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import Recorder
from boldmill.provenance.trace import trace
from boldmill.represent.fc import correlation, fisher_z, vectorise
from boldmill.shards.reader import Snapshot
from boldmill.stages import Settings
from boldmill.tables import pairs

SECOND = "Toy-4"


def settings(**parcellate: Any) -> str:
    config = {"shards": {"n_buckets": 3, "clip_frames": 4, "clip_stride": 4}, "parcellate": parcellate}
    return canonical_json({"stage": "shards", "version": 1, "config": config, "overrides": {}})


def shard(cohort: Any, bucket: int, config: str) -> int:
    assert main(cohort.clips_words(bucket)) == 0
    words = cohort.shard_words(bucket)
    words[words.index("--config-json") + 1] = config
    return main(words)


def test_every_atlas_is_read_by_its_label_and_the_first_without(cohort, snapshot) -> None:
    scans = list(snapshot.scans(having="timeseries")["scan_id"])
    assert snapshot.atlases == ["Toy-6", SECOND]
    assert snapshot.parcels() == snapshot.parcels("Toy-6") and len(snapshot.parcels(SECOND)) == 4
    for scan in scans:
        volumes = 22 if "sub-04" in scan else 40
        series = cohort.series(scan, volumes)
        np.testing.assert_array_equal(snapshot.timeseries(scan), series)
        np.testing.assert_array_equal(snapshot.timeseries(scan, SECOND), series[:, :4])
        np.testing.assert_allclose(snapshot.fc_matrix(scan, SECOND), snapshot.fc_matrix(scan)[:4, :4], atol=1e-7)
    for scan in snapshot.scans(having="pfc", atlas=SECOND)["scan_id"]:
        # the views drop the same points in every atlas
        whole, part = snapshot.pfc(scan), snapshot.pfc(scan, SECOND)
        upper = np.triu_indices(6, 1)
        shared = (upper[0] < 4) & (upper[1] < 4)
        np.testing.assert_allclose(whole[:, shared].astype(float), part.astype(float), atol=1e-3)
    with pytest.raises(ConfigError, match="did you mean 'Toy-4'"):
        snapshot.timeseries(scans[0], "Toy4")


def test_the_snapshot_and_the_rows_name_their_atlas(cohort) -> None:
    manifest = read_json(cohort.layout.snapshot("latest"))
    assert {(s["table"], s.get("atlas")) for s in manifest["shards"]} == {
        ("scans", None),
        ("flat_clips", None),
        *((table, atlas) for table in ("timeseries", "fc", "pfc") for atlas in ("Toy-6", SECOND)),
    }
    for table in ("timeseries", "fc", "pfc"):
        for bucket in range(3):
            read = pq.read_table(cohort.shard(table, bucket, SECOND))
            assert set(read["atlas"].to_pylist()) <= {SECOND}
            assert read.schema.metadata[b"atlas"] == SECOND.encode()
            assert json.loads(read.schema.metadata[b"parcels"]) == ["p0", "p1", "p2", "p3"]


def test_a_row_of_any_atlas_is_traced_to_its_own_subject(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {}, "02": {}}, n_buckets=1)
    cohort.build()
    out = cohort.layout.ledger
    words = ["ledger", "--results", str(tmp_path), "--out", str(out)]
    assert main([*words, "--config-json", canonical_json({"stage": "ledger", "version": 1, "config": {}})]) == 0
    (scan,), (other,) = cohort.tickets["01"], cohort.tickets["02"]
    for table in ("timeseries", "fc", "pfc"):
        text = "\n".join(trace(Ledger.load(tmp_path), f"{cohort.shard(table, 0, SECOND)}#scan={scan}"))
        assert f"{scan}_{SECOND}.tsv" in text and other not in text, table


def test_a_scan_without_one_atlas_goes_on_with_the_other(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {"scans": 2}}, n_buckets=1)
    first, second = cohort.tickets["01"]
    path = cohort.layout.parcellated(0)
    manifest = read_json(path)
    refused = {"status": "quarantined", "stage": "parcellate", "reason": "no parcel is covered", "fix": "look"}
    manifest["scans"][second]["atlases"]["Toy-6"] = refused
    write_json(path, manifest)
    snapshot = Snapshot.load(cohort.build())
    rows = snapshot.scans().set_index("scan_id")["atlases"].map(list)
    assert dict(rows) == {first: ["Toy-6", SECOND], second: [SECOND]}
    for table in ("timeseries", "fc", "pfc"):
        assert list(snapshot.scans(having=table)["scan_id"]) == [first]
        assert list(snapshot.scans(having=table, atlas=SECOND)["scan_id"]) == [first, second]
    with pytest.raises(BoldmillError, match="unknown scan"):
        snapshot.timeseries(second)


def test_an_atlas_without_a_shard_to_write_is_refused(make_cohort, tmp_path, capsys) -> None:
    cohort = make_cohort(tmp_path, {"01": {}}, n_buckets=1)
    assert main(cohort.clips_words(0)) == 0
    for words in (cohort.shard_words(0), cohort.augment_words(0)):
        assert main([word for word in words if SECOND not in word]) == 1
        assert "it has series of ['Toy-4', 'Toy-6']" in capsys.readouterr().err


def test_a_scan_without_ticket_stops_augmentation_by_name(make_cohort, tmp_path, capsys) -> None:
    cohort = make_cohort(tmp_path, {"01": {"scans": 2}}, n_buckets=1)
    first, second = cohort.tickets["01"]
    assert main([*cohort.augment_words(0), "--tickets", str(cohort.layout.ticket(first))]) == 1
    assert f"{second}: the manifest of parcel series has it" in capsys.readouterr().err


@pytest.mark.parametrize("estimator", ["pearson", "ledoit_wolf", "partial"])
@pytest.mark.parametrize("transformed", [False, True])
def test_stored_fc_says_what_it_is_and_no_reader_takes_it_for_another(
    make_cohort, tmp_path, estimator: Any, transformed: bool
) -> None:
    cohort = make_cohort(tmp_path, {"01": {}, "02": {}}, n_buckets=1)
    manifest = cohort.build()
    assert shard(cohort, 0, settings(fc_estimator=estimator, fisher_z=transformed)) == 0
    cohort.snapshot()
    snapshot = Snapshot.load(manifest)
    schema = pq.read_schema(cohort.shard("fc", 0))
    name = {"pearson": "correlation", "ledoit_wolf": "shrunk correlation", "partial": "partial correlation"}[estimator]
    assert schema.field("values").metadata[b"unit"].decode() == f"{'Fisher z of ' if transformed else ''}{name}"
    assert json.loads(schema.metadata[b"fisher_z"]) == {"toy": transformed}
    assert snapshot.fc_estimators() == {"toy": estimator}
    for scan in snapshot.scans()["scan_id"]:
        series = cohort.series(scan).astype(np.float64)
        expected = vectorise(correlation(series, estimator=estimator))
        stored = snapshot.rows("fc").array(snapshot.rows("fc").at(scan), "values")
        np.testing.assert_allclose(stored, fisher_z(expected) if transformed else expected, atol=1e-6)
        np.testing.assert_allclose(snapshot.fc([scan])[0], expected, atol=1e-6)
        np.testing.assert_allclose(snapshot.pearson([scan])[0], vectorise(correlation(series)), atol=1e-6)


def test_data_sets_may_differ_in_their_fc(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {}, "02": {}}, n_buckets=1)
    (scan,) = cohort.tickets["02"]
    ticket = cohort.layout.ticket(scan)
    write_json(ticket, {**read_json(ticket), "dataset": "other"})
    subject = cohort.layout.subject("toy", "02")
    write_json(subject, {**read_json(subject), "dataset": "other"})
    config = json.loads(settings(fc_estimator="pearson", fisher_z=False))
    config["overrides"] = {"other": {"parcellate": {"fisher_z": True, "fc_estimator": "partial"}}}
    cohort.build()
    assert shard(cohort, 0, canonical_json(config)) == 0
    cohort.snapshot()
    snapshot = Snapshot.load(cohort.layout.snapshot("latest"))
    unit = pq.read_schema(cohort.shard("fc", 0)).field("values").metadata[b"unit"].decode()
    assert unit == "Fisher z of partial correlation or correlation"
    assert snapshot.fc_estimators() == {"other": "partial", "toy": "pearson"}
    (plain,) = cohort.tickets["01"]
    both = snapshot.fc([scan, plain])
    for got, name, estimator in zip(both, (scan, plain), ("partial", "pearson"), strict=True):
        expected = vectorise(correlation(cohort.series(name), estimator=estimator))  # type: ignore[arg-type]
        np.testing.assert_allclose(got, expected, atol=1e-6)


def add_table(cohort: Any, bucket: int, status: str = "ok") -> str:
    """Add a table of parcel series with an atlas of its own to a bucket; return its scan id."""
    scan_id = f"tab_sub-x{bucket}"
    source = {"path": "all.npz", "member": "x", "size": 1, "sha256": "f" * 64}
    ticket = {"schema": 1, "scan_id": scan_id, "dataset": "tab", "subject": f"x{bucket}", "session": "", "task": ""}
    ticket |= {"run": "", "kind": "table", "bucket": bucket, "root": ".", "entities": {}, "series": [source]}
    write_json(cohort.layout.ticket(scan_id), {**ticket, "metadata": {"RepetitionTime": 1.5}, "atlas": "Own-3"})
    series = np.random.default_rng(bucket).standard_normal((35, 3)).astype(np.float32)
    lines = ["\t".join(f"r{i}" for i in range(3)), *("\t".join(repr(float(v)) for v in row) for row in series)]
    (cohort.results / "parcels" / f"{scan_id}.tsv").write_text("\n".join(lines) + "\n")
    path = cohort.layout.parcellated(bucket)
    manifest = read_json(path)
    manifest["atlases"]["Own-3"] = {"name": "Own-3", "parcels": ["r0", "r1", "r2"]}
    one = {"status": "ok", "files": {"timeseries": f"parcels/{scan_id}.tsv"}, "qc": {}}
    entry = {"status": "ok", "kind": "table", "tr": 1.5, "n_volumes": 35, "atlases": {"Own-3": one}}
    refused = {"status": "quarantined", "stage": "parcellate", "reason": "r", "fix": "f", "atlases": {}}
    manifest["scans"][scan_id] = {**entry, "qc": {"n_parcels": 3}, "flags": ["x"]} if status == "ok" else refused
    write_json(path, manifest)
    people = read_json(cohort.layout.participants(bucket))
    people["subjects"][f"tab/x{bucket}"] = {"site": "T", "family": "", "phenotypes": {"age": 31}}
    write_json(cohort.layout.participants(bucket), people)
    return scan_id


def table_words(cohort: Any, bucket: int) -> tuple[list[str], list[str], list[str]]:
    """Write the clips; return the words of shards, augment and snapshot, with the table's ticket and atlas."""
    assert main(cohort.clips_words(bucket)) == 0
    ticket = str(cohort.layout.ticket(f"tab_sub-x{bucket}"))
    shards, augment = cohort.shard_words(bucket), cohort.augment_words(bucket)
    shards.insert(shards.index("--tickets") + 1, ticket)
    for words, option, table in ((shards, "--out-timeseries", "timeseries"), (shards, "--out-fc", "fc")):
        words.insert(words.index(option) + 3, str(cohort.shard(table, bucket, "Own-3")))
    augment.insert(augment.index("--out") + 3, str(cohort.shard("pfc", bucket, "Own-3")))
    return shards, augment, [*cohort.snapshot_words(), "Own-3"]


def test_a_table_reaches_the_shards_of_its_own_atlas(make_cohort, tmp_path) -> None:
    """It has no subject manifest, no flat map, and no digest of a stage that never saw it."""
    cohort = make_cohort(tmp_path, {"01": {}}, n_buckets=1)
    scan_id = add_table(cohort, 0)
    digests = {}
    for stage, out, inputs in (
        ("preprocess", cohort.layout.subject("toy", "01"), []),
        ("parcellate", cohort.layout.parcellated(0), [cohort.layout.subject("toy", "01")]),
    ):
        made = Settings(canonical_json({"stage": stage, "version": 1, "config": {}}))
        with Recorder(made, out=out, inputs=inputs):
            digests[stage] = made.digest
    shards, augment, snap = table_words(cohort, 0)
    assert main(shards) == main(augment) == 0
    out = cohort.layout.snapshot("latest")
    config = canonical_json({"stage": "snapshot", "version": 1, "config": {"snapshot": {}, "inclusion": {}},
                             "overrides": {}, "seed": 7})  # fmt: skip
    assert main([*snap, "--out", str(out), "--config-json", config]) == 0
    snapshot = Snapshot.load(out)
    table = snapshot.scans().set_index("scan_id")
    row = table.loc[scan_id]
    assert (row["kind"], row["tr"], row["n_volumes"], row["n_clips"], row["site"]) == ("table", 1.5, 35, 0, "T")
    assert (
        list(row["atlases"]) == ["Own-3"] and list(row["source_sha256"]) == ["f" * 64] and list(row["flags"]) == ["x"]
    )
    assert snapshot.timeseries(scan_id, "Own-3").shape == (35, 3)
    assert snapshot.fc_matrix(scan_id, "Own-3").shape == (3, 3) and snapshot.pfc(scan_id, "Own-3").shape == (3, 3)
    assert list(snapshot.scans(having="timeseries")["scan_id"]) == cohort.tickets["01"]
    for name, where in (("timeseries", shards), ("pfc", augment)):
        own = pairs(pq.read_table(cohort.shard(name, 0, "Own-3"))["stage_digests"].to_pylist()[0])
        other = pairs(pq.read_table(cohort.shard(name, 0))["stage_digests"].to_pylist()[0])
        assert own["parcellate"] == other["parcellate"] == digests["parcellate"], where[0]
        assert other["preprocess"] == digests["preprocess"] and "preprocess" not in own


def test_a_refused_table_has_no_row_and_one_nobody_speaks_of_stops_the_job(make_cohort, tmp_path, capsys) -> None:
    cohort = make_cohort(tmp_path, {"01": {}}, n_buckets=1)
    scan_id = add_table(cohort, 0, status="quarantined")
    shards, augment, _ = table_words(cohort, 0)
    assert main(shards) == main(augment) == 0
    assert scan_id not in pq.read_table(cohort.shard("scans", 0))["scan_id"].to_pylist()
    assert pq.read_metadata(cohort.shard("fc", 0, "Own-3")).num_rows == 0
    path = cohort.layout.parcellated(0)
    manifest = read_json(path)
    del manifest["scans"][scan_id]
    write_json(path, manifest)
    assert main(shards) == 1
    assert scan_id in capsys.readouterr().err
