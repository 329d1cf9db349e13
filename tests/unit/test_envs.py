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


DOCKERFILE = ROOT / "envs" / "Dockerfile"
DEFINITION = ROOT / "envs" / "boldmill.def"


def steps(path: Path) -> list[str]:
    """Logical lines of a definition, without comments, continued lines joined."""
    kept = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(kept))
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


def docker(word: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in steps(DOCKERFILE) if line.startswith(f"{word} ")]


def section(name: str) -> list[str]:
    """The lines of one section of the Apptainer definition."""
    lines = steps(DEFINITION)
    start = lines.index(f"%{name}") + 1
    ends = [place for place, line in enumerate(lines) if place >= start and line.startswith("%")]
    return lines[start : ends[0] if ends else len(lines)]


def test_the_images_install_the_pinned_packages_as_the_makefile_does() -> None:
    installs = [step.removeprefix("python -m pip install ") for step in docker("RUN") if "pip install" in step]
    assert installs == [
        f"torch=={project_pins()['torch']}",
        f"--no-deps brainspace=={BESIDE['brainspace']}",
        "-c /opt/boldmill/envs/constraints.txt -e /opt/boldmill",
    ]
    makefile = (ROOT / "Makefile").read_text()
    order = [makefile.index(text) for text in ("torch==", "--no-deps brainspace==", "-c envs/constraints.txt")]
    assert order == sorted(order)


def test_both_definitions_take_the_same_steps_on_the_same_base() -> None:
    (base,) = (text.split("=", 1)[1] for text in docker("ARG") if text.startswith("PYTHON_IMAGE="))
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    assert f"From: {base}" in steps(DEFINITION)
    ours = [step for step in docker("RUN") if "useradd" not in step]
    theirs = [step for step in section("post") if not step.startswith(("export ", "mkdir "))]
    assert ours == theirs
    assert "/templateflow" in "".join(section("environment"))


def test_everything_copied_into_an_image_exists_and_is_in_its_context() -> None:
    copied = {source.rstrip("/") for text in docker("COPY") for source in text.split()[:-1]}
    assert copied == {line.split()[0] for line in section("files")}
    assert all((ROOT / name).exists() for name in copied)
    allowed = [line for line in (ROOT / "envs" / "Dockerfile.dockerignore").read_text().splitlines() if line]
    assert allowed[1] == "*" and copied == {line[1:] for line in allowed if line.startswith("!")}
    readme = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("readme"))
    assert readme.split('"')[1] in copied  # the build of the package reads it


def test_the_image_is_not_root_starts_boldmill_and_carries_no_templates() -> None:
    assert docker("USER") == ["boldmill"] and docker("ENTRYPOINT") == ['["boldmill"]']
    last = steps(DOCKERFILE)
    assert last.index("USER boldmill") > max(place for place, line in enumerate(last) if line.startswith("RUN "))
    assert "TEMPLATEFLOW_HOME=/templateflow" in docker("ENV")[-1]
    assert section("runscript") == ['exec boldmill "$@"']
    for path in (DOCKERFILE, DEFINITION):
        assert not re.search(r"curl|wget|boldmill fetch", path.read_text())
