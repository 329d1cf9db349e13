"""One synthetic snapshot for all model tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def manifest(synth: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a snapshot of 9 subjects, 20 parcels and a 64 x 160 flat grid."""
    return synth.snapshot(tmp_path_factory.mktemp("results"), synth.config())


@pytest.fixture
def golden() -> Callable[[str], Path]:
    """Path of numbers computed with a published model; skips where the test data are absent, but not in CI."""

    def find(name: str) -> Path:
        root = Path(__file__).parents[3]
        path = Path(os.environ.get("BOLDMILL_TEST_DATA", root.parent / "shared" / "data")) / "golden" / name
        if not path.exists():
            reason = f"{name} is not in the test data (BOLDMILL_TEST_DATA)"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        return path

    return find
