"""The module a training run starts from: fresh weights, or those of a file (``models.brainmass.init``)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json, sha256_file
from boldmill.errors import ConfigError
from boldmill.models.brainmass.architecture import Architecture, design
from boldmill.models.brainmass.config import BrainMassConfig
from boldmill.models.brainmass.model import BrainMass
from boldmill.train.checkpoint import CONFIG, UNSEEN, load_weights
from boldmill.train.device import seed_step

NAME = "brainmass"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A module and where its weights come from.

    Parameters
    ----------
    module : BrainMass
        On the CPU.
    facts : dict
        What ``config.json`` says of it (``init``: file and sha256); empty for fresh weights.
    subjects : frozenset of str
        Everyone the weights were trained on before.
    """

    module: BrainMass
    facts: dict[str, Any] = field(default_factory=dict)
    subjects: frozenset[str] = frozenset()


def start_module(config: BrainMassConfig, rois: int, seed: int) -> Start:
    """Return the module to train on ``rois`` ROIs.

    Raises
    ------
    ConfigError
        ``init`` cannot be read, does not fit the data or the settings, or nobody says whom it was trained on.
    """
    if config.init is None:
        arch = design(
            config.size,
            rois,
            width=config.width,
            style=config.forward_style,
            rec_layers=config.rec_layers,
            mask_columns=config.mask_columns,
            estimator=config.estimator,
        )
        seed_step("init", NAME, seed)
        return Start(module=BrainMass(arch))

    from boldmill.evaluate.leakage import pretraining_subjects

    path = Path(config.init)
    module = load_module(path)
    _check(module.arch, config, rois, path)
    if config.epochs:  # how it is trained on is of this run, how it was built is of the file
        module.arch = replace(module.arch, mask_columns=config.mask_columns)
    beside = path.with_name(CONFIG)
    vouched = bool(read_json(beside).get(UNSEEN)) if beside.exists() else False
    facts: dict[str, Any] = {"init": {"file": path.name, "sha256": sha256_file(path)}}
    return Start(module=module, facts=facts | ({UNSEEN: True} if vouched else {}), subjects=pretraining_subjects(path))


def load_module(checkpoint: Path) -> BrainMass:
    """Return the BrainMass of a checkpoint, on the CPU."""
    state, architecture = load_weights(checkpoint, model=NAME)
    module = BrainMass(Architecture(**architecture))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:300]
        raise ConfigError("weights do not fit", checkpoint, why, "train again with this version") from error
    return module


def _check(arch: Architecture, config: BrainMassConfig, rois: int, path: Path) -> None:
    """Refuse weights that are to be read in another way than they were trained."""
    if arch.rois != rois:
        why = f"it was trained on {arch.rois} ROIs, the snapshot has {rois}"
        raise ConfigError("weights do not fit", path, why, "use its parcellation, or start from fresh weights")
    for key, own, wanted in (
        ("forward_style", arch.style, config.forward_style),
        ("estimator", arch.estimator, config.estimator),
    ):
        if own != wanted:
            preset = " (or preset: paper)" if own in ("paper", "ledoit_wolf") else ""
            raise ConfigError("weights do not fit", path, f"its {key} is {own}, models.brainmass.{key} is {wanted}",
                              f"set models.brainmass.{key}: {own}{preset}")  # fmt: skip
