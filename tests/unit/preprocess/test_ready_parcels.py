"""Ready-made parcel series: read, named, and joined with the configured atlas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.atomic import read_json

from . import pipelines as made
from .mill import Mill, table


def xcpd_parcels(root: Path, names: list[str], seg: str) -> np.ndarray:
    made.describe(root, "XCP-D")
    values = np.random.default_rng(11).normal(size=(made.T, len(names)))
    stem = "sub-01/func/sub-01_task-rest"
    columns = dict(zip(names, values.T, strict=True))
    columns[names[1]] = np.full(made.T, np.nan)
    made.write(root, f"{stem}_space-fsLR_seg-{seg}_stat-mean_timeseries.tsv", made.tsv(columns))
    made.write(root, f"{stem}_space-fsLR_seg-{seg}_stat-mean_timeseries.json", {"RepetitionTime": made.TR})
    made.write(root, f"{stem}_space-fsLR_seg-{seg}_stat-coverage_bold.tsv", "a\n1\n")
    return values


def test_xcpd_parcels_are_joined_by_name_in_any_order(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    wanted = made.schaefer(20)
    given = ["LH-Thalamus", *reversed([name.removeprefix("7Networks_") for name in wanted])]
    values = xcpd_parcels(mill.root, given, "4S156Parcels")
    assert mill.one()["status"] == "ok"
    entry = mill.parcellate("01", wanted, "Schaefer2018 20Parcels7Networks")
    assert entry["status"] == "ok", entry
    names, found = table(mill.results / entry["files"]["timeseries"])
    assert names == wanted
    assert np.isnan(found[:, -1]).all() and entry["qc"]["n_parcels_missing"] == 1
    truth = values[:, :0:-1] - values[:, :0:-1].mean(axis=0)
    assert np.allclose(found[:, :-1], truth[:, :-1], atol=1e-6)
    assert "1 given columns are no parcels of Schaefer2018-20Parcels7Networks: dropped" in entry["flags"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (made.schaefer(40), "the series are of toy (40 columns, 40 of them cortical), the configured atlas is A20"),
        (
            made.schaefer(20, ("VisCent", "SomMotA", "DefaultC")),
            "20 of 20 parcels lie in another network or hemisphere",
        ),
        ([f"ROI_{i}" for i in range(20)], "0 of them cortical"),
        ([str(i) for i in range(1, 21)], "the series are of toy (20 columns, 0 of them cortical)"),
    ],
)
def test_another_atlas_is_refused_with_both_names(tmp_path: Path, names: list[str], reason: str) -> None:
    mill = Mill(tmp_path)
    xcpd_parcels(mill.root, names, "toy")
    assert mill.one()["status"] == "ok"
    entry = mill.parcellate("01", made.schaefer(20), "A20")
    assert entry["status"] == "quarantined" and entry["stage"] == "parcellate"
    assert reason in entry["reason"] and "toy" in entry["reason"] and "A20" in entry["reason"] and entry["fix"]


def test_real_halfpipe_series_reach_the_published_correlations(tmp_path: Path, data: Path) -> None:
    root = data / "derivatives" / "ds000030_halfpipe"
    mill = Mill(tmp_path, root, spaces={"resolution": 6.0, "atlas_desc": "400Parcels17Networks"})
    rows = mill.ingest()
    assert len(rows) == 7 and {(row.status, row.kind, row.n_volumes) for row in rows.values()} == {
        ("ok", "parcels", 152)
    }
    (entry,) = mill.preprocess("10159").values()
    assert entry["status"] == "ok" and entry["atlas"] == "schaefer400", entry
    side = next(root.rglob("sub-10159*_atlas-schaefer400_timeseries.json"))
    published = read_json(side)
    # HALFpipe counts the undefined first volume as 0
    assert entry["qc"]["mean_fd"] * 151 / 152 == pytest.approx(published["FDMean"], rel=1e-12)
    labels = [
        line.split("\t")[1]
        for line in (root / "atlas" / "atlas-Schaefer2018Combined_dseg.tsv").read_text().splitlines()
    ]
    wanted = [name.removeprefix("Schaefer2018_17Networks_") for name in labels[:400]]
    found = mill.parcellate("10159", wanted, "Schaefer2018 400Parcels17Networks")
    flag = "34 given columns are no parcels of Schaefer2018-400Parcels17Networks: dropped"
    assert found["status"] == "ok" and flag in found["flags"]
    _, values = table(mill.results / found["files"]["timeseries"])
    raw = np.loadtxt(next(root.rglob("sub-10159*_atlas-schaefer400_timeseries.tsv")))
    empty = np.isnan(raw[:, :400]).all(axis=0)
    assert 0 < empty.sum() < 40 and np.array_equal(np.isnan(values).all(axis=0), empty)
    matrix = np.loadtxt(next(root.rglob("sub-10159*-correlation_matrix.tsv")))[:400, :400]
    assert np.abs(np.corrcoef(values[:, ~empty].T) - matrix[np.ix_(~empty, ~empty)]).max() < 1e-5
    other = [f"7Networks_{'LH' if i < 200 else 'RH'}_Vis_{i + 1}" for i in range(400)]
    refused = mill.parcellate("10159", other, "Schaefer2018 400Parcels7Networks")
    assert refused["status"] == "quarantined"
    assert "schaefer400" in refused["reason"] and "400Parcels7Networks" in refused["reason"]


@pytest.mark.parametrize(("atlas", "status"), [("Schaefer2018p20n7", "ok"), ("Schaefer2018p20n17", "quarantined")])
def test_cpac_parcels_are_joined_by_id_where_the_label_names_the_atlas(tmp_path: Path, atlas: str, status: str) -> None:
    mill = Mill(tmp_path)
    values = np.random.default_rng(12).normal(size=(made.T, 20))
    stem = "output/pipeline_x/sub-01/func/sub-01_task-rest"
    order = np.random.default_rng(13).permutation(20)
    lines = ["#" + "\t".join(f"Mean_{i + 1}" for i in order), *("\t".join(map(str, row)) for row in values[:, order])]
    made.write(mill.root, f"{stem}_atlas-{atlas}_desc-Mean-1_timeseries.1D", "\n".join(lines))
    made.write(mill.root, f"{stem}_atlas-{atlas}_desc-Mean-1_timeseries.json", {"RepetitionTime": made.TR})
    assert mill.one()["status"] == "ok"
    entry = mill.parcellate("01", made.schaefer(20), "Schaefer2018 20Parcels7Networks")
    assert entry["status"] == status
    if status == "ok":
        _, found = table(mill.results / entry["files"]["timeseries"])
        assert np.allclose(found, values - values.mean(axis=0), atol=1e-6)


def test_series_without_names_are_refused(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    values = np.random.default_rng(1).normal(size=(made.T, 20))
    stem = "sub-01/func/task-rest/sub-01_task-rest_feature-f1_atlas-schaefer20_timeseries"
    made.write(mill.root, f"{stem}.tsv", "\n".join("\t".join(map(str, row)) for row in values))
    made.write(mill.root, f"{stem}.json", {"RepetitionTime": made.TR, "FDMean": 0.21})
    entry = mill.one()
    assert entry["status"] == "ok" and entry["qc"]["mean_fd"] == pytest.approx(0.21 * 40 / 39)
    refused = mill.parcellate("01", made.schaefer(20), "A20")
    assert "the series of schaefer20 have 20 columns without names" in refused["reason"]
    labels = "\n".join(f"{i}\t{name}" for i, name in enumerate(made.schaefer(20), start=1))
    made.write(mill.root, "atlas/atlas-schaefer20_dseg.tsv", labels + "\n")
    mill.one()
    assert mill.parcellate("01", made.schaefer(20), "A20")["status"] == "ok"


def test_parcel_series_have_no_flat_map_and_shards_ask_for_none(tmp_path: Path) -> None:
    from boldmill.errors import BoldmillError
    from boldmill.represent.bucket import series_of
    from boldmill.shards.build import Bucket

    mill = Mill(tmp_path)
    xcpd_parcels(mill.root, made.schaefer(20), "toy")
    mill.one()
    subject = read_json(mill.results / "preprocess" / "ds" / "sub-01.json")
    name = "ds_sub-01_task-rest"
    assert series_of(subject) == [] and [scan for scan, _ in series_of(subject, parcels=True)] == [name]
    tickets, subjects = {name: mill.ticket("sub-01_task-rest")}, {"ds/01": subject}

    def bucket(scans: dict[str, Any]) -> Bucket:
        return Bucket(
            number=0,
            results=mill.results,
            tickets=tickets,
            subjects=subjects,
            participants={},
            parcellated={"scans": scans},
            flat={"scans": {}},
        )

    bucket({name: {}}).check_complete()
    with pytest.raises(BoldmillError, match="parcellate"):
        bucket({}).check_complete()
