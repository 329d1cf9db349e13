"""The stage lock: what moves a digest, what does not, and how a change is taken over."""

from pathlib import Path

import pytest

from boldmill import stages_lock
from boldmill.cli import main
from boldmill.code_digest import Sources
from boldmill.stages import STAGES, Stage

COMMAND = '''"""Doc."""
from pkg.errors import E

def run():
    from pkg.maths import add
    return add(1, 2)
'''
MATHS = '''"""Doc."""
from .deep import inner

def add(a, b):
    """Add."""
    return inner.plus(a, b)
'''
SETTINGS = """class C(Section):
    n: int = Field(default=1, description='n')

    def twice(self):
        return 2 * self.n
"""
FILES = {
    "__init__.py": "",
    "errors.py": "class E(Exception): ...\n",
    "run/__init__.py": "",
    "run/command.py": COMMAND,
    "maths.py": MATHS,
    "deep/__init__.py": "",
    "deep/inner.py": "def plus(a, b):\n    return a + b\n",
    "named.py": "x = 1\n",
    "stranger.py": "x = 1\n",
    "settings.py": SETTINGS,
}


@pytest.fixture
def package(tmp_path: Path):
    """A synthetic package: a command that imports lazily, a helper, infrastructure, and a stranger."""
    for name, text in FILES.items():
        (tmp_path / "pkg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pkg" / name).write_text(text)
    return tmp_path / "pkg"


def digest(package, module="pkg.run.command", left_out=()):
    return Sources(package, "pkg").digest(module, left_out)


def edit(package, name, old, new):
    path = package / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_closure_follows_lazy_and_relative_imports_and_leaves_infrastructure_out(package):
    assert Sources(package, "pkg").closure("pkg.run.command") == {
        "pkg.run",
        "pkg.run.command",
        "pkg.maths",
        "pkg.deep",
        "pkg.deep.inner",
    }


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("maths.py", '"""Add."""', '"""Add two numbers, said at length."""'),
        ("maths.py", '"""Doc."""', "# a comment\n\n"),
        ("deep/inner.py", "return a + b", "return (a +\n            b)  # layout"),
        ("errors.py", "class E", "class F(Exception): ...\nclass E"),
        ("stranger.py", "x = 1", "x = 2"),
    ],
)
def test_comments_docstrings_layout_infrastructure_and_strangers_do_not_move_it(package, name, old, new):
    before = digest(package)
    edit(package, name, old, new)
    assert digest(package) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("deep/inner.py", "a + b", "a - b"),
        ("maths.py", "(a, b)", "(b, a)"),
        ("run/command.py", "add(1, 2)", "add(1, 3)"),
        ("deep/__init__.py", "", "X = 1\n"),
        ("run/command.py", "    return add", "    import pkg.stranger\n    return add"),
    ],
)
def test_code_moves_it(package, name, old, new):
    before = digest(package)
    edit(package, name, old, new) if old else (package / name).write_text(new)
    assert digest(package) != before


def test_a_module_named_in_a_string_is_part_of_the_closure(package):
    edit(package, "run/command.py", "add(1, 2)", "add(1, import_module('pkg.named').x)")
    before = digest(package)
    edit(package, "named.py", "x = 1", "x = 2")
    assert digest(package) != before


def test_fields_of_configuration_classes_are_tracked_as_values_their_methods_as_code(package):
    edit(package, "maths.py", "def add", "from pkg.settings import C\n\ndef add")
    before = digest(package)
    edit(package, "settings.py", "description='n'", "description='another', ge=1")
    assert digest(package) == before
    edit(package, "settings.py", "2 * self.n", "3 * self.n")
    assert digest(package) != before


def test_left_out_packages_do_not_count(package):
    before = digest(package, left_out=("pkg.deep",))
    edit(package, "deep/inner.py", "a + b", "a - b")
    assert digest(package, left_out=("pkg.deep",)) == before


@pytest.fixture
def lock(package, tmp_path, monkeypatch):
    """The tool, working on the synthetic package with one stage."""
    stage = {"add": Stage(version=1, reads=(), module="pkg.run.command")}
    monkeypatch.setattr(stages_lock, "STAGES", stage)
    monkeypatch.setattr("boldmill.stages.STAGES", stage)
    path = tmp_path / "stages.lock"
    monkeypatch.setattr(stages_lock, "LOCK", path)
    monkeypatch.setattr(stages_lock, "read_lock", lambda _read=stages_lock.read_lock: _read(path))
    monkeypatch.setattr(stages_lock, "write_lock", lambda now, _write=stages_lock.write_lock: _write(now, path))

    def current():
        found = {}
        for name, chosen in stage.items():
            if Sources(package, "pkg").exists(chosen.module):
                found[name] = {"version": chosen.version, "digest": digest(package, chosen.module)}
        return found

    monkeypatch.setattr(stages_lock, "current", current)
    return stage


def test_change_needs_a_version_then_a_lock(lock, package, capsys):
    assert main(["stages", "check"]) == 1
    assert main(["stages", "lock"]) == 0
    assert main(["stages", "check"]) == 0
    edit(package, "deep/inner.py", "a + b", "a - b")
    assert main(["stages", "check"]) == 1
    assert "add: moved. raise its version in stages.py" in capsys.readouterr().out
    assert main(["stages", "lock"]) == 1  # a lock does not hide the change
    assert main(["stages", "check"]) == 1
    lock["add"] = Stage(version=2, reads=(), module="pkg.run.command")
    assert main(["stages", "check"]) == 1
    assert main(["stages", "lock"]) == 0
    assert main(["stages", "check"]) == 0
    lock["add"] = Stage(version=1, reads=(), module="pkg.run.command")
    assert main(["stages", "lock"]) == 1
    assert "a version never goes down" in capsys.readouterr().out


def test_no_op_change_is_accepted_with_its_reason_only(lock, package, capsys):
    main(["stages", "lock"])
    edit(package, "deep/inner.py", "def plus(a, b):\n    return a + b", "def plus(x, y):\n    return x + y")
    assert main(["stages", "accept", "add"]) == 2
    assert main(["stages", "accept", "add", "--no-op", "  "]) == 2
    assert main(["stages", "accept", "ad", "--no-op", "r"]) == 2
    assert "did you mean 'add'?" in capsys.readouterr().err
    assert main(["stages", "accept", "add", "--no-op", "renamed arguments"]) == 0
    assert main(["stages", "check"]) == 0
    entry = stages_lock.read_lock()["add"]
    assert entry["accepted"] == [{"digest": entry["digest"], "reason": "renamed arguments"}]


def test_missing_module_is_gone_and_fails(lock, package):
    main(["stages", "lock"])
    (package / "run/command.py").unlink()
    assert stages_lock.compare(stages_lock.current(), stages_lock.read_lock()) == {"add": "gone"}
    assert main(["stages", "check"]) == 1


def test_show_lists_every_stage(capsys):
    assert main(["stages"]) == 0
    text = capsys.readouterr().out
    assert all(line.split()[0] in STAGES for line in text.splitlines())
    assert len(text.splitlines()) == len(STAGES)


def test_training_one_model_does_not_depend_on_the_others():
    left_out = stages_lock._left_out("train_fm_app", STAGES["train_fm_app"])
    assert left_out == ("boldmill.models.brainmass", "boldmill.models.fmri_mae")
    assert stages_lock._left_out("evaluate", STAGES["evaluate"]) == ()


def test_committed_lock_agrees_with_the_code():
    states = stages_lock.compare(stages_lock.current(), stages_lock.read_lock())
    wrong = {name: state for name, state in states.items() if state != "ok"}
    assert not wrong, f"{wrong}: run `boldmill stages bump-hint`"
