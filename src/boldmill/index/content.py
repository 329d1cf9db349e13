"""What one file's bytes say: one pass gives its sha256, whether it is whole, and its header. No image is loaded."""

from __future__ import annotations

import errno
import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from boldmill.errors import MachineFault
from boldmill.index.headers import AGAIN, Broken, sink_of

BLOCK = 1 << 20
INFLATE = 1 << 23  # most bytes inflated at once: a block of zeros inflates a thousandfold
_ANNEX = re.compile(r"(?:^|/)\.git/annex/objects/|^/annex/objects/")
_KEY = re.compile(r"^(?P<backend>[A-Z0-9_]+)(?:-s(?P<size>\d+))?(?:-[mSC]\d+)*--(?P<hash>[0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one file.

    Parameters
    ----------
    size, mtime_ns : int
        Of the content (behind links), bytes and nanoseconds.
    sha256 : str
        Of the file's bytes; empty where only a git-annex MD5 key is known.
    key : str
        The git-annex key, or empty.
    shape : tuple of int
        NIfTI: its dimensions. GIFTI: (vertices, volumes). Tables: (rows, columns). CIFTI series: (volumes,
        grayordinates, used vertices left, right, vertices of the mesh left, right).
    header_tr : float
        Repetition time of the header in seconds; 0 where it has none.
    oriented : bool
        Whether the header says where left is (a qform or an sform).
    verified : bool
        Whether every byte was read and decompressed.
    fault, fix : str
        Why the file cannot be used and what to do; empty if it can.
    """

    size: int
    mtime_ns: int
    sha256: str = ""
    key: str = ""
    shape: tuple[int, ...] = ()
    header_tr: float = 0.0
    oriented: bool = True
    verified: bool = False
    fault: str = ""
    fix: str = ""


def annex_key(path: Path) -> str:
    """Return the git-annex key a link points to, or an empty string."""
    if not path.is_symlink():
        return ""
    target = path.readlink()
    return target.name if _ANNEX.search(target.as_posix()) else ""


def examine(path: Path, verify: bool) -> Facts:
    """Return the facts of one file, with a fault instead of an exception where the data are at fault.

    Parameters
    ----------
    path : Path
        ``.nii``, ``.nii.gz``, ``.dtseries.nii``, ``.func.gii``, or a table (``.tsv``, ``.1D``, ``.txt``).
    verify : bool
        Read and decompress every byte. Without it a git-annex key is taken as the content's hash, unread.

    Raises
    ------
    MachineFault
        The disk fails; the ingest stops, because nothing is known of the data.
    """
    key = annex_key(path)
    try:
        stat = path.stat()
    except FileNotFoundError:
        if key:
            return Facts(0, 0, key=key, fault="its content is not here (git-annex)", fix=f"datalad get {path.name}")
        return Facts(0, 0, fault="the link points nowhere", fix="restore the file or remove the link")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise MachineFault("cannot read", path, str(error), "check the disk, then run ingest again") from error
        return Facts(0, 0, fault="the link leads back to itself", fix="restore the file or remove the link")
    known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "key": key}
    try:
        return Facts(**known, **_read(path, stat.st_size, verify, key))  # type: ignore[arg-type]
    except Broken as broken:
        reason, fix = broken.args
        return Facts(**known, fault=reason, fix=fix)  # type: ignore[arg-type]
    except PermissionError:
        return Facts(0, 0, key=key, fault="permission denied", fix=f"chmod +r {path.name}")
    except OSError as error:
        raise MachineFault("cannot read", path, str(error), "check the disk, then run ingest again") from error


def _read(path: Path, size: int, verify: bool, key: str) -> dict[str, object]:
    if size == 0:
        raise Broken("the file is empty", AGAIN)
    parsed = _KEY.match(key)
    digest = hashlib.sha256()
    full = verify or parsed is None
    zipped = path.name.endswith(".gz")
    sink = sink_of(path)
    with open(path, "rb") as handle:
        start = handle.read(256)
        _refuse_pointer(start, path)
        handle.seek(0)
        raw = _blocks(handle, digest)
        for block in _inflate(raw) if zipped else raw:
            sink.feed(block)
            if not full and sink.enough:
                break
            if not verify and zipped and sink.enough:
                for _ in raw:  # the hash still needs every byte, unpacked or not
                    pass
                break
    facts = sink.facts(whole=full and (verify or not zipped))
    facts["verified"] = verify
    if full:
        facts["sha256"] = digest.hexdigest()
    elif parsed and parsed["backend"].startswith("SHA256"):
        facts["sha256"] = parsed["hash"]
    if parsed and parsed["size"] and int(parsed["size"]) != size:
        raise Broken(f"{size} bytes, but its git-annex key says {parsed['size']}", "git annex fsck, then get it again")
    if full and parsed and parsed["backend"].startswith("SHA256") and parsed["hash"] != facts["sha256"]:
        raise Broken("its bytes do not match its git-annex key", "git annex fsck, then get it again")
    return facts


def _refuse_pointer(start: bytes, path: Path) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise Broken("a Git LFS pointer, not the image", f"git lfs pull --include '*{path.name}'")
    if start.startswith(b"/annex/objects/"):
        raise Broken("a git-annex pointer, not the image", f"datalad get {path.name}")


def _blocks(handle: BinaryIO, digest: hashlib._Hash) -> Iterator[bytes]:
    while block := handle.read(BLOCK):
        digest.update(block)
        yield block


def _inflate(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress a gzip stream of one or more members and check every checksum."""
    member: zlib._Decompress | None = None
    members = 0
    try:
        for block in blocks:
            data = block
            while data:
                if member is None:
                    data = data.lstrip(b"\0") if members else data  # zero padding may follow the last member
                    if not data:
                        break
                    member, members = zlib.decompressobj(wbits=31), members + 1
                yield member.decompress(data, INFLATE)
                data = member.unused_data if member.eof else member.unconsumed_tail
                member = None if member.eof else member
        while member is not None and (out := member.decompress(b"", INFLATE)):
            yield out
    except zlib.error as error:
        raise Broken(f"not a sound gzip stream ({str(error).split(': ')[-1]})", AGAIN) from error
    if member is not None and not member.eof:
        raise Broken("the gzip stream ends early: the file is truncated", AGAIN)
