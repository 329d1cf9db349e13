"""Pretend that a project is finished: write every output of its DAG, and the records Snakemake would have written.

    python -m boldmill.bench.plan_finish WORDS OF SNAKEMAKE

The records are written by Snakemake's own persistence layer, as after a job, so that a dry run compares settings, code
and inputs with them as in a project that really ran.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from boldmill.plan.dag import is_temporary, open_dag


def finish(words: list[str]) -> int:
    """Write outputs and records of every job that would run, inputs before outputs; return their number."""
    with open_dag(words) as (workflow, _):
        dag, count = workflow.dag, 0
        needed = set(dag.needrun_jobs())
        for level in dag.toposorted():
            for job in level:
                if job in needed and job.output:
                    for path in job.output:
                        if is_temporary(path):  # gone when a run ends
                            continue
                        Path(path).parent.mkdir(parents=True, exist_ok=True)
                        Path(path).write_text("made\n")
                    workflow.async_run(_record(workflow.persistence, job))
                    count += 1
    return count


async def _record(persistence: Any, job: Any) -> None:
    persistence.started(job)
    await persistence.finished(job)


if __name__ == "__main__":
    print(finish(sys.argv[1:]))
