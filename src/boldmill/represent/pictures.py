"""Pictures of flat maps: a still (PNG) and a movie (WebP), left hemisphere left, folds shaded.

Axes: H W pixels, N pixels of the mask in row-major order, S frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.atomic import atomic

BACKGROUND = 255
SHADE = 0.78
LIMIT = 2.5
FRAME_MS = 120


def colour(
    values: NDArray[Any], mask: NDArray[np.bool_], folds: NDArray[Any] | None, low: float, high: float, cmap: str
) -> NDArray[np.uint8]:
    """Paint one map.

    Parameters
    ----------
    values : (N,) array
    mask : (H, W) array of bool
    folds : (N,) array or None
        Sulcal depth, > 0 in sulci, which are darkened.
    low, high : float
        Ends of the colour scale.
    cmap : str
        Matplotlib colour map.

    Returns
    -------
    (H, W, 3) array of uint8
        White outside the mask.
    """
    from matplotlib import colormaps

    scaled = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    painted = colormaps[cmap](scaled)[:, :3]
    if folds is not None:
        painted = painted * np.where(folds > 0, SHADE, 1.0)[:, None]
    image = np.full((*mask.shape, 3), BACKGROUND, np.uint8)
    image[mask] = np.rint(painted * 255).astype(np.uint8)
    return image


def _label(image: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """Write L, R and a title into the corners."""
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 2), "L", fill=(0, 0, 0))
    draw.text((image.shape[1] - 12, 2), "R", fill=(0, 0, 0))
    draw.text((image.shape[1] // 2, 2), title, fill=(0, 0, 0), anchor="ma")
    return np.asarray(canvas)


def write_still(
    path: Path,
    frames: NDArray[np.float16],
    std: NDArray[np.float32],
    mask: NDArray[np.bool_],
    folds: NDArray[Any] | None,
    tr: float,
) -> Path:
    """Write a PNG: the middle frame (z), and below it the SD of every pixel over the run."""
    from PIL import Image

    middle = len(frames) // 2
    top = _label(colour(frames[middle], mask, folds, -LIMIT, LIMIT, "RdBu_r"), f"z at {middle * tr:.0f} s")
    high = float(np.percentile(std, 98)) or 1.0
    bottom = _label(colour(std, mask, folds, 0.0, high, "viridis"), f"SD over the run, 0 to {high:.3g}")
    with atomic(path) as temporary:
        Image.fromarray(np.vstack([top, bottom])).save(temporary, format="PNG", optimize=False)
    return path


def write_movie(
    path: Path, frames: NDArray[np.float16], mask: NDArray[np.bool_], folds: NDArray[Any] | None, n: int, tr: float
) -> Path:
    """Write an animated WebP of the first ``n`` frames (z from -2.5 to 2.5)."""
    from PIL import Image

    pictures = [
        Image.fromarray(_label(colour(frame, mask, folds, -LIMIT, LIMIT, "RdBu_r"), f"{index * tr:.0f} s"))
        for index, frame in enumerate(frames[:n])
    ]
    with atomic(path) as temporary:
        pictures[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=pictures[1:],
            duration=FRAME_MS,
            loop=0,
            quality=55,
            method=2,
        )
    return path


def write_map(
    path: Path,
    values: NDArray[Any],
    mask: NDArray[np.bool_],
    title: str,
    *,
    cmap: str = "gray_r",
    limit: float | None = None,
) -> Path:
    """Write a PNG of one map (N,): colours span its 2nd to 98th percentile, or plus and minus ``limit``."""
    from PIL import Image

    low, high = (-limit, limit) if limit else (float(v) for v in np.percentile(values, (2, 98)))
    with atomic(path) as temporary:
        Image.fromarray(_label(colour(values, mask, None, low, high, cmap), title)).save(temporary, format="PNG")
    return path
