"""Mosaics of slices as inline SVG: one embedded picture, contours as paths, two pictures that alternate.

Axes: S slices, H W rows and columns of a slice or a picture.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PLANES = ("axial", "coronal", "sagittal")
QUALITY = 80
SCALE = 10
"""Contour coordinates are written in tenths of a pixel."""
TOLERANCE = 0.3
"""Contours are thinned to points that keep them within this distance, pixels."""
SHORTEST = 12
"""Contours of fewer points are specks and left out."""


def stacks(arrays: Mapping[str, Array], name: str) -> list[Array]:
    """Return the stacks (S, H, W) of one image, one per plane."""
    return [arrays[f"{name}_{plane}"] for plane in PLANES]


def mosaic(planes: list[Array]) -> NDArray[np.uint8]:
    """Lay slices out, one row per plane, centred on black."""
    width = max(stack.shape[0] * stack.shape[2] for stack in planes)
    canvas = np.zeros((sum(stack.shape[1] for stack in planes), width), np.uint8)
    for stack, (top, left) in zip(planes, corners(planes), strict=True):
        count, high, wide = stack.shape
        canvas[top : top + high, left : left + count * wide] = stack.transpose(1, 0, 2).reshape(high, count * wide)
    return canvas


def corners(planes: list[Array]) -> list[tuple[int, int]]:
    """Return top and left of each plane's row in the mosaic, pixels."""
    width = max(stack.shape[0] * stack.shape[2] for stack in planes)
    found, top = [], 0
    for count, high, wide in (stack.shape for stack in planes):
        found.append((top, (width - count * wide) // 2))
        top += high
    return found


def outline(planes: list[Array]) -> str:
    """Return the contours at one half of maps (0..255) as one SVG path in tenths of mosaic pixels."""
    from skimage import measure

    tools: Any = measure  # its functions carry no types
    words: list[str] = []
    for stack, (top, left) in zip(planes, corners(planes), strict=True):
        for place, one in enumerate(stack):
            if one.min() >= 128 or one.max() < 128:
                continue
            for line in tools.find_contours(one.astype(np.float32), 127.5):
                if len(line) < SHORTEST:
                    continue
                kept = tools.approximate_polygon(line, TOLERANCE)
                shift = np.array([top + 0.5, left + place * stack.shape[2] + 0.5])
                points = np.rint((kept + shift) * SCALE).astype(int)[:, ::-1]
                words.append(path_of(points, closed=bool(np.array_equal(line[0], line[-1]))))
    return "".join(words)


def path_of(points: NDArray[np.int_], *, closed: bool) -> str:
    """Write a polyline (N, 2) of x and y as a path of relative steps.

    >>> path_of(np.array([[10, 20], [12, 19], [9, 25], [10, 20]]), closed=True)
    'M10 20l2-1-3 6z'
    """
    steps = np.diff(points[:-1] if closed else points, axis=0)
    text = "".join(f"{' ' if x >= 0 else ''}{x}{' ' if y >= 0 else ''}{y}" for x, y in steps.tolist())
    return f"M{points[0, 0]} {points[0, 1]}" + (f"l{text.strip()}" if text else "") + ("z" if closed else "")


def webp(pixels: Array, quality: int = QUALITY) -> str:
    """Return a picture (H, W[, 3]) as a data URI; the same pixels give the same text."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=quality, method=4)
    return data_uri(buffer.getvalue(), "image/webp")


def png_palette(index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Return a picture of palette indices (H, W), palette (256, 3), as a data URI."""
    from PIL import Image

    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
