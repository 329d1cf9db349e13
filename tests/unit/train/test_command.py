"""`boldmill train`: interrupted and resumed weights equal uninterrupted ones, to the byte; refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from boldmill.cli import main
from boldmill.errors import BoldmillError
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
