"""Failed jobs in words, from the logs of Snakemake and SLURM as they were written by real runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from boldmill.cluster.events import Attempt, failed_attempts, latest_log
from boldmill.cluster.failures import line, lines, reason

RUN = """
Job stats:
[Sun Nov 29 18:08:01 2026]
rule preprocess_bucket:
    input: index/buckets/bucket-003.json
    output: preprocess/bucket-003.json
    log: logs/preprocess/bucket-003.log
    jobid: 5
    wildcards: bucket=003
    resources: tmpdir=<TBD>, mem_mb=4000, mem=4 GB, runtime=60
Job 5 has been submitted with SLURM jobid 77 (log: {root}/slurm/77.log).
[Sun Nov 29 18:08:37 2026]
Error in rule preprocess_bucket:
    message: SLURM-job '77' failed, SLURM status is: 'FAILED'. Detailed failure reason unavailable.
    jobid: 5
    output: preprocess/bucket-003.json
    log: logs/preprocess/bucket-003.log, {root}/slurm/77.log (check log file(s) for error details)
    shell:
        python -m boldmill preprocess
        (command exited with non-zero exit code)
    external_jobid: 77
Trying to restart job 5.
"""
AGAIN = """
[Sun Nov 29 18:08:40 2026]
rule preprocess_bucket:
    jobid: 5
    wildcards: bucket=003
    resources: tmpdir=<TBD>, mem_mb=8000, mem=8 GB, runtime=120
"""
DONE = "[Sun Nov 29 18:09:40 2026]\nFinished jobid: 5 (Rule: preprocess_bucket)\n"
KILLED = "slurmstepd-n1: error: StepId=77.0 exceeded memory limit (4320000000 > 4194304000), being killed\n"


def run_log(root: Path, *parts: str, slurm: str = "", own: str = "") -> list[str]:
    log = root / ".snakemake" / "log" / "2026-11-29T180800.1.snakemake.log"
    for path, text in [
        (log, "".join(parts).replace("{root}", str(root))),
        (root / "slurm" / "77.log", slurm),
        (root / "logs" / "preprocess" / "bucket-003.log", own),
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert latest_log(root) == log
    return lines(log)


def test_memory_that_ran_out_and_the_attempt_that_follows(tmp_path: Path) -> None:
    head = "preprocess_bucket (bucket=003), attempt 1, SLURM job 77: memory ran out (4119 MB used, 4000 MB asked for); "
    follows = head + "attempt 2 with mem_mb 4000 -> 8000, runtime 60 -> 120 "
    assert run_log(tmp_path, RUN, AGAIN, slurm=KILLED) == [follows + "follows"]
    assert run_log(tmp_path, RUN, AGAIN, DONE, slurm=KILLED) == [follows + "went well"]
    assert run_log(tmp_path, RUN, slurm=KILLED) == [head + "attempt 2 follows"]


def test_the_last_attempt_says_what_to_do(tmp_path: Path) -> None:
    final = RUN.replace("Trying to restart job 5.\n", "")
    (found,) = run_log(tmp_path, final, slurm=KILLED)
    assert found.endswith("not tried again. Fix: --set-resources preprocess_bucket:mem_mb=8000")
    (found,) = run_log(
        tmp_path, final, own="boldmill preprocess: raw file vanished: a.nii.gz: it is gone. Fix: snakemake ingest\n"
    )
    assert found.endswith("raw file vanished: a.nii.gz: it is gone; not tried again. Fix: snakemake ingest")


def test_a_job_may_fail_more_than_once(tmp_path: Path) -> None:
    final = RUN.replace("Trying to restart job 5.\n", "").partition("[Sun Nov 29 18:08:37 2026]")[2]
    first, second = run_log(tmp_path, RUN, AGAIN, final, slurm=KILLED)
    assert "attempt 1" in first and "attempt 2 with" in first
    assert "attempt 2, SLURM job 77" in second and "mem_mb=16000" in second


@pytest.mark.parametrize("width", [80, 43])
def test_the_logs_that_snakemake_repeats_are_not_read_as_its_own(width: int, tmp_path: Path) -> None:
    line_of = "=" * width  # as wide as the longest line of the log, at most 80
    shown = f"Logfile {tmp_path}/slurm/77.log:\n{line_of}\n\nSNAKEMAKE\n=========\nError in rule preprocess_bucket:\n"
    shown += f"    jobid: 0\n    log: x (check log file(s) for error details)\n\n{line_of}\n"
    head, _, tail = RUN.partition("Trying")
    assert len(run_log(tmp_path, head, shown, "Trying", tail, AGAIN, slurm=KILLED)) == 1


OWN = "boldmill preprocess: raw file vanished: sub-02.nii.gz: it is gone. Fix: snakemake ingest\n"


def test_the_log_of_a_later_attempt_is_no_reason_of_an_earlier_one(tmp_path: Path) -> None:
    """Both write the same file; what SLURM said of each is in a file of its own."""
    final = RUN.replace("Trying to restart job 5.\n", "").partition("[Sun Nov 29 18:08:37 2026]")[2]
    first, second = run_log(tmp_path, RUN, AGAIN, final, own=OWN)
    assert "FAILED: the next attempt wrote its log anew" in first and "raw file" not in first
    assert "raw file vanished" in second
    first, second = run_log(tmp_path, RUN, AGAIN, final.replace("77.log", "78.log"), own=OWN, slurm=KILLED)
    assert "memory ran out" in first and "raw file vanished" in second


def test_without_quoting_a_line_names_nobody_and_the_log(tmp_path: Path) -> None:
    final = RUN.replace("Trying to restart job 5.\n", "")
    run_log(tmp_path, final, own=OWN)
    (found,) = lines(latest_log(tmp_path) or tmp_path, quoting=False)
    assert "sub-02" not in found
    assert "FAILED, its log says why; not tried again. Fix: read logs/preprocess/bucket-003.log, then" in found
    run_log(tmp_path, final, own="boldmill x: cannot write: sub-02: No space left on device. Fix: rm sub-02\n")
    assert "the disk is full" in lines(latest_log(tmp_path) or tmp_path, quoting=False)[0]


def test_a_run_that_says_too_little_is_not_taken_for_one_without_failures(tmp_path: Path) -> None:
    (found,) = run_log(tmp_path, "Job stats:\nTrying to restart job 2.\nExiting because a job execution failed. Look\n")
    assert "a job failed, but Snakemake's log does not name it" in found


def test_what_is_no_run_hides_no_failure(tmp_path: Path) -> None:
    found = run_log(tmp_path, RUN, slurm=KILLED)
    (tmp_path / ".snakemake/log/2026-11-29T190000.1.snakemake.log").write_text("Unlocked working directory.\n")
    assert lines(latest_log(tmp_path) or tmp_path) == found


def test_no_failure_is_no_line(tmp_path: Path) -> None:
    assert run_log(tmp_path, "Job stats:\n", AGAIN, DONE) == []
    assert latest_log(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("state", "text", "why"),
    [
        ("OUT_OF_MEMORY", "", "memory ran out"),
        ("FAILED", "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", "memory ran out"),
        ("FAILED", "torch.OutOfMemoryError: CUDA out of memory. Tried", "GPU memory ran out"),
        ("FAILED", "RuntimeError: CUDA error: out of memory", "GPU memory ran out"),
        ("FAILED", "DefaultCPUAllocator: can't allocate memory: you tried", "memory ran out (500 MB"),
        ("FAILED", "terminate called after throwing an instance of 'std::bad_alloc'", "memory ran out (500 MB"),
        ("FAILED", "srun: error: Node failure on n1", "its node failed"),
        ("TIMEOUT", "", "the time limit of 60 min was reached"),
        ("FAILED", "*** JOB 7 ON n CANCELLED AT 2026-11-29T18:06:31 DUE TO TIME LIMIT ***", "the time limit"),
        ("NODE_FAIL", "", "its node failed"),
        (
            "FAILED",
            "*** JOB 7 ON n CANCELLED AT 2026 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
            "its node",
        ),
        ("PREEMPTED", "", "preempted"),
        ("CANCELLED", "", "it was cancelled"),
        (
            "FAILED",
            "boldmill train: cannot write: x: No space left on device. Fix: free space there",
            "cannot write: x",
        ),
        ("FAILED", "OSError: [Errno 28] No space left on device", "the disk is full"),
        ("FAILED", "2026 boldmill launch: the ranks saved their state and stopped", "training saved its state"),
        ("FAILED", "Traceback\nKeyError: 'x'\n", "FAILED: KeyError: 'x'"),
        ("", "", "failed: no word in its log"),
    ],
)
def test_reasons(state: str, text: str, why: str) -> None:
    attempt = Attempt(rule="r", wildcards="", number=1, state=state, asked={"mem_mb": "500", "runtime": "60"})
    assert why in reason(attempt, [text])[0]


def test_a_line_of_the_disk_names_the_fix_once() -> None:
    attempt = Attempt(rule="r", wildcards="", number=1)
    text = "boldmill train: cannot write: x: No space left on device. Fix: free space there, then rerun"
    found = line(attempt, [text])
    assert (
        found
        == "r, attempt 1: cannot write: x: No space left on device; not tried again. Fix: free space there, then rerun"
    )


def test_of_many_subjects_the_first_is_told() -> None:
    text = "sub-02 of ds: boldmill preprocess: raw file vanished: a.tsv: it is gone. Fix: snakemake ingest\n"
    text += (
        "boldmill preprocess: preprocessing failed: b.json: 1 of 3 failed. Fix: see the lines above, then run again\n"
    )
    attempt = Attempt(rule="r", wildcards="", number=1)
    assert reason(attempt, [text]) == ("raw file vanished: a.tsv: it is gone", "snakemake ingest")


def test_text_that_is_no_snakemake_log_gives_nothing() -> None:
    assert failed_attempts("some words\n    jobid: 3\n") == []
