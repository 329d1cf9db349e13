"""70,000 scans in 30 data sets through the real Snakefile: exact jobs, and time and memory of a laptop."""

from pathlib import Path

import pytest

from boldmill.bench.plan import GIB, SCANS, SECONDS, command, job_counts, measure
from boldmill.bench.plan_case import study, write_study
from boldmill.index.read import TABLE, read_index
from boldmill.plan.command import snakefile
from boldmill.setup.init import BUCKET_SCANS

ONCE = (
    *("templates", "atlas", "operator_parcels", "operator_ribbon", "operator_flat", "operator_meshes"),
    *("cohort_page", "snapshot", "freeze_shards", "freeze", "interpret_model", "report_page", "ledger"),
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    write_study(folder, study(SCANS), SCANS)
    return folder


def test_a_study_has_what_large_ones_have(large: Path) -> None:
    index = read_index(large / "results")
    assert len(index.scans) == SCANS and len({scan.dataset for scan in index.scans}) == 30
    assert {scan.kind for scan in index.scans} == {"volume", "anat", TABLE} and index.quarantined
    assert {scan.session for scan in index.scans} == {"", "1", "2"}
    assert {scan.run for scan in index.scans} == {"", "1", "2", "3", "4"}
    held = [len(index.scans_in(bucket)) for bucket in index.buckets()]
    assert sum(held) / index.n_buckets == pytest.approx(BUCKET_SCANS, abs=1)
    assert max(held) < 2.5 * BUCKET_SCANS  # people are dealt by a hash, never by position


def test_the_dry_run_has_a_few_jobs_per_bucket_and_is_quick(large: Path) -> None:
    index = read_index(large / "results")
    buckets, images = len(index.buckets()), len(index.preprocessed_buckets())
    took = command(["snakemake", "-s", str(snakefile()), "--cores", "2", "-n", "--quiet", "rules"], large)
    expected = dict.fromkeys(ONCE, 1) | {"train_model": 3, "evaluate_model": 3}
    expected |= dict.fromkeys(("preprocess_bucket", "flatmap_bucket", "pages_bucket"), images)
    expected |= dict.fromkeys(("parcellate_bucket", "augment_bucket", "clips_bucket", "shard_bucket"), buckets)
    assert job_counts(took.text) == expected
    assert took.cpu_s < SECONDS and took.gib < GIB  # wall time is a bench's: other tests share the cores here


def test_a_plan_of_it_is_quick_too(large: Path) -> None:
    took = command(["boldmill", "plan", "--snakefile", str(snakefile()), "--cores", "2"], large)
    index = read_index(large / "results")
    scans = sum(scan.kind != TABLE for scan in index.ok)
    line = f"preprocess: {scans:,} scans in {len(index.preprocessed_buckets()):,} jobs, because not made yet"
    assert line in took.text.splitlines()
    assert took.cpu_s < SECONDS and took.gib < GIB


def test_the_bench_measures_a_smaller_study() -> None:
    rows = measure(1, quick=True)
    assert [row.unit for row in rows] == ["s", "s", "GiB", "s", "s", "GiB", "s", "s", "s", "GiB"]
    assert all(row.ours > 0 and row.peer for row in rows) and all(row.met is None for row in rows)
    assert "nothing to do" in rows[-1].name
