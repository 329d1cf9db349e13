"""A synthetic project whose every output exists, so that the DAG can be asked what a change would rerun."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

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

    def write_participants(self, dataset: str) -> None:
        people = self.participants[dataset]
        lines = ["participant_id\tgroup\tage"]
        lines += [f"sub-{label}\t{row['group']}\t{row['age']}" for label, row in sorted(people.items())]
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
        self.snakemake("ingest")

    def finish(self) -> None:
        """Pretend that everything ran: write every output, then let Snakemake record it as made with these settings."""
        for path in self.outputs():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"made: {path.name}\n")
        self.snakemake("--touch", "--forceall", "all")

    def outputs(self) -> list[Path]:
        """Every file the DAG makes."""
        lines = self.snakemake("--summary", "all").stdout.splitlines()
        header = next(i for i, line in enumerate(lines) if line.startswith("output_file"))
        return [self.folder / line.split("\t")[0] for line in lines[header + 1 :] if "\t" in line]

    def jobs(self, *words: str) -> Counter[str]:
        """Return what a dry run would do: ``{"rule wildcards": count}``, target rules left out."""
        text = self.snakemake("-n", *words).stdout
        found: Counter[str] = Counter()
        for block in re.split(r"^(?=(?:local)?rule )", text, flags=re.MULTILINE):
            if match := re.match(r"(?:local)?rule (\w+):", block):
                wildcards = re.search(r"^\s+wildcards: (.+)$", block, flags=re.MULTILINE)
                values = [item.split("=")[1] for item in wildcards[1].split(", ")] if wildcards else []
                found[" ".join([match[1], *values])] += 1
        return Counter({job: n for job, n in found.items() if job not in TARGETS})


TARGETS = {
    *(
        "all",
        "preprocess",
        "parcellate",
        "flatmap",
        "augment",
        "shards",
        "train",
        "evaluate",
        "interpret",
        "report",
        "audit",
    ),
    *("few_shot", "zero_shot", "ablation", "abide"),
}
