"""One person of the finished demo withdraws consent; and the demo is exported: images, models, pages and all."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture
def copy(demo, e2e, tmp_path: Path):
    """The finished demo once more, by links: a withdrawal writes new files, it changes none in place."""
    folder = tmp_path / "copy"
    shutil.copytree(demo.folder, folder, symlinks=True, copy_function=os.link)
    return e2e.Line(folder)


def test_nothing_of_a_person_is_left_and_all_else_verifies(copy) -> None:
    seen = json.loads((copy.results / "models" / "brainmass" / "subjects.json").read_text())["subjects"]
    who = next(name for name in seen if name.startswith("demo/"))
    label = who.partition("/")[2]
    listed = copy.run("boldmill", "audit", "forget", who).stdout
    for part in ("derivatives/demo/sub-", ".cache/sub-", "recipes/", "figures/", "flatmap/demo/", "reports/demo/sub-",
                 "preprocess/bucket-", "index/buckets/bucket-", "shards/flat_clips/", "predictions.parquet",
                 "models/fmri_mae/model.safetensors"):  # fmt: skip
        assert part in listed, part
    copy.run("boldmill", "audit", "forget", who, "--delete", "--yes")
    needles = [f"demo_sub-{label}_".encode(), f"demo/sub-{label}/".encode(), f'"{who}"'.encode()]
    for path in copy.results.rglob("*"):
        assert f"sub-{label}" not in {part.partition("_")[0].partition(".")[0] for part in path.parts}, path
        if path.is_file() and path.suffix in (".json", ".tsv", ".parquet", ".html", ".log", ".jsonl", ".md"):
            data = path.read_bytes()
            assert not [needle for needle in needles if needle in data], path
    copy.run("boldmill", "audit", "verify")
    jobs = copy.snakemake("-n").stdout
    rules = Counter(
        line.split()[1].rstrip(":") for line in jobs.splitlines() if line.startswith(("rule ", "localrule "))
    )
    assert set(rules) - {"all"} == {"cohort_page", "report_page", "ledger"}
    copy.snakemake()
    assert "withdrew consent since" in (copy.results / "report" / "index.html").read_text()
    copy.run("boldmill", "audit", "verify")
    copy.run("boldmill", "ingest", "--config", "config.yaml")
    assert "consent withdrawn" in (copy.results / "index" / "quarantine.tsv").read_text()


def test_the_demo_is_exported_and_conforms(demo, tmp_path: Path) -> None:
    out = tmp_path / "release"
    words = ["--files", "shards/*", "datasets/*", "derivatives/*", "models/*", "--hash-files"]
    said = demo.run("boldmill", "audit", "export", "--out", str(out), *words).stdout
    assert "0 problems" in said
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["GeneratedBy"][0]["Name"] == "boldmill" and len(about["SourceDatasets"]) == 2
    assert "sub-" not in (out / "ro-crate-metadata.json").read_text().replace("sub-second", "")
