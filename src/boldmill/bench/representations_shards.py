"""Reading of flat clips from a shard beside read() of the same bytes, and beside WebDataset on the same clips.

All three files lie in the page cache. Every clip ends in memory as one float16 array; batches go into memory that is
used again, as the training loader does and as read() into a buffer does. WebDataset decodes each clip by itself.

Axes: T frames of a clip, X valid pixels.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill import tables
from boldmill.bench.representations_case import Size
from boldmill.bench.table import Row, side_by_side
from boldmill.rng import generator
from boldmill.shards.clips import clip_rows
from boldmill.shards.rows import TableRows
from boldmill.shards.write import shard_writer

READ_GOAL, PEER_GOAL = 0.8, 2.0
BATCH = 16


def rows(size: Size, repeats: int) -> list[Row]:
    """Return the rows: in the order of the file, in random order, and beside WebDataset."""
    with tempfile.TemporaryDirectory(prefix="boldmill-bench-") as folder:
        clips = _clips(size)
        shard, plain, packed = (Path(folder) / name for name in ("bucket-000.parquet", "clips.bin", "clips.tar"))
        write_shard(shard, clips)
        plain.write_bytes(clips.tobytes())
        table = TableRows([shard])
        batch = np.empty((BATCH, *clips.shape[1:]), np.float16)

        def ours(order: NDArray[np.intp]) -> float:
            total = 0.0
            for first in range(0, len(order), BATCH):
                chosen = order[first : first + BATCH]
                total += float(table.read(chosen, "values", batch[: len(chosen)])[:, 0, 0].sum())
            return total

        def read() -> float:
            total, whole = 0.0, batch.reshape(-1).data.cast("B")
            with plain.open("rb", buffering=0) as stream:
                for first in range(0, len(clips), BATCH):
                    count = min(BATCH, len(clips) - first)
                    stream.readinto(whole[: count * clips[0].nbytes])
                    total += float(batch[:count, 0, 0].sum())
            return total

        in_order = np.arange(len(clips))
        shuffled = generator("bench", "order").permutation(len(clips))
        _check(table, clips)
        what = f"reading {len(clips)} flat clips of {size.frames} x {size.pixels} float16"
        per_clip = clips[0].nbytes / 1e9
        made = []
        for name, order, goal in (("", in_order, READ_GOAL), (" in random order", shuffled, READ_GOAL)):
            ours_s, peer_s = side_by_side(lambda o=order: ours(o), read, repeats=repeats)  # type: ignore[misc]
            row = _row(f"{what}{name} (peer: read() of the same bytes)", len(clips) * per_clip, ours_s, peer_s, goal)
            made.append(row)
        title = f"{what} (peer: WebDataset"
        if find_spec("webdataset") is None:
            return [*made, Row(name=f"{title}: not installed)", ours=made[0].ours, peer=None, unit="GB/s", ratio=None)]
        write_tar(packed, clips)
        ours_s, peer_s = side_by_side(lambda: ours(in_order), lambda: webdataset_total(packed), repeats=repeats)
        return [*made, _row(f"{title})", len(clips) * per_clip, ours_s, peer_s, PEER_GOAL)]


def _row(name: str, size: float, ours_s: float, peer_s: float, goal: float) -> Row:
    ratio = peer_s / ours_s
    return Row(
        name=name,
        ours=size / ours_s,
        peer=size / peer_s,
        unit="GB/s",
        ratio=ratio,
        goal=f"ratio >= {goal:g}",
        met=ratio >= goal,
    )


def _clips(size: Size) -> NDArray[np.float16]:
    """Return clips (clips, T, X) of z-scores."""
    draw = generator("bench", "clips")
    clips = np.empty((size.clips, size.frames, size.pixels), np.float16)
    for clip in clips:
        clip[...] = draw.standard_normal(clip.shape, np.float32)
    return clips


def write_shard(path: Path, clips: NDArray[np.float16]) -> None:
    """Write clips as a table ``flat_clips``, one scan of clips that do not overlap, as the shards stage does."""
    length, pixels = clips.shape[1:]
    flat: dict[str, Any] = {"frames": clips.reshape(-1, pixels), "mean": np.zeros(pixels, np.float32)}
    flat |= {"std": np.ones(pixels, np.float32), "tr": np.float64(1.0), "tr_in": np.float64(1.0)}
    base: dict[str, Any] = {"scan_id": "bench", "dataset": "bench", "subject": "01", "source_sha256": []}
    base |= {"pipeline_version": "", "stage_digests": []}
    with shard_writer(path, tables.schema("flat_clips"), 256) as writer:
        for row in clip_rows(base, flat, length=length, stride=length):
            writer.add(row)


def write_tar(path: Path, clips: NDArray[np.float16]) -> None:
    """Write clips as the tar files that WebDataset reads: one ``.npy`` per clip."""
    with tarfile.open(path, "w") as archive:
        for number, clip in enumerate(clips):
            packed = io.BytesIO()
            np.save(packed, clip)
            member = tarfile.TarInfo(f"clip{number:05d}.bold.npy")
            member.size = packed.tell()
            archive.addfile(member, io.BytesIO(packed.getvalue()))


def webdataset_total(path: Path) -> float:
    """Read all clips of a tar file with WebDataset and return the sum of their first values."""
    import webdataset  # type: ignore[import-untyped]

    stream = webdataset.WebDataset(str(path), shardshuffle=False).decode()
    return sum(float(sample["bold.npy"][0, 0]) for sample in stream)


def _check(table: TableRows, clips: NDArray[np.float16]) -> None:
    """Raise where the shard does not give back the clips, bit for bit."""
    for index in (0, len(clips) - 1):
        if not np.array_equal(table.array(index, "values"), clips[index]):
            raise AssertionError(f"clip {index} came back changed")
