"""What rules ask for: doubled per attempt, more for more scans, from the table the plan adds up."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake.iocontainers import Wildcards

from boldmill.config.load import parse
from boldmill.index.read import Index, ScanRow
from boldmill.plan.resources import (
    CUDA_MIB,
    DAY_MINUTES,
    MB_PER_MIB,
    MEMORY_MARGIN,
    MIN_MINUTES,
    TIME_MARGIN,
    Resources,
    work_of,
)
from boldmill.plan.table import COSTS, Work
from boldmill.stages import STAGES

ROOT = Path(__file__).parents[3]


def scan(
    number: int, *, bucket: int = 0, volumes: int | None = 200, kind: str = "volume", subject: str = ""
) -> ScanRow:
    who = subject or f"{number:04d}"
    return ScanRow(
        scan_id=f"a_sub-{who}_task-rest_run-{number}", dataset="a", subject=who, session="", task="rest",
        run=str(number), kind=kind, status="ok", bucket=bucket, site="", licence="", tr=2.0, n_volumes=volumes,
        has_t1w=True, ticket="", ticket_sha256="", reason="", fix="", flags="",
    )  # fmt: skip


def resources(*scans: ScanRow, **config) -> Resources:
    return Resources(Index(Path("results"), list(scans)), parse(config))


def of(bucket: str | None = None, **more: str) -> Wildcards:
    return Wildcards(fromdict=({"bucket": bucket} if bucket else {}) | more)


def test_the_second_attempt_asks_for_twice_as_much() -> None:
    asked = resources(*(scan(i) for i in range(40)))
    for stage in COSTS:
        memory, minutes = asked.memory(stage), asked.minutes(stage)
        assert memory(of("000"), attempt=2) == 2 * memory(of("000"), attempt=1)
        assert memory(of("000"), attempt=3) == 4 * memory(of("000"), attempt=1)
        assert minutes(of("000"), attempt=2) == min(2 * minutes(of("000"), attempt=1), DAY_MINUTES)


def test_a_full_bucket_gets_more_minutes_than_a_small_one() -> None:
    scans = [scan(i, bucket=i >= 10) for i in range(110)]
    asked = resources(*scans)
    small, large = asked.minutes("parcellate")(of("000"), 1), asked.minutes("parcellate")(of("001"), 1)
    assert small < large
    expected = TIME_MARGIN * COSTS["parcellate"].seconds(work_of(scans[10:]), asked.voxels) / 60
    assert large == pytest.approx(expected, abs=1)  # the figure of the plan, with the margin


def test_memory_is_that_of_the_table_with_the_margin() -> None:
    asked = resources(scan(1, volumes=1200), scan(2, volumes=100), spaces={"resolution": 2.0})
    mib = COSTS["flatmap"].memory_mib(Work(scans=2, subjects=2, volumes=1300, longest=1200))
    assert asked.memory("flatmap")(of("000"), 1) == pytest.approx(MEMORY_MARGIN * MB_PER_MIB * mib, abs=100)
    gpu = COSTS["evaluate"].memory_mib(Work(scans=2)) + CUDA_MIB
    assert asked.memory("evaluate")(of(), 1) == pytest.approx(MEMORY_MARGIN * MB_PER_MIB * gpu, abs=100)


def test_subjects_at_a_time_share_the_time_and_each_have_their_memory() -> None:
    asked = resources(*(scan(i) for i in range(60)))
    memory, minutes = asked.memory("preprocess"), asked.minutes("preprocess")
    assert memory(of("000"), 1, threads=4) == pytest.approx(4 * memory(of("000"), 1, threads=1), rel=0.05)
    assert minutes(of("000"), 1, threads=4) == pytest.approx(minutes(of("000"), 1, threads=1) / 4, rel=0.05)
    alone = resources(scan(1))
    assert alone.memory("preprocess")(of("000"), 1, threads=4) == alone.memory("preprocess")(of("000"), 1, threads=1)


def test_nothing_asks_for_more_than_a_day_unless_one_scan_needs_it() -> None:
    many = resources(*(scan(i) for i in range(5000)))
    assert many.minutes("preprocess")(of("000"), 1) == DAY_MINUTES == many.minutes("preprocess")(of("000"), 3)
    one = resources(scan(1, volumes=500_000), spaces={"resolution": 2.0})
    assert one.minutes("preprocess")(of("000"), 1) > DAY_MINUTES


def test_tables_and_anatomies_have_no_volumes_and_an_unknown_length_is_assumed() -> None:
    work = work_of(
        [scan(1, kind="table"), scan(2, kind="anat", volumes=None), scan(3, volumes=None), scan(4, subject="3")]
    )
    assert (work.tables, work.scans, work.subjects, work.volumes) == (1, 3, 3, 500)


def test_an_empty_index_asks_for_the_least() -> None:
    asked = Resources(None, parse({}))
    assert asked.minutes("cohort")(of(), 1) == MIN_MINUTES


def test_training_asks_for_time_by_its_operations() -> None:
    asked = resources(*(scan(i) for i in range(300)), models={"brainmass": {"size": "tiny"}})
    large = resources(*(scan(i) for i in range(300)), models={"brainmass": {"size": "S", "epochs": 200}})
    tiny, s = (one.minutes("train_{model}")(of(model="brainmass"), 1) for one in (asked, large))
    assert tiny < s <= DAY_MINUTES


def test_every_rule_takes_its_figures_from_the_table_of_its_own_stage() -> None:
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for block in re.split(r"(?m)^(?=rule )", path.read_text())[1:]:
            if "resources:" not in block:
                continue
            stage = re.search(r'plan\.settings\("([^"]+)"\)', block)
            assert stage, block
            asked = set(re.findall(r'plan\.(?:memory|minutes)\("([^"]+)"\)', block))
            assert asked == {stage[1]}, block
            assert len(re.findall(r"plan\.(?:memory|minutes)\(", block)) == 2


def test_every_stage_of_a_job_has_measured_figures() -> None:
    assert set(COSTS) == set(STAGES) - {"ingest"}
    assert all(cost.source for cost in COSTS.values())


def test_the_snakefile_pays_nothing_for_them() -> None:
    code = "import sys, boldmill.plan.resources; print(*(m for m in ('numpy', 'pyarrow', 'torch') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
