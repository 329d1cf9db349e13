"""`boldmill clean`: what it lists, and that it deletes only that, only when told."""

import json

import pytest

from boldmill.cli import main


@pytest.fixture
def used(tree):
    """Two subjects with outputs, then one of them leaves the data set."""
    tree.good("01", "02")
    rows = {row.subject: row for row in tree.ingest()}
    r = tree.results

    def put(path, content=b"x" * 2000):
        (r / path).parent.mkdir(parents=True, exist_ok=True)
        (r / path).write_bytes(content)

    for subject, row in rows.items():
        clean = f"derivatives/ds/sub-{subject}/func/clean.nii.gz"
        put(clean)
        entry = {"status": "ok", "files": {"clean": clean, "mask": "nowhere"}}
        put(f"preprocess/ds/sub-{subject}.json", json.dumps({"scans": {row.scan_id: entry}}).encode())
        put(f"flatmap/ds/{row.scan_id}.npz")
        for stage in ("parcellate", "flatmap"):
            put(f"{stage}/bucket-{row.bucket:03d}.json", b"{}")
        put(f"shards/fc/Toy/bucket-{row.bucket:03d}.parquet")
    assert rows["01"].bucket != rows["02"].bucket
    put("work/scratch.nii")
    put("logs/a.log")
    put("shards/fc/Toy/.tmp-1-aa-bucket-000.parquet")
    for name in ("latest", "first", "second", "third"):
        put(f"datasets/{name}/manifest.json", json.dumps({"id": f"id of {name}"}).encode())
    put("models/brainmass/config.json", json.dumps({"snapshot": "id of first"}).encode())
    put("ablation/full/config.json", json.dumps({"snapshot": "id of second"}).encode())
    import shutil

    shutil.rmtree(tree.root / "sub-02")
    tree.ingest()
    return tree, rows


def listing(capsys, tree, *words):
    assert main(["clean", "--results", str(tree.results), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    starts = ("work", "temp", "logs", "orphans", "snapshots", "series")
    rows = [line.split() for line in lines if line.startswith(starts)]
    return {(row[0], row[-1].removeprefix(f"{tree.results}/")) for row in rows}, lines[-1]


def test_lists_everything_and_deletes_nothing(used, capsys):
    tree, rows = used
    before = sorted(tree.results.rglob("*"))
    capsys.readouterr()
    found, last = listing(capsys, tree)
    gone, bucket = rows["02"].scan_id, rows["02"].bucket
    assert found == {
        ("work", "work"),
        ("logs", "logs"),
        ("temp", "shards/fc/Toy/.tmp-1-aa-bucket-000.parquet"),
        ("orphans", "derivatives/ds/sub-02"),
        ("orphans", "preprocess/ds/sub-02.json"),
        ("orphans", f"flatmap/ds/{gone}.npz"),
        ("orphans", f"flatmap/bucket-{bucket:03d}.json"),
        ("orphans", f"parcellate/bucket-{bucket:03d}.json"),
        ("orphans", f"shards/fc/Toy/bucket-{bucket:03d}.parquet"),
        ("snapshots", "datasets/third"),  # models were trained on the first and the second
        ("series", "derivatives/ds/sub-01/func/clean.nii.gz"),
    }
    assert "nothing was deleted" in last
    assert sorted(tree.results.rglob("*")) == before


def test_delete_spares_series_unless_named_and_all_that_is_alive(used, capsys):
    tree, rows = used
    capsys.readouterr()
    listing(capsys, tree, "--delete")
    r = tree.results
    assert not (r / "work").exists()
    assert not (r / "derivatives/ds/sub-02").exists()
    assert (r / "derivatives/ds/sub-01/func/clean.nii.gz").exists()
    assert (r / f"flatmap/ds/{rows['01'].scan_id}.npz").exists()
    assert (r / "preprocess/ds/sub-01.json").exists()
    left = {("series", "derivatives/ds/sub-01/func/clean.nii.gz"), ("snapshots", "datasets/third")}
    assert listing(capsys, tree)[0] == left
    listing(capsys, tree, "--what", "series", "--delete")
    assert not (r / "derivatives/ds/sub-01/func/clean.nii.gz").exists()


def test_series_stay_while_their_flat_maps_are_not_done(used, capsys):
    tree, rows = used
    (tree.results / f"flatmap/bucket-{rows['01'].bucket:03d}.json").unlink()
    assert not {row for row in listing(capsys, tree)[0] if row[0] == "series"}


def test_unused_snapshots_go_only_when_named_and_the_configured_one_stays(used, capsys, tmp_path):
    tree, _ = used
    config = tmp_path / "my.yaml"
    config.write_text("snapshot: {name: third}\n")
    assert not {row for row in listing(capsys, tree, "--config", str(config))[0] if row[0] == "snapshots"}
    listing(capsys, tree, "--what", "snapshots", "--delete")
    assert sorted(path.name for path in (tree.results / "datasets").iterdir()) == ["first", "latest", "second"]


def test_links_are_removed_not_followed(used, capsys, tmp_path):
    tree, _ = used
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (tree.results / "work" / "link").symlink_to(outside)
    listing(capsys, tree, "--what", "work", "--delete")
    assert (outside / "precious").exists()


def test_unknown_kind_is_refused_with_the_nearest(used, capsys):
    tree, _ = used
    assert main(["clean", "--results", str(tree.results), "--what", "log"]) == 2
    assert "did you mean 'logs'?" in capsys.readouterr().err


def test_nothing_is_deleted_while_a_run_holds_the_folder(used, capsys, tmp_path, monkeypatch):
    tree, _ = used
    monkeypatch.chdir(tmp_path)
    lock = tmp_path / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert main(["clean", "--results", str(tree.results), "--delete"]) == 2
    assert "snakemake --unlock" in capsys.readouterr().err and (tree.results / "work").exists()
    assert main(["clean", "--results", str(tree.results)]) == 0


def test_a_model_that_cannot_be_read_keeps_every_snapshot(used, capsys):
    tree, _ = used
    (tree.results / "models/brainmass/config.json").write_text("{")
    assert main(["clean", "--results", str(tree.results), "--what", "snapshots", "--delete"]) == 2
    assert "brainmass" in capsys.readouterr().err and (tree.results / "datasets/third").exists()


def test_outputs_of_a_data_set_of_which_nothing_passed_are_no_orphans(used, capsys):
    tree, _ = used
    for path in tree.root.rglob("*_bold.json"):
        path.write_text("{")
    for path in (tree.root / "sub-01").rglob("*.nii.gz"):
        path.write_bytes(b"")
    rows = tree.ingest()
    assert rows and not any(row.ok for row in rows)
    found = {path for kind, path in listing(capsys, tree)[0] if kind == "orphans"}
    assert "derivatives/ds/sub-02" in found and not any("sub-01" in path for path in found)
