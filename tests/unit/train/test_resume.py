"""Saved states: the last ones kept, damage noticed, another run's never used, what is in them."""

from __future__ import annotations

import errno
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from boldmill.errors import MachineFault
from boldmill.train import loop as loop_module
from boldmill.train import resume
from boldmill.train.checkpoint import read_header, read_tensors
from boldmill.train.loop import Interrupted, fit
from boldmill.train.machine import Machine

spec = importlib.util.spec_from_file_location("boldmill_toy", Path(__file__).with_name("test_loop.py"))
assert spec is not None and spec.loader is not None
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
IDENTITY = {"model": "toy", "seed": 7, "settings": {"lr": 0.1, "batch": 8}, "snapshot": "abc", "data": "def"}


def run(folder: Path, identity: dict[str, Any] = IDENTITY, **how: Any) -> tuple[list[dict[str, Any]], Any]:
    task = toys.Toy()
    return fit(task, toys.recipe(), folder, identity, **how), toys.state(task)


def cut(folder: Path, step: int, identity: dict[str, Any] = IDENTITY, **how: Any) -> None:
    with pytest.raises(Interrupted, match=f"saved at step {step} of 20"):
        run(folder, identity, stop_at=step, **how)


def names(folder: Path) -> list[int]:
    return sorted(int(path.name[7:15]) for path in folder.glob("resume-*.safetensors"))


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """States 9 and 10 of a run that saves at every step."""
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "CHECKPOINT_SECONDS", -1.0)
        cut(tmp_path, 10)
    assert names(tmp_path) == [9, 10]
    return tmp_path


def assert_same_end(folder: Path, tmp_path: Path) -> None:
    history, state = run(folder)
    expected, whole = run(tmp_path / "whole")
    assert history == expected
    assert all(torch.equal(value, whole[name]) for name, value in state.items())


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_states_are_kept(keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_SECONDS", -1.0)
    cut(tmp_path, 10, machine=Machine(keep_checkpoints=keep))
    assert names(tmp_path) == list(range(11 - keep, 11))


def test_a_state_says_what_it_is(two: Path) -> None:
    header = read_header(two / "resume-00000010.safetensors")
    assert header["identity"] == IDENTITY and (header["step"], header["epoch"], header["ranks"]) == (10, 2, 1)
    assert header["sampler"].startswith(
        "before batch 3 of 4 of epoch 2; the order of an epoch is keyed by order, toy, 7"
    )
    assert "keyed" in header["random_state"] and len(header["sha256"]) == 64
    tensors = read_tensors(two / "resume-00000010.safetensors")[0]
    assert {"module/0.weight", "module/1.running_var", "optimiser/0/exp_avg", "optimiser/0/step"} <= set(tensors)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[:-50])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        place = len(content) - 50 if how == "flipped" else content.index(b'\\"step\\":10') + 10
        content[place] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "header"])
def test_a_damaged_state_is_passed_over_for_the_one_before(
    how: str, two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(two / "resume-00000010.safetensors", how)
    cut(two, 12)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("boldmill")]
    assert len(told) == 1 and "resume-00000010.safetensors: damaged and not used" in told[0]
    assert names(two) == [9, 12]  # the damaged one makes room
    assert_same_end(two, tmp_path)


def test_with_all_damaged_the_run_starts_anew(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (9, 10):
        damage(two / f"resume-{number:08d}.safetensors", "flipped")
    assert_same_end(two, tmp_path)
    assert capsys.readouterr().err.count("damaged and not used") == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"lr": 0.2, "batch": 8}}, "settings.lr is 0.1 there, 0.2 here"),
        ({"snapshot": "xyz"}, "snapshot is abc there, xyz here"),
        ({"data": "xyz"}, "data is def there, xyz here"),
    ],
)
def test_a_state_of_another_run_is_named_and_never_used(
    change: dict[str, Any], words: str, two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**IDENTITY, **change}
    history, state = run(two, other)
    assert f"resume-00000010.safetensors: not resumed, it is of another run: {words}" in capsys.readouterr().err
    expected, whole = run(tmp_path / "whole", other)
    assert history == expected and all(torch.equal(value, whole[name]) for name, value in state.items())
    cut(two, 3, other)
    assert names(two) == [3]  # once this run has a state of its own, the other's go


def test_a_complete_stage_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history, state = run(tmp_path, keep_end=True)
    monkeypatch.setattr(loop_module, "train_step", lambda *_: pytest.fail("trained again"))
    again, same = run(tmp_path, keep_end=True)
    assert again == history and all(torch.equal(value, state[name]) for name, value in same.items())


def test_a_run_that_stops_itself_does_a_step_each_time(tmp_path: Path) -> None:
    for step in range(1, 20):
        with pytest.raises(Interrupted, match=f"saved at step {step} of 20"):
            run(tmp_path, machine=Machine(max_seconds=1e-9))
    assert_same_end(tmp_path, tmp_path)


def test_a_full_disk_is_one_fault_and_the_states_of_before_stay(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(two))

    with monkeypatch.context() as patch:
        patch.setattr(resume, "write_tensors", full)
        with pytest.raises(MachineFault, match=r"cannot write: .*No space left on device. Fix: free space"):
            run(two, stop_at=12)
    assert names(two) == [9, 10] and not list(two.glob(".tmp*"))
    assert_same_end(two, tmp_path)


def test_what_a_killed_process_left_half_written_goes(two: Path, tmp_path: Path) -> None:
    half = two / ".tmp-123-abcd-resume-00000011.safetensors"
    half.write_bytes(b"half")
    cut(two, 12)
    assert not half.exists() and names(two) == [10, 12]
    half.write_bytes(b"half")
    loop_module.discard_resume(two)
    assert not [path for path in two.iterdir() if path.name != "whole"]


def test_a_stranger_in_the_folder_of_a_stage_is_left_alone(tmp_path: Path) -> None:
    """A process killed while it saved leaves a half state; a network file system, a file of its own."""
    for stage, name in (("fmri", ".tmp-1-a-resume-00000001.safetensors"), ("t1w", ".nfs0001")):
        (tmp_path / f"stage-{stage}").mkdir()
        (tmp_path / f"stage-{stage}" / name).touch()
    loop_module.discard_resume(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["stage-t1w", ".nfs0001"]
