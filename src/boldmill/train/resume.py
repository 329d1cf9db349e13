"""State of a run that goes on: ``resume-<step>.safetensors``, the newest few kept.

A file holds weights, buffers and optimiser moments and, in its header, the position, the run's identity (settings,
snapshot, data digest, seed, architecture) and a sha256 over all of it. A file that is damaged is passed over for the
one before it; a file of another run is never resumed. Both are named on stderr.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import canonical_json, sha256_text
from boldmill.errors import ConfigError, MachineFault
from boldmill.train.checkpoint import read_header, read_tensors, write_tensors
from boldmill.train.distributed import from_first, is_first, size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from boldmill.train.order import Sampler

PATTERN = "resume-*.safetensors"
UNFINISHED = f".tmp-*-{PATTERN}"
"""What a process that was killed while it saved leaves behind (:func:`boldmill.atomic.atomic`): as large as a state."""
NO_RANDOM_STATE = "none to keep: each draw is keyed (order, views, masks), torch's generators are seeded at every step"


@dataclass(kw_only=True)
class Position:
    """Where a run stands: steps done, rows of history, and the sums of the row that is not complete."""

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    pending: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The saved states of one run.

    Parameters
    ----------
    folder : Path
        Where they lie.
    identity : dict
        JSON values that make this run this run: settings, data, seed, architecture.
    keep : int
        How many are kept.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int = 2) -> None:
        self.folder, self.identity, self.keep = folder, dict(identity), keep
        self.fingerprint = sha256_text(canonical_json(self.identity))
        self._damaged: set[Path] = set()

    def load(self, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> Position:
        """Restore ``module`` and ``optimiser`` in place from the newest whole state of this run; else step 0.

        The first rank chooses the file, all ranks read it. What a killed process left half written is removed.

        Raises
        ------
        MachineFault
            A rank cannot read what the first one read.
        """
        if is_first():
            self._clear()
        found = self._choose() if is_first() else None
        name = from_first(found[0].name if found else None)
        if name is None:
            return Position()
        if not is_first():
            try:
                found = self.folder / name, *_read(self.folder / name)
            except (ConfigError, _Damaged) as error:
                raise MachineFault("ranks disagree", self.folder / name, f"this rank cannot read it: {error}",
                                   "give all ranks the same files (a shared file system)") from error  # fmt: skip
        assert found is not None
        _, tensors, header = found
        module.load_state_dict({key[7:]: value for key, value in tensors.items() if key.startswith("module/")})
        moments: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser/"):
                _, index, moment = key.split("/")
                moments.setdefault(int(index), {})[moment] = value
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        return Position(step=header["step"], history=header["history"], pending=header["pending"])

    def save(
        self, module: torch.nn.Module, optimiser: torch.optim.Optimizer, position: Position, sampler: Sampler
    ) -> Path:
        """Write everything needed to go on bit for bit, then remove what is older than the newest ``keep``.

        Raises
        ------
        OSError
            The disk is full: the states of before stay.
        """
        tensors = {f"module/{name}": value for name, value in module.state_dict().items()}
        for index, moments in optimiser.state_dict()["state"].items():
            tensors.update({f"optimiser/{index}/{name}": value for name, value in moments.items()})
        header: dict[str, Any] = {
            "schema": 1,
            "identity": self.identity,
            "fingerprint": self.fingerprint,
            "step": position.step,
            "epoch": sampler.epoch(position.step),
            "sampler": sampler.words(position.step),
            "random_state": NO_RANDOM_STATE,
            "ranks": size(),
            "history": position.history,
            "pending": position.pending,
        }
        header["sha256"] = _digest(tensors, header)
        path = write_tensors(self.folder / f"resume-{position.step:08d}.safetensors", tensors, header)
        self._prune(path)
        return path

    def discard(self) -> None:
        """Remove all states: the run is complete."""
        self._clear()
        for path in self._newest_first():
            path.unlink(missing_ok=True)

    def _clear(self) -> None:
        for path in self.folder.glob(UNFINISHED):
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob(PATTERN), reverse=True)

    def _prune(self, newest: Path) -> None:
        """Remove all but the last states of this run: also damaged ones that it went back from, and other runs'."""
        done = [path for path in self._newest_first() if path.name <= newest.name and path not in self._damaged]
        of_this = [path for path in done if read_header(path).get("fingerprint") == self.fingerprint]
        for path in self._newest_first():
            if path not in of_this[: self.keep]:
                path.unlink(missing_ok=True)

    def _choose(self) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest whole state of this run."""
        for path in self._newest_first():
            try:
                tensors, header = _read(path)
            except (ConfigError, _Damaged) as error:
                why = error.why if isinstance(error, ConfigError) else str(error)
                self._damaged.add(path)
                _say(f"{path}: damaged and not used ({why}): the state before it is, where there is one")
                continue
            if header["fingerprint"] != self.fingerprint:
                _say(f"{path}: not resumed, it is of another run: {_difference(header['identity'], self.identity)}")
                continue
            return path, tensors, header
        return None


class _Damaged(Exception):
    """A file that can be read and does not hold what was written."""


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, header = read_tensors(path)
    written = header.pop("sha256", None)
    if written != _digest(tensors, header):
        raise _Damaged("its content does not have the sha256 it was written with")
    return tensors, header


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """Return the sha256 of a header and of names, types, shapes and bytes of all tensors."""
    import torch

    digest = hashlib.sha256(canonical_json(dict(header)).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return where two identities differ, at most three places, by dotted key.

    >>> _difference({"seed": 1, "settings": {"lr": 0.1}}, {"seed": 1, "settings": {"lr": 0.2}})
    'settings.lr is 0.1 there, 0.2 here'
    """
    places = [f"{key} is {one} there, {two} here" for key, one, two in _places("", there, here)]
    more = f" (and {len(places) - 3} more)" if len(places) > 3 else ""
    return "; ".join(places[:3]) + more


def _places(prefix: str, there: Any, here: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        keys = sorted({*there, *here})
        return [place for key in keys for place in _places(f"{prefix}.{key}", there.get(key), here.get(key))]
    return [] if there == here else [(prefix[1:], there, here)]


def _say(text: str) -> None:
    print(f"boldmill train: {text}", file=sys.stderr, flush=True)
