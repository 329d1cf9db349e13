"""What TemplateFlow's files must be: checksums of its public repositories, and those noted at the first fetch.

Three sources, in this order: the lock file in the store (what a file was when it was first seen), the table that comes
with the package (``data/templateflow.checksums.json``: sizes and MD5 from the keys of TemplateFlow's git-annex
repositories, and sha256 where a copy with that MD5 was at hand), and the small text files that the installed client
carries whole. A file that none of them knows is noted in the lock file and compared with that note ever after.
"""

from __future__ import annotations

import hashlib
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from boldmill.atomic import BLOCK, read_json, sha256_file, write_json
from boldmill.errors import ConfigError
from boldmill.spaces.packages import package_file

TABLE = Path(__file__).resolve().parents[1] / "data" / "templateflow.checksums.json"
LOCK = ".boldmill.lock.json"
"""Name of the lock file in the store; the leading dot keeps it out of the listings of TemplateFlow's client."""


class Known(NamedTuple):
    """What is known of a file before it is read; ``None`` where a figure is not known."""

    source: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    def difference(self, path: Path) -> str:
        """Return in words what a file differs in, or an empty string."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes, {self.source} has {self.size}"
        for name in ("sha256", "md5"):
            wanted = getattr(self, name)
            found = _digest(path, name) if wanted else None
            if found != wanted:
                return f"its {name} is {str(found)[:12]}..., {self.source} has {wanted[:12]}..."
        return ""


def _digest(path: Path, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=name != "md5")
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """Return path in the store -> size, MD5 and sha256, as far as TemplateFlow's repositories tell them."""
    files: dict[str, dict[str, Any]] = read_json(TABLE)["files"]
    return files


@cache
def skeleton() -> dict[str, int]:
    """Return every file TemplateFlow has, by the pinned client: path in the store -> bytes the client carries of it."""
    with zipfile.ZipFile(package_file("templateflow", "conf/templateflow-skel.zip")) as archive:
        return {item.filename: item.file_size for item in archive.infolist() if not item.is_dir()}


def carried(path: str) -> bytes:
    """Return a small text file as the client carries it."""
    with zipfile.ZipFile(package_file("templateflow", "conf/templateflow-skel.zip")) as archive:
        return archive.read(path)


class Lock:
    """What every file was when it was first seen, in a JSON file of the store.

    Parameters
    ----------
    home : Path
        The store.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / LOCK
        self.files: dict[str, dict[str, Any]] = {}
        try:
            if self.path.is_file():
                self.files = dict(read_json(self.path)["files"])
        except (ValueError, KeyError, TypeError) as error:
            fix = "delete it: every file is then compared with TemplateFlow's checksum, or noted as it is now"
            raise ConfigError("cannot read what was noted", self.path, str(error), fix) from error

    def known(self, name: str) -> Known | None:
        """Return what is known of a file, or None."""
        if entry := self.files.get(name):
            return Known(f"its first fetch ({LOCK})", entry["bytes"], None, entry["sha256"])
        if entry := shipped().get(name):
            return Known("TemplateFlow", entry.get("bytes"), entry.get("md5"), entry.get("sha256"))
        if skeleton().get(name):
            content = carried(name)
            return Known("TemplateFlow's client", len(content), None, hashlib.sha256(content).hexdigest())
        return None

    def note(self, name: str, path: Path, why: str) -> None:
        """Write down what a file is now; a later difference is a fault."""
        entry = {"bytes": path.stat().st_size, "sha256": sha256_file(path), "noted": why}
        if self.files.get(name) != entry:
            self.files[name] = entry
            write_json(self.path, {"schema": 1, "files": self.files})
