"""Costs are sums of the table over the jobs, corrected by what this project measured."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from boldmill.atomic import write_json
from boldmill.cli import main
from boldmill.config.load import load, parse
from boldmill.index.read import Index, ScanRow
from boldmill.models.brainmass.architecture import design
from boldmill.models.brainmass.flops import step_flops
from boldmill.paths import Layout
from boldmill.plan.causes import CHANGED, Why
from boldmill.plan.dryrun import DryRun, Job
from boldmill.plan.estimate import Machine, Row, estimate, makespan, total, wall_s
from boldmill.plan.flops import block_flops, n_rois, train_flops
from boldmill.plan.measured import ENOUGH, Seen, factors, observed
from boldmill.plan.render import summary, table
from boldmill.plan.resources import Resources
from boldmill.plan.table import COSTS, CPU_GFLOPS, Work, training_s

ROOT = Path(__file__).parents[3]
FLAT = json.dumps({"stage": "flatmap", "version": 1, "config": {}, "overrides": {}})
PREP = FLAT.replace("flatmap", "preprocess")


def rows(n: int, bucket: int) -> list[ScanRow]:
    return [
        ScanRow(
            f"a_sub-{bucket}{i}_task-rest", "a", f"{bucket}{i}", "", "rest", "", "volume", "ok", bucket, "", "", 2.0,
            100 * (i + 1), True, "", "", "", "", "",
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    config = parse({"results": str(tmp_path), "spaces": {"resolution": 2.0}})
    return Resources(Index(tmp_path, [*rows(3, 0), *rows(2, 1)]), config)


def job(rule: str, settings: str, bucket: int, **more) -> Job:
    return Job(rule=rule, settings=settings, wildcards={"bucket": f"{bucket:03d}"}, **more)


def test_a_row_adds_up_the_table_over_its_jobs(resources: Resources) -> None:
    jobs = [job("flatmap_bucket", FLAT, 0), job("flatmap_bucket", FLAT, 1)]
    (row,) = estimate(jobs, {}, resources, {}, Machine(cores=2))
    cost = COSTS["flatmap"]
    expected = 2 * cost.job_s + 5 * cost.scan_s + (600 + 300) * cost.volume_s
    assert row.cpu_s == pytest.approx(expected) and row.gpu_s == 0 and row.measured == 0
    assert (row.jobs, row.scans) == (2, 5)
    assert row.memory_mib == pytest.approx(cost.base_mib + 300 * cost.longest_mib)  # of the longest scan
    assert row.disk_mib == pytest.approx(5 * cost.scan_mib)
    assert row.temporary_mib == pytest.approx(900 * cost.temporary_mib) and cost.temporary_mib > 0
    resources.config = parse({"flatmap": {"keep": ["frames"]}})
    (kept,) = estimate(jobs, {}, resources, {}, Machine(cores=2))
    assert kept.temporary_mib == 0 and kept.disk_mib == pytest.approx(row.disk_mib + row.temporary_mib)
    assert row.wall_s == pytest.approx(max(expected / 2, cost.job_s + 3 * cost.scan_s + 600 * cost.volume_s))


def test_only_the_subjects_to_do_again_are_counted_where_the_others_are_kept(resources: Resources) -> None:
    one = Why(scans={CHANGED: frozenset({"a_sub-01_task-rest"})})
    jobs = [job("preprocess_bucket", PREP, 0, threads=4)]
    (row,) = estimate(jobs, {0: one}, resources, {}, Machine(cores=4))
    cost = COSTS["preprocess"]
    assert row.scans == 1
    assert row.cpu_s == pytest.approx(cost.job_s + cost.subject_s + cost.scan_s + 200 * cost.volume_s)
    (whole,) = estimate(jobs, {0: Why(first=True)}, resources, {}, Machine(cores=4))
    assert whole.scans == 3 and whole.wall_s == pytest.approx(whole.cpu_s / 3)  # three subjects at a time


def test_a_training_counts_its_operations_at_the_rate_of_the_machine(resources: Resources) -> None:
    settings = FLAT.replace("flatmap", "train_brainmass")
    train = [Job(rule="train_model", settings=settings, wildcards={"model": "brainmass"}, threads=2, gpu=1)]
    flops = resources.work("train_brainmass").flops
    assert flops == pytest.approx(train_flops(resources.config, "brainmass", Work(scans=5)))
    base = COSTS["train_brainmass"].seconds(Work(scans=5))
    (gpu,) = estimate(train, {}, resources, {}, Machine(cores=8, gpus=1, tflops=2.0))
    assert gpu.gpu_s == gpu.wall_s == pytest.approx(base + flops / 2e12)
    (cpu,) = estimate(train, {}, resources, {}, Machine(cores=8))
    assert cpu.gpu_s == 0 and cpu.wall_s == pytest.approx(base + flops / (CPU_GFLOPS * 1e9))


def test_operations_of_brainmass_are_those_its_bench_counts() -> None:
    config = parse(
        {"models": {"brainmass": {"size": "S", "epochs": 7}}, "snapshot": {"heldout": 0.5, "validation": 0.2}}
    )
    expected = 100 * 0.5 * 0.8 * 7 * step_flops(design("S", 100), (10, 5))
    assert train_flops(config, "brainmass", Work(scans=60, tables=40)) == pytest.approx(expected)


def test_operations_of_a_block_are_those_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    block = torch.nn.TransformerEncoderLayer(48, 4, 96, batch_first=True)
    with FlopCounterMode(display=False) as counter:
        block(torch.zeros(1, 30, 48))
    assert block_flops(30, 48, 96) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_number_of_rois_is_that_of_the_atlas_models_read() -> None:
    assert n_rois(parse({"spaces": {"atlas_desc": "400Parcels17Networks"}})) == 400
    assert n_rois(load(ROOT / "config.yaml", ROOT / "workflow" / "configs" / "abide.yaml")) == 111


def test_a_few_jobs_of_this_project_correct_the_defaults_and_fewer_do_not() -> None:
    work = Work(scans=10, volumes=2000, subjects=10, longest=200)
    cost = COSTS["parcellate"]
    one = Seen(
        work=work,
        seconds=2 * cost.seconds(work),
        memory_mib=0.5 * cost.memory_mib(work),
        disk_mib=3 * cost.disk_mib(work),
    )
    assert factors("parcellate", [one] * (ENOUGH - 1), 1.0).jobs == 0
    found = factors("parcellate", [one] * (ENOUGH - 1) + [replace(one, memory_mib=cost.memory_mib(work))], 1.0)
    assert (found.seconds, found.disk, found.jobs) == (pytest.approx(2), pytest.approx(3), ENOUGH)
    assert found.memory == pytest.approx(1.0)  # the largest counts


def test_benchmarks_and_records_are_read_where_they_lie(resources: Resources, tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    for bucket in (0, 1):
        path = tmp_path / "benchmarks" / "flatmap" / f"bucket-{bucket:03d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"s": 1.0, "max_rss": 1}\n{"s": 50.0, "max_rss": 300.0}\n')  # the last run counts
        record = {"outputs": [{"size": 5 << 20}, {"size": 1 << 20}], "peak_rss_mib": 410.0, "started": "", "ended": ""}
        write_json(f"{layout.flat(bucket)}.prov.json", record)
    (path.parent / "bucket-007.jsonl").write_text('{"s": "NA", "max_rss": "NA"}\n')  # too short to be sampled
    manifest = layout.subject("a", "00")
    write_json(manifest, {})
    spent = {"anat": {"N4": {"cpu_s": 30.0}}, "a_sub-00_task-rest": {"motion": {"cpu_s": 12.0}}}
    times = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:40+00:00"}
    write_json(
        f"{manifest}.prov.json", {"outputs": [{"size": 1 << 20}], "peak_rss_mib": 900.0, "cost_cpu_s": spent, **times}
    )
    seen = observed(tmp_path, resources)
    assert seen["flatmap"] == [
        Seen(work=resources.work("flatmap", bucket), seconds=50.0, memory_mib=410.0, disk_mib=6.0) for bucket in (0, 1)
    ]
    assert seen["preprocess"] == [
        Seen(work=Work(scans=1, volumes=100, subjects=1, longest=100), seconds=42.0, memory_mib=900.0, disk_mib=1.0)
    ]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [({"device": "cpu"}, 40.0), ({"device": "cuda:0"}, None), ({"environment": {"slurm": {"restarts": "2"}}}, None)],
)
def test_a_training_on_a_gpu_or_in_several_starts_does_not_time_one_on_a_cpu(
    said: dict[str, object], seconds: float | None, resources: Resources, tmp_path: Path
) -> None:
    path = tmp_path / "benchmarks" / "train" / "brainmass.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"s": 40.0, "max_rss": 900.0}\n')
    record = {"outputs": [{"size": 1 << 20}], "peak_rss_mib": 910.0, "started": "", "ended": "", **said}
    write_json(f"{Layout.at(tmp_path).checkpoint('brainmass')}.prov.json", record)
    (seen,) = observed(tmp_path, resources)["train_brainmass"]
    assert seen.seconds == seconds and seen.memory_mib == 910.0
    assert factors("train_brainmass", [seen], 1.0).seconds == (
        1.0 if seconds is None else pytest.approx(seconds / expected(seen))
    )


def expected(seen: Seen) -> float:
    return COSTS["train_brainmass"].seconds(seen.work) + training_s(seen.work)


def row(stage: str, wall: float, busy: float) -> Row:
    return Row(stage=stage, jobs=1, scans=0, cpu_s=busy, gpu_s=0, memory_mib=1, disk_mib=1, wall_s=wall, busy_s=busy)


def test_stages_that_wait_for_each_other_take_their_times_together() -> None:
    jobs = [
        Job(rule="a", settings=PREP),
        Job(rule="b", settings=FLAT, after=("preprocess",)),
        Job(rule="c", settings=FLAT.replace("flatmap", "pages"), after=("preprocess",)),
    ]
    each = [row("preprocess", 100, 150), row("flatmap", 30, 50), row("pages", 20, 40)]
    assert wall_s(jobs, each, Machine(cores=2)) == 100 + 45  # side by side they need 90 s of two cores
    assert wall_s(jobs, each, Machine(cores=100)) == 100 + 30
    assert makespan([], 4) == 0


def test_totals_and_the_table_are_aligned() -> None:
    each = [row("preprocess", 3600, 7200), row("train_brainmass", 60, 60)]
    everything = total(each, 4000.0)
    assert everything.jobs == 2 and everything.cpu_s == 7260 and everything.disk_mib == 2
    lines = table(each, everything)
    head = lines[0].index("CPU-h") + len("CPU-h")
    assert all(
        line[:head].rstrip()[-1].isdigit() and len(line[:head].rstrip()) == head for line in (*lines[2:4], lines[-1])
    )
    assert [line.split()[0] for line in lines[2:4]] == ["preprocess", "train"]
    text = summary(everything, Machine(cores=2))
    assert text == "2 jobs: 2.0 CPU-hours, at most 1 MiB per job, 2 MiB of disk; about 1.1 h on 2 cores"
    assert math.isclose(sum(r.disk_mib for r in each), everything.disk_mib)


def test_jobs_of_no_stage_have_no_plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`fetch` and `ingest` run on the login node, before the jobs of a plan."""
    jobs = (Job(rule="fetch", settings=json.dumps({"config": {}})),)
    found = DryRun(config={}, jobs=jobs, cores=1, n_jobs=1)
    monkeypatch.setattr("boldmill.plan.dryrun.dry_run", lambda words, snakefile: found)
    assert main(["plan", "fetch"]) == 2
    assert "no plan: snakemake fetch" in capsys.readouterr().err
