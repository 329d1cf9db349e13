"""Who is meant by ``DATASET/SUBJECT``: what index, tickets, records and the journal of a killed call know of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.errors import ConfigError
from boldmill.paths import Layout
from boldmill.provenance import journal
from boldmill.provenance.person import Person
from boldmill.provenance.record import member_path, prov_path, shown


def person_of(results: Path, name: str) -> Person:
    """Return the person a command line names, with the scans the index knows.

    Raises
    ------
    ConfigError
        The name is not ``DATASET/SUBJECT``.
    """
    dataset, _, subject = name.partition("/")
    subject = subject.removeprefix("sub-")
    if not re.fullmatch("[A-Za-z0-9]+", dataset) or not re.fullmatch("[A-Za-z0-9+-]+", subject):
        plain = re.sub("[^A-Za-z0-9]", "", subject)
        example = f"{dataset}/{plain}" if dataset.isalnum() and plain and "/" not in subject else "demo/01"
        why = "it is not DATASET/SUBJECT, where a label has letters and digits alone"
        raise ConfigError("nobody is named", name, why, f"write e.g. {example}")
    from boldmill.index.read import read_index

    layout = Layout.at(results)
    scans = read_index(results).scans if layout.index.is_file() else []
    own = {scan.scan_id for scan in scans if (scan.dataset, scan.subject) == (dataset, subject)}
    known = earlier(results, f"{dataset}/{subject}")  # of a call that was killed, and has cut the index already
    own |= set(known.get("scans", ()))
    files, names = raw_files([layout.ticket(scan) for scan in sorted(own)])
    return Person(
        dataset,
        subject,
        own,
        roots=roots_of(results, dataset),
        only=namesakes(results, subject) <= {dataset},
        files=files | set(known.get("files", ())),
        names=names | set(known.get("names", ())),
    )


def namesakes(results: Path, subject: str) -> set[str]:
    """Return the data sets that have somebody of this label in index, files and snapshots."""
    from boldmill.index.read import read_index

    found = {path.parent.name for pattern in ("derivatives/*/sub-{}", "preprocess/*/sub-{}.json")
             for path in results.glob(pattern.format(subject))}  # fmt: skip
    if Layout.at(results).index.is_file():
        found |= {scan.dataset for scan in read_index(results).scans if scan.subject == subject}
    for kind in ("index/tickets", "parcellate/*", "flatmap/*"):
        found |= {path.name.partition("_")[0] for path in results.glob(f"{kind}/*_sub-{subject}[._]*")}
    for path in results.glob("datasets/*/manifest.json"):
        try:
            people = list(read_json(path)["subjects"])
        except (OSError, ValueError, KeyError, TypeError):  # `audit verify` names it
            continue
        found |= {who.partition("/")[0] for who in people if who.partition("/")[2] == subject}
    return found


def raw_files(tickets: Iterable[Path]) -> tuple[set[str], set[str]]:
    """Return raw files and members of archives that tickets name, as records do, and the names of series as written.

    Files that several people may share (sidecars, tables of confounds) are found by their names alone.
    """
    files: set[str] = set()
    names: set[str] = set()
    for path in tickets:
        if not path.is_file():
            continue
        ticket = read_json(path)
        root = Path(ticket["root"])
        for entry in (entry for key in ("bold", "t1w", "series") for entry in ticket.get(key) or ()):
            for form in {shown(root / entry["path"]), (root / entry["path"]).as_posix()}:
                files.add(member_path(form, entry.get("member") or ""))
        if ticket.get("layout") == "hcp":  # 100307/MNINonLinear/...
            first = {entry["path"].partition("/")[0] for entry in ticket["bold"]}
            files |= {f"{form}/" for one in first for form in (shown(root / one), (root / one).as_posix())}
        names |= {ticket["name"]} if ticket.get("name") else set()
    return files, names


def earlier(results: Path, key: str) -> dict[str, Any]:
    """Return what a withdrawal that was cut short knew of the person.

    Raises
    ------
    ConfigError
        It was of another person: what it knew must not be lost.
    """
    lines = (line for line in journal.read(results) if isinstance(line, dict) and "person" in line)
    who: dict[str, Any] = next(lines, {})
    if who and who["person"] != key:
        why = f"the withdrawal of {who['person']} was cut short, and its journal would be lost"
        raise ConfigError("not now", key, why, f"first run `boldmill audit forget {who['person']} --delete` again")
    return who


def roots_of(results: Path, dataset: str) -> list[str]:
    """Return the folders a data set was indexed from, as records name them."""
    record = prov_path(Layout.at(results).index)
    if not record.is_file():
        return []
    entries = json.loads(read_json(record)["settings"])["config"].get("datasets", [])
    return [shown(entry["root"]) for entry in entries if entry["name"] == dataset]
