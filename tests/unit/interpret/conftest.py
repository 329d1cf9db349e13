"""The synthetic snapshots and configurations of the model tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def synth() -> ModuleType:
    """The generator of synthetic snapshots of the model tests."""
    path = Path(__file__).parents[1] / "models" / "synth.py"
    spec = importlib.util.spec_from_file_location("boldmill_synth_interpret", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
