"""One head and one tiny cohort for all tests of the demo."""

from __future__ import annotations

import pytest

from boldmill.demo.parameters import parameters


@pytest.fixture(scope="session")
def head():
    from boldmill.demo.head import build_head

    return build_head()


@pytest.fixture(scope="session")
def tiny():
    return parameters(tiny=True, real=False, volumes=24)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory, tiny):
    """A tiny cohort built by the command's own path, with all its bad scans."""
    from boldmill.demo.build import build

    out = tmp_path_factory.mktemp("demo") / "out"
    build(out, tiny, jobs=2)
    return out


@pytest.fixture(scope="session")
def centroids(head):
    return head.centroids()
