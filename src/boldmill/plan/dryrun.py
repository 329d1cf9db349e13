"""The jobs Snakemake itself would run, read from its dry run of the real Snakefile in a process of its own.

The child process (``python -m boldmill.plan.dryrun OUT -- WORDS``) drives Snakemake through its Python API, exactly as
``snakemake -n WORDS`` does, and writes the jobs of the DAG with Snakemake's reasons as JSON. A process of its own,
because a Snakefile may end the interpreter and Snakemake takes over logging.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill.errors import BoldmillError, ConfigError

MARK = "boldmill: "
MANY = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job that will run.

    Parameters
    ----------
    rule : str
        Name of the rule.
    wildcards : dict of str to str
        Values of its wildcards.
    output : tuple of str
        Its outputs.
    inputs : tuple of str
        Inputs that are newer than the outputs, where that alone is the reason.
    missing : tuple of str
        Outputs that are not there and are wanted.
    changed : frozenset of str
        Further reasons of Snakemake: ``params``, ``input`` (another set of files), ``code``, ``software``, ``forced``.
    after : tuple of str
        Rules of the jobs whose outputs it waits for.
    settings : str
        The JSON of its stage now; empty where the rule has none.
    recorded : str
        The JSON its outputs were made with, as Snakemake recorded it; empty where unknown.
    threads, gpu : int
        What it asks for.
    """

    rule: str
    wildcards: dict[str, str] = field(default_factory=dict)
    output: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changed: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    settings: str = ""
    recorded: str = ""
    threads: int = 1
    gpu: int = 0
    mem_mb: int = 0
    runtime: int = 0

    @property
    def stage(self) -> str:
        """Name of the stage, from its settings; the rule's name where it has none."""
        return str(json.loads(self.settings)["stage"]) if self.settings else self.rule

    @property
    def bucket(self) -> int | None:
        """Number of the bucket it works on, if any."""
        return int(self.wildcards["bucket"]) if "bucket" in self.wildcards else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a dry run found: the merged configuration, jobs in the order of their levels, width of the run."""

    config: dict[str, Any]
    jobs: tuple[Job, ...]
    cores: int
    n_jobs: int


def dry_run(words: Sequence[str], *, snakefile: Path) -> DryRun:
    """Ask Snakemake what ``snakemake -n WORDS`` would run.

    Raises
    ------
    ConfigError
        The Snakefile refuses the configuration, e.g. because there is no index yet.
    BoldmillError
        Snakemake cannot build the DAG.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dag.json"
        command = [sys.executable, "-m", "boldmill.plan.dryrun", str(out), "--", "-s", str(snakefile), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not out.is_file():
            raise _refusal(done.stderr + done.stdout)
        found = json.loads(out.read_text())
    settings = found["settings"]
    jobs = tuple(
        Job(**{**job, "settings": settings[job["settings"]], "recorded": settings[job["recorded"]]}
            | {name: tuple(job[name]) for name in ("output", "inputs", "missing", "after")}
            | {"changed": frozenset(job["changed"])})
        for job in found["jobs"]
    )  # fmt: skip
    return DryRun(config=found["config"], jobs=jobs, cores=found["cores"], n_jobs=found["n_jobs"])


def _refusal(text: str) -> BoldmillError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if line.startswith(MARK):
            what, _, fix = line.removeprefix(MARK).partition(" Fix: ")
            head, _, rest = what.partition(": ")
            where, _, why = rest.partition(": ")
            return ConfigError(head, where, why.rstrip("."), fix)
    return BoldmillError("cannot plan", "snakemake -n", " / ".join(lines[-3:]) or "it said nothing", "correct that")


class _Texts:
    """Settings texts by number: most jobs of a stage share one."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}

    def number(self, text: str) -> int:
        """Return the number of a text."""
        return self.numbers.setdefault(text, len(self.numbers))


def _child(out: Path, words: list[str]) -> None:
    """Run in the child process: build the DAG as the command line does, write its jobs."""
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
    n_jobs = args.jobs if isinstance(args.jobs, int) else 0
    cores = args.cores if isinstance(args.cores, int) else 0
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
        workflow = workflow_api._workflow
        plan = workflow.globals["plan"]
        found = {
            "config": plan.config.model_dump(mode="json"),
            "cores": cores,
            "n_jobs": n_jobs,
            **_jobs(workflow),
        }
    out.write_text(json.dumps(found))


def _jobs(workflow: Any) -> dict[str, Any]:
    """Return the jobs that will run, with reasons, in the order of their levels."""
    from itertools import chain

    dag, texts = workflow.dag, _Texts()
    needed = set(dag.needrun_jobs())
    order = [job for job in chain.from_iterable(dag.toposorted()) if job in needed and not job.rule.norun]
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
        after = {other.rule.name for other in dag.dependencies[job] if other in needed and not other.rule.norun}
        resources = {name: _number(job.resources.get(name)) for name in ("gpu", "mem_mb", "runtime")}
        settings = str(job.params.get("cfg", "")) if job.params else ""
        jobs.append(
            {
                "rule": job.rule.name,
                "wildcards": dict(job.wildcards_dict),
                "output": [str(path) for path in job.output],
                "inputs": sorted(str(path) for path in reason.updated_input - reason.updated_input_run),
                "missing": sorted(str(path) for path in reason.missing_output),
                "changed": sorted(name for name, on in flags.items() if on),
                "after": sorted(after),
                "settings": texts.number(settings),
                "recorded": texts.number(_recorded(workflow.persistence, job) if settings else ""),
                "threads": int(job.threads),
                **resources,
            }
        )
    return {"jobs": jobs, "settings": list(texts.numbers)}


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
    _child(Path(sys.argv[1]), sys.argv[split + 1 :])
