"""`boldmill audit ACTION`: every action has a module with examples and exit statuses."""

import sys

import pytest

from boldmill.cli import main
from boldmill.provenance.audit import ACTIONS

HEAVY = ("torch", "pandas", "sklearn", "matplotlib", "nibabel", "nilearn", "scipy", "pyarrow")


@pytest.mark.parametrize("action", ACTIONS)
def test_help_shows_examples_and_exit_statuses(action: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["audit", action, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"boldmill audit {action}" in shown and "Exit status: 0" in shown and "Example" in shown


def test_an_unknown_action_is_a_usage_error(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["audit", "verfy"])
    assert stop.value.code == 2
    assert "'verify'" in capsys.readouterr().err  # it names what there is


@pytest.mark.parametrize("action", ACTIONS)
def test_a_help_text_loads_nothing_heavy(action: str) -> None:
    import subprocess

    code = f"import sys, boldmill.provenance.audit, {ACTIONS[action]}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
