"""The finished subject that several modules begin with."""

from pathlib import Path

import pytest

from .one_subject import call, prepare, settings


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder after one run of the command on one T1w and one BOLD run; treat as read-only."""
    base = prepare(tmp_path_factory.mktemp("preprocess"))
    assert call(base, settings()) == 0
    return base
