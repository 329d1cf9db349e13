"""The BIDS inheritance principle: which JSON sidecars apply to a file, the most specific winning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from boldmill.errors import DataFault
from boldmill.index.names import BidsFile, parse_name

_PERSONAL = re.compile(r"Patient|Physician|OperatorsName|InstitutionAddress|SerialNumber|UID$|Date$|DateTime$")
_PERSONAL_EXACT = frozenset(("AcquisitionTime", "ContentTime", "StudyTime", "SeriesTime", "global", "time"))


class Sidecars:
    """All sidecars of a data set, found by folder.

    Parameters
    ----------
    root : Path
        Root of the data set.
    paths : iterable of str
        JSON files relative to the root.
    """

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self.root = root
        self._in: dict[str, list[tuple[int, str, str, frozenset[tuple[str, str]]]]] = {}
        self._shared: dict[str, dict[str, Any]] = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            entities, suffix, ext = parse_name(name)
            if suffix and ext == ".json":
                row = (len(entities), path, suffix, frozenset(entities.items()))
                self._in.setdefault(folder, []).append(row)

    def applicable(self, file: BidsFile) -> list[tuple[int, int, str]]:
        """Return ``(level, number of entities, path)`` of every sidecar of ``file``, least specific first."""
        own = set(file.entities.items())
        folders = file.path.split("/")[:-1]
        found = []
        for level in range(len(folders) + 1):
            for count, path, suffix, entities in self._in.get("/".join(folders[:level]), ()):
                if suffix == file.suffix and entities <= own:
                    found.append((level, count, path))
        return sorted(found)

    def resolve(self, file: BidsFile) -> tuple[dict[str, Any], list[str]]:
        """Return the metadata of ``file`` and the sidecars they come from, least specific first.

        Raises
        ------
        DataFault
            A sidecar is unreadable, or two equally specific ones disagree.
        """
        metadata: dict[str, Any] = {}
        origin: dict[str, tuple[int, int, str]] = {}
        used = self.applicable(file)
        for level, count, path in used:
            for key, value in self._load(path).items():
                before = origin.get(key)
                if before and before[:2] == (level, count) and metadata[key] != value:
                    raise DataFault(
                        "sidecars disagree",
                        file.path,
                        f"{before[2]} and {path} are equally specific and give different {key}",
                        "keep one of the two sidecars",
                    )
                metadata[key], origin[key] = value, (level, count, path)
        return metadata, [path for _, _, path in used]

    def _load(self, path: str) -> dict[str, Any]:
        if path in self._shared:
            return self._shared[path]
        try:
            value = json.loads((self.root / path).read_text(encoding="utf-8-sig"), parse_constant=lambda _: None)
        except (ValueError, OSError) as error:
            raise DataFault("cannot read sidecar", path, f"{path}: {error}", "correct or restore the JSON") from error
        if not isinstance(value, dict):
            raise DataFault("cannot read sidecar", path, f"{path} is not a JSON object", "write {key: value} pairs")
        if "/func/" not in path and "/anat/" not in path:
            self._shared[path] = value
        return value


def shareable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata without what identifies a person or a visit: tickets are passed on, names are not."""
    return {
        key: value
        for key, value in sorted(metadata.items())
        if key not in _PERSONAL_EXACT and not _PERSONAL.search(key)
    }
