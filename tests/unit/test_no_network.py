"""No job downloads anything: the code names no way to, and what reads templates runs without sockets."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest

from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.stages import stage_json
from boldmill.workflow import OFFLINE, shell_prefix

SOURCE = Path(__file__).parents[2] / "src" / "boldmill"
FETCHING = {"setup/download.py"}
"""The one module that may ask a network; only `boldmill fetch` calls it."""
MODULES = {
    *("requests", "urllib.request", "http.client", "ftplib", "urllib3", "httpx", "aiohttp", "boto3", "paramiko"),
    *("datalad", "huggingface_hub", "datasets", "transformers", "timm", "torch.hub", "torchvision", "nltk", "gdown"),
    *("templateflow", "etelemetry", "pooch", "dipy.data", "openneuro", "wget"),
}
CALLS = {
    *("urlopen", "urlretrieve", "from_pretrained", "snapshot_download", "hf_hub_download", "load_dataset"),
    *("load_state_dict_from_url", "get_ants_data", "download_url", "open_url", "nltk_download"),
}
PREFIXES = ("fetch_",)
"""nilearn, scikit-learn and dipy name every download so."""


def _names(tree: ast.AST) -> set[str]:
    """Every module imported, whole or in part."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def _ways_out(text: str) -> set[str]:
    """What in a module could reach a network."""
    tree = ast.parse(text)
    imported = _names(tree)
    found = {name for name in imported if any(name == one or name.startswith(f"{one}.") for one in MODULES)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in CALLS or (isinstance(node, ast.Attribute) and name.startswith(PREFIXES)):
                found.add(name)
            if name == "hub" and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.add(f"{node.value.id}.hub")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import requests",
        "from urllib import request",
        "from templateflow import api",
        "def f():\n    from nilearn import datasets\n    datasets.fetch_atlas_schaefer_2018()",
        "import torch\ntorch.hub.load('x', 'y')",
        "AutoModel.from_pretrained('x')",
    ],
)
def test_a_way_to_download_would_be_seen(text: str) -> None:
    assert _ways_out(text)


def test_no_module_but_the_fetch_can_download() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name not in FETCHING and (ways := _ways_out(path.read_text(encoding="utf-8"))):
            found[name] = ways
    assert found == {}


def test_only_the_command_fetch_reaches_the_download() -> None:
    def naming(module: str) -> set[str]:
        paths = sorted(SOURCE.rglob("*.py"))
        texts = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in paths}
        return {name for name, text in texts.items() if f"{module} import" in text or f'"{module}"' in text}

    assert naming("boldmill.setup.download") == {"setup/fetch.py"}
    assert naming("boldmill.setup.fetch") == {"cli.py"}


def test_every_job_tells_its_libraries_to_stay_offline() -> None:
    prefix = shell_prefix("src", "results", own_environment=False)
    assert all(f"{name}={value}" in prefix for name, value in OFFLINE.items()) and "NO_ET" in OFFLINE


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def refuse(*args: object, **kwargs: object) -> None:
        asked.append(str(args))
        raise AssertionError(f"a socket was asked for: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return asked


def test_the_ban_works(no_sockets: list[str]) -> None:
    import urllib.request

    with pytest.raises(AssertionError, match="socket"):
        urllib.request.urlopen("http://127.0.0.1:9/")
    assert no_sockets


def test_templates_atlas_and_operators_run_without_sockets(
    no_sockets: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from boldmill.preprocess.images import Volume
    from boldmill.preprocess.transforms import resample
    from boldmill.spaces import templates

    def unmoved(head: Volume, mask: object, space: str) -> tuple[Volume, Volume, dict[str, str]]:
        _, gm, wm = templates.icbm_2009a()  # read, but not registered: that takes half a minute and reads nothing
        return resample(gm, head.grid), resample(wm, head.grid), {}

    monkeypatch.setattr(templates, "warp_priors", unmoved)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(data / "templateflow"))
    values = {
        "spaces": {"surface_source": "templateflow", "flat": "rebuilt", "resolution": 4},
        "preprocess": {"output_spaces": ["MNI152NLin2009cAsym:res-2"]},
    }
    config = parse(values)
    template, atlas = tmp_path / "templates/template.json", tmp_path / "atlas/A/atlas.json"
    assert main(["templates", "--out", str(template), "--config-json", stage_json(config, "templates")]) == 0
    words = ["atlas", "--template", str(template), "--out", str(atlas), "--config-json", stage_json(config, "atlas")]
    assert main(words) == 0
    out = tmp_path / "operators/meshes.json"
    words = ["operators", "meshes", "--out", str(out), "--config-json", stage_json(config, "operator_meshes")]
    assert main(words) == 0
    assert template.is_file() and atlas.is_file() and out.is_file() and no_sockets == []


def test_a_missing_file_ends_a_job_with_one_line_that_names_the_fetch(
    no_sockets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "nothing"))
    out = tmp_path / "template.json"
    assert main(["templates", "--out", str(out), "--config-json", stage_json(parse({}), "templates")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "snakemake fetch" in said and "Traceback" not in said
    assert no_sockets == [] and not out.exists() and not (tmp_path / "nothing").exists()
