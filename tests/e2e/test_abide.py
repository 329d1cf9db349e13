"""The target `abide` on a part of the real archive: 78 people of 6 sites, a tiny model, one pass.

Three sites are held out. What was pre-trained is tested there only; leave-one-site-out holds no pre-trained row.
"""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytestmark = [pytest.mark.e2e, pytest.mark.data]

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BOLDMILL_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve() / "timeseries"
SHIPPED = ROOT / "workflow" / "configs" / "abide.yaml"
HELDOUT = ("PITT", "KKI", "CALTECH")
SITES = (*HELDOUT, "NYU", "YALE", "OLIN")
PER_CELL = 4
"""People of each site, diagnosis and sex."""


def chosen() -> dict[str, str]:
    """Return the people of the part, by name of the series without underscores, with their sites."""
    with np.load(DATA / "abide_ho111_cpac_filt_noglobal.npz") as archive:
        series = set(archive.files)
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    with open(DATA / "abide_phenotypes.csv", newline="") as handle:
        for row in csv.DictReader(handle):
            if row["FILE_ID"] in series and row["SITE_ID"] in SITES:
                cell = cells.setdefault((row["SITE_ID"], row["DX_GROUP"], row["SEX"]), {})
                cell[row["FILE_ID"].replace("_", "")] = row["SITE_ID"]
    return {name: site for _, cell in sorted(cells.items()) for name, site in sorted(cell.items())[:PER_CELL]}


def small(people: dict[str, str]) -> dict[str, Any]:
    shipped = yaml.safe_load(SHIPPED.read_text())
    dataset = {**shipped["datasets"][0], "filters": {"participant": sorted(people)}}
    tasks = [task for task in shipped["evaluate"]["tasks"] if task["name"] == "asd"]
    return {
        "datasets": [dataset],
        "models": {"brainmass": {"size": "tiny", "epochs": 1, "warmup_epochs": 0}},
        "evaluate": {
            "tasks": tasks,
            "transfers": shipped["evaluate"]["transfers"][:1],
            "probes": ["logistic"],
            "baselines": ["fc_linear_selected", "fc_ridge", "random", "covariates", "constant"],
            "bootstrap": 100,
            "permutations": 99,
            "few_shot": {"shots": [1, 8, 32], "draws": 5},
        },
    }


@pytest.fixture(scope="module")
def abide(e2e, needs, tmp_path_factory: pytest.TempPathFactory):
    needs(DATA)
    line = e2e.Line(tmp_path_factory.mktemp("abide"))
    folder = line.folder / "resources" / "abide"
    folder.mkdir(parents=True)
    for path in DATA.glob("abide_*"):
        (folder / path.name).symlink_to(path)
    line.people = chosen()
    (line.folder / "small.yaml").write_text(yaml.safe_dump(small(line.people)))
    line.results = line.folder / "results-abide"
    line.done = line.snakemake("abide", "--configfile", str(SHIPPED), "small.yaml", TEMPLATEFLOW_HOME="/nowhere")
    return line


def table(line, path: str) -> list[dict[str, str]]:
    with open(line.results / path, newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def test_whoever_was_pretrained_on_is_of_no_held_out_site(abide) -> None:
    seen = abide.json("results-abide/models/brainmass/subjects.json")["subjects"]
    sites = {abide.people[subject.split("/")[1]] for subject in seen}
    assert sites == set(SITES) - set(HELDOUT)


def test_pretrained_rows_are_scored_on_the_held_out_sites_only(abide) -> None:
    import pyarrow.parquet as pq

    rows = table(abide, "evaluate/brainmass/metrics.tsv")
    frozen = [row for row in rows if row["method"].startswith("brainmass_frozen")]
    scored = [row for row in frozen if row["value"] != "n/a"]
    heldout = sum(site in HELDOUT for site in abide.people.values())
    assert {row["protocol"] for row in scored} == {"split"}
    assert {int(row["n_test"]) for row in scored if row["metric"] == "auc" and row["fold"] == "all"} == {heldout}
    assert {row["fold"] for row in scored} == {"all", *HELDOUT}
    predictions = pq.read_table(abide.results / "evaluate" / "brainmass" / "predictions.parquet").to_pandas()
    own = predictions[predictions["method"].str.startswith("brainmass_frozen")]
    assert {abide.people[subject.split("/")[1]] for subject in own["subject"]} == set(HELDOUT)


def test_leave_one_site_out_holds_every_site_and_no_pretrained_model(abide) -> None:
    rows = [r for r in table(abide, "evaluate/brainmass/metrics.tsv") if r["protocol"] == "leave-one-site-out"]
    scored = [row for row in rows if row["value"] != "n/a"]
    assert not [row for row in scored if row["method"].startswith("brainmass_frozen")]
    for row in rows:
        if row["method"].startswith("brainmass_frozen"):
            assert "pre-training" in row["note"]
    pooled = [row for row in scored if row["metric"] == "auc" and row["method"] == "fc_ridge"]
    assert max(int(row["n_test"]) for row in pooled) == len(abide.people)
    assert {"fc_ridge", "brainmass_random_logistic", "covariates"} <= {row["method"] for row in scored}


def test_few_and_zero_shot_test_the_held_out_sites(abide) -> None:
    heldout = str(sum(site in HELDOUT for site in abide.people.values()))
    few = table(abide, "evaluate/brainmass/few_shot.tsv")
    assert {row["n_test"] for row in few} == {heldout} and {row["k"] for row in few} == {"0", "1", "8", "32", "all"}
    assert all(0 <= float(row["value"]) <= 1 for row in few if row["value"] != "n/a")
    zero = [r for r in table(abide, "evaluate/brainmass/zero_shot.tsv") if r["method"] != "chance"]
    assert {row["n_test"] for row in zero} == {heldout} and {row["target"] for row in zero} == {"asd"}


def test_the_page_is_there_and_small(abide) -> None:
    page = abide.results / "report" / "index.html"
    assert 0 < page.stat().st_size < 4_000_000
    assert (abide.results / "provenance" / "ledger.parquet").exists()
    for folder in ("templates", "atlas", "operators", "preprocess", "flatmap"):
        assert not (abide.results / folder).exists(), folder
    assert "No scan is quarantined" in abide.done.stdout + abide.done.stderr
