"""What lies in a file of ready-made parcel series: npz archive (a member per scan), npy array or text table.

Axes: T volumes, C columns.

Nothing is unpickled, and no member is larger than the archive says. A series of an archive is named by the hash of its
own content (:func:`array_sha256`), so that another member of the same file changes nothing for it.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import sha256_file
from boldmill.errors import DataFault, MachineFault
from boldmill.index.parcel_tables import read_parcels

Array = NDArray[Any]
ARRAYS = (".npz", ".npy")
TEXTS = (".tsv", ".csv", ".1D")
NAMES = ("__roi__", "__rois__", "__names__", "__labels__", "names", "labels", "roi", "rois", "roi_names", "parcels")
"""Members of an archive that name the columns, the first that is there counts."""
LARGEST = 1 << 32
"""Most bytes of one series: what takes more is no table of parcels, and must not fill the memory."""
AGAIN = "copy the file again, or write it again with numpy.savez"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """What is known of one series.

    Parameters
    ----------
    member : str
        Member of the archive; empty for a file that is one series.
    sha256 : str
        Of the member's content (:func:`array_sha256`), or of the file's bytes.
    size : int
        Bytes of the array.
    shape : tuple of int
        (T, C).
    empty, constant : tuple of int
        Columns without data (zero throughout, or anywhere not finite), and others that do not vary.
    fault, fix : str
        Why it cannot be used and what to do; empty if it can.
    """

    member: str
    sha256: str = ""
    size: int = 0
    shape: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    fault: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """What is known of one file: its series, the names of the columns (none: empty), and what is wrong with those."""

    size: int
    mtime_ns: int
    series: tuple[SeriesFacts, ...]
    names: tuple[str, ...] = ()
    names_fault: str = ""


def array_sha256(values: Array) -> str:
    r"""Return the hash of an array: of ``"<dtype> <shape>\n"`` and its bytes in C order.

    >>> array_sha256(np.zeros((2, 3), "<f4"))[:12]
    '591754bf63af'
    """
    digest = hashlib.sha256(f"{values.dtype.str} {tuple(map(int, values.shape))}\n".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def examine_table(path: Path) -> TableFacts:
    """Read every series of a file once; a fault of the data is kept, not raised.

    Raises
    ------
    MachineFault
        The disk fails.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        fault = SeriesFacts(member="", fault="the link points nowhere", fix="restore the file or remove the link")
        return TableFacts(size=0, mtime_ns=0, series=(fault,))
    names: list[str] = []
    wrong = ""
    try:
        series, given = _series_of(path)
        try:
            names = [] if given is None else column_names(*given)
        except DataFault as fault:
            wrong = fault.why
    except DataFault as fault:
        broken = SeriesFacts(member="", fault=fault.why, fix=fault.fix)
        return TableFacts(size=stat.st_size, mtime_ns=stat.st_mtime_ns, series=(broken,))
    except PermissionError:
        broken = SeriesFacts(member="", fault="permission denied", fix=f"chmod +r {path.name}")
        return TableFacts(size=0, mtime_ns=0, series=(broken,))
    except OSError as error:
        raise MachineFault("cannot read", path, str(error), "check the disk, then run ingest again") from error
    return TableFacts(
        size=stat.st_size, mtime_ns=stat.st_mtime_ns, series=tuple(series), names=tuple(names), names_fault=wrong
    )


def _series_of(path: Path) -> tuple[list[SeriesFacts], tuple[Array, str] | None]:
    """Return the series of a file, and the array that names the columns with what it is called."""
    if path.suffix == ".npz":
        return _archive(path)
    if path.suffix == ".npy":
        with open(path, "rb") as handle:
            return [_facts("", _read_npy(handle, path.name, path.stat().st_size), sha256_file(path))], None
    names, values = read_parcels(path)
    return [_facts("", values, sha256_file(path))], (np.array(names), path.name) if names else None


def _archive(path: Path) -> tuple[list[SeriesFacts], tuple[Array, str] | None]:
    series: list[SeriesFacts] = []
    with open_archive(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        stems = [info.filename.removesuffix(".npy") for info in members]
        named = next((name for name in NAMES if name in stems), "")
        for info, member in zip(members, stems, strict=True):
            if member == named or (member.startswith("__") and member.endswith("__")):
                continue
            try:
                if stems.count(member) > 1:
                    raise DataFault("ambiguous member", member, "the archive holds it twice", AGAIN)
                series.append(_facts(member, read_member(archive, info)))
            except DataFault as fault:
                series.append(SeriesFacts(member=member, fault=fault.why, fix=fault.fix))
        if not series:
            raise DataFault("no series", path.name, "the archive holds no series", "save one array for each scan")
        return series, (read_member(archive, archive.getinfo(f"{named}.npy")), named) if named else None


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an npz archive.

    Raises
    ------
    DataFault
        Not one.
    """
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataFault("cannot read archive", path, f"not a sound npz archive ({error})", AGAIN) from error


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """Read one array of an archive.

    Raises
    ------
    DataFault
        A name that leads out of the archive, encrypted, pickled, truncated, or no array.
    """
    name = info.filename
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] in ("", "~") or ":" in parts[0]:
        raise DataFault("refused", name, f"the name '{name}' leads out of the archive", AGAIN)
    if info.flag_bits & 1:
        raise DataFault("refused", name, "the member is encrypted", AGAIN)
    if not name.endswith(".npy"):
        raise DataFault("no array", name, f"'{name}' is no .npy array", AGAIN)
    try:
        with archive.open(info) as handle:
            return _read_npy(handle, name, info.file_size)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise DataFault("cannot read member", name, f"the member is damaged ({error})", AGAIN) from error


def _read_npy(handle: IO[bytes], name: str, size: int) -> Array:
    """Read an array whose header is checked first: no pickle, and no more bytes than there are."""
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(handle)
        if version not in header:
            raise ValueError(f"format {version} is not read")
        shape, fortran, dtype = header[version](handle)
        if dtype.hasobject:
            why, fix = "it holds pickled Python objects", "save plain numbers: numpy.savez of float32 arrays"
            raise DataFault("refused", name, why, fix)
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes > LARGEST:
            raise ValueError(f"{n_bytes / 2**30:.0f} GiB are no parcel series")
        data = handle.read(n_bytes) if n_bytes <= size else b""
        if len(data) != n_bytes:
            raise ValueError(f"{n_bytes} bytes promised, fewer are there")
        values: Array = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, SyntaxError, TokenError) as error:  # numpy reads a header as Python literals
        raise DataFault("no array", name, f"it is no sound .npy array ({error})", AGAIN) from error
    return values


def _facts(member: str, values: Array, sha256: str = "") -> SeriesFacts:
    where = member or "the file"
    try:
        check_series(values, where)
    except DataFault as fault:
        return SeriesFacts(member=member, shape=values.shape, fault=fault.why, fix=fault.fix)
    finite = np.isfinite(values).all(axis=0)
    empty = ~finite | (values == 0).all(axis=0)
    constant = ~empty & (values == values[0]).all(axis=0)
    why = "" if (~empty & ~constant).any() else "no column of it varies over time"
    return SeriesFacts(
        member=member,
        sha256=sha256 or array_sha256(values),
        size=values.nbytes,
        shape=values.shape,
        empty=tuple(np.flatnonzero(empty).tolist()),
        constant=tuple(np.flatnonzero(constant).tolist()),
        fault=why,
        fix="restore the series" if why else "",
    )


def check_series(values: Array, where: str) -> None:
    """Refuse what is no series (T, C) of numbers."""
    fix = "give one number for each volume (row) and parcel (column)"
    if values.dtype.kind not in "fiu":
        raise DataFault("not a series", where, f"it holds {values.dtype}, not numbers", fix)
    if values.ndim != 2 or 0 in values.shape:
        raise DataFault("not a series", where, f"its shape is {values.shape}, not (volumes, parcels)", fix)


def column_names(values: Array, where: str) -> list[str]:
    """Return the names of the columns of an array of texts or whole numbers.

    Raises
    ------
    DataFault
        No such array, or a name that is empty or occurs twice.
    """
    fix = f"give one name for each column in '{where}', or point datasets[].labels to a table of them"
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        why = f"'{where}' should name the columns, but holds {values.dtype} of shape {values.shape}"
        raise DataFault("no column names", where, why, fix)
    texts = values.astype("U") if values.dtype.kind != "S" else np.char.decode(values, "utf-8", "replace")
    names = [" ".join(str(text).split()) for text in texts.tolist()]
    if odd := next((name for name in names if not name or names.count(name) > 1), None):
        raise DataFault("no column names", where, f"'{where}' names {names.count(odd)} columns '{odd}'", fix)
    if "" in names:
        raise DataFault("no column names", where, f"'{where}' leaves a column without a name", fix)
    return names


def read_series(path: Path, member: str) -> tuple[Array, Array | None, str]:
    """Return the values (T, C), the array of their columns' names (None: unnamed) and the hash of one series.

    An archive stays open for the next member.

    Raises
    ------
    DataFault
        It cannot be read any more.
    """
    if path.suffix == ".npz":
        stat = path.stat()
        archive, names = _opened(path, stat.st_size, stat.st_mtime_ns)
        try:
            values = read_member(archive, archive.getinfo(f"{member}.npy"))
        except KeyError as error:
            raise DataFault("no such member", path, f"it holds no '{member}'", "run `snakemake ingest`") from error
        return values, names, array_sha256(values)
    if path.suffix == ".npy":
        with open(path, "rb") as handle:
            return _read_npy(handle, path.name, path.stat().st_size), None, sha256_file(path)
    texts, values = read_parcels(path)
    return values, np.array(texts) if texts else None, sha256_file(path)


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, mtime_ns: int) -> tuple[zipfile.ZipFile, Array | None]:
    archive = open_archive(path)
    members = set(archive.namelist())
    named = next((name for name in NAMES if f"{name}.npy" in members), "")
    return archive, read_member(archive, archive.getinfo(f"{named}.npy")) if named else None
