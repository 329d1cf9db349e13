"""Terms of use of the data sets a project is made from: licence, DOI and conditions, as a release passes them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.paths import Layout

NOT_STATED = "not stated"
CONDITIONS = {"DataUseAgreement": "data use agreement: ", "DUA": "data use agreement: ", "HowToAcknowledge": ""}
"""Keys of a description that bind whoever uses the data, or a derivative of them -> what is written before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a data set asks of its users.

    Parameters
    ----------
    dataset : str
        Its name in this project.
    kind : str
        ``raw``, ``derivative`` or ``tables``.
    title : str
        Its own name, where its description has one.
    licence : str
        Terms of use: ``datasets[].licence``, else ``License`` of its description, else :data:`NOT_STATED`.
    doi : str
        ``DatasetDOI``, or empty.
    conditions : tuple of str
        Data use agreement and how to acknowledge.
    references : tuple of str
        ``ReferencesAndLinks``.
    """

    dataset: str
    kind: str = "raw"
    title: str = ""
    licence: str = NOT_STATED
    doi: str = ""
    conditions: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def source(self) -> dict[str, str]:
        """Return the entry of ``SourceDatasets``; a DOI is all that BIDS has room for, beside a URL and a version."""
        return {"DOI": self.doi} if self.doi else {"URL": f"bids:{self.dataset}:"}

    def sentence(self) -> str:
        """Return the terms in words."""
        return "; ".join([f"{self.dataset}: {self.licence}", *self.conditions])


def read_terms(results: Path, datasets: Iterable[Mapping[str, Any]]) -> list[Terms]:
    """Return the terms of every data set, sorted by name.

    Parameters
    ----------
    results : Path
        Results folder: the descriptions of derivatives there know of raw data that are out of reach.
    datasets : iterable of mapping
        Entries of the configuration: ``name``, ``root``, ``kind``, ``licence``.
    """
    found = [_terms(results, entry) for entry in datasets]
    return sorted(found, key=lambda terms: terms.dataset)


def _terms(results: Path, entry: Mapping[str, Any]) -> Terms:
    name = str(entry["name"])
    derived = _description(Layout.at(results).derivatives(name))
    raw = _description(Path(str(entry["root"]))) if entry.get("root") else {}
    said = {**derived, **raw}
    known: list[dict[str, Any]] = [one for one in derived.get("SourceDatasets") or [] if isinstance(one, dict)]
    doi = str(raw.get("DatasetDOI") or (known[0].get("DOI") if known else "") or "")
    references = said.get("ReferencesAndLinks") or []
    return Terms(
        dataset=name,
        kind=str(entry.get("kind") or "raw"),
        title=str(raw.get("Name") or ""),
        licence=str(entry.get("licence") or said.get("License") or NOT_STATED),
        doi=doi,
        conditions=tuple(f"{words}{said[key]}" for key, words in CONDITIONS.items() if said.get(key)),
        references=tuple(str(one) for one in (references if isinstance(references, list) else [references])),
    )


def _description(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / "dataset_description.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def undescribed(results: Path) -> list[str]:
    """Return what the descriptions of derivatives lack of what BIDS asks of them."""
    found: list[str] = []
    for path in sorted((results / "derivatives").glob("*/dataset_description.json")):
        about = _description(path.parent)
        for key in ("Name", "BIDSVersion", "GeneratedBy", "SourceDatasets"):
            if not about.get(key):
                found.append(f"{path}: has no {key}")
    return found


def description(project: str, version: str, terms: Iterable[Terms]) -> dict[str, Any]:
    """Return the BIDS ``dataset_description.json`` of a release, or of one data set's derivatives (one entry)."""
    terms = list(terms)
    licences = sorted({one.licence for one in terms})
    known: dict[str, Any] = {
        "Name": project,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": licences[0] if len(licences) == 1 else "; ".join(f"{one.dataset}: {one.licence}" for one in terms),
        "GeneratedBy": [{"Name": "boldmill", "Version": version}],
        "SourceDatasets": [one.source() for one in terms],
    }
    acknowledge = [words for one in terms for words in one.conditions]
    references = [words for one in terms for words in one.references]
    more = {"HowToAcknowledge": "; ".join(acknowledge), "ReferencesAndLinks": references}
    return known | {key: value for key, value in more.items() if value}
