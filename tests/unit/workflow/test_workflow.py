"""What the Snakefile asks at parse time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from boldmill.config.load import load, parse
from boldmill.errors import ConfigError
from boldmill.snakemake_line import LOOKING, is_real_run, parse_options
from boldmill.stages import STAGES, stage_json
from boldmill.workflow import open_plan, shell_prefix

ROOT = Path(__file__).parents[3]


def test_every_looking_option_is_known_to_snakemake() -> None:
    """A renamed option would otherwise turn a look into a run that indexes."""
    options = vars(parse_options(["--cores", "1"]))
    assert [name for name in LOOKING if name not in options] == []


@pytest.mark.parametrize("words", [["-n"], ["--lint"], ["--unlock"], ["--dag"], ["--rulegraph"], ["--summary"]])
def test_looks_are_told_from_runs(words: list[str]) -> None:
    assert not is_real_run(parse_options(["--cores", "1", *words]))
    assert is_real_run(parse_options(["--cores", "1", "shards"]))


def test_a_jobs_process_never_indexes(tmp_path: Path) -> None:
    raw = {"results": str(tmp_path / "results"), "datasets": [{"name": "a", "root": str(tmp_path)}]}
    with pytest.raises(ConfigError, match="snakemake ingest"):
        open_plan(raw, main_process=False, argv=["--cores", "1"])
    assert not (tmp_path / "results").exists()


def test_no_data_set_is_said() -> None:
    with pytest.raises(ConfigError, match="boldmill init"):
        open_plan({}, main_process=True, argv=[])


@pytest.mark.parametrize("folder", ["/a b/src", "/plain/src", "/quote'd/src", "/{brace}/src"])
def test_the_prefix_is_valid_shell(folder: str) -> None:
    prefix = shell_prefix(folder, "results", own_environment=False)  # Snakemake formats it, like any command
    command = f'{prefix.format()} echo "$PYTHONPATH|$BOLDMILL_RESULTS|$OMP_WAIT_POLICY|$(command -v python3)"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    path, results, policy, python = done.stdout.strip().split("|")
    assert (path, results, policy) == (folder, "results", "PASSIVE")
    assert Path(python).parent == Path(sys.executable).parent


def test_a_conda_environment_keeps_its_own_python() -> None:
    assert " PATH=" not in shell_prefix("/src", "results", own_environment=True)


def test_every_rule_tracks_one_value() -> None:
    """Snakemake compares params as an unnamed set: two values could swap unseen."""
    for rules in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for block in re.split(r"^rule ", rules.read_text(), flags=re.MULTILINE)[1:]:
            if "shell:" in block:
                params = re.search(r"    params:\n((?:        .+\n)+)", block)
                assert params and params[1].strip().startswith(("cfg=plan.settings(", "cfg=plan.fetch,")), (
                    block.splitlines()[0]
                )
                assert len(params[1].splitlines()) == 1, block.splitlines()[0]


def test_the_slice_of_a_stage_holds_what_it_reads_and_nothing_else() -> None:
    config = load(ROOT / "config.yaml")
    for name, stage in STAGES.items():
        text = stage_json(config, name)
        for section in ("preprocess", "clean", "evaluate", "report", "snapshot"):
            read = any(key.split(".")[0] == section for key in stage.reads)
            assert (f'"{section}":' in text.split('"overrides"')[0]) == read, (name, section)


def test_an_override_reaches_its_data_set_only() -> None:
    config = parse(
        {"datasets": [{"name": "a", "root": "x", "overrides": {"clean": {"compcor": 1}}}, {"name": "b", "root": "y"}]}
    )
    assert '"compcor":1' in stage_json(config, "preprocess", {"a"})
    assert '"compcor":1' not in stage_json(config, "preprocess", {"b"})
    assert '"compcor":1' in stage_json(config, "preprocess")
    assert '"compcor":1' not in stage_json(config, "parcellate")
