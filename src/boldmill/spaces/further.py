"""Further templates: the brain T1w and mask of a TemplateFlow space that ``preprocess.output_spaces`` names.

A further template needs no head and no tissue maps: the brain that was found with the first template is registered
with its brain, starting from the first template's affine. Axes: X Y Z voxels (RAS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from boldmill.errors import MachineFault
from boldmill.preprocess.brainmask import CLOSING, close_and_fill
from boldmill.preprocess.foreground import block_mean
from boldmill.preprocess.images import Volume, read_volume
from boldmill.preprocess.transforms import resample
from boldmill.spaces.flow import flow_file

NO_TEMPLATE = re.compile(r"(T1w|anat|boldref|bold|func|fsnative|fsaverage\d*|fsLR)$")
"""Output spaces that need no volume template."""
ZOOM = 2.0


def further_templates(output_spaces: Iterable[str], first: str) -> list[str]:
    """Return the templates, other than the first, that output spaces name; a resolution after ``:`` is left out.

    >>> further_templates(["MNI152NLin2009cAsym:res-2", "T1w", "fsaverage5", "MNI152NLin6Asym"], "MNI152NLin6Asym")
    ['MNI152NLin2009cAsym']
    """
    names = {space.partition(":")[0] for space in output_spaces}
    return sorted(name for name in names if name != first and not NO_TEMPLATE.match(name))


def load_further(space: str) -> tuple[Volume, Volume, list[Path]]:
    """Return brain T1w, mask (closed and filled) on its 2 mm grid, and the files they came from.

    The brain T1w at 2 mm, else at 1 mm (averaged over blocks), else the head at 2 mm inside the mask.

    Raises
    ------
    MachineFault
        TemplateFlow has none of them here; names the first choice and how to fetch it.
    """
    first: MachineFault | None = None
    for resolution, desc in ((2, "brain"), (1, "brain"), (2, None)):
        try:
            t1w = flow_file(space, resolution=resolution, suffix="T1w", desc=desc, extension=".nii.gz")
            inside = flow_file(space, resolution=resolution, suffix="mask", desc="brain", extension=".nii.gz")
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
