"""The demo cohort through the whole line, checked against what is true of it."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.e2e


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_every_good_scan_went_through_and_every_bad_one_is_named(demo) -> None:
    good, truth = set(demo.demo["good_scans"]), demo.folder / "resources/demo/truth/bad_scans.tsv"
    table = {row["scan_id"]: row for row in rows(demo.results / "quarantine.tsv")}
    done = {scan_id for scan_id, scan in demo.scans().items() if scan["status"] == "ok"}
    assert {s for s in done if s.startswith("demo_")} == good
    assert len(good) == 18
    assert any(s.startswith("lemon_sub-010188") for s in done)
    assert set(table) == {row["scan_id"] for row in rows(truth)} == set(demo.demo["bad_scans"])
    for row in rows(truth):
        assert row["reason_keyword"].lower() in table[row["scan_id"]]["reason"].lower()
        assert table[row["scan_id"]]["fix"]


def test_the_run_ends_with_the_failure_table_and_status_3(demo) -> None:
    shown = demo.first.stdout + demo.first.stderr
    assert "building it before the workflow starts" in shown
    refused = rows(demo.results / "quarantine.tsv")
    for row in refused:
        assert row["reason"] in shown and row["fix"] in shown
    assert "sub-" not in shown  # whoever keeps this output keeps no names
    status = demo.run("boldmill", "status", check=False)
    assert status.returncode == 3
    assert all(row["scan_id"] in status.stdout for row in refused)


def test_a_second_call_has_nothing_to_do(demo) -> None:
    again = demo.snakemake()
    assert "Nothing to be done" in again.stdout + again.stderr
    assert "nothing to do" in demo.run("boldmill", "demo-data", "--out", "resources/demo").stdout


def test_motion_is_found(demo, e2e) -> None:
    errors = {}
    for scan_id in demo.demo["good_scans"]:
        scan = demo.scans()[scan_id]
        estimated = np.loadtxt(demo.results / scan["files"]["hmc"]).reshape(-1, 4, 4)
        errors[scan_id] = e2e.motion_error(estimated, *e2e.true_motion(demo, scan_id))
    assert max(error.mean() for error in errors.values()) <= 0.1, {k: v.mean() for k, v in errors.items()}


def test_the_head_is_put_where_it_belongs(demo, e2e) -> None:
    """The mean distance between the estimated and the true place of template brain points in the T1w."""
    import nibabel as nib

    mask = nib.load(demo.folder / "resources/demo/template/brain_mask.nii.gz")
    points = nib.affines.apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) > 0.5)[::97])
    fields = {
        scan["subject"]: scan["anat"]["files"]["to_subject"] for scan in demo.scans().values() if scan["anat"]["files"]
    }
    means = {}
    for subject, field in fields.items():
        truth = f"resources/demo/truth/sub-{subject}/sub-{subject}_from-template_to-T1w_displacement.nii.gz"
        found, true = e2e.displaced(demo.results / field, points), e2e.displaced(demo.folder / truth, points)
        means[subject] = np.linalg.norm(found - true, axis=1).mean()
    assert len(means) == 16 and max(means.values()) < 1.0, means


def test_parcel_series_are_the_planted_ones(demo) -> None:
    """r >= 0.8 with the truth after the same projection: cleaning also takes its share of the true signal."""
    from boldmill.config.load import load
    from boldmill.preprocess.confounds import read
    from boldmill.preprocess.design import plan

    config = load(demo.folder / "config.yaml")
    means = {}
    for scan_id in demo.demo["good_scans"]:
        scan = demo.scans()[scan_id]
        cleaning = plan(config.clean, read(demo.results / scan["files"]["confounds"]), scan["tr"], where=scan_id)
        truth = np.load(demo.truth(scan_id, "desc-signals_truth.npz"), allow_pickle=False)["signals"]
        expected, found = cleaning.operator @ truth, demo.series(scan_id)
        assert found.shape == (150, 100)
        covered = np.isfinite(found).all(axis=0)
        assert covered.sum() >= 95
        r = [np.corrcoef(expected[:, p], found[:, p])[0, 1] for p in np.flatnonzero(covered)]
        means[scan_id] = np.mean(r)
    assert min(means.values()) >= 0.8, means


def fc_baseline(line) -> dict[str, str]:
    """The row of the FC baseline on the group task, over all subjects."""
    wanted = ("group", "fc_logistic", "cv", "auc")
    metrics = rows(line.results / "evaluate" / "brainmass" / "metrics.tsv")
    found = [row for row in metrics if (row["task"], row["method"], row["protocol"], row["metric"]) == wanted]
    assert len(found) == 1
    return found[0]


def test_the_fc_baseline_finds_the_planted_group_effect(demo) -> None:
    assert float(fc_baseline(demo)["p_permutation"]) < 0.05
    assert float(fc_baseline(demo)["value"]) > 0.7


def test_a_cohort_without_the_effect_shows_none(null) -> None:
    assert float(fc_baseline(null)["p_permutation"]) > 0.05


def test_pre_trained_models_are_tested_on_subjects_they_never_saw(demo) -> None:
    snapshot = demo.json("results/datasets/first/manifest.json")
    for model in ("brainmass", "fmri_mae", "fm_app"):
        seen = json.dumps(demo.json(f"results/models/{model}/subjects.json"))
        heldout = [key for key, split in snapshot["subjects"].items() if split == "heldout"]
        assert heldout and not [key for key in heldout if f'"{key}"' in seen]
        table = [r for r in rows(demo.results / "evaluate" / model / "metrics.tsv") if r["model"] == model]
        protocols = {r["protocol"] for r in table if "_random_" not in r["method"] and r["metric"] != "n/a"}
        assert protocols and "cv" not in protocols
        assert all("were in pre-training" in r["note"] for r in table if r["metric"] == "n/a")


def test_flat_clips_are_finite_and_alive(demo) -> None:
    """Frames are temporary: what is left of them is clips, stills and movies."""
    from boldmill.shards.reader import Snapshot

    assert not list(demo.results.glob("flatmap/*.frames"))
    assert len(list(demo.results.glob("flatmap/*/*.png"))) == 19
    clips = Snapshot.load(demo.results / "datasets" / "first" / "manifest.json")
    rows_of, scans = clips.rows("flat_clips"), clips.scans(having="flat_clips")["scan_id"]
    assert len(scans) == 19 and clips.flat_mask.shape == (224, 560)
    for scan_id in scans:
        frames = rows_of.read(rows_of.all_of(scan_id), "values").astype(np.float32).reshape(-1, clips.flat_mask.sum())
        assert np.isfinite(frames).all()
        assert (frames.std(axis=0) > 0).all()


def test_new_shards_wait_until_a_snapshot_names_them(demo) -> None:
    """A changed phenotype reaches the latest snapshot, and no model; the report and `status` say so."""
    table = demo.folder / "resources" / "demo" / "bids" / "participants.tsv"
    before = table.read_text()
    models = {path: path.read_bytes() for path in demo.results.glob("models/*/model.safetensors")}
    frozen = (demo.results / "datasets" / "first" / "manifest.json").read_bytes()
    head, first, *others = before.splitlines()
    *cells, last = first.split("\t")
    try:
        table.write_text("\n".join([head, "\t".join([*cells, f"{last}1"]), *others]) + "\n")
        demo.snakemake("ingest")
        demo.snakemake()
        line = "buckets changed since; set snapshot.name to a new name to train on them"
        assert line in demo.run("boldmill", "status", "--config", "config.yaml", check=False).stdout
        assert line in (demo.results / "report" / "index.html").read_text()
        assert {path: path.read_bytes() for path in models} == models
        assert (demo.results / "datasets" / "first" / "manifest.json").read_bytes() == frozen
    finally:
        table.write_text(before)
        demo.snakemake("ingest")
        demo.snakemake()
    assert line not in (demo.results / "report" / "index.html").read_text()


def test_every_file_verifies_and_one_flipped_byte_is_named(demo) -> None:
    assert demo.run("boldmill", "audit", "verify").stdout.strip().endswith(" 0 problems")
    victim = demo.results / "models" / "brainmass" / "model.safetensors"
    data = victim.read_bytes()
    try:
        victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        done = demo.run("boldmill", "audit", "verify", check=False)
        assert done.returncode == 1
        assert "results/models/brainmass/model.safetensors: content changed" in done.stdout
    finally:
        victim.write_bytes(data)


def test_a_metric_is_traced_down_to_raw_files(demo) -> None:
    text = demo.run("boldmill", "audit", "trace", "results/evaluate/brainmass/metrics.tsv").stdout
    assert "sub-01_task-rest_bold.nii.gz" in text and "sub-01_T1w.nii.gz" in text
    assert "train_brainmass v" in text and "preprocess v" in text and "snapshot v" in text


def test_a_row_is_traced_to_its_own_subject(demo) -> None:
    shard = sorted(demo.results.glob("shards/fc/*/*.parquet"))
    scan = None
    for path in shard:
        import pyarrow.parquet as pq

        ids = [s for s in pq.read_table(path, columns=["scan_id"])["scan_id"].to_pylist() if s.startswith("demo_")]
        if len(ids) > 1:
            scan = ids[0]
            break
    assert scan is not None
    relative = path.relative_to(demo.folder)
    text = demo.run("boldmill", "audit", "trace", f"{relative}#scan={scan}").stdout
    assert set(re.findall(r"bids/sub-(\w+)/", text)) == {re.search(r"sub-(\w+?)_", scan)[1]}


def test_what_the_pages_say_of_tracing_works_on_the_demo(demo) -> None:
    root = Path(__file__).parents[2]
    pages = [(root / name).read_text(encoding="utf-8") for name in ("README.md", "docs/audit.md")]
    lines = [line for page in pages for line in page.splitlines() if line.startswith("    boldmill audit trace ")]
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line, comments=True)
        assert "sha256" in demo.run(*words).stdout


def test_the_report_is_one_page_that_says_it_all(demo) -> None:
    page = (demo.results / "report" / "index.html").read_text()
    for scan_id in [*demo.demo["good_scans"], *demo.demo["bad_scans"]]:
        assert scan_id in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert page.count("data:image/png;base64,") > 4 * len(demo.demo["good_scans"])
    assert "not that science was done" in page
    assert "Schaefer2018embedded" in page


def test_forcing_a_stage_gives_the_same_bytes(demo) -> None:
    shards = {path: path.read_bytes() for path in sorted(demo.results.glob("shards/fc/*/*.parquet"))}
    demo.snakemake("shards", "--forcerun", "parcellate_bucket")
    assert shards and {path: path.read_bytes() for path in shards} == shards
    demo.snakemake()
