"""Operations of a whole training (multiply and add: 2), counted from the settings and the number of scans.

BrainMass is counted pass by pass; for the other two a forward pass is that of their transformer blocks, and a step is
three of it (forward, and twice as much backward). Nothing of torch is imported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boldmill.config.model import Config
    from boldmill.plan.table import Work

FLAT_PATCHES, FLAT_PATCH = 363, 16
"""Patches of one frame of the flat grid that hold a pixel, at a patch side of 16 pixels."""


def n_rois(config: Config) -> int:
    """Return the number of ROIs models read, by the name of the atlas; 100 where the name has no number."""
    own = [dataset.atlas for dataset in config.datasets if dataset.atlas]
    name = own[0] if own and all(dataset.atlas for dataset in config.datasets) else config.spaces.atlas_desc
    found = re.search(r"(\d+)(?=\s*Parcels)", name) or re.search(r"(\d{2,4})", name)
    return int(found[1]) if found else 100


def block_flops(tokens: float, width: int, hidden: int) -> float:
    """Return the operations of one transformer block: 8 S C^2 + 4 S^2 C + 4 S C f, S tokens, C width, f hidden.

    >>> block_flops(1, 2, 3)
    64
    """
    return 8 * tokens * width**2 + 4 * tokens**2 * width + 4 * tokens * width * hidden


def train_flops(config: Config, model: str, work: Work) -> float:
    """Return the operations of one training on the scans of ``work``, those held out left aside.

    Parameters
    ----------
    model : {"brainmass", "fmri_mae", "fm_app"}
        A model of ``models.train``.
    """
    scans = (work.scans + work.tables) * (1 - config.snapshot.heldout) * (1 - config.snapshot.validation)
    if model == "brainmass":
        return scans * config.models.brainmass.epochs * _brainmass(config)
    if model == "fmri_mae":
        return config.models.fmri_mae.steps * config.models.fmri_mae.batch * _fmri_mae(config)
    fm_app = config.models.fm_app
    return scans * (fm_app.epochs_fmri + fm_app.epochs_t1w) * _fm_app(config)


def _brainmass(config: Config) -> float:
    from boldmill.models.brainmass.architecture import design
    from boldmill.models.brainmass.flops import step_flops

    of, rois = config.models.brainmass, n_rois(config)
    arch = design(of.size, rois, width=of.width, style=of.forward_style, rec_layers=of.rec_layers)
    masked = max(1, int(of.mask_clf * rois + 1e-9)), max(1, int(of.mask_rec * rois + 1e-9))
    return step_flops(arch, masked)


def _fmri_mae(config: Config) -> float:
    from boldmill.models.fmri_mae.architecture import SIZES

    of = config.models.fmri_mae
    size, times = SIZES[of.preset], max(1, config.shards.clip_frames // of.patch_t)
    tokens = FLAT_PATCHES * (FLAT_PATCH / of.patch) ** 2 * times
    seen = tokens * (1 - of.mask_ratio)
    decoded = seen + tokens * of.mask_ratio * of.decode_share
    encoder = size.depth * block_flops(seen, size.width, 4 * size.width)
    return 3 * (encoder + size.decoder_depth * block_flops(decoded, size.decoder_width, 4 * size.decoder_width))


def _fm_app(config: Config) -> float:
    from boldmill.models.fm_app.architecture import PRESETS

    of, rois = PRESETS[config.models.fm_app.preset], n_rois(config)
    return float(3 * (2 * rois**2 * of["d"] + 2 * block_flops(rois, of["width"], of["mlp"])))
