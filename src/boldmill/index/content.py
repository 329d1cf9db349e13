"""What one file's bytes say: one pass gives its sha256, whether it is whole, and its header. No image is loaded."""

from __future__ import annotations

import errno
import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from boldmill.errors import MachineFault

BLOCK = 1 << 20
INFLATE = 1 << 23  # most bytes inflated at once: a block of zeros inflates a thousandfold
_ANNEX = re.compile(r"(?:^|/)\.git/annex/objects/|^/annex/objects/")
_KEY = re.compile(r"^(?P<backend>[A-Z0-9_]+)(?:-s(?P<size>\d+))?(?:-[mSC]\d+)*--(?P<hash>[0-9a-f]+)")
CIFTI_XML = 16 << 20  # bytes before the data of a CIFTI file that are kept; 91k grayordinates take under one million
AGAIN = "copy or download the file again"


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


class _Broken(Exception):
    """The bytes are not what the name promises: (reason, fix)."""


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
    except _Broken as broken:
        reason, fix = broken.args
        return Facts(**known, fault=reason, fix=fix)  # type: ignore[arg-type]
    except PermissionError:
        return Facts(0, 0, key=key, fault="permission denied", fix=f"chmod +r {path.name}")
    except OSError as error:
        raise MachineFault("cannot read", path, str(error), "check the disk, then run ingest again") from error


def _read(path: Path, size: int, verify: bool, key: str) -> dict[str, object]:
    if size == 0:
        raise _Broken("the file is empty", AGAIN)
    parsed = _KEY.match(key)
    digest = hashlib.sha256()
    full = verify or parsed is None
    zipped = path.name.endswith(".gz")
    sink = _sink(path)
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
        raise _Broken(f"{size} bytes, but its git-annex key says {parsed['size']}", "git annex fsck, then get it again")
    if full and parsed and parsed["backend"].startswith("SHA256") and parsed["hash"] != facts["sha256"]:
        raise _Broken("its bytes do not match its git-annex key", "git annex fsck, then get it again")
    return facts


def _refuse_pointer(start: bytes, path: Path) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise _Broken("a Git LFS pointer, not the image", f"git lfs pull --include '*{path.name}'")
    if start.startswith(b"/annex/objects/"):
        raise _Broken("a git-annex pointer, not the image", f"datalad get {path.name}")


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
        raise _Broken(f"not a sound gzip stream ({str(error).split(': ')[-1]})", AGAIN) from error
    if member is not None and not member.eof:
        raise _Broken("the gzip stream ends early: the file is truncated", AGAIN)


class _Sink:
    """Takes the decompressed bytes block by block and keeps what the header says."""

    enough = False

    def feed(self, block: bytes) -> None:
        raise TypeError(type(self))

    def facts(self, whole: bool) -> dict[str, object]:
        raise TypeError(type(self))


class _Nifti(_Sink):
    def __init__(self) -> None:
        self.head = b""
        self.length = 0

    def feed(self, block: bytes) -> None:
        if not self.enough:
            self.head += block[:1024]
            self.enough = len(self.head) >= 1024
        self.length += len(block)

    def facts(self, whole: bool) -> dict[str, object]:
        import nibabel as nib
        from nibabel.spatialimages import HeaderDataError

        try:
            kind = nib.Nifti2Header if self.head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Header
            header: Any = kind(self.head[: kind.template_dtype.itemsize])  # type: ignore[no-untyped-call]
            shape = tuple(int(n) for n in header.get_data_shape())
            itemsize = int(header.get_data_dtype().itemsize)
        except (HeaderDataError, nib.wrapstruct.WrapStructError, KeyError, ValueError) as error:
            raise _Broken(f"not a NIfTI header ({error})", AGAIN) from error
        count = 1
        for n in shape:
            count *= n
        missing = int(header["vox_offset"]) + count * itemsize - self.length
        if not shape or count <= 0:
            raise _Broken(f"the header gives an empty image {shape}", "convert the image again")
        if whole and missing > 0:
            raise _Broken(f"{missing} bytes fewer than its header promises: the file is truncated", AGAIN)
        oriented = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
        return {"shape": shape, "header_tr": _header_tr(header), "oriented": oriented}


class _Cifti(_Nifti):
    """Also keeps the XML before the data, which names the grayordinates and the time step."""

    def __init__(self) -> None:
        super().__init__()
        self.front = bytearray()

    def feed(self, block: bytes) -> None:
        super().feed(block)
        if len(self.front) < CIFTI_XML:
            self.front += block
        self.enough = len(self.front) >= CIFTI_XML

    def facts(self, whole: bool) -> dict[str, object]:
        from boldmill.index.cifti_header import parse

        shape = super().facts(whole)["shape"]
        size = shape[-2:] if isinstance(shape, tuple) else ()
        code = bytes(self.front[548:552])
        xml = self.front[552 : 544 + int.from_bytes(self.front[544:548], "little")]
        if len(size) != 2 or code != b"\x20\0\0\0":
            raise _Broken("not a CIFTI-2 file", "give a CIFTI-2 series (.dtseries.nii)")
        try:
            header = parse(bytes(xml))
        except ValueError as error:
            raise _Broken(str(error), AGAIN) from error
        if header.n_grayordinates != size[1]:
            why = f"its header names {header.n_grayordinates} grayordinates, its data have {size[1]}"
            raise _Broken(why, "restore the file")
        return {"shape": (*size, *header.cortex()), "header_tr": header.step, "oriented": True}


def _header_tr(header: Any) -> float:
    """Return pixdim[4] in seconds; a value of 100 or more is milliseconds, whatever unit the header names."""
    value = float(header["pixdim"][4])
    unit = header.get_xyzt_units()[1]
    if not 0 < value < float("inf"):
        return 0.0
    value *= {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    return value / 1000 if value >= 100 else value


class _Gifti(_Sink):
    """Reads the dimensions of each data array from its XML attributes; the arrays are not decoded."""

    def __init__(self) -> None:
        from xml.parsers import expat

        self.arrays: list[dict[str, str]] = []
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.error = expat.ExpatError

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "DataArray":
            self.arrays.append(attributes)

    def feed(self, block: bytes) -> None:
        try:
            self.parser.Parse(block, False)
        except self.error as error:
            raise _Broken(f"not sound GIFTI ({error})", AGAIN) from error

    def facts(self, whole: bool) -> dict[str, object]:
        try:
            self.parser.Parse(b"", True)
        except self.error as error:
            raise _Broken("the GIFTI file ends early: the file is truncated", AGAIN) from error
        sizes = {(int(a.get("Dim0", 0)), int(a.get("Dim1", 1))) for a in self.arrays}
        if len(sizes) != 1:
            raise _Broken("its data arrays are missing or differ in size", "write one array per volume")
        ((vertices, columns),) = sizes
        return {"shape": (vertices, columns * len(self.arrays))}


class _Table(_Sink):
    def __init__(self) -> None:
        self.text = b""

    def feed(self, block: bytes) -> None:
        self.text += block

    def facts(self, whole: bool) -> dict[str, object]:
        lines = [line for line in self.text.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]
        if not lines:
            raise _Broken("the table is empty", AGAIN)
        lines = [line for line in lines if not line.startswith("#")]
        if not lines:
            raise _Broken("the table has comments only", AGAIN)
        words = lines[0].split("\t") if "\t" in lines[0] else lines[0].split()
        return {"shape": (len(lines) - is_header(words), len(words))}


def is_header(words: list[str]) -> bool:
    """Return whether the first row of a table names its columns: a word that is no number, or ids counting up.

    >>> is_header(["a", "1"]), is_header(["1", "2", "3"]), is_header(["0.5", "n/a", "2"])
    (True, True, False)
    """
    if not all(_is_number(word) for word in words):
        return True
    ids = [int(word) for word in words if word.strip().isdigit()]
    return len(ids) == len(words) > 2 and ids == list(range(ids[0], ids[0] + len(ids)))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return word.strip().lower() in ("n/a", "na")
    return True


def _sink(path: Path) -> _Sink:
    if path.name.endswith(".dtseries.nii"):
        return _Cifti()
    if path.name.endswith((".nii", ".nii.gz")):
        return _Nifti()
    return _Gifti() if path.name.endswith(".gii") else _Table()
