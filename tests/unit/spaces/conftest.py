"""Where the real test data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real test data; skip without it, but never in CI."""
    folder = Path(os.environ.get("BOLDMILL_TEST_DATA", str(ROOT / "../shared/data"))).resolve()
    if not (folder / "templateflow").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"no test data in {folder}; set BOLDMILL_TEST_DATA")
        pytest.skip(f"no test data in {folder}; set BOLDMILL_TEST_DATA")
    return folder
