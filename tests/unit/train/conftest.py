"""A snapshot to train on, and training runs as a command line starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from boldmill.stages import stage_json

FORKED = Path(__file__).with_name("forked.py")
SECTIONS: dict[str, dict[str, Any]] = {
    "brainmass": {"epochs": 4, "batch": 5},
    "fmri_mae": {"steps": 7, "batch": 5, "decode_share": 0.5},
    "fm_app": {"epochs_fmri": 3, "epochs_t1w": 3, "batch": 5},
}
"""A few steps per model: five scans, five subjects or fifteen clips, in steps that two ranks share 3 : 2."""


@pytest.fixture(scope="session")
def manifest(synth: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a snapshot of 11 subjects, 20 parcels and a 64 x 160 flat grid; some labels are unknown."""
    return synth.snapshot(tmp_path_factory.mktemp("results"), synth.config(), n_subjects=11, unlabelled=(4, 6))


@pytest.fixture(scope="session")
def job(manifest: Path, synth: ModuleType) -> Callable[..., dict[str, Any]]:
    """(model, out, ranks, options, section=..., more of `forked.py`) -> a job of ``forked.py``."""

    def make(
        model: str, out: Path, ranks: int = 1, *options: str, section: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        settings = stage_json(synth.config(models={model: {**SECTIONS[model], **(section or {})}}), f"train_{model}")
        words = ["train", "--model", model, "--snapshot", str(manifest), "--out", str(out / "model.safetensors")]
        words += ["--config-json", settings, "--device", "cpu", *options]
        return {"words": words, "ranks": ranks, "log": str(out.parent / f"{out.name}.log"), **more}

    return make


@pytest.fixture(scope="session")
def train(job: Callable[..., dict[str, Any]]) -> Iterator[Callable[..., list[int]]]:
    """Run a job of :func:`job` on forked ranks; return their exit statuses."""
    server = subprocess.Popen([sys.executable, str(FORKED)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert server.stdin is not None and server.stdout is not None

    def run(*given: Any, **more: Any) -> list[int]:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(job(*given, **more)) + "\n")
        server.stdin.flush()
        found: list[int] = json.loads(server.stdout.readline())
        return found

    yield run
    server.stdin.close()
    server.wait(timeout=60)


@pytest.fixture(scope="session")
def whole(train: Callable[..., list[int]], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(model, ranks, exact) -> folder of a run that nothing interrupted; each is trained once."""
    done: dict[tuple[str, int, bool], Path] = {}

    def get(model: str, ranks: int = 1, *, exact: bool = False) -> Path:
        key = model, ranks, exact
        if key not in done:
            done[key] = tmp_path_factory.mktemp("whole") / "out"
            assert train(model, done[key], ranks, exact=exact) == [0] * ranks, Path(f"{done[key]}.log").read_text()
        return done[key]

    return get
