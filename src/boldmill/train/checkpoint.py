"""Weights in safetensors: atomic, deterministic bytes, never a pickle.

``model.safetensors`` carries the model's name and architecture in its header, so that one file can be loaded. States of
runs that go on are files of the same kind (:mod:`boldmill.train.resume`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import atomic, canonical_json, read_json
from boldmill.errors import ConfigError

if TYPE_CHECKING:
    import torch

HEADER = "boldmill"
WEIGHTS = "model.safetensors"
CONFIG, HISTORY, SUBJECTS = "config.json", "history.jsonl", "subjects.json"
"""Files beside the weights."""
NOT_SCIENCE = "small model trained for minutes: shows that the line works, not science"
UNSEEN = "unseen_data"
"""Key of ``config.json``: the user vouches that the weights were trained on nobody of their data."""
VOUCHED = "weights from elsewhere: the user vouches that no subject tested was in their training"


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> Path:
    """Write named tensors and a JSON header atomically; the same values always give the same bytes.

    Raises
    ------
    OSError
        The disk is full, or cannot be written: what was there before stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with atomic(path) as temporary:
        try:
            save_file(plain, temporary, metadata={HEADER: canonical_json(dict(header))})
        except SafetensorError as error:
            if not (number := re.search(r"os error (\d+)", str(error))):
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    return Path(path)


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the JSON header of a file of :func:`write_tensors`.

    Raises
    ------
    ConfigError
        The file is absent, cut short, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            header = (handle.metadata() or {}).get(HEADER)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
        parsed = None if header is None else json.loads(header)
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError("cannot read the checkpoint", path, str(error), "give a whole model.safetensors") from error
    if parsed is None:
        raise ConfigError("not a boldmill checkpoint", path, "its header names no architecture",
                          "give a model.safetensors that `boldmill train` wrote")  # fmt: skip
    return tensors, parsed


def read_header(path: str | Path) -> dict[str, Any]:
    """Return the JSON header alone; empty where the file cannot be read or is none of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            return dict(json.loads((handle.metadata() or {}).get(HEADER, "{}")))
    except (OSError, SafetensorError, ValueError):
        return {}


def save_weights(
    path: str | Path, state: Mapping[str, torch.Tensor], *, model: str, architecture: Mapping[str, Any]
) -> Path:
    """Write the weights of ``model``; ``architecture`` is all that is needed to build its module again."""
    return write_tensors(path, state, {"model": model, "architecture": dict(architecture)})


def load_weights(path: str | Path, *, model: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the state and the architecture of a checkpoint of ``model``; refuse another model's."""
    state, header = read_tensors(path)
    if header.get("model") != model:
        raise ConfigError("wrong checkpoint", path, f"it holds {header.get('model')!r}, not {model!r}",
                          f"give the checkpoint of {model}")  # fmt: skip
    return state, header["architecture"]


def size_note(checkpoint: Path) -> str:
    """Return what must be said of a small model's numbers; empty for a full size (``config.json`` beside it)."""
    config = _config(checkpoint)
    settings = config.get("settings", {})
    size = config.get("size") or settings.get("size") or settings.get("preset", "tiny")
    return NOT_SCIENCE if size == "tiny" else ""


def checkpoint_note(checkpoint: Path) -> str:
    """Return all that must be said beside the numbers of a checkpoint (``config.json`` beside it)."""
    from boldmill.provenance.withdrawn import note as withdrawn

    vouched = VOUCHED if _config(checkpoint).get(UNSEEN) else ""
    return "; ".join(part for part in (size_note(checkpoint), vouched, withdrawn(checkpoint)) if part)


def _config(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint.with_name(CONFIG)
    return dict(read_json(path)) if path.exists() else {}
