"""What a record holds, and that writing it costs little."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boldmill import atomic
from boldmill.atomic import sha256_file, write_text
from boldmill.provenance import machine, memory
from boldmill.provenance.memory import Peak, descendants
from boldmill.provenance.record import DIGEST, Recorder, describe, own_digest, prov_path
from boldmill.stages import Settings

SETTINGS = Settings('{"config":{"a":1},"overrides":{},"seed":7,"stage":"preprocess","version":3}')


def written(path: Path, settings: Settings = SETTINGS, inputs: tuple[str, ...] = ()) -> dict:
    with Recorder(settings, out=path, inputs=inputs):
        write_text(path, "content")
    return json.loads(prov_path(path).read_text())


def test_a_record_holds_what_an_auditor_asks(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    raw = write_text(tmp_path / "raw", "raw")
    found = written(tmp_path / "x.json", inputs=(str(raw),))
    assert found["inputs"] == [{"path": str(raw), "size": 3, "sha256": sha256_file(raw)}]
    state = (tmp_path / "x.json").stat()
    assert found["outputs"] == [
        {"path": str(tmp_path / "x.json"), "size": 7, "sha256": sha256_file(tmp_path / "x.json"),
         "mtime_ns": state.st_mtime_ns}
    ]  # fmt: skip
    assert (found["stage"], found["stage_version"], found["seed"]) == ("preprocess", 3, 7)
    assert json.loads(found["settings"])["config"] == {"a": 1}
    assert len(found["stage_code"]) == 64
    assert found["peak_rss_mib"] > 1 and found["started"] <= found["ended"]
    environment = found["environment"]
    assert len(environment["code_sha256"]) == 64 and len(environment["packages_digest"]) == 16
    assert environment["user"] and environment["host"] and "pyarrow" in environment["packages"]
    assert environment["slurm"] == {"job": "42", "restarts": "1"}
    assert {"commit", "dirty", "diff_sha256"} == set(environment["git"])
    assert found[DIGEST] == own_digest(found)


def test_a_command_without_a_seed_records_none(tmp_path) -> None:
    found = written(tmp_path / "x", Settings('{"config":{},"stage":"import-weights","version":1}'))
    assert found["seed"] is None and found["stage_code"] is None


def test_a_failed_command_leaves_no_record(tmp_path: Path) -> None:
    out = tmp_path / "x.json"
    with pytest.raises(RuntimeError), Recorder(SETTINGS, out=out):
        write_text(out, "half")
        raise RuntimeError
    assert not prov_path(out).exists()


def test_a_linked_raw_file_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text("raw/.git/annex/objects/MD5E-s3--abc.nii.gz", "raw")
    Path("raw/sub-01_bold.nii.gz").symlink_to(".git/annex/objects/MD5E-s3--abc.nii.gz")
    assert describe("raw/sub-01_bold.nii.gz")["path"] == "raw/sub-01_bold.nii.gz"


def test_a_file_the_stage_has_hashed_is_not_read_again(tmp_path, monkeypatch) -> None:
    read = []
    real = atomic.hash_file
    monkeypatch.setattr(atomic, "hash_file", lambda path: read.append(path) or real(path))
    raw = write_text(tmp_path / "raw", "raw")
    time.sleep(0.03)  # its time is safely past
    first = sha256_file(raw)
    written(tmp_path / "x", inputs=(str(raw),))
    assert read.count(raw) + read.count(str(raw)) == 1
    raw.write_text("RAW")  # same size
    assert sha256_file(raw) != first


def test_a_file_that_may_still_change_in_the_same_tick_is_read_again(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    seen = {sha256_file(path)}
    for text in ("two", "six", "ten"):
        path.write_text(text)
        seen.add(sha256_file(path))
    assert len(seen) == 4


def test_uncommitted_changes_are_told_apart(tmp_path, monkeypatch) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    source = write_text(tmp_path / "__init__.py", "a = 1\n")
    monkeypatch.setattr(machine, "PACKAGE", tmp_path)
    machine.git.cache_clear()
    assert machine.git() == {"commit": "", "dirty": False, "diff_sha256": None}  # a wheel: no repository tracks it
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    found = []
    for text in ("a = 1\n", "a = 2\n", "a = 3\n"):
        source.write_text(text)
        machine.git.cache_clear()
        found.append(machine.git())
    machine.git.cache_clear()
    assert [one["dirty"] for one in found] == [False, True, True]
    assert len({one["commit"] for one in found}) == 1 and len(found[0]["commit"]) == 40
    assert found[0]["diff_sha256"] is None and found[1]["diff_sha256"] != found[2]["diff_sha256"]


def test_cards_are_read_without_loading_torch(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "DRIVER", tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert machine.cards() == []
    write_text(tmp_path / "0000:01:00.0" / "information", "Model: \t\t NVIDIA H200\nIRQ:   1\nGPU UUID: \t GPU-1-2\n")
    assert machine.cards() == [{"model": "NVIDIA H200", "uuid": "GPU-1-2"}]
    assert "torch" not in sys.modules


def test_memory_of_child_processes_is_counted_together() -> None:
    """Two children of 60 MiB need more than the larger one."""
    code = "import sys; data = bytearray(b'x') * (60 << 20); print('ready', flush=True); sys.stdin.read()"
    peak = Peak()
    peak.start()
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        assert {child.pid for child in children} <= set(descendants(os.getpid()))
        peak.look()
    finally:
        for child in children:
            child.communicate()
    assert peak.stop() >= 120


def test_the_record_of_an_unchanged_output_says_its_time(tmp_path) -> None:
    out = tmp_path / "x"
    first = written(out)["outputs"][0]["mtime_ns"]
    time.sleep(0.02)
    assert written(out)["outputs"][0]["mtime_ns"] > first


def test_a_machine_without_git_writes_records_too(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    machine.git.cache_clear()
    found = written(tmp_path / "x")
    machine.git.cache_clear()
    assert found["environment"]["git"] == {"commit": "", "dirty": False, "diff_sha256": None}
    assert len(found["environment"]["code_sha256"]) == 64


def test_a_clone_of_somebody_else_tells_its_commit(tmp_path, monkeypatch) -> None:
    """One clone for a whole lab: git refuses it to all but its owner, unless it is told to trust it."""
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    write_text(tmp_path / "__init__.py", "a = 1\n")
    for words in (["init"], ["add", "."], ["commit", "-m", "x"]):
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(machine, "PACKAGE", tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused = subprocess.run(["git", "status"], cwd=tmp_path, check=False, capture_output=True)
    machine.git.cache_clear()
    commit = machine.git()["commit"]
    machine.git.cache_clear()
    assert refused.returncode and len(commit) == 40


def test_of_two_packages_of_one_name_the_imported_one_counts(tmp_path) -> None:
    """As with packages below ~/.local, or what an interrupted pip left."""
    write_text(tmp_path / "numpy-0.0.1.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 0.0.1\n")
    code = "import numpy, sys; from boldmill.provenance.machine import packages; sys.path.append(sys.argv[1])"
    code += "; print(packages()[1]['numpy'], numpy.__version__)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    recorded, imported = done.stdout.split()
    assert recorded == imported != "0.0.1"


def test_an_input_that_is_replaced_meanwhile_is_recorded_as_it_was_read(tmp_path) -> None:
    """A model is trained for days, and the rolling snapshot may be written anew: then the model is behind it."""
    given, added = write_text(tmp_path / "given", "first"), write_text(tmp_path / "added", "first")
    first = sha256_file(given)
    with Recorder(SETTINGS, out=tmp_path / "x", inputs=[given]) as record:
        record.add_input(added)
        for path in (given, added):
            write_text(path, "second")
        write_text(tmp_path / "x", "content")
    found = json.loads(prov_path(tmp_path / "x").read_text())
    assert [item["sha256"] for item in found["inputs"]] == [first, first]


def test_the_code_is_that_at_the_start(tmp_path, monkeypatch) -> None:
    """Somebody may update the clone while a job runs."""
    monkeypatch.setattr(machine, "PACKAGE", tmp_path)
    write_text(tmp_path / "a.py", "a = 1\n")
    machine.code.cache_clear()
    with Recorder(SETTINGS, out=tmp_path / "x"):
        first = machine.code()
        write_text(tmp_path / "a.py", "a = 2\n")
        machine.code.cache_clear()
        write_text(tmp_path / "x", "content")
    assert machine.code() != first
    machine.code.cache_clear()
    assert json.loads(prov_path(tmp_path / "x").read_text())["environment"]["code_sha256"] == first


def test_an_input_that_vanished_is_left_to_the_command_to_name(tmp_path) -> None:
    with pytest.raises(RuntimeError, match="the T1w is gone"), Recorder(SETTINGS, out=tmp_path / "x", inputs=["gone"]):
        raise RuntimeError("the T1w is gone")


def test_processes_that_end_while_they_are_counted_are_no_error(tmp_path, monkeypatch) -> None:
    """`task` is there when asked for and gone when it is read; the watch must go on."""
    write_text(tmp_path / "1" / "task" / "1" / "children", "2 3")
    monkeypatch.setattr(memory, "PROC", tmp_path)
    real = Path.iterdir

    def iterdir(self: Path):
        if "2" in self.parts:
            raise ProcessLookupError(3, "No such process")
        return real(self)

    write_text(tmp_path / "2" / "task" / "2" / "children", "4")
    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert descendants(1) == [2, 3]
