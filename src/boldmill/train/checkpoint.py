"""Weights and resumable state in safetensors: atomic, deterministic bytes, never a pickle.

``model.safetensors`` carries the model's name and architecture in its header, so that one file can be loaded.
``resume.safetensors`` carries, beside the weights, the optimiser's moments and, in its header, the position of the
run; it is written while a run goes on and removed when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import atomic, canonical_json, read_json
from boldmill.errors import ConfigError

if TYPE_CHECKING:
    import torch

HEADER = "boldmill"
WEIGHTS = "model.safetensors"
RESUME = "resume.safetensors"
CONFIG, HISTORY, SUBJECTS = "config.json", "history.jsonl", "subjects.json"
"""Files beside the weights."""
NOT_SCIENCE = "small model trained for minutes: shows that the line works, not science"
UNSEEN = "unseen_data"
"""Key of ``config.json``: the user vouches that the weights were trained on nobody of their data."""
VOUCHED = "weights from elsewhere: the user vouches that no subject tested was in their training"


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> Path:
    """Write named tensors and a JSON header atomically; the same values always give the same bytes."""
    from safetensors.torch import save_file

    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with atomic(path) as temporary:
        save_file(plain, temporary, metadata={HEADER: canonical_json(dict(header))})
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
    except (OSError, SafetensorError) as error:
        raise ConfigError("cannot read the checkpoint", path, str(error), "give a whole model.safetensors") from error
    if header is None:
        raise ConfigError("not a boldmill checkpoint", path, "its header names no architecture",
                          "give a model.safetensors that `boldmill train` wrote")  # fmt: skip
    return tensors, json.loads(header)


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


@dataclass(kw_only=True)
class Position:
    """Where a run stands.

    ``fingerprint`` ties the state to settings, snapshot and architecture: another run's state is never resumed.
    """

    fingerprint: str
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    pending: dict[str, Any] = field(default_factory=dict)


def save_resume(
    path: str | Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer, position: Position
) -> Path:
    """Write everything needed to go on bit for bit: weights, buffers, optimiser moments, position."""
    tensors = {f"module/{name}": value for name, value in module.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors.update({f"optimiser/{index}/{name}": value for name, value in moments.items()})
    header = {"step": position.step, "history": position.history, "pending": position.pending}
    return write_tensors(path, tensors, {"fingerprint": position.fingerprint, **header})


def load_resume(
    path: str | Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer, fingerprint: str
) -> Position:
    """Restore ``module`` and ``optimiser`` in place where ``path`` holds this very run; else start at step 0."""
    if not Path(path).exists():
        return Position(fingerprint=fingerprint)
    tensors, header = read_tensors(path)
    if header.get("fingerprint") != fingerprint:
        return Position(fingerprint=fingerprint)
    module.load_state_dict({name[7:]: value for name, value in tensors.items() if name.startswith("module/")})
    moments: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser/"):
            _, index, moment = name.split("/")
            moments.setdefault(int(index), {})[moment] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return Position(fingerprint=fingerprint, step=header["step"], history=header["history"], pending=header["pending"])
