"""Files that are whole or absent: write to a temporary name, fsync, rename."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
SETTLED_NS = 20_000_000
"""Age (ns) at which a later change must show in a file's times: kernels count them in ticks of at most 10 ms."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` on success, remove it on error.

    The temporary name keeps every suffix of the target, because image and table writers choose their
    format by it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically and return the path."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same value always gives the same text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def write_json(path: str | Path, value: Any) -> Path:
    """Write readable, key-sorted JSON atomically and return the path."""
    return write_text(path, json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file (UTF-8, with or without a byte-order mark)."""
    return json.loads(Path(path).read_text(encoding="utf-8-sig"))


def hash_file(path: str | Path) -> str:
    """Read a file and return the sha256 of its bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


_hashed: dict[tuple[int, int, int, int, int], str] = {}


def sha256_file(path: str | Path) -> str:
    """Return the sha256 of a file's bytes; a file this process has hashed already is not read again.

    It is known again by device, inode, size and both times. A file whose time is not safely past is not kept: it could
    change once more without its time showing it.
    """
    before = Path(path).stat()
    key = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    if key in _hashed:
        return _hashed[key]
    settled = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED_NS
    digest = hash_file(path)
    if settled:
        _hashed[key] = digest
    return digest


def sha256_text(text: str) -> str:
    """Return the sha256 of UTF-8 text as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()
