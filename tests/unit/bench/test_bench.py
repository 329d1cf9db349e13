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


def test_flags_belong_to_the_bench_that_has_them(monkeypatch, capsys) -> None:
    given: list[dict[str, bool]] = []
    monkeypatch.setattr("boldmill.bench.preprocess.measure", lambda repeats, **flags: given.append(flags) or [])
    assert main(["bench", "preprocess", "--quick"]) == 0
    assert given == [{"quick": True}]
    assert main(["bench", "startup", "--long"]) != 0
    assert "--long" in capsys.readouterr().err


def test_a_missing_peer_is_a_row_that_says_so() -> None:
    from boldmill.bench.preprocess import _absent

    assert "ants is not installed" in render([_absent("motion (peer: antspyx)", "ants", 0.05, "mm")])


def test_children_are_measured_and_their_failure_is_told(tmp_path) -> None:
    import sys

    from boldmill.bench.preprocess_run import different_files, measured
    from boldmill.errors import MachineFault

    ballast = bytearray(b"x") * 500_000_000  # this process' own memory must not count
    used = measured([sys.executable, "-c", "x = bytearray(200_000_000); sum(range(3_000_000))"], tmp_path)
    assert len(ballast) > used.peak_bytes and 200e6 < used.peak_bytes < 400e6 and 0.01 < used.cpu_s < 20
    with pytest.raises(MachineFault, match="no such thing"):
        measured([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path)
    for name, content in (("one", "a"), ("two", "b")):
        folder = tmp_path / name / "derivatives"
        folder.mkdir(parents=True)
        (folder / "same").write_text("x")
        (folder / "other").write_text(content)
        (folder / "x.prov.json").write_text(content)
    assert different_files(tmp_path / "one", tmp_path / "two") == (2, ["derivatives/other"])
