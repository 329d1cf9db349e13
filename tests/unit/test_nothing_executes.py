"""Nothing in a data file is ever run: no pickle, no eval, no shell, no archive unpacked by its own names.

Every call that could do so is found in the syntax trees of the package and of the Snakefiles' Python. What remains is
listed with its reason; a new one fails here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "boldmill"

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "code", "runpy"}
"""Modules whose loaders run what they read."""

CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *(
        "os.system",
        "os.popen",
        "os.execv",
        "os.execvp",
        "os.execl",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
    ),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all"),
    *("pd.read_pickle", "pandas.read_pickle", "pd.eval", "pandas.eval", "np.lib.format.read_array", "numpy.load"),
    *("np.load", "np.lib.format.write_array", "shutil.unpack_archive", "importlib.import_module"),
    *("importlib.util.spec_from_file_location", "pydoc.locate"),
}
"""Calls that run, or may run, what they are given; some are safe with a keyword (:data:`SAFE`)."""

METHODS = {"extractall", "extract", "from_string", "load_module", "exec_module"}
"""Methods that write files by names an archive chose, or that run a text."""

SAFE = {
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
    "np.lib.format.write_array": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}
"""Calls that run nothing with this keyword, spelled out."""

ALLOWED = {
    ("cli.py", "importlib.import_module"): "the module of a command, from the fixed table of commands",
    ("bench/command.py", "importlib.import_module"): "the module of a bench, from the fixed table of benches",
    ("bench/preprocess_peers.py", "importlib.import_module"): "the literal name of an optional package",
    ("provenance/audit.py", "importlib.import_module"): "the module of an action, from the fixed table of actions",
    ("train/protocol.py", "importlib.import_module"): "the trainer of one of the three models, refused otherwise",
    ("preprocess/engines.py", "importlib.import_module"): "the class of an engine, from the fixed table of engines",
    ("preprocess/engine_ants.py", "importlib.import_module"): "the literal name of an optional package",
    ("report/templating.py", ".from_string"): "a template of the package itself; what it shows is escaped",
    ("models/brainmass/import_command.py", "import pickle"): "its exception only; torch.load runs with weights_only",
}
"""(file, what) -> why it is there."""


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` of an attribute chain, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def says(call: ast.Call, keyword: str, value: object) -> bool:
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def dangers(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of whatever a source text could run."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"import {a.name}") for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in MODULES:
                yield node.lineno, f"import {node.module}"
            for alias in node.names:  # `from torch import load` would hide the call
                if f"{node.module}.{alias.name}" in CALLS:
                    yield node.lineno, f"from {node.module} import {alias.name}"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in CALLS and not (name in SAFE and says(node, *SAFE[name])):
                yield node.lineno, name
            elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS and name not in CALLS:
                yield node.lineno, f".{node.func.attr}"
            if any(k.arg == "shell" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
                   for k in node.keywords):  # fmt: skip
                yield node.lineno, "shell=True"
            if says(node, "allow_pickle", True):
                yield node.lineno, "allow_pickle=True"


def found_in_the_package() -> set[tuple[str, str]]:
    return {(p.relative_to(PACKAGE).as_posix(), what) for p in sources() for _, what in dangers(p.read_text())}


def test_no_source_runs_what_it_reads() -> None:
    assert found_in_the_package() - set(ALLOWED) == set()


def test_the_list_of_exceptions_holds_nothing_that_is_gone() -> None:
    present = {(path.relative_to(PACKAGE).as_posix()) for path in sources()}
    stale = {(file, what) for file, what in set(ALLOWED) - found_in_the_package()}
    assert stale == set() and {file for file, _ in ALLOWED} <= present


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "exec(text)",
        "os.system(words)",
        "subprocess.run(words, shell=True)",
        "subprocess.run(words, shell=flag)",
        "archive.extractall(folder)",
        "archive.extract(member, folder)",
        "environment.from_string(text)",
        "pd.read_pickle(path)",
        "np.savez(path, allow_pickle=True)",
    ],
)
def test_each_danger_is_seen(text: str) -> None:
    assert list(dangers(text))


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "subprocess.run(['git', 'status'], check=False)",
        "network.eval()",
        "re.compile(text)",
    ],
)
def test_what_is_safe_is_left_alone(text: str) -> None:
    assert not list(dangers(text))


def test_rules_run_no_python_of_their_own() -> None:
    """No `run:` and no `script:`; a shell line quotes whatever is not a word of ours."""
    rules = [ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]
    for path in rules:
        text = path.read_text()
        assert not re.search(r"^\s+(?:run|script|notebook|wrapper):", text, flags=re.MULTILINE), path
        for line in re.findall(r'^\s+"(.*)"$', text, flags=re.MULTILINE):
            for found in re.findall(r"\{((?:input|output|params)[^}]*)\}", line):
                assert found.endswith(":q"), f"{path.name}: {{{found}}} is not quoted"
