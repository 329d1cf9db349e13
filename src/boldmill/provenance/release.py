"""What a release says of a project: its steps, settings, files and sources, gathered from the ledger.

Nothing here names a user, a host, a folder outside the project or a subject; names of files stand in the list of files
alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from boldmill.atomic import read_json
from boldmill.errors import BoldmillError
from boldmill.paths import Layout
from boldmill.provenance.record import MEMBER, SUFFIX, shown
from boldmill.provenance.terms import Terms, read_terms
from boldmill.stages import STAGES

FILES = ("path", "sha256", "size", "role", "dataset", "stage", "stage_version", "settings_digest")
"""Columns of the list of files. ``role``: ``output`` (relative to the results folder), ``source`` (relative to its data
set) or ``material`` (a file of a package or of the user: its name alone)."""

PRIVATE = ("filters", "root", "files", "phenotypes", "labels", "pattern")
"""Keys of the configuration that say where data lie or whom to take: a release leaves them out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """All jobs of one stage with the same settings.

    Parameters
    ----------
    stage, version, digest : str, int, str
        Name and version of the stage, digest of its settings.
    parameters : dict
        Dotted key -> value.
    software : dict
        Package -> version, Python included.
    code : str
        Git commit (``+dirty`` where the tree was), or the version of the package.
    started, ended : str
        First start and last end of its jobs, ISO 8601.
    peak_mib : float
        Largest memory of a job, MiB.
    uses : set of str
        Identities of the steps, and names of the data sets (``data:NAME``), whose files it read.
    """

    stage: str
    version: int
    digest: str
    parameters: dict[str, Any]
    software: dict[str, str]
    code: str
    started: str
    ended: str
    peak_mib: float
    uses: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Identity of the step."""
        return f"{self.stage}-{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Release:
    """Steps in the order of the workflow, files in the order of roles and paths, and terms of the data sets."""

    project: str
    steps: list[Step]
    files: list[dict[str, Any]]
    terms: list[Terms]

    @property
    def date(self) -> str:
        """End of the last job: a release of the same ledger has the same date."""
        return max(step.ended for step in self.steps)

    @cached_property
    def _groups(self) -> dict[tuple[str, ...], list[dict[str, Any]]]:
        found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in self.files:
            key = (row["stage"], row["settings_digest"]) if row["role"] == "output" else (row["role"], row["dataset"])
            found.setdefault(key, []).append(row)
        return found

    def listing(self, step: Step) -> tuple[int, int, str]:
        """Return number, bytes and digest of a step's files; see :func:`listing_digest`."""
        return _summary(self._groups.get((step.stage, step.digest), []))

    def source(self, dataset: str) -> tuple[int, int, str]:
        """Return number, bytes and digest of the source files of a data set."""
        return _summary(self._groups.get(("source", dataset), []))


def _summary(rows: list[dict[str, Any]]) -> tuple[int, int, str]:
    return len(rows), sum(row["size"] for row in rows), listing_digest(rows)


def listing_digest(rows: list[dict[str, Any]]) -> str:
    """Return the sha256 of lines ``<sha256>  <path>``, sorted by path: what ``sha256sum`` would print."""
    lines = sorted((row["path"], row["sha256"]) for row in rows)
    return hashlib.sha256("".join(f"{digest}  {path}\n" for path, digest in lines).encode()).hexdigest()


def gather(results: Path, project: str) -> Release:
    """Read the ledger of a results folder.

    Raises
    ------
    BoldmillError
        There is no ledger, or it is empty.
    """
    ledger = _Ledger(results)
    if not ledger.rows:
        raise BoldmillError("nothing to export", ledger.path, "no command has written a record", "run `snakemake`")
    terms = read_terms(results, ledger.datasets)
    steps = ledger.steps()
    order = {stage: number for number, stage in enumerate(STAGES)}
    steps.sort(key=lambda step: (order.get(step.stage, len(order)), step.stage, step.started, step.digest))
    return Release(project=project, steps=steps, files=ledger.files(steps), terms=terms)


class _Ledger:
    """The ledger, with its paths made relative to what they belong to."""

    def __init__(self, results: Path) -> None:
        import pyarrow.parquet as pq

        self.path = Layout.at(results).ledger
        if not self.path.is_file():
            raise BoldmillError("cannot export", self.path, "there is no ledger yet", "run `snakemake audit`")
        self.home = shown(results)
        self.rows: list[dict[str, Any]] = sorted(
            pq.read_table(self.path).to_pylist(), key=lambda row: (row["ended"], row["path"])
        )
        self.written = {row["path"]: row for row in self.rows}
        ingest = [json.loads(row["settings"]) for row in self.rows if row["stage"] == "ingest"]
        self.datasets: list[dict[str, Any]] = ingest[-1]["config"]["datasets"] if ingest else []
        self.roots = sorted(((shown(one["root"]), str(one["name"])) for one in self.datasets), reverse=True)

    def place(self, path: str) -> tuple[str, str, str]:
        """Return role, data set and relative path of a recorded file."""
        if path in self.written and _below(path, self.home):
            return "output", "", PurePosixPath(path).relative_to(self.home).as_posix()
        for root, name in self.roots:
            if path == root or _below(path.partition(MEMBER)[0], root):
                return "source", name, PurePosixPath(path).relative_to(root).as_posix()
        return "material", "", PurePosixPath(path).name

    def steps(self) -> list[Step]:
        """Return the steps, with what each read."""
        found: dict[str, Step] = {}
        softwares: dict[str, dict[str, str]] = {}
        for row in self.rows:
            name = f"{row['stage']}-{row['settings_digest']}"
            step = found.get(name)
            if step is None:
                if row["packages_digest"] not in softwares:
                    softwares[row["packages_digest"]] = _software(row)
                step = Step(
                    stage=row["stage"],
                    version=row["stage_version"],
                    digest=row["settings_digest"],
                    parameters=dict(_parameters(json.loads(row["settings"]))),
                    software=softwares[row["packages_digest"]],
                    code=_code(row),
                    started=row["started"],
                    ended=row["ended"],
                    peak_mib=row["peak_rss_mib"],
                )
            else:  # rows come by their end
                step = Step(**{**_fields(step), "started": min(step.started, row["started"]), "ended": row["ended"],
                               "peak_mib": max(step.peak_mib, row["peak_rss_mib"]), "code": _code(row)})  # fmt: skip
            found[name] = step
            for item in row["inputs"]:
                maker = self.written.get(item["path"])
                if maker is not None:
                    step.uses.add(f"{maker['stage']}-{maker['settings_digest']}")
                elif (place := self.place(item["path"]))[0] == "source":
                    step.uses.add(f"data:{place[1]}")
        for name, step in found.items():
            step.uses.discard(name)  # the manifest of a bucket is read by the stage that wrote it
        return list(found.values())

    def files(self, steps: list[Step]) -> list[dict[str, Any]]:
        """Return the rows of the list of files: outputs below the results, sources, and other material."""
        rows: dict[tuple[str, ...], dict[str, Any]] = {}

        def add(path: str, item: dict[str, Any], stage: str, version: int | None, digest: str) -> None:
            role, dataset, relative = self.place(path)
            row = {"path": relative, "sha256": item["sha256"], "size": item["size"], "role": role, "dataset": dataset}
            row |= {"stage": stage, "stage_version": version, "settings_digest": digest}
            same_name = item["sha256"] if role == "material" else ""
            rows[(role, dataset, relative, same_name)] = row

        for row in self.rows:
            for item in row["inputs"]:
                if item["path"] not in self.written and item["sha256"] and not item["path"].endswith(SUFFIX):
                    add(item["path"], item, "", None, "")
        for path, row in self.written.items():
            add(path, row, row["stage"], row["stage_version"], row["settings_digest"])
        return [rows[key] for key in sorted(rows)]


def _fields(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in step.__dataclass_fields__}


def _below(path: str, folder: str) -> bool:
    return (folder == "." and not path.startswith("/")) or PurePosixPath(path).is_relative_to(folder)


def _code(row: dict[str, Any]) -> str:
    commit = row["git_commit"]
    return f"{commit}{'+dirty' if row['git_dirty'] else ''}" if commit else f"boldmill {row['boldmill']}"


def _software(row: dict[str, Any]) -> dict[str, str]:
    """Return versions from the record of a row; of a record that is gone, those of the ledger."""
    known = {"boldmill": row["boldmill"], "python": row["python"]}
    try:
        return {**read_json(row["record"])["environment"]["packages"], **known}
    except (OSError, ValueError, KeyError):
        return known


def _parameters(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a stage by dotted key, without what says where data lie or whom to take."""
    yield from _leaves("", {key: value for key, value in settings["config"].items() if key != "datasets"})
    for dataset in settings["config"].get("datasets", []):
        kept = {key: value for key, value in dataset.items() if key not in (*PRIVATE, "name")}
        yield from _leaves(f"datasets.{dataset['name']}", kept)
    for dataset, sections in settings.get("overrides", {}).items():
        yield from _leaves(f"overrides.{dataset}", sections)
    if "seed" in settings:
        yield "seed", settings["seed"]


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name in sorted(value):
            if name not in PRIVATE:
                yield from _leaves(f"{key}.{name}" if key else name, value[name])
    elif key:
        yield key, public(value)


def public(value: Any) -> Any:
    """Return a value without folders: of a path, its name alone.

    >>> public("/home/ada/atlas.nii.gz"), public([1, "~/a/b.npz"]), public("Schaefer/2018 is a name")
    ('atlas.nii.gz', [1, 'b.npz'], 'Schaefer/2018 is a name')
    """
    if isinstance(value, list):
        return [public(item) for item in value]
    if isinstance(value, dict):
        return {name: public(item) for name, item in sorted(value.items()) if name not in PRIVATE}
    if isinstance(value, str) and value.startswith(("/", "~", "file:", "../", "./")):
        return PurePosixPath(value).name
    return value
