"""The headers of each format (NIfTI, CIFTI, GIFTI, tables), from bytes that come block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

CIFTI_XML = 16 << 20  # bytes before the data of a CIFTI file that are kept; 91k grayordinates take under one million
AGAIN = "copy or download the file again"


class Broken(Exception):
    """The bytes are not what the name promises: (reason, fix)."""


class Sink(Protocol):
    """Takes the decompressed bytes block by block and keeps what the header says."""

    enough: bool

    def feed(self, block: bytes) -> None:
        """Take the next bytes."""

    def facts(self, whole: bool) -> dict[str, object]:
        """Return the fields of :class:`boldmill.index.content.Facts` the format gives; ``whole``: all bytes came."""


class _Nifti:
    """Reads the header, and counts the bytes its data should have."""

    def __init__(self) -> None:
        self.enough = False
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
            raise Broken(f"not a NIfTI header ({error})", AGAIN) from error
        count = 1
        for n in shape:
            count *= n
        missing = int(header["vox_offset"]) + count * itemsize - self.length
        if not shape or count <= 0:
            raise Broken(f"the header gives an empty image {shape}", "convert the image again")
        if whole and missing > 0:
            raise Broken(f"{missing} bytes fewer than its header promises: the file is truncated", AGAIN)
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
            raise Broken("not a CIFTI-2 file", "give a CIFTI-2 series (.dtseries.nii)")
        try:
            header = parse(bytes(xml))
        except ValueError as error:
            raise Broken(str(error), AGAIN) from error
        if header.n_grayordinates != size[1]:
            why = f"its header names {header.n_grayordinates} grayordinates, its data have {size[1]}"
            raise Broken(why, "restore the file")
        return {"shape": (*size, *header.cortex()), "header_tr": header.step, "oriented": True}


def _header_tr(header: Any) -> float:
    """Return pixdim[4] in seconds; a value of 100 or more is milliseconds, whatever unit the header names."""
    value = float(header["pixdim"][4])
    unit = header.get_xyzt_units()[1]
    if not 0 < value < float("inf"):
        return 0.0
    value *= {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    return value / 1000 if value >= 100 else value


class _Gifti:
    """Reads the dimensions of each data array from its XML attributes; the arrays are not decoded."""

    def __init__(self) -> None:
        from xml.parsers import expat

        self.enough = False
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
            raise Broken(f"not sound GIFTI ({error})", AGAIN) from error

    def facts(self, whole: bool) -> dict[str, object]:
        try:
            self.parser.Parse(b"", True)
        except self.error as error:
            raise Broken("the GIFTI file ends early: the file is truncated", AGAIN) from error
        sizes = {(int(a.get("Dim0", 0)), int(a.get("Dim1", 1))) for a in self.arrays}
        if len(sizes) != 1:
            raise Broken("its data arrays are missing or differ in size", "write one array per volume")
        ((vertices, columns),) = sizes
        return {"shape": (vertices, columns * len(self.arrays))}


class _Table:
    """Counts rows and columns."""

    def __init__(self) -> None:
        self.enough = False
        self.text = b""

    def feed(self, block: bytes) -> None:
        self.text += block

    def facts(self, whole: bool) -> dict[str, object]:
        lines = [line for line in self.text.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]
        if not lines:
            raise Broken("the table is empty", AGAIN)
        lines = [line for line in lines if not line.startswith("#")]
        if not lines:
            raise Broken("the table has comments only", AGAIN)
        words = cells(lines[0], delimiter(lines[0]))
        return {"shape": (len(lines) - is_header(words), len(words))}


def delimiter(row: str) -> str | None:
    """Return what separates the cells of a table: a tab, else a comma, else (None) any white space."""
    return next((mark for mark in "\t," if mark in row), None)


def cells(row: str, mark: str | None) -> list[str]:
    """Return the cells of a row, without spaces and quotes around them.

    >>> cells('"a", b', delimiter('"a", b')), cells("1  2", None)
    (['a', 'b'], ['1', '2'])
    """
    return [cell.strip().strip('"') for cell in row.split(mark)]


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


def sink_of(path: Path) -> Sink:
    """Return what reads a file of this name."""
    if path.name.endswith(".dtseries.nii"):
        return _Cifti()
    if path.name.endswith((".nii", ".nii.gz")):
        return _Nifti()
    return _Gifti() if path.name.endswith(".gii") else _Table()
