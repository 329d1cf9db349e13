"""pFC views against one numpy.corrcoef per view, and shard reading against a plain read of the same file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from boldmill import tables
from boldmill.bench.table import Row, side_by_side
from boldmill.represent.config import AugmentConfig
from boldmill.represent.pfc import pfc_views, view_masks
from boldmill.rng import generator
from boldmill.shards.build import clip_rows
from boldmill.shards.rows import TableRows
from boldmill.shards.write import shard_writer

PARCELS, TIMEPOINTS, VIEWS = 100, 200, 1000
PIXELS, FRAMES, CLIP = 77763, 128, 16
GOAL = 5.0


def measure(repeats: int) -> list[Row]:
    """Return the rows: pFC with numpy and torch, on this machine's cores, and reading of flat clips."""
    return [*_pfc(repeats), _reading(repeats)]


def _pfc(repeats: int) -> list[Row]:
    import torch

    rng = generator("bench", "pfc")
    shared = rng.standard_normal((TIMEPOINTS, 5)) @ rng.standard_normal((5, PARCELS))
    series = (shared + rng.standard_normal((TIMEPOINTS, PARCELS))).astype(np.float32)
    cfg = AugmentConfig()
    upper = np.triu_indices(PARCELS, k=1)

    def peer() -> npt.NDArray[np.float64]:
        masks = view_masks(TIMEPOINTS, "bench", range(VIEWS), 1, cfg)
        return np.stack([np.corrcoef(series[mask], rowvar=False)[upper] for mask in masks])

    rows = []
    for name, data in (("numpy", series), ("torch, CPU", torch.from_numpy(series))):

        def ours(data: Any = data) -> Any:
            return pfc_views(data, "bench", range(VIEWS), 1, cfg)

        ours_s, peer_s = side_by_side(ours, peer, repeats=repeats)
        error = float(np.abs(np.asarray(ours()) - peer()).max())
        rows.append(
            Row(
                name=f"pFC, {VIEWS} views, {PARCELS} parcels, {TIMEPOINTS} frames ({name}; max difference {error:.0e})",
                ours=VIEWS / ours_s,
                peer=VIEWS / peer_s,
                unit="views/s",
                ratio=peer_s / ours_s,
                goal=f"ratio >= {GOAL:g} over corrcoef per view" if name == "numpy" else "",
                met=peer_s / ours_s >= GOAL if name == "numpy" else None,
            )
        )
    return rows


def _reading(repeats: int) -> Row:
    rng = generator("bench", "clips")
    flat = {
        "frames": rng.standard_normal((FRAMES, PIXELS), dtype=np.float32).astype(np.float16),
        "mean": np.zeros(PIXELS, np.float32),
        "std": np.ones(PIXELS, np.float32),
        "tr": np.float64(1.0),
        "tr_in": np.float64(1.0),
    }
    base: dict[str, Any] = {"scan_id": "bench", "dataset": "bench", "subject": "01", "source_sha256": []}
    base |= {"pipeline_version": "", "stage_digests": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bucket-000.parquet"
        with shard_writer(path, tables.schema("flat_clips"), 256) as writer:
            for row in clip_rows(base, {k: np.asarray(v) for k, v in flat.items()}, length=CLIP, stride=CLIP):
                writer.add(row)

        def ours() -> float:
            rows = TableRows([path])
            return sum(float(rows.array(i, "values")[0, 0]) for i in range(len(rows)))

        ours_s, peer_s = side_by_side(ours, path.read_bytes, repeats=repeats)
    clips = FRAMES // CLIP
    return Row(
        name=f"reading {clips} flat clips of {CLIP} x {PIXELS} (decoded; peer: read() of the file)",
        ours=clips / ours_s,
        peer=clips / peer_s,
        unit="clips/s",
        ratio=peer_s / ours_s,
    )
