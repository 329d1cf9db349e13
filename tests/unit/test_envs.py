"""The conda environments and the package carry the same pins."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ENVS = sorted((ROOT / "envs").glob("*.yaml"))
# Installed by the Makefile without its dependencies, so pyproject.toml cannot carry it.
BESIDE = {"brainspace": "0.3.0"}


def project_pins() -> dict[str, str]:
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dict(pin.split("==") for pin in pins) | BESIDE


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_every_pin_of_an_environment_is_the_projects(env: Path) -> None:
    pins = next(item["pip"] for item in yaml.safe_load(env.read_text())["dependencies"] if isinstance(item, dict))
    wanted = project_pins()
    assert {pin.split("==")[0]: pin.split("==")[1] for pin in pins} == {
        pin.split("==")[0]: wanted[pin.split("==")[0]] for pin in pins
    }


def test_every_dependency_is_pinned_exactly_and_constrained() -> None:
    constraints = dict(
        line.split("==") for line in (ROOT / "envs" / "constraints.txt").read_text().splitlines() if "==" in line
    )
    lowered = {name.lower().replace("_", "-"): version for name, version in constraints.items()}
    for name, version in project_pins().items():
        if name in ("torch", *BESIDE):  # installed before the rest, see the Makefile
            continue
        assert lowered[name] == version, name


def test_makefile_installs_the_pinned_torch_and_brainspace() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"torch=={project_pins()['torch']}" in makefile
    assert f"--no-deps brainspace=={BESIDE['brainspace']}" in makefile


def test_every_rule_names_an_environment_that_exists() -> None:
    for rules in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        text = rules.read_text()
        for block in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]:
            if "shell:" not in block:
                continue
            named = re.search(r'conda:\n\s+"(.+)"', block)
            assert named, f"{rules.name}: rule {block.splitlines()[0]} names no environment"
            assert (rules.parent / named[1]).resolve() in ENVS
            assert "log:" in block and "params:" in block
        assert not re.search(r"^\s*run:", text, flags=re.MULTILINE)
