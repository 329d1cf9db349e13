"""Every command shows an example, and the example is a command line it takes."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys

import pytest

from boldmill.cli import COMMANDS, main


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_example_of_a_command_is_one_it_takes(name: str) -> None:
    module = importlib.import_module(COMMANDS[name][1])
    text = re.sub(r"\\\n\s*", "", module.__doc__)
    lines = re.findall(rf"^[:\s]*boldmill {re.escape(name)}\b ?(.*)$", text.partition("xample")[2], flags=re.MULTILINE)
    assert lines, "no example"
    for line in lines:
        parser = argparse.ArgumentParser(exit_on_error=False)
        module.add_arguments(parser)
        parser.parse_args(shlex.split(line.split("   ")[0]))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert "xample" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["parcelate"]) == 2
    assert "did you mean 'parcellate'?" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_success() -> None:
    """`boldmill audit verify | head` under pipefail: what was not said was not done."""
    words = [sys.executable, "-m", "boldmill", "schema"]
    job = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None and job.stderr is not None
    job.stdout.close()
    assert job.stderr.read() == ""
    assert job.wait(timeout=60) == 141
