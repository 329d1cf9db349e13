"""Fixtures several areas share: synthetic BIDS trees, and the real test data."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
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


@pytest.fixture(scope="session")
def bids_issues() -> Callable[..., list[str]]:
    """Return a function: folder -> what the official BIDS validator says of it, ``code subcode file``, sorted."""
    beside = Path(sys.executable).with_name("bids-validator-deno")
    program = str(beside) if beside.exists() else shutil.which("bids-validator-deno")
    if program is None:
        pytest.fail("bids-validator-deno is not installed: pip install -e '.[test]'")

    def ask(root: Path, severity: str = "error") -> list[str]:
        words = [str(program), "--format", "json", str(root)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        found = json.loads(done.stdout)["issues"]["issues"]
        return sorted(
            f"{one['code']} {one.get('subCode', '')} {one.get('location') or one.get('affects')}"
            for one in found
            if one["severity"] == severity
        )

    return ask


@pytest.fixture(scope="session")
def synth() -> ModuleType:
    """The generator of synthetic snapshots, ``tests/unit/models/synth.py``."""
    path = Path(__file__).with_name("models") / "synth.py"
    if "boldmill_synth" not in sys.modules:
        spec = importlib.util.spec_from_file_location("boldmill_synth", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["boldmill_synth"] = module
        spec.loader.exec_module(module)
    return sys.modules["boldmill_synth"]
