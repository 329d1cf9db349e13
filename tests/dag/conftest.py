"""Fixtures of the DAG tests."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path):
    """A fresh synthetic project, not yet indexed."""
    return _load("project").Project(tmp_path)


@pytest.fixture
def finished(project):
    """The same, indexed and with every output made."""
    project.ingest()
    project.finish()
    assert not project.jobs()
    return project
