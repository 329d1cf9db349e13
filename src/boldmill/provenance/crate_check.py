"""Check the RO-Crate of a release without a network: structure, profile, terms, paths, hashes.

The profile is Provenance Run Crate 0.5; the contexts' terms lie in `contexts.json`. `roc-validator` checks more, and
needs the network for the contexts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from boldmill.atomic import read_json, sha256_file
from boldmill.provenance.crate import DATA, DESCRIPTION, FILES, METADATA, PROFILES
from boldmill.provenance.release import FILES as COLUMNS
from boldmill.provenance.release import listing_digest

Entity = dict[str, Any]

REQUIRED: dict[str, tuple[str, ...]] = {
    "CreateAction": ("name", "instrument", "startTime", "endTime", "result", "actionStatus"),
    "ControlAction": ("instrument", "object"),
    "OrganizeAction": ("instrument", "object", "result"),
    "HowToStep": ("workExample", "position"),
    "SoftwareApplication": ("name", "softwareVersion"),
    "FormalParameter": ("name", "additionalType", "conformsTo"),
    "PropertyValue": ("name", "value"),
    "ComputationalWorkflow": ("name", "programmingLanguage", "hasPart", "step", "input", "output"),
    "ComputerLanguage": ("name", "url"),
    "Collection": ("name", "identifier", "isPartOf"),
}
"""Type -> properties the profile asks of it (MUST, and those SHOULD that a release always has)."""

POINTS_AT: dict[tuple[str, str], tuple[str, ...]] = {
    ("CreateAction", "instrument"): ("SoftwareApplication", "ComputationalWorkflow"),
    ("ControlAction", "instrument"): ("HowToStep",),
    ("ControlAction", "object"): ("CreateAction",),
    ("OrganizeAction", "instrument"): ("SoftwareApplication",),
    ("OrganizeAction", "object"): ("ControlAction",),
    ("OrganizeAction", "result"): ("CreateAction",),
    ("HowToStep", "workExample"): ("SoftwareApplication",),
    ("ComputationalWorkflow", "step"): ("HowToStep",),
    ("ComputationalWorkflow", "programmingLanguage"): ("ComputerLanguage",),
    ("SoftwareApplication", "input"): ("FormalParameter",),
    ("SoftwareApplication", "output"): ("FormalParameter",),
    ("PropertyValue", "exampleOfWork"): ("FormalParameter",),
}
"""(type, property) -> types of what it may point at."""

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
ROOT = "./"
TEXTS = (".json", ".jsonl", ".md", ".txt", ".html")


def check(release: Path, *, results: Path | None = None) -> list[str]:
    """Return what is wrong with a release; an empty list: nothing.

    Parameters
    ----------
    release : Path
        Folder with the crate.
    results : Path, optional
        Results folder: then the files of the list are hashed, those in the release and those there.
    """
    try:
        document = read_json(release / METADATA)
        graph: list[Entity] = document["@graph"]
        by_id = {entity["@id"]: entity for entity in graph}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{METADATA}: cannot be read ({type(error).__name__}: {error})"]
    found = [f"{entity['@id']}: described twice" for entity in graph if by_id[entity["@id"]] is not entity]
    for part in (_frame(by_id), _terms(document, graph), _references(graph, by_id), _profile(graph, by_id)):
        found += part
    found += [*_parts(release, graph), *_listing(release, by_id, results)]
    return sorted(found)


def values(entity: Entity, key: str) -> list[Any]:
    """Return the values of a property as a list."""
    value = entity.get(key, [])
    return value if isinstance(value, list) else [value]


def types(entity: Entity) -> list[str]:
    """Return the types of an entity."""
    return [str(kind) for kind in values(entity, "@type")]


def pointed(entity: Entity, key: str) -> list[str]:
    """Return the identities a property points at."""
    return [value["@id"] for value in values(entity, key) if isinstance(value, dict) and "@id" in value]


def _frame(by_id: dict[str, Entity]) -> Iterator[str]:
    """Descriptor and root: what every RO-Crate 1.1 has, and the profiles of this one."""
    about, root = by_id.get(METADATA), by_id.get(ROOT)
    if about is None or root is None:
        yield f"{METADATA if about is None else ROOT}: there is no such entity"
        return
    if pointed(about, "about") != [ROOT] or "https://w3id.org/ro/crate/1.1" not in pointed(about, "conformsTo"):
        yield f"{METADATA}: is not about {ROOT}, or does not conform to RO-Crate 1.1"
    for key in ("name", "description", "datePublished", "license"):
        if not values(root, key):
            yield f"{ROOT}: has no {key}"
    if not TIME.fullmatch(str(root.get("datePublished", ""))):
        yield f"{ROOT}: datePublished is no date"
    for profile in PROFILES:
        if profile not in pointed(root, "conformsTo"):
            yield f"{ROOT}: does not say that it conforms to {profile}"
    main = [by_id.get(name, {}) for name in pointed(root, "mainEntity")]
    if not any("ComputationalWorkflow" in types(entity) for entity in main):
        yield f"{ROOT}: mainEntity is no ComputationalWorkflow"
        return
    runs = [by_id.get(name, {}) for name in pointed(root, "mentions")]
    if not any(pointed(run, "instrument") == [main[0]["@id"]] for run in runs if "CreateAction" in types(run)):
        yield f"{ROOT}: mentions no run of its workflow"


def _terms(document: dict[str, Any], graph: list[Entity]) -> Iterator[str]:
    """Every type and property is a term of a context that the crate names."""
    contexts = json.loads(files("boldmill.provenance").joinpath("contexts.json").read_text("utf-8"))["contexts"]
    named = [name for name in values(document, "@context") if isinstance(name, str)]
    for name in named:
        if name not in contexts:
            yield f"@context: {name} is not known here"
    known = {term for name in named for term in contexts.get(name, {})} | {"@id", "@type"}
    for entity in graph:
        for term in (*entity, *types(entity)):
            if term not in known:
                yield f"{entity['@id']}: '{term}' is no term of its contexts"


def _references(graph: list[Entity], by_id: dict[str, Entity]) -> Iterator[str]:
    """Every reference leads to an entity, or is a web address; no path leads out of the crate."""
    for entity in graph:
        name = entity["@id"]
        if not types(entity):
            yield f"{name}: has no type"
        if _leads_out(name):
            yield f"{name}: is not below the crate"
        for key in entity:
            for target in pointed(entity, key):
                if target not in by_id and not target.startswith(("https://", "http://")):
                    yield f"{name}: {key} points at {target}, which is not described"


def _leads_out(name: str) -> bool:
    if name.startswith(("#", "https://", "http://")):
        return False
    path = PurePosixPath(unquote(name))
    return path.is_absolute() or ".." in path.parts or ":" in path.parts[0] if path.parts else False


def _profile(graph: list[Entity], by_id: dict[str, Entity]) -> Iterator[str]:
    """Required properties, the types of what they point at, times in order, and every tool's run."""
    for entity in graph:
        name = entity["@id"]
        for kind in types(entity):
            for key in REQUIRED.get(kind, ()):
                if not values(entity, key):
                    yield f"{name}: {kind} without {key}"
        for (kind, key), wanted in POINTS_AT.items():
            if kind not in types(entity):
                continue
            for value in values(entity, key):
                target = by_id.get(value.get("@id", "")) if isinstance(value, dict) else None
                if target is None or not set(wanted) & set(types(target)):
                    yield f"{name}: {key} does not point at {' or '.join(wanted)}"
        if "CreateAction" in types(entity):
            start, end = (str(entity.get(key, "")) for key in ("startTime", "endTime"))
            if not (TIME.fullmatch(start) and TIME.fullmatch(end) and start <= end):
                yield f"{name}: startTime and endTime are no times in order"
    for workflow in (entity for entity in graph if "ComputationalWorkflow" in types(entity)):
        parts = set(pointed(workflow, "hasPart"))
        used = {t for step in pointed(workflow, "step") for t in pointed(by_id.get(step, {}), "workExample")}
        run = {t for entity in graph if "CreateAction" in types(entity) for t in pointed(entity, "instrument")}
        yield from (f"{tool}: a step's tool that is no part of the workflow" for tool in sorted(used - parts))
        yield from (f"{tool}: a step's tool that no action ran" for tool in sorted(used - run))


def _parts(release: Path, graph: list[Entity]) -> Iterator[str]:
    """Files of the crate are there, of the size it says, and nothing else lies beside them."""
    named = {METADATA}
    for entity in graph:
        name = entity["@id"]
        if "File" not in types(entity) or _leads_out(name):
            continue
        path = release / unquote(name)
        named.add(unquote(name))
        if path.is_symlink() or not path.is_file():
            yield f"{name}: the file is not there"
        elif str(path.stat().st_size) != entity.get("contentSize"):
            yield f"{name}: {path.stat().st_size} bytes, the crate says {entity.get('contentSize')}"
    lying = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    beside = {name for name in lying - named if not name.startswith(DATA)}
    yield from (f"{name}: lies in the release, the crate does not name it" for name in sorted(beside))
    if len(beside) < len(lying - named) and not any(entity["@id"] == DATA for entity in graph):
        yield f"{DATA}: lies in the release, the crate does not name it"


def _listing(release: Path, by_id: dict[str, Entity], results: Path | None) -> Iterator[str]:
    """The list of files: its paths, the digests of its collections, and the hashes of files within reach."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(release / FILES, columns=list(COLUMNS)).to_pylist()
    except (OSError, pa.ArrowException, KeyError) as error:
        yield f"{FILES}: cannot be read ({error})"
        return
    if lacking := [name for name in COLUMNS if rows and name not in rows[0]]:
        yield f"{FILES}: has no column {lacking[0]}"
        return
    groups: dict[str, list[Entity]] = {}
    for row in rows:
        path = PurePosixPath(row["path"])
        if path.is_absolute() or ".." in path.parts:
            yield f"{FILES}: {row['path']} is not relative"
        if not re.fullmatch(r"[0-9a-f]{64}", row["sha256"] or ""):
            yield f"{FILES}: {row['path']} has no sha256"
        if row["role"] == "output":
            groups.setdefault(f"#files-{row['stage']}-{row['settings_digest']}", []).append(row)
        elif row["role"] == "source":
            groups.setdefault(f"#data-{row['dataset']}", []).append(row)
    for name, members in sorted(groups.items()):
        if f"sha256:{listing_digest(members)}" not in values(by_id.get(name, {}), "identifier"):
            yield f"{name}: its digest is not that of its rows of {FILES}"
    listed = {row["path"] for row in rows if row["role"] == "output"}
    lying = {p.relative_to(release / DATA).as_posix() for p in (release / DATA).rglob("*") if p.is_file()}
    yield from (f"{DATA}{name}: {FILES} does not list it" for name in sorted(lying - listed))
    for row in rows:
        if row["role"] == "output":
            carried = release / DATA / row["path"]
            cleaned = carried.name == DESCRIPTION  # carried without addresses of the machine that made it
            places = [carried] if carried.is_file() and not cleaned else []
            places += [results / row["path"]] if results is not None else []
            for place in places:
                if not place.is_file():
                    yield f"{row['path']}: the file is not there"
                elif sha256_file(place) != row["sha256"]:
                    yield f"{row['path']}: its content is not what {FILES} says"


def leaks(release: Path, words: dict[str, str]) -> list[str]:
    """Return where a text of the release holds something private.

    The list of files is left out. In carried texts (JSON, Markdown, plain text) folders of this machine are looked for:
    they name subjects, and a word that is also somebody's name says nothing there.

    Parameters
    ----------
    words : dict
        What must not be there -> what it is; shorter than three characters is never looked for.
    """
    found: list[str] = []
    folders = {word: what for word, what in words.items() if word.startswith("/")}
    carried = {path: folders for path in sorted((release / DATA).rglob("*")) if path.suffix in TEXTS}
    own = (release / METADATA, release / DESCRIPTION, *sorted((release / "workflow").rglob("*")))
    for path, wanted in (dict.fromkeys(own, words) | carried).items():
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            name = path.relative_to(release).as_posix()
            for word, what in sorted(wanted.items()):
                if len(word) >= 3 and re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text):
                    found.append(f"{name}: holds {what}")
    return found
