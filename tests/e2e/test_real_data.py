"""Two real people, different scanners, one call: `boldmill init`, then the whole DAG up to the shards.

pumi: 20 volumes, slice timing, T1w and BOLD headers 26 mm apart. studyforrest: 78 volumes, oblique, no slice timing.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.data]

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("BOLDMILL_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve()
SCANS = ("pumi_sub-001_task-rest", "studyforrest_sub-02_task-oneback_run-1")


@pytest.fixture(scope="module")
def real(e2e, needs, tmp_path_factory: pytest.TempPathFactory):
    needs(DATA)
    line = e2e.Line(tmp_path_factory.mktemp("real"))
    line.run("boldmill", "init", str(DATA / "bids/pumi"), str(DATA / "bids/studyforrest"))
    (line.folder / "keep.yaml").write_text("flatmap: {keep: [frames]}\n")
    words = ("--configfile", "my.yaml", "keep.yaml")
    line.done = line.snakemake("shards", *words, TEMPLATEFLOW_HOME=str(DATA / "templateflow"))
    line.results = line.folder / "results-study"
    return line


def test_both_go_through_in_one_run(real) -> None:
    assert "building it before the workflow starts" in real.done.stderr
    assert {scan_id: scan["status"] for scan_id, scan in real.scans().items()} == dict.fromkeys(SCANS, "ok")
    assert "No scan is quarantined" in real.done.stdout + real.done.stderr


@pytest.mark.parametrize("scan_id", SCANS)
def test_a_hundred_parcels_and_none_is_empty(real, scan_id: str) -> None:
    series = real.series(scan_id)
    assert series.shape[1] == 100
    assert np.isfinite(series).all() and (series.std(axis=0) > 0).all()


@pytest.mark.parametrize("scan_id", SCANS)
def test_flat_maps_are_whole(real, scan_id: str) -> None:
    path = next(real.results.glob(f"flatmap/bucket-*.frames/{scan_id}.npz"))
    with np.load(path, allow_pickle=False) as flat:
        frames, mask = flat["frames"].astype(np.float32), flat["mask"]
    assert np.isfinite(frames).all() and (frames.std(axis=0) > 0).all()
    patches = mask.reshape(14, 16, 35, 16).any(axis=(1, 3)).sum()
    assert abs(int(patches) - 364) <= 1  # the published grid has 364 non-empty patches of 16 pixels, a rebuilt one 363
    assert abs(int(mask.sum()) - 77763) < 0.01 * 77763
    for suffix in (".png", ".webp"):
        assert next(real.results.glob(f"flatmap/*/{scan_id}{suffix}")).stat().st_size > 10_000


# Measured on these scans when the default engine was chosen: value, tolerance.
EXPECTED = {
    "pumi_sub-001_task-rest": {
        "mask_ml": (1375, 0.03 * 1375),
        "coreg_from_header_mm": (25.9, 1.0),
        "mean_fd": (0.159, 0.02),
        "bbr_cost": (0.777, 0.03),
        "folded_voxels": (0, 0),
    },
    "studyforrest_sub-02_task-oneback_run-1": {
        "mask_ml": (1736, 0.03 * 1736),
        "coreg_from_header_mm": (12.5, 1.0),
        "mean_fd": (0.120, 0.02),
        "bbr_cost": (0.612, 0.03),
        "folded_voxels": (0, 0),
    },
}


@pytest.mark.parametrize("scan_id", SCANS)
def test_the_engine_still_gives_the_values_it_was_chosen_for(real, scan_id: str) -> None:
    scan = real.scans()[scan_id]
    found = {**scan["qc"], **scan["anat"]["qc"]}  # mask_ml: of the T1w, not of the run
    for name, (value, tolerance) in EXPECTED[scan_id].items():
        assert found[name] == pytest.approx(value, abs=tolerance), name


def test_every_table_has_both(real) -> None:
    import pyarrow.parquet as pq

    for table in ("scans", "timeseries", "fc", "pfc", "flat_clips"):
        ids: set[str] = set()
        for shard in (real.results / "shards" / table).rglob("*.parquet"):
            ids |= set(pq.read_table(shard, columns=["scan_id"])["scan_id"].to_pylist())
        assert ids == set(SCANS), table


def test_where_everything_came_from_is_said(real) -> None:
    template = json.loads((real.results / "templates" / "template.json").read_text())
    (path,) = (real.results / "atlas").glob("*/atlas.json")
    atlas = json.loads(path.read_text())
    flat = json.loads((real.results / "operators" / "flat.json").read_text())["flat"]
    assert (flat["name"], flat["n_pixels"], flat["n_patches_16"]) == ("fsLR-rebuilt-224x560", 77_653, 363)
    assert (template["space"], template["source"]) == ("MNI152NLin6Asym", "templateflow")
    assert template["moves"] and "Schaefer2018" in atlas["atlas"] and "embedded" not in atlas["atlas"]
