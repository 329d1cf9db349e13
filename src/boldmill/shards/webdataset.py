"""Tar files of flat maps as the community publishes them: one sample per run, members ``<key>.<suffix>``.

| generation | members | mask |
|---|---|---|
| ``v1`` | ``bold.npy``, ``events.json``, ``mask.npz`` (scipy COO), ``meta.json`` | in every sample |
| ``v2`` | ``bold.npy``, ``mean.npy``, ``meta.json``, ``std.npy`` | known to the reader only |

Keys are ``sub-*_mod-*_task-*_mag-*_dir-*``, further BIDS entities after them; ``na`` stands for what is not known.
``bold.npy`` holds the z-scored run, ``meta.json`` its facts. The bytes of a tar follow from its content: members are
sorted, owned by nobody and dated 0. Reading extracts nothing and unpickles nothing.

Axes: T frames of a run, L frames of a clip, N pixels of the mask in row-major order, H W grid.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from boldmill.atomic import atomic, canonical_json
from boldmill.errors import BoldmillError, DataFault

GENERATIONS = ("v2", "v1")
FIELDS = ("sub", "mod", "task", "mag", "dir")
"""Entities of every key, in order."""

UNKNOWN = "na"

BROKEN = (
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy raises for files that are damaged, forged or of another kind."""

HEAD = 4096
"""Bytes that hold the header of any array of numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One sample.

    Parameters
    ----------
    key : str
        Its name.
    meta : dict
        Content of ``meta.json``.
    frames : (T, N) array of float16
        Z-scored flat maps.
    mean, std : (N,) array of float32, optional
        Mean and SD of each pixel over the run, in the unit of the series; v1 has none.
    sha256 : str
        Hash of ``bold.npy`` as read.
    """

    key: str
    meta: dict[str, Any]
    frames: npt.NDArray[np.float16]
    mean: npt.NDArray[np.float32] | None = None
    std: npt.NDArray[np.float32] | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Where the members of a sample lie: suffix -> (offset, size) in the tar."""

    tar: Path
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


def run_key(entities: Mapping[str, str]) -> str:
    """Return the key of a run: the fixed entities first, the others sorted.

    >>> run_key({"sub": "01", "task": "rest", "run": "2"})
    'sub-01_mod-rfMRI_task-rest_mag-na_dir-na_run-2'
    """
    task = entities.get("task", "")
    known = {"mod": "rfMRI" if task.lower().startswith("rest") else "tfMRI", **entities}
    names = [*FIELDS, *sorted(set(known) - set(FIELDS))]
    words = ((name, re.sub(r"[^A-Za-z0-9+]", "", str(known.get(name) or "")) or UNKNOWN) for name in names)
    return "_".join(f"{name}-{word}" for name, word in words)


def entities_of(key: str) -> dict[str, str]:
    """Return the entities a key spells, what is not known left out.

    >>> entities_of("sub-100206_mod-tfMRI_task-MOTOR_mag-3T_dir-na")
    {'sub': '100206', 'mod': 'tfMRI', 'task': 'MOTOR', 'mag': '3T'}
    """
    pairs = (word.partition("-") for word in PurePosixPath(key).name.split("_"))
    return {name: value for name, _, value in pairs if value and value != UNKNOWN}


def check_starts(starts: Sequence[int], length: int, where: str) -> None:
    """Raise :class:`DataFault` where clips leave a frame of the run out."""
    end = 0
    for start in starts:
        if start > end:
            fix = "build the shards with shards.clip_stride <= shards.clip_frames"
            raise DataFault("cannot join clips", where, f"no clip has frames {end} to {start - 1}", fix)
        end = start + length


def join_clips(starts: Sequence[int], clips: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return the run (T, N) that clips (K, L, N) were cut from; frames after the last clip are not in the shards.

    Raises
    ------
    DataFault
        A frame between two clips is missing, or clips that overlap differ.
    """
    length = clips.shape[1]
    check_starts(starts, length, where)
    if all(start == number * length for number, start in enumerate(starts)):
        return clips.reshape(-1, clips.shape[2])
    frames = np.empty((starts[-1] + length, clips.shape[2]), clips.dtype)
    done = 0
    for start, clip in zip(starts, clips, strict=True):
        if not np.array_equal(frames[start:done], clip[: done - start]):
            why = f"the clip that begins at frame {start} differs from the one before it"
            raise DataFault("cannot join clips", where, why, "rebuild the shards")
        frames[done : start + length] = clip[done - start :]
        done = start + length
    return frames


def encode(run: Run, mask: npt.NDArray[np.bool_], generation: str) -> dict[str, bytes]:
    """Return the members of a sample: suffix -> bytes."""
    members = {"bold.npy": _npy(run.frames.astype("<f2", copy=False)), "meta.json": canonical_json(run.meta).encode()}
    if generation == "v1":
        from scipy.sparse import coo_array, save_npz

        buffer = io.BytesIO()
        save_npz(buffer, coo_array(mask), compressed=False)
        return {**members, "events.json": b"[]", "mask.npz": buffer.getvalue()}
    for name, values in (("mean.npy", run.mean), ("std.npy", run.std)):
        if values is not None:
            members[name] = _npy(values.astype("<f4", copy=False))
    return members


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    """Write samples (key, members) in the order given; the file appears when it is whole."""
    with atomic(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for key, members in samples:
            for suffix, content in sorted(members.items()):
                entry = tarfile.TarInfo(f"{key}.{suffix}")  # mode 0644, owner 0, no names, date 0
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def index_tar(path: Path) -> tuple[list[Sample], str]:
    """Return the samples of a tar, reading headers only, and why the list may be short (empty: it is whole).

    Raises
    ------
    BoldmillError
        The file is no plain tar, or a member is a link, a device or lies outside the folder of the tar.
    """
    samples: dict[str, Sample] = {}
    cut = ""
    try:
        with tarfile.open(path, "r:") as tar:
            while (entry := _next(tar)) is not None:
                if isinstance(entry, str):
                    cut = entry
                    break
                if entry.isdir():
                    continue
                place = PurePosixPath(entry.name)
                if not entry.isreg() or entry.issparse() or place.is_absolute() or ".." in place.parts:
                    why = f"member {entry.name!r} is no plain file inside it"
                    raise BoldmillError("unsafe tar", path, why, "take the file from its publisher again")
                stem, _, suffix = place.name.partition(".")
                key = (place.parent / stem).as_posix()
                samples.setdefault(key, Sample(tar=path, key=key)).members[suffix] = (entry.offset_data, entry.size)
    except (tarfile.TarError, OSError) as error:
        why = f"not a tar file without compression ({error})"
        raise BoldmillError("cannot read", path, why, "give .tar files, uncompressed") from error
    return list(samples.values()), cut


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | str | None:
    """Return the next member, ``None`` at the end, or why there is none to be had."""
    try:
        return tar.next()
    except tarfile.TarError as error:
        if not tar.offset:
            raise
        return f"the tar is cut short after {tar.offset} bytes ({error})"


def read_run(sample: Sample, n_pixels: int) -> Run:
    """Read one sample.

    Raises
    ------
    DataFault
        Something is missing, damaged, not finite, or not of this many pixels.
    """
    raw = read_member(sample, "bold.npy")
    frames = _array(sample, "bold.npy", raw)
    if frames.ndim != 2 or frames.shape[1] != n_pixels:
        why = f"bold.npy has shape {frames.shape}, the grid has {n_pixels} pixels"
        raise _fault(sample, why, "name the grid the tar was made on")
    if frames.dtype.kind != "f":
        raise _fault(sample, f"bold.npy is {frames.dtype}, not a z-scored series", "import float16 or float32 tars")
    with np.errstate(over="ignore"):
        frames = frames.astype("<f2", copy=False)
    if not np.isfinite(frames).all():
        raise _fault(sample, "the frames are not all finite", "leave the run out")
    pixels: dict[str, npt.NDArray[np.float32]] = {}
    for name in ("mean", "std"):
        if f"{name}.npy" in sample.members:
            values = _array(sample, f"{name}.npy", read_member(sample, f"{name}.npy"))
            if values.size != n_pixels or values.dtype.kind != "f":
                raise _fault(sample, f"{name}.npy has shape {values.shape}", "name the grid the tar was made on")
            pixels[name] = values.reshape(n_pixels).astype("<f4")
    try:
        meta = json.loads(read_member(sample, "meta.json")) if "meta.json" in sample.members else {}
    except ValueError as error:
        raise _fault(sample, f"meta.json is no JSON ({error})", "leave the run out") from error
    if not isinstance(meta, dict) or not all(is_tr(meta.get(key, 1.0)) for key in ("tr", "tr_in")):
        raise _fault(sample, "meta.json is no object, or its tr no number above 0", "leave the run out")
    digest = hashlib.sha256(raw).hexdigest()
    return Run(key=sample.key, meta=meta, frames=frames, mean=pixels.get("mean"), std=pixels.get("std"), sha256=digest)


def is_tr(value: Any) -> bool:
    """Return whether a value can be the time between frames."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def frames_shape(sample: Sample) -> tuple[int, ...]:
    """Return the shape of ``bold.npy`` from its header, or an empty one where it has none."""
    offset, size = sample.members.get("bold.npy", (0, 0))
    with open(sample.tar, "rb") as handle:
        handle.seek(offset)
        head = io.BytesIO(handle.read(min(size, HEAD)))
    try:
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return tuple(read(head)[0])
    except (ValueError, EOFError):
        return ()


def read_mask(sample: Sample) -> npt.NDArray[np.bool_] | None:
    """Return the mask (H, W) a v1 sample carries, or ``None``."""
    if "mask.npz" not in sample.members:
        return None
    try:
        with np.load(io.BytesIO(read_member(sample, "mask.npz")), allow_pickle=False) as stored:
            mask = np.zeros([int(n) for n in stored["shape"]], bool)
            mask[stored["row"], stored["col"]] = stored["data"] != 0
    except BROKEN as error:
        raise _fault(
            sample, f"mask.npz is no sparse matrix ({error})", "take the tar from its publisher again"
        ) from error
    return mask


def read_member(sample: Sample, suffix: str) -> bytes:
    """Return the bytes of a member."""
    if suffix not in sample.members:
        raise _fault(sample, f"it has no {suffix}", "leave the run out")
    offset, size = sample.members[suffix]
    with open(sample.tar, "rb") as handle:
        handle.seek(offset)
        content = handle.read(size)
    if len(content) < size:
        raise _fault(sample, f"{suffix} is cut short", "take the tar from its publisher again")
    return content


def _npy(values: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _array(sample: Sample, suffix: str, content: bytes) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except BROKEN as error:
        raise _fault(sample, f"{suffix} is no plain numpy array ({error})", "leave the run out") from error
    return values


def _fault(sample: Sample, why: str, fix: str) -> DataFault:
    return DataFault("cannot use the sample", sample.key, f"{sample.tar.name}: {why}", fix)
