"""Fixtures: synthetic BIDS trees, and the real test data."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def trees() -> ModuleType:
    spec = importlib.util.spec_from_file_location("boldmill_trees", Path(__file__).with_name("trees.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(trees, tmp_path: Path):
    return trees.Tree(tmp_path)


@pytest.fixture
def real_bids() -> Path:
    project = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("BOLDMILL_TEST_DATA") or project.parent / "shared" / "data") / "bids"
    if not root.is_dir():
        message = f"no real test data at {root} (set BOLDMILL_TEST_DATA)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return root
