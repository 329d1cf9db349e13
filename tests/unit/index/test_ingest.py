"""`boldmill ingest` end to end on small trees: what is kept, what is refused and why, and what is touched."""

import json
import os
from pathlib import Path

import pytest

from boldmill.errors import ConfigError

REST = "task-rest"


def refused(rows, scan_id):
    row = rows[scan_id]
    assert row.status == "quarantined"
    assert row.ticket == ""
    assert row.fix
    return row.reason


def test_good_scans_get_tickets_that_hold_their_content(tree):
    tree.good("01", "02")
    tree.participants("participant_id age site\nsub-01 30 A\nsub-02 41 B")
    rows = tree.rows()
    assert sorted(rows) == ["sub-01_task-rest", "sub-02_task-rest"]
    row = rows["sub-01_task-rest"]
    assert (row.status, row.kind, row.tr, row.n_volumes, row.has_t1w) == ("ok", "volume", 2.0, 24, True)
    assert (row.site, row.licence, row.session, row.run) == ("A", "CC0", "", "")
    import hashlib

    ticket = tree.ticket("sub-01_task-rest")
    bold = tree.root / "sub-01/func/sub-01_task-rest_bold.nii.gz"
    assert ticket["bold"] == [
        {
            "path": "sub-01/func/sub-01_task-rest_bold.nii.gz",
            "size": bold.stat().st_size,
            "sha256": hashlib.sha256(bold.read_bytes()).hexdigest(),
        }
    ]
    assert ticket["t1w"][0]["path"] == "sub-01/anat/sub-01_T1w.nii.gz"
    assert ticket["root"] == str(tree.root)
    assert ticket["sidecars"] == ["sub-01/func/sub-01_task-rest_bold.json"]
    assert row.ticket_sha256 == hashlib.sha256(tree.ticket_path("sub-01_task-rest").read_bytes()).hexdigest()
    assert tree.table("quarantine.tsv") == []


def test_second_ingest_reads_nothing_and_touches_no_ticket(tree, monkeypatch):
    tree.good("01", "02")
    tree.ingest()
    before = tree.snapshot()
    times = {p: p.stat().st_mtime_ns for p in (tree.results / "index/tickets").iterdir()}
    from boldmill.index import cache

    def never(path, verify):
        raise AssertionError(f"read {path}")

    monkeypatch.setattr(cache, "examine", never)
    tree.ingest()
    assert tree.snapshot() == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_touched_but_identical_file_is_read_again_and_gives_the_same_ticket(tree, monkeypatch):
    tree.good("01", "02")
    tree.ingest()
    before = tree.snapshot()
    ticket = tree.ticket_path("sub-01_task-rest")
    time = ticket.stat().st_mtime_ns
    bold = tree.root / "sub-01/func/sub-01_task-rest_bold.nii.gz"
    os.utime(bold, ns=(1, 1))
    from boldmill.index import cache

    seen = []
    examine = cache.examine
    monkeypatch.setattr(cache, "examine", lambda path, verify: (seen.append(path), examine(path, verify))[1])
    tree.ingest()
    assert seen == [bold]
    assert tree.snapshot() == before
    assert ticket.stat().st_mtime_ns == time


def test_changed_content_changes_one_ticket_only(tree):
    tree.good("01", "02")
    tree.ingest()
    before = tree.snapshot()
    tree.bold("01", seed=99)
    bucket = next(row.bucket for row in tree.ingest() if row.subject == "01")
    after = tree.snapshot()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"tickets/ds_sub-01_task-rest.json", f"buckets/bucket-{bucket:03d}.json", "runs.parquet"}


def test_new_subject_changes_no_old_ticket_and_one_bucket(tree):
    tree.good("01", "02")
    tree.participants("participant_id age\nsub-01 30\nsub-02 41")
    tree.ingest()
    before = tree.snapshot()
    tree.good("01", "02", "03")
    tree.ingest()
    after = tree.snapshot()
    assert all(after[name] == before[name] for name in before if name.startswith("tickets/"))
    buckets = {row.bucket for row in tree.ingest() if row.subject == "03"}
    touched = {name for name in after if name.startswith("participants/") and after[name] != before.get(name)}
    assert touched == {f"participants/bucket-{bucket:03d}.json" for bucket in buckets}


def test_vanished_scan_leaves_a_tombstone_until_it_returns(tree):
    tree.good("01", "02")
    tree.ingest()
    bold = tree.root / "sub-02/func/sub-02_task-rest_bold.nii.gz"
    held = bold.read_bytes()
    digest = {row.scan_id: row.ticket_sha256 for row in tree.ingest()}["ds_sub-02_task-rest"]
    bold.write_bytes(held[:300])
    tree.ingest()
    assert not tree.ticket_path("sub-02_task-rest").exists()
    stone = {"scan_id": "ds_sub-02_task-rest", "ticket_sha256": digest, "reason": "quarantined at ingest"}
    assert tree.table("tombstones.tsv") == [stone]
    tree.ingest()
    assert tree.table("tombstones.tsv") == [stone]
    bold.write_bytes(held)
    tree.ingest()
    assert tree.table("tombstones.tsv") == []
    assert tree.ticket_path("sub-02_task-rest").exists()
    bold.unlink()
    assert "sub-02_task-rest" not in tree.rows()
    assert tree.table("tombstones.tsv")[0]["reason"] == "no longer in the data sets, or filtered out"


@pytest.mark.parametrize("content", [b"", b"scan_id\treason\n", b"scan_id\tticket_sha256\treason\nx\n", b"\xff\n"])
def test_damaged_tombstones_are_named(tree, content):
    tree.good("01")
    tree.ingest()
    path = tree.results / "index" / "tombstones.tsv"
    assert path.exists()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the tombstones"):
        tree.ingest()


FAULTS = {
    "truncated gzip": (
        lambda t: t.bold("01").write_bytes(t.bold("01").read_bytes()[:400]),
        "the gzip stream ends early: the file is truncated",
    ),
    "flipped bytes": (
        lambda t: t.bold("01").write_bytes(t.bold("01").read_bytes()[:-8] + b"\1\2\3\4\5\6\7\0"),
        "not a sound gzip stream (incorrect data check)",
    ),
    "not gzip": (
        lambda t: t.bold("01").write_bytes(b"hello" * 100),
        "not a sound gzip stream (incorrect header check)",
    ),
    "empty": (lambda t: t.bold("01").write_bytes(b""), "the file is empty"),
    "short data in a whole gzip": (
        lambda t: t.write("sub-01/func/sub-01_task-rest_bold.nii.gz", cut(t, 100)),
        "100 bytes fewer than its header promises: the file is truncated",
    ),
    "LFS pointer": (
        lambda t: t.bold("01").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "a Git LFS pointer, not the image",
    ),
    "annex pointer": (
        lambda t: t.bold("01").write_bytes(b"/annex/objects/MD5E-s10--0123456789abcdef0123456789abcdef.nii.gz\n"),
        "a git-annex pointer, not the image",
    ),
    "dead link": (lambda t: relink(t, "../../nowhere.nii.gz"), "the link points nowhere"),
    "absent annex content": (
        lambda t: relink(t, f"../../.git/annex/objects/xx/yy/{KEY}/{KEY}"),
        "its content is not here (git-annex)",
    ),
    "three dimensions": (
        lambda t: t.bold("01", shape=(6, 5, 4)),
        "the image has 3 dimensions (6, 5, 4), not 4",
    ),
    "five volumes": (
        lambda t: t.bold("01", shape=(6, 5, 4, 5)),
        "5 volumes, fewer than the 20 of index.min_volumes",
    ),
    "no repetition time": (
        lambda t: t.bold("01", sidecar={"EchoTime": 0.03}),
        "RepetitionTime is missing from its sidecars; the header says 2 s",
    ),
    "no sidecar, no header": (
        lambda t: ((t.root / "sub-01/func/sub-01_task-rest_bold.json").unlink(), t.bold("01", tr=0.0, sidecar={})),
        "RepetitionTime is missing from its sidecars; the header has none either",
    ),
    "zero": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": 0}),
        "RepetitionTime is 0 s, outside 0.1 to 12 s; the header says 2 s",
    ),
    "milliseconds": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": 2000}),
        "RepetitionTime is 2000 s, outside 0.1 to 12 s; it looks like milliseconds; the header says 2 s",
    ),
    "text": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": "2.0"}),
        "RepetitionTime is '2.0', not a number",
    ),
    "volume timing": (
        lambda t: t.bold("01", sidecar={"VolumeTiming": [0, 3, 9]}),
        "VolumeTiming instead of RepetitionTime",
    ),
    "slice count": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": 2.0, "SliceTiming": [0, 0.5, 1.0]}),
        "3 SliceTiming values for 4 slices along k",
    ),
    "slice count along i": (
        lambda t: t.bold(
            "01", sidecar={"RepetitionTime": 2.0, "SliceTiming": [0, 0.5, 1, 1.5], "SliceEncodingDirection": "i-"}
        ),
        "4 SliceTiming values for 6 slices along i-",
    ),
    "slice times beyond TR": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": 2.0, "SliceTiming": [0, 0.5, 1.0, 2.5]}),
        "SliceTiming reaches 2.5 s, not below the repetition time of 2 s",
    ),
    "slice times in milliseconds": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": 2.0, "SliceTiming": [0, 500, 1000, 1500]}),
        "SliceTiming reaches 1500 s, not below the repetition time of 2 s; it looks like milliseconds",
    ),
    "negative slice time": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": 2.0, "SliceTiming": [0, -0.5, 1.0, 1.5]}),
        "SliceTiming holds negative or infinite values",
    ),
    "slice times no list": (
        lambda t: t.bold("01", sidecar={"RepetitionTime": 2.0, "SliceTiming": "interleaved"}),
        "SliceTiming is not a list of numbers",
    ),
    "two files for one run": (
        lambda t: t.bold("01", ext=".nii"),
        "several files for one run: sub-01/func/sub-01_task-rest_bold.nii, sub-01/func/sub-01_task-rest_bold.nii.gz",
    ),
    "no T1w": (lambda t: (t.root / "sub-01/anat/sub-01_T1w.nii.gz").unlink(), "no T1w"),
    "only T1w broken": (
        lambda t: t.t1w("01").write_bytes(b""),
        "no usable T1w (sub-01/anat/sub-01_T1w.nii.gz: the file is empty)",
    ),
    "T1w with time": (
        lambda t: t.write("sub-01/anat/sub-01_T1w.nii.gz", t.nifti((16, 16, 16, 3))),
        "no usable T1w (sub-01/anat/sub-01_T1w.nii.gz: its dimensions are (16, 16, 16, 3))",
    ),
    "phase image": (
        lambda t: (
            (t.root / "sub-01/func/sub-01_task-rest_bold.nii.gz").unlink() or t.bold("01", rest="task-rest_part-phase")
        ),
        "part-phase is not read",
    ),
}
KEY = "MD5E-s4000--0123456789abcdef0123456789abcdef.nii.gz"


def relink(tree, target):
    path = tree.bold("01")
    path.unlink()
    path.symlink_to(target)


def cut(tree, n):
    import gzip

    return gzip.decompress(tree.bold("01").read_bytes())[:-n]


@pytest.fixture
def neighbours(trees, tmp_path):
    """The bytes of an index of two good subjects, and the tree to spoil."""
    tree = trees.Tree(tmp_path)
    tree.good("01", "02")
    tree.ingest()
    return tree, tree.snapshot()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_refuses_one_scan_by_name_and_leaves_its_neighbour_as_it_was(neighbours, name):
    tree, before = neighbours
    spoil, reason = FAULTS[name]
    spoil(tree)
    rows = tree.rows()
    bad = "sub-01_task-rest_part-phase" if name == "phase image" else "sub-01_task-rest"
    assert refused(rows, bad) == reason
    listed = tree.table("quarantine.tsv")
    assert [(row["scan_id"], row["stage"], row["reason"]) for row in listed] == [(f"ds_{bad}", "ingest", reason)]
    assert listed[0]["file"].startswith(str(tree.root))
    assert rows["sub-02_task-rest"].status == "ok"
    after = tree.snapshot()
    assert after["tickets/ds_sub-02_task-rest.json"] == before["tickets/ds_sub-02_task-rest.json"]
    assert "tickets/ds_sub-01_task-rest.json" not in after


def test_bad_json_sidecar_quarantines_its_run(tree):
    tree.good("01", "02")
    tree.write("sub-01/func/sub-01_task-rest_bold.json", "{not json")
    rows = tree.rows()
    assert refused(rows, "sub-01_task-rest").startswith("sub-01/func/sub-01_task-rest_bold.json: Expecting property")
    assert rows["sub-02_task-rest"].status == "ok"


@pytest.mark.parametrize(("tr", "unit"), [(2.0, "sec"), (2000.0, "msec"), (2e6, "usec"), (2000.0, "sec")])
def test_header_in_any_unit_agrees_with_the_sidecar(tree, tr, unit):
    tree.t1w("01")
    tree.bold("01", tr=tr, unit=unit)
    assert tree.rows()["sub-01_task-rest"].flags == "no slice timing; no row in participants.tsv"


def test_sidecar_wins_over_a_header_that_differs_and_the_scan_says_so(tree):
    tree.t1w("01")
    tree.bold("01", tr=1.7936)
    row = tree.rows()["sub-01_task-rest"]
    assert (row.status, row.tr) == ("ok", 2.0)
    assert "header TR 1.794 s differs; sidecar TR 2 s used" in row.flags


def test_multi_echo_keeps_the_middle_echo_and_refuses_the_others_by_name(tree):
    tree.t1w("01")
    for echo in (1, 2, 3):
        tree.bold("01", rest=f"task-rest_echo-{echo}", seed=echo)
    rows = tree.rows()
    assert rows["sub-01_task-rest_echo-2"].status == "ok"
    assert "echo-2 of 3 used" in rows["sub-01_task-rest_echo-2"].flags
    assert refused(rows, "sub-01_task-rest_echo-1") == (
        "echo-1 of a run with 3 series: the middle one, echo-2, is used"
    )
    assert refused(rows, "sub-01_task-rest_echo-3").startswith("echo-3 of a run with 3 series")


def test_combined_series_wins_over_its_echoes(tree):
    tree.t1w("01")
    for rest in ("task-rest", "task-rest_echo-1", "task-rest_echo-2"):
        tree.bold("01", rest=rest)
    rows = tree.rows()
    assert rows["sub-01_task-rest"].status == "ok"
    assert refused(rows, "sub-01_task-rest_echo-2").endswith("the combined series is used")


def test_single_echo_with_an_echo_entity_is_kept(tree):
    tree.t1w("01")
    tree.bold("01", rest="task-rest_echo-1")
    assert tree.rows()["sub-01_task-rest_echo-1"].status == "ok"


def test_run_1_and_run_01_are_the_same_run(tree):
    tree.t1w("01")
    tree.bold("01", rest="task-rest_run-1")
    tree.bold("01", rest="task-rest_run-01", seed=7)
    rows = tree.rows()
    assert len(rows) == 1
    assert "several files for one run" in next(iter(rows.values())).reason


def test_zero_padded_run_labels_stay_as_written(tree):
    tree.t1w("01")
    tree.bold("01", rest="task-rest_run-01")
    assert tree.rows()["sub-01_task-rest_run-01"].run == "01"


def test_t1w_comes_from_the_same_session_else_from_another(tree):
    tree.t1w("01", session="a")
    tree.t1w("01", session="b", seed=3)
    for session in "abc":
        tree.bold("01", session=session)
    rows = tree.rows()
    chosen = {s: tree.ticket(f"sub-01_ses-{s}_task-rest")["t1w"] for s in "abc"}
    assert [chosen[s][0]["session"] for s in "abc"] == ["a", "b", "a"]
    assert all(len(entry) == 1 for entry in chosen.values())
    assert "T1w of session a" in rows["sub-01_ses-c_task-rest"].flags
    assert "T1w" not in rows["sub-01_ses-b_task-rest"].flags


def test_among_t1w_of_one_session_plain_wins_and_broken_is_passed_over(tree):
    tree.t1w("01", name="ce-gd_T1w")
    tree.t1w("01", name="run-2_T1w")
    broken = tree.t1w("01", name="run-1_T1w")
    tree.bold("01")
    tree.rows()
    assert tree.ticket("sub-01_task-rest")["t1w"][0]["path"].endswith("run-1_T1w.nii.gz")
    assert [entry["path"].split("_")[1] for entry in tree.ticket("sub-01_task-rest")["t1w"]] == [
        "run-1",
        "run-2",
    ]  # not the one with contrast agent
    broken.write_bytes(broken.read_bytes()[:200])
    row = tree.rows()["sub-01_task-rest"]
    assert tree.ticket("sub-01_task-rest")["t1w"][0]["path"].endswith("run-2_T1w.nii.gz")
    assert "run-1_T1w.nii.gz passed over: the gzip stream ends early" in row.flags


def test_subject_without_bold_is_one_anat_scan(tree):
    tree.t1w("01")
    tree.t1w("02", session="x")
    tree.good("03")
    rows = tree.rows()
    assert [(key, row.kind, row.tr, row.n_volumes) for key, row in rows.items() if row.kind == "anat"] == [
        ("sub-01_T1w", "anat", None, None),
        ("sub-02_T1w", "anat", None, None),
    ]
    assert tree.ticket("sub-01_T1w")["bold"] == []
    assert tree.ticket("sub-02_T1w")["t1w"][0]["session"] == "x"
    assert "sub-03_T1w" not in rows


def test_broken_anat_scan_is_refused(tree):
    tree.t1w("01").write_bytes(b"")
    assert "the file is empty" in refused(tree.rows(), "sub-01_T1w")


def test_folders_that_hold_no_raw_data_are_left_out_and_reported(tree):
    tree.good("01")
    for place in ("derivatives/prep/sub-09/func", "sourcedata/sub-08/func", "sub-01/derivatives/func", "results/x"):
        tree.write(f"{place}/sub-07_task-rest_bold.nii.gz", b"x")
    tree.write("sub-01/func/sub-01_task-rest_space-MNI_desc-preproc_bold.nii.gz", b"x")
    assert sorted(tree.rows()) == ["sub-01_task-rest"]
    reasons = {row["path"]: row["reason"] for row in tree.table("ignored.tsv")}
    assert reasons == {
        "derivatives/": "not part of the data set; configure it as a data set of its own",
        "sourcedata/": "not part of the data set; configure it as a data set of its own",
        "sub-01/derivatives/func/sub-07_task-rest_bold.nii.gz": (
            "inside a folder that holds no raw data (derivatives)"
        ),
        "sub-01/func/sub-01_task-rest_space-MNI_desc-preproc_bold.nii.gz": (
            "a derivative (space- entity) inside a raw data set"
        ),
    }


def test_names_that_are_not_bids_are_reported_not_dropped(tree):
    tree.good("01")
    bad = {
        "sub-01/func/rest.nii.gz": "not a BIDS file name (sub-<label>[_<entity>-<label>...]_<suffix>)",
        "sub-01/func/sub-01_bold.nii.gz": "a BOLD run needs a task entity",
        "sub-01/func/sub-01_task-rest_variant-a_bold.nii.gz": "not a BIDS entity: variant-",
        "sub-01/func/sub-01_task-rest_run-a_bold.nii.gz": "run-a is not a number",
        "sub-01/func/sub-02_task-rest_bold.nii.gz": "subject or session of the name differ from those of its folder",
        "sub-01/func/sub-01_ses-1_task-rest_bold.nii.gz": (
            "subject or session of the name differ from those of its folder"
        ),
        "sub-01/anat/sub-01_task-rest_bold.nii.gz": "a bold image outside func/",
        "sub-01/sub-01_task-rest_bold.nii.gz": "not directly inside a data type folder (anat, func, ...)",
        "sub-01_old/func/sub-01_task-rest_bold.nii.gz": "not inside a sub-<label> folder",
        "sub-01/func/sub-01_task-rest_task-rest_bold.nii.gz": "an entity occurs twice in the name",
        "sub-01/anat/sub-01_desc-brain_T1w.nii.gz": "a derivative (desc- entity) inside a raw data set",
    }
    for path in bad:
        tree.write(path, b"x")
    assert sorted(tree.rows()) == ["sub-01_task-rest"]
    assert {row["path"]: row["reason"] for row in tree.table("ignored.tsv")} == bad


def test_bidsignore_is_respected_and_reported(tree):
    tree.good("01", "02")
    tree.write(".bidsignore", "# scans to leave out\nsub-02/\n*_T2w.nii.gz\n")
    assert sorted(tree.rows()) == ["sub-01_task-rest"]
    assert {row["reason"] for row in tree.table("ignored.tsv")} == {"listed in .bidsignore"}


def test_filters_keep_only_what_is_named(tree):
    tree.good("01", "02")
    tree.bold("01", rest="task-nback_run-01")
    tree.t1w("03")
    everything = {"sub-01_task-rest", "sub-01_task-nback_run-01", "sub-02_task-rest", "sub-03_T1w"}
    assert set(tree.rows()) == everything
    assert set(tree.rows(filters={"participant": ["01"]})) == {"sub-01_task-rest", "sub-01_task-nback_run-01"}
    assert set(tree.rows(filters={"task": ["rest"]})) == {"sub-01_task-rest", "sub-02_task-rest"}
    assert set(tree.rows(filters={"run": ["1"]})) == {"sub-01_task-nback_run-01"}


def test_session_filter_still_takes_a_t1w_of_another_session(tree):
    tree.t1w("01", session="a")
    tree.bold("01", session="a")
    tree.bold("01", session="b")
    rows = tree.rows(filters={"session": ["b"]})
    assert [(key, row.status) for key, row in rows.items()] == [("sub-01_ses-b_task-rest", "ok")]


def test_filters_that_no_scan_passes_together_are_refused(tree):
    tree.good("01", "02")
    tree.bold("02", rest="task-nback")
    with pytest.raises(ConfigError, match=r"datasets\[ds\].filters: each is there, but no scan has them all"):
        tree.ingest(filters={"participant": ["01"], "task": ["nback"]})


def test_filter_that_matches_nothing_is_refused_with_the_nearest_label(tree):
    tree.good("01")
    with pytest.raises(ConfigError, match=r"filters.task: 'rst' is not in the data set \(did you mean 'rest'\?\)"):
        tree.ingest(filters={"task": ["rst"]})


def test_missing_root_is_a_fault_of_the_configuration(tree, capsys):
    from boldmill.cli import main

    config = tree.config(root=str(tree.base / "nowhere"))
    assert main(["ingest", "--config", str(config)]) == 2
    assert "data set not found: datasets[ds].root" in capsys.readouterr().err
    assert main(["ingest", "--config", str(tree.config())]) == 2
    assert "holds no sub-* folder" in capsys.readouterr().err
    assert not tree.results.exists()


def test_per_dataset_override_of_the_checks(tree):
    tree.t1w("01")
    tree.bold("01", shape=(6, 5, 4, 12))
    assert "12 volumes" in refused(tree.rows(), "sub-01_task-rest")
    assert tree.rows(overrides={"index": {"min_volumes": 10}})["sub-01_task-rest"].status == "ok"


def test_root_with_a_dot_in_its_name(trees, tmp_path):
    tree = trees.Tree(tmp_path)
    tree.root = tmp_path / "ds000001-1.0.0"
    tree.good("01")
    assert tree.rows()["sub-01_task-rest"].status == "ok"


def test_two_data_sets_keep_their_own_site_and_licence(trees, tmp_path):
    a, b = trees.Tree(tmp_path, "a"), trees.Tree(tmp_path, "b")
    a.good("01")
    b.good("01")
    entries = [
        {"name": "a", "root": str(a.root), "site": "Rome"},
        {"name": "b", "root": str(b.root), "licence": "ODbL"},
    ]
    config = tmp_path / "both.yaml"
    config.write_text(json.dumps({"results": str(a.results), "datasets": entries}))
    from boldmill.cli import main
    from boldmill.index.read import read_index

    assert main(["ingest", "--config", str(config)]) == 0
    rows = {row.scan_id: row for row in read_index(a.results).scans}
    assert {key: (row.site, row.licence) for key, row in rows.items()} == {
        "a_sub-01_task-rest": ("Rome", "CC0"),
        "b_sub-01_task-rest": ("b", "ODbL"),
    }


def test_workflow_call_with_settings_text_gives_the_same_index(tree):
    from boldmill.cli import main
    from boldmill.config.load import load
    from boldmill.stages import stage_json

    tree.good("01")
    tree.ingest()
    first = tree.snapshot()
    text = stage_json(load(tree.config()), "ingest")
    other = tree.base / "other"
    assert main(["ingest", "--config-json", text, "--results", str(other)]) == 0
    tree.results = other
    assert tree.snapshot() == first
    assert main(["ingest", "--config-json", text]) == 2


def test_record_beside_the_index_names_settings_and_tickets(tree):
    tree.good("01")
    tree.ingest()
    record = json.loads((tree.results / "index/runs.parquet.prov.json").read_text())
    assert record["stage"] == "ingest"
    assert (record["scans"], record["quarantined"], record["files_read"]) == (1, 0, 2)
    names = {Path(entry["path"]).name for entry in record["outputs"]}
    assert {"runs.parquet", "ds_sub-01_task-rest.json", "quarantine.tsv", "tombstones.tsv"} <= names


def test_an_ingest_that_is_stopped_while_it_writes_is_not_planned_from(tree, monkeypatch):
    """Tickets would be new and lists old: Snakemake would find nothing to do."""
    from boldmill.index import write
    from boldmill.paths import Layout
    from boldmill.workflow import open_plan

    tree.good("01")
    tree.ingest()
    raw = {**tree.settings(), "results": str(tree.results)}
    look = {"raw": raw, "main_process": True, "argv": ["-n"]}
    assert open_plan(**look).index is not None
    assert not Layout.at(tree.results).index_unfinished.exists()

    def stopped(*_):
        raise KeyboardInterrupt

    tree.good("02")
    with monkeypatch.context() as patch:
        patch.setattr(write, "bury", stopped)
        with pytest.raises(KeyboardInterrupt):
            tree.ingest()
    with pytest.raises(ConfigError, match=r"stopped half-way.*snakemake ingest"):
        open_plan(**look)
    assert open_plan(**{**look, "argv": ["ingest"]}).index is None
    assert len(open_plan(**{**look, "main_process": False}).index.ok) == 1  # jobs that run go on
    assert len(open_plan(**{**look, "argv": ["--cores", "1"]}).index.ok) == 2  # made anew first
    assert not Layout.at(tree.results).index_unfinished.exists()
