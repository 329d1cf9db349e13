"""One synthetic snapshot for all model tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def synth() -> ModuleType:
    """The generator of synthetic snapshots, ``tests/unit/models/synth.py``."""
    if "boldmill_synth" not in sys.modules:
        spec = importlib.util.spec_from_file_location("boldmill_synth", Path(__file__).with_name("synth.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["boldmill_synth"] = module
        spec.loader.exec_module(module)
    return sys.modules["boldmill_synth"]


@pytest.fixture(scope="session")
def manifest(synth: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a snapshot of 9 subjects, 20 parcels and a 64 x 160 flat grid."""
    return synth.snapshot(tmp_path_factory.mktemp("results"), synth.config())
