"""Checks of a login node, with what SLURM would say given as text or by a stand-in on PATH."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from boldmill.setup import cluster, machine
from boldmill.setup.checks import Check
from boldmill.setup.cluster import Partition

LINES = [
    "cpu|1-00:00:00|32|128000|(null)",
    "cpu|1-00:00:00|64|256000|(null)",
    "gpu|infinite|64|512000|gpu:h100:8(S:0-1)",
]


def table(folder: Path, partitions: object) -> Path:
    path = folder / "profiles/slurm/partitions.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"partitions": partitions}))
    return path


def test_nodes_of_several_kinds_count_by_the_largest() -> None:
    assert cluster.read_sinfo(LINES) == {
        "cpu": Partition(1440, 64, 256000, 0),
        "gpu": Partition(None, 64, 512000, 8),
    }


def test_partitions_that_slurm_does_not_have_fail_and_limits_above_its_own_warn(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        {"cpu": {"max_runtime": 2880, "max_threads": 64}, "gpu": {"max_gpu": 4, "max_runtime": 9999}, "big": {}},
    )
    found = {check.name: check for check in cluster.partitions(path, cluster.read_sinfo(LINES))}
    assert (
        found["partition cpu"].status == "warn" and found["partition cpu"].found == "max_runtime 2880, SLURM has 1440"
    )
    assert found["partition gpu"] == Check("ok", "partition gpu", "no time limit, 64 threads, 512 GB, 8 GPUs a node")
    assert found["partition big"].status == "fail" and "but cpu, gpu" in found["partition big"].found
    assert "profiles/slurm/partitions.yaml" in found["partition big"].fix


def test_what_sinfo_prints_besides_partitions_is_passed_over() -> None:
    lines = ["CLUSTER: one", "big|2-00:00:00|64+|512000+|gpu:a100:2(S:0,2),gpu:3090:4,shard:80,mygpu:9", ""]
    assert cluster.read_sinfo(lines) == {"big": Partition(2880, 64, 512000, 6)}


@pytest.mark.parametrize(("limit", "status"), [("1-00:00:00", "ok"), ("24h", "ok"), ("2-12", "warn"), ("soon", "fail")])
def test_times_are_read_as_the_executor_reads_them(limit: str, status: str, tmp_path: Path) -> None:
    found = cluster.partitions(
        table(tmp_path, {"cpu": {"max_runtime": limit, "cluster": "x"}}), cluster.read_sinfo(LINES)
    )
    assert found[0].status == status


@pytest.mark.parametrize("content", [None, ["cpu"], {"cpu": 5}, {"cpu": {"max_gpu": "many"}}])
def test_a_table_of_another_form_is_a_failed_check(content: object, tmp_path: Path) -> None:
    (only,) = cluster.partitions(table(tmp_path, content), cluster.read_sinfo(LINES))
    assert only.status == "fail" and "cannot be read" in only.found


def test_a_table_without_gpus_or_unreadable_is_named(tmp_path: Path) -> None:
    said = cluster.read_sinfo(LINES)
    (_, last) = cluster.partitions(table(tmp_path, {"cpu": {"max_threads": 2}}), said)
    assert last.status == "warn" and "none has GPUs" in last.found
    path = tmp_path / "profiles/slurm/partitions.yaml"
    path.write_text("partitions: [")
    (only,) = cluster.partitions(path, said)
    assert only.status == "fail"


def test_the_shipped_table_is_read() -> None:
    root = Path(__file__).parents[3]
    said = dict.fromkeys(("cpu", "gpu"), Partition(None, 1000, 10**7, 100))
    assert {check.status for check in cluster.partitions(root / "profiles/slurm/partitions.yaml", said)} == {"ok"}


MOUNTS = "/dev/sda / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\ntmpfs /home/me/scratch tmpfs rw 0 0\n"


def test_the_longest_mount_point_decides(tmp_path: Path) -> None:
    assert cluster.file_system(tmp_path / "not/yet", f"a / ext4 rw 0 0\nb {tmp_path} nfs rw 0 0\n") == "nfs"
    assert cluster.file_system(tmp_path, MOUNTS) == "ext4"


@pytest.mark.parametrize(
    ("kind", "several", "status"),
    [("nfs4", True, "ok"), ("ext4", True, "warn"), ("tmpfs", True, "fail"), ("ext4", False, "ok")],
)
def test_what_only_one_machine_sees_is_named(kind: str, several: bool, status: str) -> None:
    check = cluster.visible("results", Path("/data/results"), several=several, kind=kind)
    assert check.status == status and "/data/results" in check.found and bool(check.fix) == (status != "ok")


def test_few_free_inodes_warn(tmp_path: Path) -> None:
    assert cluster.inodes("results", tmp_path, free=1000, total=10**6).status == "warn"
    assert cluster.inodes("results", tmp_path, free=10**6, total=10**7).status == "ok"
    assert "does not count" in cluster.inodes("results", tmp_path, free=0, total=0).found


def test_a_login_node_is_asked_and_another_machine_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table(tmp_path, {"cpu": {"max_threads": 4}, "gpu": {"max_gpu": 1}})
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert cluster.login_node({"results": tmp_path}, tmp_path) == []
    (tmp_path / "bin").mkdir()
    text = "\n".join(LINES)
    script = f'#!/bin/sh\ncase "$*" in *-N*) printf "n1\\nn2\\n";; *) echo "{text}";; esac\n'
    for name, body in {"sbatch": "#!/bin/sh\n", "sinfo": script}.items():
        (tmp_path / "bin" / name).write_text(body)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    found = {check.name: check for check in cluster.login_node({"results": tmp_path}, tmp_path)}
    assert list(found) == ["login node", "partition cpu", "partition gpu", "shared results", "inodes results"]
    assert found["login node"].status == "warn" and "job 77" in found["login node"].found
    assert found["partition gpu"].status == "ok"


def test_where_sinfo_is_forbidden_nothing_is_taken_for_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (tmp_path / "bin").mkdir()
    for name, body in {"sbatch": "#!/bin/sh\n", "sinfo": "#!/bin/sh\nexit 1\n"}.items():
        (tmp_path / "bin" / name).write_text(body)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setattr(cluster, "file_system", lambda path: "ext4")
    found = {check.name: check for check in cluster.login_node({"results": tmp_path}, tmp_path)}
    assert found["partitions"].status == "warn" and found["shared results"].status == "warn"
    (tmp_path / "bin" / "sinfo").chmod(0o644)
    assert machine.slurm().status == "warn" and "cannot be run" in machine.slurm().found
    monkeypatch.setattr(machine, "SECONDS", 0.2)
    (tmp_path / "bin" / "sinfo").write_text("#!/bin/sh\nwhile :; do :; done\n")
    (tmp_path / "bin" / "sinfo").chmod(0o755)
    assert "took too long" in machine.slurm().found
