"""What the Snakefile asks: which calls are looks, and which command tells how far this configuration is."""

import json
import shlex
from pathlib import Path

import pytest
from snakemake.iocontainers import Wildcards

from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.errors import ConfigError
from boldmill.index.read import read_index, settings_digest
from boldmill.index.write import write_index
from boldmill.snakemake_line import LOOKING, is_real_run, parse_options
from boldmill.stages import stage_json
from boldmill.workflow import Plan, open_plan, refuse_targets


def test_every_looking_option_is_one_of_snakemakes() -> None:
    """A name that Snakemake drops would turn a look into a run that indexes the data."""
    options = parse_options(["--cores", "1"])
    assert [name for name in LOOKING if not hasattr(options, name)] == []


@pytest.mark.parametrize(
    "words",
    [["-n"], ["--summary"], ["--export-cwl", "x.cwl"], ["--list-rules"], ["--touch"], ["--report", "r.html"]],
)
def test_a_look_is_no_real_run(words: list[str]) -> None:
    assert not is_real_run(parse_options(["--cores", "1", *words]))
    assert is_real_run(parse_options(["--cores", "1", "--forcerun", "templates"]))


@pytest.mark.parametrize("train", [["brainmass"], []])
def test_the_closing_status_counts_the_models_and_the_snapshot_of_this_configuration(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys, train: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = parse({"results": "out", "models": {"train": train}, "snapshot": {"name": "pilot"}})
    words = shlex.split(Plan(config, None).status())
    assert words[:4] == ["python", "-m", "boldmill", "status"]
    plan = Plan(config, None)
    write_index(plan.layout.index, [], "", 4)
    plan.layout.snapshot("pilot").parent.mkdir(parents=True)
    plan.layout.snapshot("pilot").write_text("{}")
    assert main(words[3:]) == 0
    lines = {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines() if "|" in line}
    assert lines["train"] == ["0", "of", str(len(train))]
    assert lines["snapshot"] == ["1", "of", "1"]


def test_an_index_without_a_usable_scan_stops_with_its_quarantine_table(tmp_path: Path) -> None:
    raw = {"results": str(tmp_path), "datasets": [{"name": "a", "root": "a"}]}
    write_index(tmp_path / "index" / "runs.parquet", [], settings_digest(stage_json(parse(raw), "ingest")), 64)
    with pytest.raises(ConfigError, match=r"none of 0 scans passed ingest.*quarantine\.tsv"):
        open_plan(raw, main_process=True, argv=["--cores", "1"])
    assert open_plan(raw, main_process=True, argv=["ingest", "--cores", "1"]).index is not None


@pytest.mark.parametrize("content", [b"PAR1", b"", b"another version"])
def test_a_damaged_index_is_made_anew_by_ingest_and_named_by_a_look(tmp_path: Path, content: bytes) -> None:
    raw = {"results": str(tmp_path), "datasets": [{"name": "a", "root": str(tmp_path / "a")}]}
    path = tmp_path / "index" / "runs.parquet"
    path.parent.mkdir()
    path.write_bytes(content)
    assert open_plan(raw, main_process=True, argv=["ingest", "--cores", "1"]).index is None
    for main_process, argv in ((True, ["-n", "--cores", "1"]), (False, ["ingest"])):
        with pytest.raises(ConfigError, match=r"cannot read the index.*snakemake ingest"):
            open_plan(raw, main_process=main_process, argv=argv)
    with pytest.raises(ConfigError, match="cannot index the data sets"):  # it is tried: there is no folder `a`
        open_plan(raw, main_process=True, argv=["--cores", "1"])


def test_tables_of_parcels_have_a_shard_per_bucket_and_atlas(tree) -> None:
    tree.good("01", "02")
    buckets = sorted({row.bucket for row in tree.ingest()})
    raw = {"results": str(tree.results), "datasets": [{"name": "ds", "root": "ds"}, {"name": "t", "root": "t"}]}
    raw["datasets"][1] |= {"kind": "tables", "atlas": "HO 111"}
    plan = Plan(parse({**raw, "spaces": {"further_atlases": ["Schaefer2018 400Parcels7Networks"]}}), None)
    labels = ["Schaefer2018-100Parcels7Networks", "Schaefer2018-400Parcels7Networks", "HO-111"]
    assert plan.atlases == labels
    folder = f"{tree.results}/shards/fc"
    assert plan.atlas_shards("fc") == [f"{folder}/{label}/bucket-{{bucket}}.parquet" for label in labels]
    plan = Plan(plan.config, read_index(tree.results))
    assert plan.shards("fc") == [f"{folder}/{label}/bucket-{b:03d}.parquet" for label in labels for b in buckets]
    assert plan.shards("scans") == [f"{tree.results}/shards/scans/bucket-{b:03d}.parquet" for b in buckets]
    assert len(plan.all_shards()) == len(set(plan.all_shards())) == len(buckets) * (2 + 3 * len(labels))


def test_the_closing_status_counts_the_tables_that_are_configured(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    task = {"name": "group", "column": "group"}
    raw = {
        "results": "out",
        "datasets": [{"name": "a", "root": "a"}],
        "models": {"train": ["brainmass", "fm_app"]},
        "evaluate": {"tasks": [task], "few_shot": {"shots": [1]}},
        "ablation": {"variants": [{"name": "full"}]},
    }
    config = parse(raw)
    plan = Plan(config, None)
    write_index(plan.layout.index, [], "", 4)
    made = plan.layout.few_shot("fm_app")
    made.parent.mkdir(parents=True)
    made.write_text("")
    assert main(shlex.split(plan.status())[3:]) == 0
    lines = {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines() if "|" in line}
    assert lines["few-shot"] == ["1", "of", "2"] and lines["ablation"] == ["0", "of", "1"]
    assert lines["interpret"] == ["0", "of", "1"] and "zero-shot" not in lines
    (tmp_path / "my.yaml").write_text(json.dumps(raw))
    assert main(["status", "--config", "my.yaml"]) == 0
    assert {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines() if "|" in line} == lines


def test_a_variant_has_the_settings_of_its_own_training_and_of_every_evaluation() -> None:
    variants = [{"name": "full"}, {"name": "rec", "set": {"models.brainmass.weight_rec": 0.5}}]
    config = parse({"ablation": {"variants": variants}})
    plan = Plan(config, None)

    def of(stage: str, name: str) -> str:
        return plan.settings(stage)(Wildcards(fromdict={"variant": name}))

    assert of("train_brainmass", "full") == stage_json(config, "train_brainmass") != of("train_brainmass", "rec")
    assert of("evaluate", "full") == of("evaluate", "rec")


@pytest.mark.parametrize(
    ("evaluate", "train", "refused"),
    [
        ([], ["brainmass"], True),
        ([{"name": "age", "column": "age", "kind": "regression"}], ["brainmass"], True),
        ([{"name": "group", "column": "group"}], ["fmri_mae"], True),
        ([{"name": "group", "column": "group"}], ["brainmass"], False),
    ],
)
def test_a_target_with_nothing_to_explain_is_refused(evaluate, train, refused) -> None:
    config = parse({"evaluate": {"tasks": evaluate}, "models": {"train": train}})
    if not refused:
        refuse_targets(config, ["interpret"])
        return
    with pytest.raises(ConfigError, match="snakemake interpret"):
        refuse_targets(config, ["interpret"])


def test_a_snapshot_that_is_frozen_or_never_will_be_is_no_target(tmp_path: Path) -> None:
    """The rule has no output then: its command would be cut short."""
    config = parse({"results": str(tmp_path), "snapshot": {"name": "pilot"}})
    refuse_targets(config, ["freeze", "freeze_shards"])
    frozen = Plan(config, None).layout.frozen("pilot")
    frozen.parent.mkdir(parents=True)
    frozen.write_text("{}")
    refuse_targets(config, ["freeze"])
    with pytest.raises(ConfigError, match="pilot, which is already frozen"):
        refuse_targets(config, ["freeze_shards"])
    rolling = parse({"results": str(tmp_path), "snapshot": {"name": "latest"}})
    for target in ("freeze", "freeze_shards"):
        with pytest.raises(ConfigError, match=f"snakemake {target}.*never"):
            refuse_targets(rolling, [target])
