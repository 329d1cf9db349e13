"""After a withdrawal only the pages of everybody are made again, also once ingest has seen the raw data again."""

from __future__ import annotations

import numpy as np
import pytest

from boldmill.atomic import read_json
from boldmill.cli import main

PEOPLE = ["ada", "bea", "cyd", "dan"]
AGAIN = {"cohort_page", "report_page", "ledger"}


@pytest.fixture
def done(project, monkeypatch: pytest.MonkeyPatch):
    """Parcel series that really went through the workflow up to the snapshot; what follows is pretended."""
    members = {name: np.random.default_rng(i).normal(size=(40, 6)) for i, name in enumerate(PEOPLE)}
    np.savez(project.folder / "series.npz", **members)
    tables = {"name": "tables", "root": "series.npz", "kind": "tables", "atlas": "HO111"}
    project.config |= {"datasets": [tables], "models": {"train": ["brainmass"]}, "shards": {"n_buckets": 1}}
    project.write_config()
    project.ingest()
    project.snakemake("shards")
    for path in project.outputs():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("tables_sub-bea" if "report" in path.parts or "reports" in path.parts else "made")
    project.snakemake("--touch", "all")
    assert not project.jobs()
    monkeypatch.chdir(project.folder)
    return project


def test_only_pages_of_everybody_are_made_again(done) -> None:
    before = read_json(done.folder / "results" / "datasets" / "latest" / "manifest.json")
    assert main(["audit", "forget", "tables/bea", "--delete", "--yes"]) == 0
    after = read_json(done.folder / "results" / "datasets" / "latest" / "manifest.json")
    assert len(after["subjects"]) == len(before["subjects"]) - 1
    assert set(done.jobs()) == AGAIN
    done.ingest()  # the archive of raw series still holds them
    assert "consent withdrawn" in (done.folder / "results" / "index" / "quarantine.tsv").read_text()
    assert set(done.jobs()) == AGAIN
