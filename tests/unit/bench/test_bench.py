import importlib.util

import pytest

from boldmill.atomic import read_json
from boldmill.bench.command import BENCHES
from boldmill.bench.startup import HEAVY, loaded
from boldmill.bench.table import Row, render, side_by_side
from boldmill.cli import main

HELP = """
import contextlib, io
from boldmill.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["--help"])
"""


@pytest.mark.parametrize("code", ["import boldmill", HELP], ids=["import", "help"])
def test_starting_loads_nothing_heavy(code: str) -> None:
    found = loaded(code)
    assert "boldmill" in found
    assert not found & (HEAVY | {"pydantic", "jsonschema", "yaml", "argparse"})


@pytest.mark.parametrize("module", ["boldmill.config.load", "boldmill.stages", "boldmill.paths", "boldmill.index.read"])
def test_what_the_snakefile_imports_is_light(module: str) -> None:
    assert not loaded(f"import {module}") & HEAVY


def test_the_list_of_heavy_modules_names_modules() -> None:
    missing = [name for name in HEAVY if importlib.util.find_spec(name) is None]
    assert not missing
    assert "numpy" in loaded("import boldmill.represent.fc")


def test_rows_are_printed_and_saved(tmp_path, monkeypatch, capsys) -> None:
    rows = [
        Row(name="a thing", ours=2.0, peer=1.0, unit="ms", ratio=0.5, goal="under 3 ms", met=True),
        Row(name="b", ours=1234.5, peer=None, unit="clips/s", ratio=None),
        Row(name="c", ours=9, peer=1, unit="ms", ratio=1 / 9, goal="under 3 ms", met=False),
    ]
    monkeypatch.setattr("boldmill.bench.startup.measure", lambda repeats: rows)
    assert main(["bench", "startup", "--json", str(tmp_path / "x.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == render(rows).splitlines()
    assert lines[0].split() == ["name", "ours", "peer", "unit", "ratio", "goal", "met"]
    assert [line.split()[-1] for line in lines[1:]] == ["yes", "-", "NO"]
    saved = read_json(tmp_path / "x.json")
    assert [set(row) for row in saved] == [{"name", "ours", "peer", "unit", "ratio", "goal", "met"}] * 3
    assert saved[1]["peer"] is None


def test_startup_is_measured() -> None:
    measure = importlib.import_module(BENCHES["startup"][0]).measure
    rows = measure(repeats=3)
    assert [row.name for row in rows] == ["import boldmill", "boldmill --help"]
    assert all(row.ours > 0 and row.peer > 0 and row.goal for row in rows)


def test_sides_take_turns() -> None:
    calls: list[str] = []
    side_by_side(lambda: calls.append("ours"), lambda: calls.append("peer"), repeats=2, warm_up=1)
    assert calls == ["ours", "peer"] * 3
