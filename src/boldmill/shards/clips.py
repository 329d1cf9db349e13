"""Flat clips: rows of ``flat_clips`` from the frames of a run, and batches of them as models take them.

Axes: B clips, T frames, X valid pixels, H W flat grid.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boldmill.atomic import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

    from boldmill.shards.rows import TableRows

INT8_MAX = 127


def clip_starts(n_frames: int, length: int, stride: int) -> range:
    """Return the first frames of the clips that lie wholly inside a run.

    >>> list(clip_starts(50, 16, 16))
    [0, 16, 32]
    """
    return range(0, n_frames - length + 1, stride)


def stored_frames(frames: npt.NDArray[Any], dtype: str) -> tuple[npt.NDArray[Any], float]:
    """Return z-scored frames (T, X) in the dtype they are stored in, and the scale that brings them back.

    ``float16``: as they are, scale 1. ``int8``: the nearest multiple of ``max |z| / 127``; one scale per scan, so that
    clips of one scan compare; an error is at most half a step.
    """
    if dtype == "float16":
        return np.ascontiguousarray(frames, dtype="<f2"), 1.0
    largest = float(np.abs(frames).max(initial=0.0))
    scale = largest / INT8_MAX if largest > 0 else 1.0
    return np.rint(frames.astype(np.float32) * np.float32(1.0 / scale)).astype(np.int8), scale


def clip_rows(
    base: Mapping[str, Any], flat: Mapping[str, npt.NDArray[Any]], *, length: int, stride: int, dtype: str = "float16"
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a scan in ``flat_clips``; ``flat`` is the content of its npz."""
    frames, scale = stored_frames(flat["frames"], dtype)
    for clip, start in enumerate(clip_starts(len(frames), length, stride)):
        first = clip == 0
        yield {
            **base,
            "clip": clip,
            "start": start,
            "tr": float(flat["tr"]),
            "tr_in": float(flat["tr_in"]),
            "n_frames": length,
            "n_pixels": frames.shape[1],
            "values": frames[start : start + length].tobytes(),
            "scale": scale,
            "mean": flat["mean"].astype("<f4").tobytes() if first else None,
            "std": flat["std"].astype("<f4").tobytes() if first else None,
        }


def encode_mask(mask: npt.NDArray[np.bool_]) -> str:
    """Return a mask as JSON text: shape, and its bits packed row-major (base64)."""
    bits = base64.b64encode(np.packbits(mask).tobytes()).decode()
    return canonical_json({"shape": list(mask.shape), "bits": bits})


def decode_mask(text: str) -> npt.NDArray[np.bool_]:
    """Return the mask of :func:`encode_mask`."""
    value = json.loads(text)
    size = math.prod(value["shape"])
    bits = np.unpackbits(np.frombuffer(base64.b64decode(value["bits"]), dtype=np.uint8), count=size)
    return bits.astype(bool).reshape(value["shape"])


def clip_batch(rows: TableRows, indices: Sequence[int], device: str) -> Tensor:
    """Return flat clips (B, T, X) on a device: float16 as stored; int8 is sent as it is and scaled there, float32."""
    import torch

    values = torch.from_numpy(rows.read(indices, "values")).to(device)
    if values.dtype != torch.int8:
        return values
    scale = torch.from_numpy(rows.column("scale")[list(indices)]).to(device, torch.float32)
    return values.float() * scale[:, None, None]
