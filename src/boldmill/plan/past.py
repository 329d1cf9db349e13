"""What a job's outputs were made with: settings and tickets, from the records beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import read_json, sha256_file

if TYPE_CHECKING:
    from boldmill.plan.dryrun import Job

SUFFIX = ".prov.json"
"""Ending of a record (:data:`boldmill.provenance.record.SUFFIX`)."""

TICKETS, PARTICIPANTS, LISTS = "tickets", "participants", ("buckets", "tables")
"""Folders below the index whose files are named in records; lists hold the tickets of one bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of the last run of a job.

    Parameters
    ----------
    settings : str
        The JSON of its stage then; empty: it never ran, or nobody recorded it.
    inputs : dict of str to str
        sha256 of every file it read, by path.
    known : bool
        Whether it ever ran.
    """

    settings: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    known: bool = False

    def changed(self, *folders: str) -> list[str]:
        """Return the recorded inputs in these folders of the index that now have another content, or are gone."""
        return [
            path
            for path, sha in self.inputs.items()
            if Path(path).parent.name in folders and not (Path(path).is_file() and sha256_file(path) == sha)
        ]


def past_of(job: Job) -> Past:
    """Return what is known of the last run of a job.

    From the record of its first output that has one, else from Snakemake's own record of its settings.
    """
    for path in job.output:
        found = _record(f"{path}{SUFFIX}")
        if found is not None:
            return Past(settings=found["settings"], inputs=found["inputs"], known=True)
    return Past(settings=job.recorded, known=bool(job.recorded))


def past_tickets(past: Past, outputs: Iterable[str], results: Path) -> dict[str, str] | None:
    """Return the sha256 of every ticket a job read, by scan id; None where nothing says.

    A job that works through the subjects of a bucket names them in its output, and each subject's own record its
    tickets.
    """
    own = _tickets(past.inputs)
    if own:
        return own
    for path in outputs:
        try:
            subjects = read_json(path)["subjects"]
            manifests = [results / entry["path"] for entry in subjects.values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        records = [found for manifest in manifests if (found := _record(f"{manifest}{SUFFIX}"))]
        return {scan: sha for found in records for scan, sha in _tickets(found["inputs"]).items()} or None
    return None


def _tickets(inputs: dict[str, str]) -> dict[str, str]:
    return {Path(path).stem: sha for path, sha in inputs.items() if Path(path).parent.name == TICKETS}


def _record(path: str) -> dict[str, Any] | None:
    """Return settings and inputs of a record; None where it is absent or damaged (`audit verify` names it)."""
    try:
        found = read_json(path)
        return {
            "settings": str(found["settings"]),
            "inputs": {str(item["path"]): str(item["sha256"]) for item in found["inputs"]},
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_settings(text: str) -> bool:
    """Return whether a text is the JSON of a stage."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and {"stage", "version", "config", "overrides"} <= value.keys()
