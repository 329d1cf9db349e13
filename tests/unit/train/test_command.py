"""`boldmill train`: interrupted and resumed weights equal uninterrupted ones, to the byte; refusals."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boldmill.cli import main
from boldmill.errors import BoldmillError
from boldmill.train import machine
from boldmill.train.command import EXIT_INTERRUPTED, write_side_files
from boldmill.train.protocol import TrainResult

SETTINGS = '{"stage":"train_fmri_mae","version":1,"seed":1,"config":{"models":{"fmri_mae":{}}},"overrides":{}}'


def test_settings_of_another_model_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--model", "brainmass", "--snapshot", "x", "--out", str(tmp_path / "model.safetensors")]
    assert main([*words, "--config-json", SETTINGS]) == 2
    assert "give the settings of train_brainmass" in capsys.readouterr().err


def test_output_name_is_fixed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--model", "fmri_mae", "--snapshot", "x", "--out", "weights.pt", "--config-json", SETTINGS]
    assert main(words) == 2
    assert "use .../model.safetensors" in capsys.readouterr().err


def test_incomplete_metadata_are_refused(tmp_path: Path) -> None:
    from boldmill.stages import Settings

    with pytest.raises(BoldmillError, match="subjects"):
        write_side_files(
            tmp_path, "fmri_mae", Settings(SETTINGS), "id", TrainResult(history=[], metadata={"architecture": {}})
        )


def test_importing_the_command_imports_no_torch() -> None:
    code = "import sys, boldmill.train.command; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_exit_status_is_that_of_sigterm() -> None:
    assert EXIT_INTERRUPTED == 128 + 15


def test_machine_options_come_from_the_command_line_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in no setting: the same training on any machine."""
    monkeypatch.setenv("BOLDMILL_MICRO_BATCH", "3")
    monkeypatch.setenv("BOLDMILL_MAX_SECONDS", "")
    parser = argparse.ArgumentParser()
    machine.add_arguments(parser)
    found = machine.from_args(parser.parse_args(["--keep-checkpoints", "5"]))
    assert (found.micro_batch, found.keep_checkpoints, found.max_seconds) == (3, 5, None)
    assert machine.from_args(parser.parse_args(["--micro-batch", "4", "--max-seconds", "0.5"])).micro_batch == 4
    for words, told in ((["--micro-batch", "0"], "0 is not above 0"), (["--max-seconds", "x"], "invalid float value")):
        with pytest.raises(SystemExit):
            parser.parse_args(words)
        assert told in capsys.readouterr().err


def test_a_signal_before_the_loop_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command listens from its first line on, also between two stages of a model; handlers are restored."""
    from boldmill.train.stop import stop_signals

    before = signal.getsignal(signal.SIGUSR1)
    with stop_signals() as asked:
        with stop_signals() as same:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.is_set() and same is asked
    assert signal.getsignal(signal.SIGUSR1) == before


def test_an_error_of_another_rank_is_told_in_one_line() -> None:
    from boldmill.train import distributed

    assert distributed._is_of_peers(RuntimeError("[../third_party/gloo/transport/tcp/pair.cc:534] Connection closed"))
    assert not distributed._is_of_peers(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
