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
from boldmill.provenance.ledger import Ledger
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
    if not ledger.records:
        raise BoldmillError("nothing to export", ledger.path, "no command has written a record", "run `snakemake`")
    terms = read_terms(results, [*ledger.datasets, *former(results, {str(one["name"]) for one in ledger.datasets})])
    steps = ledger.steps()
    order = {stage: number for number, stage in enumerate(STAGES)}
    steps.sort(key=lambda step: (order.get(step.stage, len(order)), step.stage, step.started, step.digest))
    return Release(project=project, steps=steps, files=ledger.files(), terms=terms)


def former(results: Path, known: set[str]) -> list[dict[str, Any]]:
    """Return the data sets that snapshots hold and the configuration no longer names: their terms still bind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from boldmill.provenance.claims import manifests

    people = (who for manifest in manifests(results).values() for who in manifest.get("subjects", {}))
    names = {who.partition("/")[0] for who in people} - known
    licences: dict[str, str] = {}
    for path in sorted(results.glob("datasets/*/shards/scans/*.parquet")) if names else ():
        try:
            rows = pq.read_table(path, columns=["dataset", "licence"]).to_pylist()
        except (pa.ArrowException, OSError, KeyError):  # damaged: `audit verify` names it
            continue
        licences |= {row["dataset"]: str(row["licence"] or "") for row in rows}
    return [{"name": name, "root": "", "licence": licences.get(name, "")} for name in sorted(names)]


class _Ledger:
    """The ledger, with its paths made relative to what they belong to; what records share is held once."""

    def __init__(self, results: Path) -> None:
        self.path = Layout.at(results).ledger
        self.home = shown(results)
        ledger = Ledger.load(results)
        columns = [ledger.outputs.column(name) for name in ("path", "sha256", "size", "record")]
        self.written: dict[str, tuple[str, int, str]] = {}
        self.records: dict[str, dict[str, Any]] = {}
        for number, (path, sha256, size, record) in enumerate(zip(*columns, strict=True)):
            self.written[path] = (sha256, size, record)
            if record not in self.records:
                self.records[record] = ledger.outputs.table.slice(number, 1).to_pylist()[0]
        self.records = dict(sorted(self.records.items(), key=lambda item: (item[1]["ended"], item[0])))
        marks = ledger.outputs.column("temporary")
        self.temporary = {path for path, gone in zip(columns[0], marks, strict=True) if gone}
        """Outputs that were removed once they had been read: no release lists them."""
        names = ("record", "path", "sha256", "size")
        self.inputs = list(zip(*(ledger.inputs.column(name) for name in names), strict=True))
        ingest = [json.loads(row["settings"]) for row in self.records.values() if row["stage"] == "ingest"]
        self.datasets: list[dict[str, Any]] = ingest[-1]["config"]["datasets"] if ingest else []
        self.roots = sorted(((shown(one["root"]), str(one["name"])) for one in self.datasets), reverse=True)

    def step_of(self, record: str) -> str:
        """Return the identity of the step a record belongs to."""
        return f"{self.records[record]['stage']}-{self.records[record]['settings_digest']}"

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
        for record, row in self.records.items():  # by their end
            name = self.step_of(record)
            first = found.get(name)
            if row["packages_digest"] not in softwares:
                softwares[row["packages_digest"]] = _software(row)
            found[name] = Step(
                stage=row["stage"],
                version=row["stage_version"],
                digest=row["settings_digest"],
                parameters=first.parameters if first else dict(_parameters(json.loads(row["settings"]))),
                software=first.software if first else softwares[row["packages_digest"]],
                code=_code(row),
                started=min(first.started, row["started"]) if first else row["started"],
                ended=row["ended"],
                peak_mib=max(first.peak_mib, row["peak_rss_mib"]) if first else row["peak_rss_mib"],
            )
        for record, path, _, _ in self.inputs:
            step = found.get(self.step_of(record)) if record in self.records else None
            if step is None:  # all outputs of the record were made again by others
                continue
            maker = self.written.get(path)
            if maker is not None:
                step.uses.add(self.step_of(maker[2]))
            elif (place := self.place(path))[0] == "source":
                step.uses.add(f"data:{place[1]}")
        for name, step in found.items():
            step.uses.discard(name)  # the manifest of a bucket is read by the stage that wrote it
        return list(found.values())

    def files(self) -> list[dict[str, Any]]:
        """Return the rows of the list of files: outputs below the results, sources, and other material.

        Of a source that changed, what was read last.
        """
        rows: dict[tuple[str, ...], dict[str, Any]] = {}
        last: dict[tuple[str, ...], str] = {}

        def add(path: str, sha256: str, size: int, ended: str, about: tuple[str, int | None, str]) -> None:
            role, dataset, relative = self.place(path)
            key = (role, dataset, relative, sha256 if role == "material" else "")
            if last.get(key, "") <= ended:
                last[key] = ended
                values = (relative, sha256, size, role, dataset, *about)
                rows[key] = dict(zip(FILES, values, strict=True))

        for record, path, sha256, size in self.inputs:
            if path not in self.written and sha256 and not path.endswith(SUFFIX) and record in self.records:
                add(path, sha256, size, self.records[record]["ended"], ("", None, ""))
        for path, (sha256, size, record) in self.written.items():
            if path in self.temporary:
                continue
            row = self.records[record]
            add(path, sha256, size, row["ended"], (row["stage"], row["stage_version"], row["settings_digest"]))
        return [rows[key] for key in sorted(rows)]


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
