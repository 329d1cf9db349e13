"""Further templates: the brain T1w and mask of a TemplateFlow space that ``preprocess.output_spaces`` names.

A further template needs no head and no tissue maps: the brain that was found with the first template is registered
with its brain, starting from the first template's affine. Axes: X Y Z voxels (RAS).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from boldmill.errors import MachineFault
from boldmill.preprocess.brainmask import CLOSING, close_and_fill
from boldmill.preprocess.foreground import block_mean
from boldmill.preprocess.images import Volume, read_volume
from boldmill.preprocess.transforms import resample
from boldmill.spaces.flow import flow_file
from boldmill.spaces.flow_needs import further_queries

ZOOM = 2.0


def load_further(space: str) -> tuple[Volume, Volume, list[Path]]:
    """Return brain T1w, mask (closed and filled) on its 2 mm grid, and the files they came from.

    The brain T1w at 2 mm, else at 1 mm (averaged over blocks), else the head at 2 mm inside the mask.

    Raises
    ------
    MachineFault
        TemplateFlow has none of them here; names the first choice and how to fetch it.
    """
    first: MachineFault | None = None
    for pair in further_queries(space):
        try:
            t1w, inside = (flow_file(one) for one in pair)
        except MachineFault as fault:
            first = first or fault
            continue
        image = block_mean(read_volume(t1w, canonical=True, what="template"), ZOOM)
        mask = resample(block_mean(read_volume(inside, canonical=True, what="template mask"), ZOOM), image.grid)
        brain = np.where(mask.data > 0.5, image.data, 0)
        closed = close_and_fill(mask.data > 0.5, CLOSING)
        return image.like(brain.astype(np.float32)), image.like(closed.astype(np.float32)), [t1w, inside]
    assert first is not None
    raise first
