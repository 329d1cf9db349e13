"""Layer 1 of provenance: ``<output>.prov.json`` beside every output, written atomically on success only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from boldmill.atomic import canonical_json, sha256_file, sha256_text, write_text
from boldmill.provenance.machine import cards
from boldmill.provenance.machine import environment as environment
from boldmill.provenance.memory import Peak
from boldmill.stages import Settings

SCHEMA = 2
DIGEST = "record_digest"
"""Key of a record that holds the sha256 of its other keys: an edited record gives itself away."""
SUFFIX = ".prov.json"
MEMBER = "::"
"""Between the path of an archive and the name of its member."""


def prov_path(output: str | Path) -> Path:
    """Return where the record of an output lies."""
    return Path(f"{output}{SUFFIX}")


def own_digest(record: dict[str, Any]) -> str:
    """Return the sha256 of all keys of a record but its digest."""
    return sha256_text(canonical_json({key: value for key, value in record.items() if key != DIGEST}))


def sound(record: dict[str, Any]) -> bool:
    """Return whether a record has its own digest; those of schema 1 have none."""
    return own_digest(record) == record[DIGEST] if DIGEST in record else record.get("schema") == 1


def render(record: dict[str, Any]) -> str:
    """Return the text of a record's file, its own digest included."""
    return json.dumps({**record, DIGEST: own_digest(record)}, sort_keys=True, indent=2) + "\n"


@cache
def _locked() -> dict[str, Any]:
    from boldmill.stages_lock import LOCK

    try:
        return dict(json.loads(LOCK.read_text(encoding="utf-8"))["stages"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def lock_digest(stage: str) -> str | None:
    """Return the digest of a stage's code in the committed lock; None for a command that is no stage."""
    digest = _locked().get(stage, {}).get("digest")
    return None if digest is None else str(digest)


def shown(path: str | Path) -> str:
    """Return a path as records name it: the same text for the same file, however it was given.

    Relative to the working directory where it lies below it, else absolute. Links to folders are followed; a linked
    file keeps its own name, because a git-annex object's name says nothing.
    """
    absolute = Path(path).parent.resolve() / Path(path).name
    return (absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute).as_posix()


def member_path(path: str | Path, member: str) -> str:
    """Return how records name a part of a file: a member of an archive, known by the hash of its own content."""
    return f"{path}{MEMBER}{member}" if member else str(path)


def describe(path: str | Path) -> dict[str, Any]:
    """Return path, size and sha256 of a file."""
    return {"path": shown(path), "size": Path(path).stat().st_size, "sha256": sha256_file(path)}


def describe_output(path: str | Path) -> dict[str, Any]:
    """Return path, size, sha256 and modification time (ns) of a file that was just written."""
    return {**describe(path), "mtime_ns": Path(path).stat().st_mtime_ns}


def _described(path: str | Path) -> dict[str, Any] | None:
    """Return :func:`describe`, or None where nothing can be read (yet): the command itself says what is wrong."""
    try:
        return describe(path)
    except OSError:
        return None


class Recorder:
    """Record one command: ``with Recorder(settings, out=..., inputs=[...]) as record: ...``.

    Inputs are hashed when they are named, and code and machine are asked at the start: a command can run for days, and
    what changes meanwhile is not what it read. On a clean exit every output is hashed and one record is written beside
    ``out``, and beside every further output given by :meth:`add_output` with ``own_record=True``. On an error nothing
    is written.
    """

    def __init__(self, settings: Settings, *, out: str | Path, inputs: Iterable[str | Path] = ()) -> None:
        self.settings = settings
        self.out = Path(out)
        self.inputs: dict[str, dict[str, Any] | None] = {str(p): None for p in inputs}
        self.outputs: dict[str, Path] = {str(self.out): self.out}
        self.temporary: set[str] = set()
        self.own: list[Path] = [self.out]
        self.extra: dict[str, Any] = {}

    def add_input(self, path: str | Path, known: dict[str, Any] | None = None) -> None:
        """Add an input; ``known`` (size, sha256) spares hashing a file whose hash is already certain."""
        self.inputs[str(path)] = _described(path) if known is None else {**known, "path": shown(path)}

    def add_output(self, path: str | Path, *, own_record: bool = False, temporary: bool = False) -> None:
        """Add an output of the same command; a ``temporary`` one is not missed once it is gone."""
        self.outputs[str(path)] = Path(path)
        if temporary:
            self.temporary.add(str(path))
        if own_record:
            self.own.append(Path(path))

    def note(self, **values: Any) -> None:
        """Add facts to the record (device, seeds, counts)."""
        self.extra.update(values)

    def __enter__(self) -> Recorder:
        self.started = datetime.now(UTC)
        self.peak = Peak()
        self.peak.start()
        self.environment = environment()
        for path in self.inputs:
            self.inputs[path] = self.inputs[path] or _described(path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak = self.peak.stop()
        if kind is not None:
            return
        text = render(
            {
                "schema": SCHEMA,
                "stage": self.settings.stage,
                "stage_version": self.settings.version,
                "stage_code": lock_digest(self.settings.stage),
                "settings": self.settings.text,
                "settings_digest": self.settings.digest,
                "seed": self.settings.base_seed,
                "command": ["boldmill", *sys.argv[1:]],
                "inputs": [known or describe(path) for path, known in sorted(self.inputs.items())],
                "outputs": [
                    {**describe_output(path), **({"temporary": True} if name in self.temporary else {})}
                    for name, path in sorted(self.outputs.items())
                ],
                "environment": {**self.environment, "cards": cards()},  # torch may have been loaded since
                "started": self.started.isoformat(timespec="milliseconds"),
                "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "peak_rss_mib": round(peak, 1),
                **self.extra,
            }
        )
        for path in self.own:
            write_text(prov_path(path), text)
