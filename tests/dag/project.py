"""A synthetic project whose every output exists, so that the DAG can be asked what a change would rerun."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
import yaml
from snakemake.api import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    ResourceSettings,
    SnakemakeApi,
    StorageSettings,
)
from snakemake.cli import parse_config
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.enums import Quietness

import boldmill.workflow
from boldmill.cli import main
from boldmill.config.load import load, parse
from boldmill.stages import STAGES, stage_json

ROOT = Path(__file__).parents[2]
BASE: dict[str, Any] = {
    "project": "dag",
    "results": "results",
    "datasets": [{"name": "alpha", "root": "alpha"}, {"name": "beta", "root": "beta"}],
    "shards": {"n_buckets": 3},
    "evaluate": {"tasks": [{"name": "group", "column": "group"}]},
}


class Project:
    """A folder with two small BIDS data sets and a configuration, driven through the real Snakefile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads(json.dumps(BASE))
        self.participants = {"alpha": {f"{i:02d}": {"group": "ab"[i % 2], "age": 20 + i} for i in range(1, 5)}}
        self.participants["beta"] = {f"{i:02d}": {"group": "ab"[i % 2], "age": 40 + i} for i in range(1, 3)}
        for dataset, people in self.participants.items():
            self.write_description(dataset)
            for subject in people:
                self.add_subject(dataset, subject)
            self.write_participants(dataset)
        self.write_config()

    def write_config(self) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))

    def write_description(self, dataset: str) -> None:
        root = self.folder / dataset
        root.mkdir(parents=True, exist_ok=True)
        (root / "dataset_description.json").write_text(json.dumps({"Name": dataset, "BIDSVersion": "1.10.0"}))

    def write_participants(self, dataset: str, *columns: str) -> None:
        """Write the table of a data set, with further columns."""
        names = ("group", "age", *columns)
        lines = ["\t".join(["participant_id", *names])]
        for label, row in sorted(self.participants[dataset].items()):
            lines.append("\t".join([f"sub-{label}", *(str(row[name]) for name in names)]))
        (self.folder / dataset / "participants.tsv").write_text("\n".join(lines) + "\n")

    def bold(self, dataset: str, subject: str) -> Path:
        return self.folder / dataset / f"sub-{subject}" / "func" / f"sub-{subject}_task-rest_bold.nii.gz"

    def add_subject(self, dataset: str, subject: str, value: int = 0) -> None:
        base = self.folder / dataset / f"sub-{subject}"
        for kind in ("anat", "func"):
            (base / kind).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([int(subject), value])
        t1w = nib.Nifti1Image(rng.integers(1, 99, (16, 16, 16), dtype=np.int16), np.diag([2.0, 2, 2, 1]))
        nib.save(t1w, base / "anat" / f"sub-{subject}_T1w.nii.gz")
        bold = nib.Nifti1Image(rng.integers(1, 99, (8, 8, 8, 30), dtype=np.int16), np.diag([4.0, 4, 4, 1]))
        bold.header.set_zooms((4, 4, 4, 2.0))
        bold.header.set_xyzt_units("mm", "sec")
        nib.save(bold, self.bold(dataset, subject))
        self.bold(dataset, subject).with_suffix("").with_suffix(".json").write_text(
            '{"RepetitionTime": 2.0, "TaskName": "rest"}'
        )

    def remove_subject(self, dataset: str, subject: str) -> None:
        shutil.rmtree(self.folder / dataset / f"sub-{subject}")
        self.participants[dataset].pop(subject)

    def snakemake(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the real Snakefile in this folder."""
        command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_CONFIG_HOME": str(self.folder / ".xdg")}
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, env=environment)
        if check and done.returncode:
            raise AssertionError(f"snakemake {' '.join(words)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def ingest(self) -> None:
        """Run what `snakemake ingest` runs, in a fork."""
        settings = stage_json(load(self.folder / "config.yaml"), "ingest")
        words = ["ingest", "--results", self.config["results"], "--config-json", settings]
        said, status = self._fork(lambda: main(words))
        assert status == 0 and said == "0", said

    def finish(self) -> None:
        """Pretend that everything ran: write every output, then let Snakemake record it as made with these settings.

        Frames are not there: they are temporary, and gone when a run ends.
        """
        for path in self.outputs():
            if path.suffix == ".frames":
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}\n" if path.suffix == ".json" else f"made: {path.name}\n")
        self.snakemake("--touch", "--forceall", "all")

    def outputs(self) -> list[Path]:
        """Every file the DAG makes."""
        lines = self.snakemake("--summary", "all").stdout.splitlines()
        header = next(i for i, line in enumerate(lines) if line.startswith("output_file"))
        return [self.folder / line.split("\t")[0] for line in lines[header + 1 :] if "\t" in line]

    def jobs(self, *words: str, bump: str = "") -> Counter[str]:
        """Return what a dry run of the real Snakefile would do: ``{"rule wildcards": count}``, without target rules.

        It runs in a fork of this process, which has Snakemake imported already, and is asked for its DAG in place of
        its text. ``bump`` names a stage whose version is one higher there.
        """
        said, status = self._fork(lambda: _dry_run(self.folder, [*words], bump))
        if status:
            raise AssertionError(f"snakemake -n {' '.join(words)} failed\n{said}")
        return Counter(json.loads(said))

    def refused(self, *words: str, bump: str = "") -> str:
        """Return why a dry run of the real Snakefile stops."""
        said, status = self._fork(lambda: _dry_run(self.folder, [*words], bump))
        assert status, said
        return said

    def _fork(self, work: Callable[[], Any]) -> tuple[str, int]:
        """Return what work gave, as JSON, in a process of its own in this folder; or the traceback and 1."""
        warm_up()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _answer(writer, self.folder, work)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        return said, os.waitpid(child, 0)[1]


@cache
def warm_up() -> None:
    """Do here what every fork would do again: imports, parsers, the validator of the configuration."""
    for name in ("smart_open", "pulp", "snakemake.dag", "boldmill.index.read", "boldmill.index.command"):
        importlib.import_module(name)
    parse({})
    boldmill.workflow.parse_options(["-n"])


def _answer(writer: int, folder: Path, work: Callable[[], Any]) -> NoReturn:
    """Write what work gives to a pipe, and end this process."""
    try:
        sys.stdout = sys.stderr = nowhere = open(os.devnull, "w")  # noqa: SIM115  as long as the process
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        os.chdir(folder)
        said, status = json.dumps(work()), 0
    except BaseException:
        said, status = traceback.format_exc(), 1
    with os.fdopen(writer, "w") as pipe:
        pipe.write(said)
    os._exit(status)


def _dry_run(folder: Path, words: list[str], bump: str) -> list[str]:
    if bump:
        STAGES[bump] = replace(STAGES[bump], version=STAGES[bump].version + 1)
    sys.argv = ["snakemake", "-s", str(ROOT / "Snakefile"), "-n", "--cores", "2", *words]  # the Snakefile reads it
    JobScheduler.schedule = lambda self: True  # the DAG is all that is asked for
    args = boldmill.workflow.parse_options(sys.argv[1:])
    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(configfiles=args.configfile, config=parse_config(args.config)),
            storage_settings=StorageSettings(),
            snakefile=args.snakefile,
            workdir=folder,
        )
        asked = DAGSettings(targets=args.targets, forcerun=args.forcerun, forceall=args.forceall)
        dag = workflow.dag(dag_settings=asked)
        dag.execute_workflow(executor="dryrun")
        jobs = [job for job in workflow._workflow.dag.needrun_jobs(exclude_finished=False) if not job.rule.norun]
    return [" ".join([job.rule.name, *job.wildcards_dict.values()]) for job in jobs]
