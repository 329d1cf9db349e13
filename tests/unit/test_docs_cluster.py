"""Every command in docs/cluster.md parses: options exist, targets are rules, files it names are there."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from boldmill.cli import COMMANDS

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "cluster.md"
OTHERS = {
    "make",
    "git",
    "source",
    "export",
    "sinfo",
    "squeue",
    "tmux",
    "scontrol",
    "sacct",
    "scancel",
    "cd",
    "apptainer",
}
"""Programs of the site or the shell."""


def commands() -> list[str]:
    """Every command of the page: lines of code blocks, and spans between backticks that start like one."""
    text = DOC.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    lines = [line for line in lines if not re.match(r"\w+: ", line) and "SLURM job" not in line]  # settings; output
    spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", text)]
    lines += [span for span in spans if re.match(r"(boldmill|snakemake) [a-z-]", span)]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|(?= )", line)]
    return list(dict.fromkeys(part for part in parts if part and not part.startswith("#")))


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def ours(program: str) -> list[str]:
    return [command for command in commands() if words(command)[0] == program]


def parser_of(module: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=module)
    importlib.import_module(module).add_arguments(made)
    return made


def rules() -> set[str]:
    files = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return set(re.findall(r"^rule (\w+):", text, flags=re.MULTILINE))


def test_the_page_is_full_of_commands() -> None:
    assert len(ours("boldmill")) >= 12 and len(ours("snakemake")) >= 8
    assert {words(command)[0] for command in commands()} <= {"boldmill", "snakemake", *OTHERS}


@pytest.mark.parametrize("command", ours("boldmill"))
def test_a_command_of_ours_parses(command: str) -> None:
    _, name, *rest = words(command)
    assert name in COMMANDS, command
    if name == "audit" and rest:
        from boldmill.provenance.audit import ACTIONS

        action, *rest = rest
        assert action in ACTIONS, command
        parser = parser_of(ACTIONS[action])
    else:
        parser = parser_of(COMMANDS[name][1])
    if rest:
        parser.parse_args(rest)


@pytest.mark.parametrize("command", ours("snakemake"))
def test_a_call_of_snakemake_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from boldmill.workflow import parse_options

    monkeypatch.chdir(ROOT)
    options = parse_options(words(command)[1:])
    named = {*options.targets, *(options.forcerun or []), *(options.until or [])}
    assert named <= rules(), named - rules()
    for profile in options.profile or []:
        assert (ROOT / profile).is_dir()


def test_files_and_folders_it_names_are_there() -> None:
    text = DOC.read_text(encoding="utf-8")
    named = re.findall(r"`((?:profiles|workflow|envs|docs)/[\w./+-]+)`", text)
    named += re.findall(r"\]\(\.\./([\w./-]+)\)", text)
    assert named and [name for name in named if not (ROOT / name).exists()] == []


def test_settings_it_names_exist() -> None:
    from boldmill.config.model import Config

    schema = Config.model_json_schema()

    def deref(here: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in here or "items" in here:
            here = schema["$defs"][here["$ref"].rsplit("/", 1)[1]] if "$ref" in here else here["items"]
        return here

    def known(dotted: str) -> bool:
        here: dict[str, Any] = schema
        for part in dotted.replace("[]", "").split("."):
            here = deref(here).get("properties", {}).get(part)
            if here is None:
                return False
        return True

    sections = "|".join(name for name, value in schema["properties"].items() if name != "results")
    named = re.findall(rf"`((?:{sections})(?:\[\])?\.[a-z_.]+)`", DOC.read_text(encoding="utf-8"))
    assert named and [name for name in named if not known(name)] == []
    assert not known("shards.buckets") and known("datasets[].name")
