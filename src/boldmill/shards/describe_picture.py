"""One picture of a table: a flat map, a matrix, or a carpet of series.

Axes: T time or frames, P parcels, N pixels of the mask, H W grid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from boldmill.atomic import atomic
from boldmill.errors import ConfigError
from boldmill.shards.rows import TableRows

DRAWN = ("flat_clips", "fc", "pfc", "timeseries")
"""Tables with a picture, the first one of a folder or snapshot being drawn."""


def draw(path: Path, table: str, rows: TableRows) -> str:
    """Draw the first row of a table as PNG and return what it shows.

    Raises
    ------
    ConfigError
        The table has no rows, or no picture.
    """
    if table not in DRAWN or not len(rows):
        why = f"{table} has no rows" if table in DRAWN else f"{table} has no arrays to look at"
        raise ConfigError("nothing to draw", path, why, f"name one of {', '.join(DRAWN)} with --table")
    scan_id = str(rows.column("scan_id")[0])
    values = rows.array(0, "values")
    if table == "flat_clips":
        _flat(path, rows, values)
        return f"first clip of {scan_id}: its middle frame, and the SD of every pixel"
    if table == "timeseries":
        shown, title, limit = zscored(values).T, f"{scan_id}: series, z", 3.0
        _image(path, shown, title, "volume", "parcel", limit, "gray")
    else:
        from boldmill.represent.fc import unvectorise

        title = f"{scan_id}: " + ("functional connectivity" if table == "fc" else "pFC, view 0")
        _image(path, unvectorise(np.array(values, np.float32)), title, "parcel", "parcel", 1.0, "RdBu_r")
    return title


def zscored(series: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return series (T, P) with mean 0 and SD 1 over time; parcels that do not vary, or are NaN, are NaN."""
    wide = series.astype(np.float64)
    spread = wide.std(axis=0)
    z: npt.NDArray[np.float64] = (wide - wide.mean(axis=0)) / np.where(spread > 0, spread, np.nan)
    return z


def _flat(path: Path, rows: TableRows, values: npt.NDArray[Any]) -> None:
    from boldmill.represent.pictures import write_still
    from boldmill.shards.clips import decode_mask

    mask = decode_mask(rows.schemas[0].metadata[b"mask"].decode())
    row = rows.row(0, ["scale", "tr"])
    std = rows.find(0, "std")
    frames = values.astype(np.float32) * row["scale"]
    spread = frames.std(axis=0) if std is None else std
    write_still(path, frames.astype(np.float16), spread.astype(np.float32), mask, None, row["tr"])


def _image(path: Path, values: npt.NDArray[Any], title: str, x: str, y: str, limit: float, cmap: str) -> None:
    from matplotlib.figure import Figure

    height, width = values.shape
    figure = Figure(figsize=(7, 6.2 if height == width else 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("0.85")  # NaN
    image = axes.imshow(values, cmap=cmap, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_aspect("equal" if height == width else "auto")
    axes.set(title=title, xlabel=x, ylabel=y)
    figure.colorbar(image, shrink=0.8)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
