"""Fixtures of the DAG tests."""

import copy
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dag() -> ModuleType:
    """The module of synthetic projects."""
    return _load("project")


@pytest.fixture(scope="session")
def dag_line() -> Any:
    """The class that knows what follows what."""
    return _load("follows").Line


@pytest.fixture
def project(tmp_path: Path):
    """A fresh synthetic project, not yet indexed."""
    return _load("project").Project(tmp_path)


@pytest.fixture(scope="session")
def finished_template(tmp_path_factory: pytest.TempPathFactory):
    """A project, indexed and with every output made: built once, copied for each test."""
    made = _load("project").Project(tmp_path_factory.mktemp("dag"))
    made.ingest()
    made.finish()
    assert not made.jobs()
    return made


@pytest.fixture
def finished(finished_template, tmp_path: Path):
    """A copy of the finished project, times and records included, to be changed by one test."""
    copied = copy.deepcopy(finished_template)
    copied.folder = tmp_path / "project"
    shutil.copytree(finished_template.folder, copied.folder, symlinks=True)
    return copied
