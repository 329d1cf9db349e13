"""Real data sets: two scanners, one without slice timing; one with T1w images only."""

import pytest

from boldmill.config.model import Config
from boldmill.index.command import ingest
from boldmill.index.participants import read_participants
from boldmill.stages import Settings, stage_json

pytestmark = pytest.mark.data


@pytest.fixture
def rows(real_bids, tmp_path):
    datasets = [{"name": name, "root": str(real_bids / name)} for name in ("pumi", "studyforrest", "ds002748")]
    config = Config.model_validate({"datasets": datasets})
    return {row.scan_id: row for row in ingest(Settings(stage_json(config, "ingest")), tmp_path)}


def test_three_data_sets_at_once(rows, tmp_path):
    import json

    assert {key: (row.status, row.kind, row.tr, row.n_volumes) for key, row in rows.items()} == {
        "pumi_sub-001_task-rest": ("ok", "volume", 2.52, 20),
        "studyforrest_sub-02_task-oneback_run-1": ("ok", "volume", 2.0, 78),
        **{f"ds002748_sub-{s}_T1w": ("ok", "anat", None, None) for s in ("01", "02", "03", "04", "52")},
    }
    assert {row.licence for row in rows.values()} == {"PDDL", "CC0"}
    ticket = json.loads((tmp_path / rows["pumi_sub-001_task-rest"].ticket).read_text())
    assert len(ticket["metadata"]["SliceTiming"]) == 26
    assert ticket["sidecars"] == ["task-rest_bold.json", "sub-001/func/sub-001_task-rest_bold.json"]
    assert "no slice timing" in rows["studyforrest_sub-02_task-oneback_run-1"].flags
    assert "no slice timing" not in rows["pumi_sub-001_task-rest"].flags
    ignored = (tmp_path / "index/ignored.tsv").read_text()
    assert "pumi\tsourcedata/\t" in ignored


def test_phenotypes_of_seventy_two_people(real_bids):
    found = read_participants(real_bids / "ds002748")
    assert len(found.rows) == 72
    assert found.rows["01"] == found.rows["01"] | {"age": 39, "gender": "m", "group": "depr", "MADRS": None}
    assert {row["group"] for row in found.rows.values()} == {"depr", "control"}
    assert found.warnings == []
