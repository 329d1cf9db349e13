import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from boldmill import tables
from boldmill.atomic import canonical_json, read_json, sha256_file, write_json
from boldmill.cli import main
from boldmill.errors import BoldmillError
from boldmill.paths import SHARD_TABLES
from boldmill.provenance.record import Recorder, prov_path
from boldmill.represent.parcellate import series_tsv
from boldmill.shards.build import read_timeseries
from boldmill.shards.clips import clip_starts, decode_mask, encode_mask
from boldmill.shards.write import FILTERED, shard_writer
from boldmill.stages import Settings

ALL = (*SHARD_TABLES, "pfc")
STAGE_OF = {"fc": "shards", "pfc": "augment", "flat_clips": "clips"}
LATER = {"parcellate", "augment", "shards"}
"""Stages that flat clips owe nothing to."""


@pytest.mark.parametrize("table", ALL)
def test_every_shard_is_valid(cohort, table: str) -> None:
    read = [pq.read_table(cohort.shard(table, bucket)) for bucket in range(3)]
    for one in read:
        tables.validate(one, table)
    assert sum(len(one) for one in read) > 0


def test_tables_hold_exactly_the_scans_that_came_so_far(cohort, subjects) -> None:
    found = {t: set() for t in ALL}
    for table in ALL:
        for bucket in range(3):
            found[table] |= set(pq.read_table(cohort.shard(table, bucket))["scan_id"].to_pylist())
    every = {scan for names in cohort.tickets.values() for scan in names}
    refused = set(cohort.tickets["05"])
    assert found["scans"] == found["timeseries"] == found["fc"] == every - refused
    assert found["pfc"] == every - refused - set(cohort.tickets["04"])  # 22 volumes: a view would keep 18
    assert found["flat_clips"] == every - refused - set(cohort.tickets["07"])  # 3 frames: no whole clip


def test_a_short_scan_is_listed_beside_the_pfc_shard(cohort) -> None:
    listed = {}
    for bucket in range(3):
        path = cohort.shard("pfc", bucket)
        sidecar = read_json(path.with_suffix(".quarantine.json"))
        assert sidecar["stage"] == "augment"
        assert json.loads(pq.read_schema(path).metadata[b"quarantine"]) == sidecar["scans"]
        listed |= sidecar["scans"]
    assert list(listed) == cohort.tickets["04"]
    assert "18 of 22" in listed[cohort.tickets["04"][0]]["reason"]


@pytest.mark.parametrize("table", ALL)
def test_the_same_input_gives_the_same_bytes(cohort, table: str) -> None:
    before = {bucket: sha256_file(cohort.shard(table, bucket)) for bucket in range(3)}
    for bucket in range(3):
        assert main(cohort.words_of(table, bucket)) == 0
        assert sha256_file(cohort.shard(table, bucket)) == before[bucket]


def test_a_new_subject_changes_its_own_bucket_only(make_cohort, cohort, subjects, tmp_path) -> None:
    other = make_cohort(tmp_path / "elsewhere", {**subjects, "new": {"site": "A"}})
    other.build()
    (bucket,) = [b for b, names in other.buckets.items() if "new" in names]
    for table in ALL:
        changed = {b for b in range(3) if sha256_file(other.shard(table, b)) != sha256_file(cohort.shard(table, b))}
        assert changed == {bucket}, table


def test_an_empty_bucket_is_valid(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {}}, n_buckets=3)
    cohort.build()
    empty = next(b for b, names in cohort.buckets.items() if not names)
    for table in ALL:
        read = pq.read_table(cohort.shard(table, empty))
        tables.validate(read, table)
        assert len(read) == 0


def test_pandas_reads_every_table_and_two_lines_decode_a_row(cohort) -> None:
    scan = cohort.tickets["00"][0]
    bucket = next(b for b, names in cohort.buckets.items() if "00" in names)
    frames = {t: pd.read_parquet(cohort.shard(t, bucket)).set_index("scan_id") for t in ALL}
    row = frames["timeseries"].loc[scan]
    values = np.frombuffer(row["values"], dtype="<f4")
    series = values.reshape(row["n_volumes"], row["n_parcels"])
    expected = cohort.series(scan)
    np.testing.assert_array_equal(series, expected)
    upper = np.triu_indices(6, 1)
    reference = np.corrcoef(expected.astype(np.float64), rowvar=False)[upper]
    np.testing.assert_allclose(np.stack(frames["fc"].loc[[scan], "values"])[0], reference, atol=1e-7)
    clips = frames["flat_clips"].loc[[scan]]
    flat = np.load(cohort.frames(scan))
    got = np.concatenate([np.frombuffer(c["values"], "<f2").reshape(c["n_frames"], -1) for _, c in clips.iterrows()])
    np.testing.assert_array_equal(got, flat["frames"][:8])
    np.testing.assert_array_equal(np.frombuffer(clips.iloc[0]["mean"], "<f4"), flat["mean"])
    assert clips.iloc[1]["mean"] is None
    phenotypes = json.loads(frames["scans"].loc[scan, "phenotypes"])
    assert phenotypes == {"age": 22, "group": "x", "missing": None}
    assert frames["scans"].loc[scan, "licence"] == "CC0"


def chunks(path: Path) -> list[Any]:
    """Every column chunk of every row group."""
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    return [group.column(c) for group in groups for c in range(group.num_columns)]


@pytest.mark.parametrize("table", ALL)
def test_numbers_are_stored_as_they_are_and_all_else_as_zstd(cohort, table: str) -> None:
    bucket = max(cohort.buckets, key=lambda b: len(cohort.buckets[b]))
    numbers = {c.name for c in tables.columns(table) if c.type in ("array", "vector")}
    found = {c.path_in_schema: c for c in chunks(cohort.shard(table, bucket))}
    assert {name.split(".")[0] for name in found} == {c.name for c in tables.columns(table)}
    for name, chunk in found.items():
        plain = name.split(".")[0] in numbers
        assert chunk.compression == ("UNCOMPRESSED" if plain else "ZSTD"), name
        assert not (plain and chunk.has_dictionary_page)
        assert chunk.is_stats_set == (name in FILTERED), name


@pytest.mark.parametrize("table", ["timeseries", "pfc", "flat_clips"])
def test_the_bytes_of_an_array_lie_together_in_the_file(cohort, table: str) -> None:
    """As the head of boldmill.shards.write says: a reader may fetch them from their place."""
    bucket = max(cohort.buckets, key=lambda b: len(cohort.buckets[b]))
    path = cohort.shard(table, bucket)
    file, content = pq.ParquetFile(path), path.read_bytes()
    found = []
    for group in range(file.metadata.num_row_groups):
        values = file.read_row_group(group, columns=["values"])["values"].to_pylist()
        (chunk,) = [c for c in chunks(path) if c.path_in_schema == "values"][group : group + 1]
        end = chunk.data_page_offset + chunk.total_compressed_size
        for value in reversed(values):
            assert content[end - len(value) : end] == value
            assert int.from_bytes(content[end - len(value) - 4 : end - len(value)], "little") == len(value)
            end -= len(value) + 4
            found.append(value)
    assert len(found) == file.metadata.num_rows > 1


def test_row_groups_are_sorted_and_small(cohort) -> None:
    bucket = max(cohort.buckets, key=lambda b: len(cohort.buckets[b]))
    scans = pq.ParquetFile(cohort.shard("scans", bucket)).metadata
    assert all(scans.row_group(g).num_rows <= 3 for g in range(scans.num_row_groups))
    statistics = scans.row_group(0).column(0).statistics
    assert statistics.min == sorted(s for n in cohort.buckets[bucket] for s in cohort.tickets[n])[0]


def test_large_rows_close_a_row_group_by_bytes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("boldmill.shards.write.GROUP_BYTES", 1 << 20)
    path = tmp_path / "x.parquet"
    base = {
        "dataset": "d",
        "subject": "s",
        "atlas": "A",
        "source_sha256": [],
        "pipeline_version": "",
        "stage_digests": [],
    }
    with shard_writer(path, tables.schema("pfc"), 1000) as writer:
        for view in range(5):
            values = np.zeros(300_000, "<f2").tobytes()  # 600 kB
            writer.add({**base, "scan_id": "a", "view": view, "n_kept": 9, "n_edges": 300_000, "values": values})
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)] == [2, 2, 1]


def test_unsorted_rows_are_refused_and_leave_no_file(tmp_path) -> None:
    path = tmp_path / "x.parquet"
    row = {
        "dataset": "d",
        "subject": "s",
        "atlas": "A",
        "source_sha256": [],
        "pipeline_version": "",
        "stage_digests": [],
    }
    row |= {"scan_id": "a", "n_kept": 9, "n_edges": 0, "values": b""}
    with pytest.raises(BoldmillError, match="sorted"), shard_writer(path, tables.schema("pfc"), 10) as writer:
        writer.add({**row, "view": 1})
        writer.add({**row, "view": 1})
    assert list(tmp_path.iterdir()) == []


def test_digests_of_all_upstream_stages_are_in_every_row(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {}, "02": {}}, n_buckets=1)
    layout = cohort.layout
    raw, template = tmp_path / "raw", tmp_path / "template.json"
    raw.touch()
    template.touch()

    def record(stage: str, out: Path, *inputs: Path, clean: int = 0) -> str:
        settings = Settings(canonical_json({"stage": stage, "version": 1, "config": {"clean": clean}}))
        with Recorder(settings, out=out, inputs=inputs):
            pass
        return settings.digest

    shared = {"templates": record("templates", template)}
    own = {}
    for clean, name in enumerate(("01", "02")):  # as of two data sets with their own settings
        ticket = layout.ticket(f"toy_sub-{name}_task-rest_run-1")
        record("ingest", ticket, raw)
        own[name] = record("preprocess", layout.subject("toy", name), template, ticket, clean=clean)
    manifests = [layout.subject("toy", name) for name in own]
    shared["parcellate"] = record("parcellate", layout.parcellated(0), *manifests)
    shared["flatmap"] = record("flatmap", layout.flat(0), *manifests)
    assert cohort.make(0) == 0
    assert main(cohort.augment_words(0)) == 0
    own_of = {s: read_json(prov_path(cohort.shard(t, 0)))["settings_digest"] for t, s in STAGE_OF.items()}
    for table, left in (("fc", {"augment"}), ("pfc", {"flatmap", "clips", "shards"}), ("flat_clips", LATER)):
        expected = {stage: digest for stage, digest in (shared | own_of).items() if stage not in left}
        for row in pq.read_table(cohort.shard(table, 0), columns=["subject", "stage_digests"]).to_pylist():
            assert tables.pairs(row["stage_digests"]) == {**expected, "preprocess": own[row["subject"]]}


@pytest.mark.parametrize("command", ["clips", "shards", "augment"])
def test_a_ticket_that_is_not_the_one_preprocessed_is_refused(make_cohort, tmp_path, capsys, command: str) -> None:
    """Rows would name raw files that are not in them: so it is where ingest runs between two stages."""
    cohort = make_cohort(tmp_path, {"01": {}}, n_buckets=1)
    ticket, manifest = cohort.layout.ticket(cohort.tickets["01"][0]), cohort.layout.subject("toy", "01")
    preprocess = Settings(canonical_json({"stage": "preprocess", "version": 1, "config": {}}))
    with Recorder(preprocess, out=manifest, inputs=[ticket]):
        pass
    cohort.build()
    write_json(ticket, {**read_json(ticket), "bold": [{"path": "new.nii.gz", "size": 1, "sha256": "2" * 64}]})
    words = {"clips": cohort.clips_words, "shards": cohort.shard_words, "augment": cohort.augment_words}[command](0)
    assert main(words) == 1
    assert "the index changed meanwhile" in capsys.readouterr().err
    with Recorder(preprocess, out=manifest, inputs=[ticket]):
        pass
    assert main(words) == 0


def test_a_subject_without_bold_has_a_row_in_scans_only(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {"anat": True}, "02": {"anat": True, "t1w": False}}, n_buckets=1)
    cohort.build()
    rows = pq.read_table(cohort.shard("scans", 0)).to_pylist()
    assert [(r["scan_id"], r["kind"], r["n_volumes"], r["tr"], r["n_clips"]) for r in rows] == [
        ("toy_sub-01_T1w", "anat", 0, None, 0)
    ]
    assert len(rows[0]["morphometry"]) == 54
    assert tables.pairs(rows[0]["qc"]) == {"cnr": 3.0}
    for table in ("timeseries", "fc", "pfc", "flat_clips"):
        assert pq.read_metadata(cohort.shard(table, 0)).num_rows == 0


def test_quality_and_flags_of_a_t1w_come_from_its_own_entry(make_cohort, tmp_path) -> None:
    """preprocess lists such a scan too, with nothing in it: that must not hide what is known of the image."""
    cohort = make_cohort(tmp_path, {"01": {"anat": True}}, n_buckets=1)
    path = cohort.layout.subject("toy", "01")
    manifest = read_json(path)
    manifest["anat"]["flags"] = ["several_t1w"]
    empty = {"stage": "preprocess", "kind": "anat", "status": "ok", "files": {}, "qc": {}, "flags": []}
    write_json(path, {**manifest, "scans": {"toy_sub-01_T1w": empty}})
    cohort.build()
    (row,) = pq.read_table(cohort.shard("scans", 0)).to_pylist()
    assert (tables.pairs(row["qc"]), row["flags"]) == ({"cnr": 3.0}, ["several_t1w"])


def test_every_output_has_a_record_that_names_the_files_read(cohort) -> None:
    bucket = next(b for b, names in cohort.buckets.items() if "00" in names)
    for table in ALL:
        record = read_json(prov_path(cohort.shard(table, bucket)))
        inputs = {Path(i["path"]).name for i in record["inputs"]}
        read = f"{cohort.tickets['00'][0]}.npz" if table == "flat_clips" else f"{cohort.tickets['00'][0]}_Toy-6.tsv"
        assert read in inputs
        assert f"{cohort.shard(table, bucket)}" in {o["path"] for o in record["outputs"]}


def test_faults_found_here_are_listed_and_stop_nobody(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {"volumes": 2}, "02": {}, "03": {}}, n_buckets=1)
    (short,), (broken,), (good,) = (cohort.tickets[n] for n in ("01", "02", "03"))
    path = cohort.frames(broken)
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["frames"][3, 5] = np.inf
    np.savez(path, **arrays)
    assert cohort.make(0) == 0
    for table, stage, scan, reason in (
        ("scans", "shards", short, "fewer than 3"),
        ("flat_clips", "clips", broken, "finite"),
    ):
        sidecar = read_json(cohort.shard(table, 0).with_suffix(".quarantine.json"))
        assert sidecar["stage"] == stage and list(sidecar["scans"]) == [scan]
        assert sidecar["scans"][scan]["status"] == "quarantined" and reason in sidecar["scans"][scan]["reason"]
    ids = {t: set(pq.read_table(cohort.shard(t, 0))["scan_id"].to_pylist()) for t in SHARD_TABLES}
    assert ids["timeseries"] == ids["fc"] == {broken, good}
    assert ids["flat_clips"] == {short, good}
    scans = {r["scan_id"]: r for r in pq.read_table(cohort.shard("scans", 0)).to_pylist()}
    assert [scans[s]["atlases"] for s in (short, broken, good)] == [[], ["Toy-6", "Toy-4"], ["Toy-6", "Toy-4"]]
    assert [scans[s]["n_clips"] for s in (short, broken, good)] == [2, 0, 2]


def test_a_series_with_other_parcels_is_refused(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {"scans": 2}}, n_buckets=1)
    path = tmp_path / "parcels" / f"{cohort.tickets['01'][1]}_Toy-4.tsv"
    path.write_text(path.read_text().replace("p3", "q3", 1))
    assert cohort.make(0) == 1
    assert main(cohort.augment_words(0)) == 1
    assert not cohort.shard("scans", 0).exists()


LOOP = """
import sys
import numpy as np
from boldmill import tables
from boldmill.shards.write import FILTERED, shard_writer
base = {"dataset": "d", "subject": "s", "atlas": "A", "source_sha256": [], "pipeline_version": "", "stage_digests": []}
values = np.random.default_rng(0).random(50_000).astype("<f2").tobytes()
while True:
    with shard_writer(sys.argv[1], tables.schema("pfc"), 4) as writer:
        for view in range(40):
            writer.add({**base, "scan_id": "a", "view": view, "n_kept": 9, "n_edges": 50_000, "values": values})
    print("written", flush=True)
"""


def test_kill_in_the_middle_leaves_no_torn_file(tmp_path) -> None:
    for turn in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, str(tmp_path / "bucket-000.parquet")], stdout=subprocess.PIPE, env=os.environ
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        time.sleep(0.013 * (turn + 1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # as Snakemake and `boldmill snapshot` look for shards
        (found,) = tmp_path.glob("bucket-*.parquet")
        table = pq.read_table(found)
        tables.validate(table, "pfc")
        assert len(table) == 40
    assert list(tmp_path.glob(".tmp-*")), "no kill came in the middle of a file: the test saw nothing"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("1\tx\n", "no number"),
        ("1\t2\n3\n", "3 numbers, 2 rows"),
        ("1\t2\t3\n", "3 numbers"),
        ("1\t\n2\t3\n", "3 numbers"),
    ],
)
def test_a_damaged_series_is_refused_by_name(tmp_path, body: str, why: str) -> None:
    path = tmp_path / "series.tsv"
    path.write_text(f"a\tb\n{body}")
    with pytest.raises(BoldmillError, match=f"series.tsv: .*{why}"):
        read_timeseries(path)


def test_a_series_is_read_as_pandas_reads_it(tmp_path) -> None:
    values = np.random.default_rng(0).standard_normal((40, 7)).astype(np.float32)
    values[:, 3] = np.nan
    path = tmp_path / "series.tsv"
    path.write_text(series_tsv(list("abcdefg"), values))
    names, found = read_timeseries(path)
    expected = pd.read_csv(path, sep="\t", na_values=["n/a"], dtype=np.float32)
    assert names == list(expected.columns) and found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.to_numpy())


def test_lost_frames_are_named_with_what_makes_them_again(make_cohort, tmp_path, capsys) -> None:
    cohort = make_cohort(tmp_path, {"01": {}}, n_buckets=1)
    cohort.frames(cohort.tickets["01"][0]).unlink()
    assert main(cohort.clips_words(0)) == 1
    said = capsys.readouterr().err
    assert "no flat-map frames" in said and "snakemake -R flatmap_bucket" in said


def test_clips_know_nothing_of_phenotypes_and_parcels(make_cohort, tmp_path) -> None:
    """So no change of those asks for frames that are gone."""
    cohort = make_cohort(tmp_path, {"01": {}, "02": {"status": "quarantined"}}, n_buckets=1)
    assert cohort.make(0) == 0
    before = sha256_file(cohort.shard("flat_clips", 0))
    cohort.layout.participants(0).write_text("{}")
    cohort.layout.parcellated(0).write_text("{}")
    assert main(cohort.clips_words(0)) == 0
    assert sha256_file(cohort.shard("flat_clips", 0)) == before


def test_masks_survive_their_text() -> None:
    mask = np.random.default_rng(0).random((7, 11)) > 0.4
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)


@pytest.mark.parametrize("frames", [0, 3, 4, 7, 8, 50])
def test_clips_lie_inside_the_run(frames: int) -> None:
    starts = list(clip_starts(frames, 4, 3))
    assert starts == [s for s in range(0, max(frames, 1), 3) if s + 4 <= frames]


def test_a_run_shorter_than_a_clip_is_listed_with_its_reason(cohort) -> None:
    bucket = next(b for b, names in cohort.buckets.items() if "07" in names)
    sidecar = read_json(cohort.shard("flat_clips", bucket).with_suffix(".quarantine.json"))
    assert set(cohort.tickets["07"]) == set(sidecar["scans"])
    assert "3 frames of 1 s, a clip has 4" in sidecar["scans"][cohort.tickets["07"][0]]["reason"]


def test_two_faults_of_one_scan_are_both_told(make_cohort, tmp_path) -> None:
    cohort = make_cohort(tmp_path, {"01": {"volumes": 2, "frames": 3}}, n_buckets=1)
    assert cohort.make(0) == 0
    for table, reason in (("flat_clips", "3 frames"), ("scans", "fewer than 3 time points")):
        (entry,) = read_json(cohort.shard(table, 0).with_suffix(".quarantine.json"))["scans"].values()
        assert reason in entry["reason"]


@pytest.mark.parametrize("stage", ["preprocess", "parcellate", "flatmap"])
def test_a_scan_no_stage_says_anything_of_is_not_dropped_silently(make_cohort, tmp_path, capsys, stage: str) -> None:
    cohort = make_cohort(tmp_path, {"01": {"scans": 2}}, n_buckets=1)
    layout = cohort.layout
    path = {"preprocess": layout.subject("toy", "01"), "parcellate": layout.parcellated(0), "flatmap": layout.flat(0)}
    manifest = read_json(path[stage])
    del manifest["scans"][cohort.tickets["01"][1]]
    write_json(path[stage], manifest)
    assert cohort.make(0) == 1
    said = capsys.readouterr().err
    assert cohort.tickets["01"][1] in said and f"snakemake -R {stage}_" in said


def test_a_bucket_whose_every_scan_was_refused_gives_empty_shards_and_a_snapshot(make_cohort, tmp_path) -> None:
    people = {"01": {"status": "quarantined"}, "02": {"status": "quarantined", "t1w": False}}
    cohort = make_cohort(tmp_path, people, n_buckets=1)
    manifest = read_json(cohort.build())
    assert {shard["rows"] for shard in manifest["shards"]} == {0}
    for table in ALL:
        tables.validate(pq.read_table(cohort.shard(table, 0)), table)
