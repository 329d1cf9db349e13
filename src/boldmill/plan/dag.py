"""The child process of a plan: build the DAG of the real Snakefile through Snakemake's Python API, write its jobs.

python -m boldmill.plan.dag OUT -- WORDS OF SNAKEMAKE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boldmill.cluster.slurm import parse_gpus
from boldmill.plan.dryrun import stage_of

MANY = 1 << 16


@contextmanager
def open_dag(words: list[str]) -> Iterator[tuple[Any, Any]]:
    """Build the DAG exactly as ``snakemake -n WORDS`` does; yield Snakemake's workflow and its parsed options."""
    sys.argv = ["snakemake", "-n", *words]  # what the Snakefile reads
    from snakemake.api import (
        ConfigSettings,
        DAGSettings,
        DeploymentSettings,
        OutputSettings,
        ResourceSettings,
        SnakemakeApi,
        StorageSettings,
        WorkflowSettings,
    )
    from snakemake.cli import parse_args, parse_config
    from snakemake.settings.enums import Quietness

    _, args = parse_args(["-n", *words])
    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.RULES, Quietness.PROGRESS})) as api:
        workflow_api = api.workflow(
            resource_settings=ResourceSettings(
                cores=MANY,  # threads as the rules say, not as this machine has cores
                overwrite_threads=args.set_threads,
                overwrite_resources=args.set_resources,
                default_resources=args.default_resources,
            ),
            config_settings=ConfigSettings(
                config=parse_config(args.config), configfiles=args.configfile, config_args=args.config
            ),
            storage_settings=StorageSettings(),
            workflow_settings=WorkflowSettings(persistence_backend=args.persistence_backend),
            deployment_settings=DeploymentSettings(deployment_method=args.software_deployment_method),
            snakefile=args.snakefile,
            workdir=args.directory,
        )
        dag_api = workflow_api.dag(
            dag_settings=DAGSettings(
                targets=args.targets,
                forcerun=args.forcerun,
                forceall=args.forceall,
                until=args.until,
                omit_from=args.omit_from,
                force_incomplete=True,
                rerun_triggers=args.rerun_triggers,
                max_checksum_file_size=args.max_checksum_file_size,
            )
        )
        dag_api.execute_workflow(executor="dryrun")
        yield workflow_api._workflow, args


def write_jobs(out: Path, words: list[str]) -> None:
    """Write configuration, width of the run, and the jobs with Snakemake's reasons, as JSON."""
    with open_dag(words) as (workflow, args):
        plan = workflow.globals["plan"]
        found = {
            "config": plan.config.model_dump(mode="json"),
            "cores": args.cores if isinstance(args.cores, int) else 0,
            "n_jobs": args.jobs if isinstance(args.jobs, int) else 0,
            "cluster": args.executor not in (None, "local", "dryrun", "touch"),
            **_jobs(workflow),
        }
    out.write_text(json.dumps(found))


class _Texts:
    """Settings texts by number: most jobs of a stage share one."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """Return the number of a text."""
        return self.numbers.setdefault(text, len(self.numbers))


def _jobs(workflow: Any) -> dict[str, Any]:
    """Return the jobs that will run, with reasons, in the order of their levels."""
    from itertools import chain

    dag, texts = workflow.dag, _Texts()
    needed = set(dag.needrun_jobs())
    place = {rule.name: i for i, rule in enumerate(workflow.rules)}
    levels = (
        sorted(level, key=lambda job: (place[job.rule.name], sorted(job.wildcards_dict.items())))
        for level in dag.toposorted()
    )
    order = [job for job in chain.from_iterable(levels) if job in needed and not job.rule.norun]

    def stage(job: Any) -> str:
        return stage_of(_settings(job)) or str(job.rule.name)

    jobs = []
    for job in order:
        reason = dag.reason(job)
        flags = {
            "params": bool(reason.params_changed),
            "input": bool(reason.input_changed),
            "code": bool(reason.code_changed),
            "software": bool(reason.software_stack_changed),
            "forced": bool(reason.forced),
        }
        after = {stage(other) for other in dag.dependencies[job] if other in needed and not other.rule.norun}
        resources = {name: _number(job.resources.get(name)) for name in ("mem_mb", "runtime")}
        settings = _settings(job)
        jobs.append(
            {
                "rule": job.rule.name,
                "wildcards": dict(job.wildcards_dict),
                "output": [str(path) for path in job.output],
                "inputs": sorted(str(path) for path in reason.updated_input - reason.updated_input_run),
                "missing": sorted(str(path) for path in reason.missing_output if not is_temporary(path)),
                "temporary": any(map(is_temporary, reason.missing_output)),
                "changed": sorted(name for name, on in flags.items() if on),
                "after": sorted(after),
                "settings": texts.number(settings),
                "recorded": texts.number(_recorded(workflow.persistence, job) if settings else ""),
                "threads": int(job.threads),
                "gpu": gpus_of(job.resources),
                **resources,
            }
        )
    return {"jobs": jobs, "settings": list(texts.numbers)}


def is_temporary(path: Any) -> bool:
    """Return whether an output of Snakemake's is removed once it was read."""
    return bool(path.flags.get("temp"))


def gpus_of(resources: Mapping[str, Any]) -> int:
    """Return the GPUs of a whole job: ``gpu``, or ``gres`` per node times ``nodes``.

    >>> gpus_of({"gpu": 0, "gres": "gpu:a100:4", "nodes": 2})
    8
    """
    each = parse_gpus(str(resources.get("gres") or ""))
    return _number(resources.get("gpu")) or each * max(1, _number(resources.get("nodes")))


def _settings(job: Any) -> str:
    return str(job.params.get("cfg", "")) if job.params else ""


def _recorded(persistence: Any, job: Any) -> str:
    """Return the settings of a job's outputs in Snakemake's own record of them, or an empty text."""
    import ast

    for path in job.output:
        record = persistence.metadata(path)
        values = record.params if record is not None else None
        for value in values or []:
            try:
                text = ast.literal_eval(value)
                if isinstance(text, str) and "stage" in json.loads(text):
                    return text
            except (ValueError, SyntaxError):
                continue
    return ""


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0


if __name__ == "__main__":
    split = sys.argv.index("--")
    write_jobs(Path(sys.argv[1]), sys.argv[split + 1 :])
