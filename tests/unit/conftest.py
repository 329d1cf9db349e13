"""Fixtures several areas share: synthetic BIDS trees, and the real test data."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def trees() -> ModuleType:
    path = Path(__file__).with_name("index") / "trees.py"
    spec = importlib.util.spec_from_file_location("boldmill_trees", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(trees, tmp_path: Path):
    return trees.Tree(tmp_path)


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real test data; skip without it, but never in CI."""
    folder = Path(os.environ.get("BOLDMILL_TEST_DATA") or PROJECT.parent / "shared" / "data").resolve()
    if not ((folder / "templateflow").is_dir() and (folder / "bids").is_dir()):
        message = f"no real test data in {folder} (set BOLDMILL_TEST_DATA)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture
def real_bids(data: Path) -> Path:
    return data / "bids"
