"""The failure table over all stages."""

import json

from boldmill.cli import main
from boldmill.index.quarantine import collect_quarantine, read_quarantine, write_quarantine


def manifest(tree, path, value):
    target = tree.results / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value))


def spoiled(tree):
    tree.good("01", "02", "03", "04")
    tree.bold("01").write_bytes(b"")
    rows = {row.subject: row for row in tree.ingest()}
    bad = {"status": "quarantined", "stage": "preprocess", "reason": "too few\tdegrees", "fix": "fewer confounds"}
    manifest(tree, "preprocess/ds/sub-02.json", {"scans": {"ds_sub-02_task-rest": bad}, "anat": {"status": "ok"}})
    manifest(tree, "preprocess/ds/sub-99.json", {"scans": {"ds_sub-99_task-rest": bad}})
    good = {"scans": {"ds_sub-03_task-rest": {"status": "ok"}}}
    manifest(tree, "preprocess/ds/sub-03.json", good)
    later = {"status": "quarantined", "reason": "no parcel is covered", "fix": "check the registration"}
    carried = {"status": "quarantined", "reason": "later words", "fix": ""}
    bucket = rows["03"].bucket
    scans = {"ds_sub-03_task-rest": later, "ds_sub-02_task-rest": carried}
    manifest(tree, f"parcellate/bucket-{bucket:03d}.json", {"scans": scans})
    manifest(tree, f"parcellate/bucket-{bucket:03d}.json.prov.json", {"outputs": []})
    return tree


def test_first_refusal_of_every_stage_counts_and_strangers_do_not(tree):
    rows = collect_quarantine(spoiled(tree).results)
    assert [(row.scan_id, row.stage, row.reason) for row in rows] == [
        ("ds_sub-01_task-rest", "ingest", "the file is empty"),
        ("ds_sub-02_task-rest", "preprocess", "too few degrees"),
        ("ds_sub-03_task-rest", "parcellate", "no parcel is covered"),
    ]
    assert rows[1].file == "preprocess/ds/sub-02.json"


def test_a_manifest_of_another_number_of_buckets_does_not_count(tree):
    spoiled(tree)
    stale = {"status": "quarantined", "reason": "words of an older run", "fix": "none"}
    manifest(tree, "flatmap/bucket-999.json", {"scans": {"ds_sub-04_task-rest": stale}})
    assert "ds_sub-04_task-rest" not in {row.scan_id for row in collect_quarantine(tree.results)}


def test_refused_t1w_of_an_anat_subject_is_listed(tree):
    tree.t1w("05")
    tree.ingest()
    anat = {"status": "quarantined", "reason": "no brain found", "fix": "look at the image"}
    manifest(tree, "preprocess/ds/sub-05.json", {"scans": {}, "anat": anat})
    (row,) = collect_quarantine(tree.results)
    assert (row.scan_id, row.subject, row.reason) == ("ds_sub-05_T1w", "05", "no brain found")


def test_table_is_written_and_read_back(tree):
    rows = write_quarantine(spoiled(tree).results)
    assert read_quarantine(tree.results / "quarantine.tsv") == rows


def test_status_counts_and_exits_3_with_quarantined_scans(tree, capsys):
    assert main(["status", "--results", str(spoiled(tree).results)]) == 3
    text = capsys.readouterr().out
    assert "ingest           3 of 4      scans" in text
    assert "preprocess       2 of 3      subjects" in text
    assert "3 quarantined" in text
    assert "fix: fewer confounds" in text


def test_status_exits_0_without_and_2_without_an_index(tree, capsys):
    assert main(["status", "--results", str(tree.base)]) == 2
    assert "snakemake ingest" in capsys.readouterr().err
    tree.good("01")
    tree.ingest()
    assert main(["status", "--results", str(tree.results)]) == 0


def test_every_row_has_the_columns_of_the_table(tree):
    columns = ["scan_id", "dataset", "subject", "stage", "reason", "fix", "file"]
    rows = write_quarantine(spoiled(tree).results)
    assert [list(row._asdict()) for row in rows] == [columns] * 3
    with open(tree.results / "quarantine.tsv", encoding="utf-8") as table:
        assert table.readline().rstrip("\n").split("\t") == columns


def test_a_scan_that_one_atlas_does_not_suit_is_listed_though_it_goes_on(tree):
    tree.good("01")
    (row,) = tree.ingest()
    refused = {"status": "quarantined", "stage": "parcellate", "reason": "no parcel is covered", "fix": "look"}
    entry = {"status": "ok", "atlases": {"A-1": {"status": "ok"}, "B-2": refused}}
    manifest(tree, f"parcellate/bucket-{row.bucket:03d}.json", {"scans": {row.scan_id: entry}})
    (found,) = collect_quarantine(tree.results)
    assert (found.scan_id, found.stage, found.fix) == (row.scan_id, "parcellate", "look")
    assert found.reason == "not in B-2: no parcel is covered"


def test_what_augment_refused_is_found_below_its_atlas(tree):
    tree.good("01")
    (row,) = tree.ingest()
    refused = {"status": "quarantined", "reason": "scan too short for pFC", "fix": "leave it out"}
    for atlas in ("A-1", "B-2"):
        path = f"shards/pfc/{atlas}/bucket-{row.bucket:03d}.quarantine.json"
        manifest(tree, path, {"scans": {row.scan_id: refused}})
    (found,) = collect_quarantine(tree.results)
    assert (found.stage, found.reason) == ("augment", "scan too short for pFC")
