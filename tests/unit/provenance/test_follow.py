"""What a withdrawal does with records and manifests that are not as it expects them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boldmill.atomic import read_json
from boldmill.cli import main
from boldmill.paths import Layout
from boldmill.provenance.record import prov_path
from boldmill.provenance.verify import verify

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)


@pytest.fixture(scope="module")
def finished(withdrawal: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, here = tmp_path_factory.mktemp("whole"), Path.cwd()
    os.chdir(folder)
    withdrawal.line(withdrawal.PEOPLE)
    withdrawal.model()
    withdrawal.ledger()
    os.chdir(here)
    return folder


@pytest.fixture
def whole(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")


def forget() -> int:
    return main(["audit", "forget", "one/bea", "--results", "results", "--delete", "--yes"])


def test_a_damaged_record_of_others_does_not_stop_a_withdrawal(whole) -> None:
    victim = prov_path(LAYOUT.frozen("first"))
    damaged = victim.read_bytes()[:-50]
    victim.write_bytes(damaged)
    assert forget() == 0
    assert victim.read_bytes() == damaged
    assert {f.path for f in verify(RESULTS).findings} == {str(victim), str(LAYOUT.frozen("first"))}


def test_a_damaged_record_that_names_the_person_is_said_to_be_left(whole, capsys) -> None:
    victim = prov_path(LAYOUT.parcellated(0))
    victim.write_bytes(victim.read_bytes()[:-50])
    assert forget() == 1
    assert f"LEFT: {victim.relative_to(RESULTS)}" in capsys.readouterr().out


def test_a_lost_shard_does_not_stop_a_withdrawal(whole) -> None:
    before = read_json(LAYOUT.snapshot("latest"))
    for bucket in (0, 1):
        LAYOUT.shard("scans", bucket).unlink()
    assert forget() == 0
    left = read_json(LAYOUT.snapshot("latest"))
    assert set(before["subjects"]) - set(left["subjects"]) == {"one/bea"}


def test_a_snapshot_that_is_behind_its_shards_counts_its_own_people(whole) -> None:
    before = read_json(LAYOUT.snapshot("latest"))
    for bucket in (0, 1):  # somebody new came in, and `snapshot` has not been run
        path = LAYOUT.shard("scans", bucket)
        table = pq.read_table(path)
        new = table.slice(0, 1).to_pylist()[0] | {"subject": "new", "scan_id": "zzz_sub-new_task-rest"}
        path.unlink()  # the frozen one keeps its bytes
        pq.write_table(pa.concat_tables([table, pa.Table.from_pylist([new], schema=table.schema)]), path)
    assert forget() == 0
    left = read_json(LAYOUT.snapshot("latest"))
    lost = {key: sum(before["counts"][s][key] - left["counts"][s][key] for s in left["counts"])
            for key in ("subjects", "scans")}  # fmt: skip
    assert lost == {"subjects": 1, "scans": 1}


def test_a_damaged_manifest_is_left_and_named(whole, capsys) -> None:
    latest = LAYOUT.snapshot("latest")
    latest.write_bytes(latest.read_bytes()[:-50])
    assert forget() == 1
    assert f"LEFT: {latest.relative_to(RESULTS)}" in capsys.readouterr().out
    assert "one/bea" not in read_json(LAYOUT.snapshot("first"))["subjects"]
