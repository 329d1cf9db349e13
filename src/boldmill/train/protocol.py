"""What every model package offers to ``boldmill train`` and ``boldmill evaluate``.

``boldmill.models.<model>.train`` holds two functions::

    train(snapshot, settings, out_dir, device, threads, progress, machine=Machine()) -> TrainResult
    load(checkpoint, device="cpu") -> torch.nn.Module with .features(...)

``train`` writes ``out_dir/model.safetensors`` (:func:`boldmill.train.checkpoint.save_weights`, which puts the
architecture into the file's header, so that ``load`` needs that one file) and returns what the command writes
beside it. It reads the splits ``train`` and ``validation`` of the snapshot, never ``heldout``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from boldmill.errors import ConfigError, nearest
from boldmill.paths import MODELS

if TYPE_CHECKING:
    import torch

    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings
    from boldmill.train.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training run leaves beside its weights.

    Parameters
    ----------
    history : list of dict
        One row per logged step: ``step`` (int), ``epoch``, ``lr``, ``loss`` and its parts, monitors, and, where
        it was measured, ``validation_loss``. Written to ``history.jsonl``.
    metadata : dict
        JSON values. Required: ``architecture`` (everything ``load`` needs to build the module) and ``subjects``
        (sorted ``"<dataset>/<subject>"`` of everyone the weights were fitted on or chosen by, for the leakage
        check). Written to ``config.json`` and ``subjects.json``.
    """

    history: list[dict[str, Any]]
    metadata: dict[str, Any]


class TrainFunction(Protocol):
    """Train one model."""

    def __call__(
        self,
        snapshot: Snapshot,
        settings: Settings,
        out_dir: Path,
        device: str,
        threads: int,
        progress: bool,
        machine: Machine = ...,
    ) -> TrainResult:
        """Write ``out_dir/model.safetensors`` and return history and metadata."""
        ...


class FeatureModel(Protocol):
    """A loaded model in eval mode: deterministic features of a batch, one row per sample."""

    def features(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return features of shape (B, D)."""
        ...


def _module(model: str) -> Any:
    if model not in MODELS:
        raise ConfigError("unknown model", model, f"it is not one of {', '.join(MODELS)}{nearest(model, MODELS)}",
                          "use a known model")  # fmt: skip
    return importlib.import_module(f"boldmill.models.{model}.train")


def trainer(model: str) -> TrainFunction:
    """Return ``boldmill.models.<model>.train.train``."""
    return cast(TrainFunction, _module(model).train)


def load(model: str, checkpoint: str | Path, device: str = "cpu") -> FeatureModel:
    """Load a trained model, in eval mode, from its ``model.safetensors``."""
    return cast(FeatureModel, _module(model).load(Path(checkpoint), device=device))
