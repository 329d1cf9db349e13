"""What the present configuration, code and inputs would no longer give."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from boldmill import stages
from boldmill.atomic import write_json
from boldmill.cli import main
from boldmill.config.load import load, parse
from boldmill.paths import Layout
from boldmill.provenance.current import Current
from boldmill.provenance.hashing import look
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import Recorder
from boldmill.provenance.stale import find
from boldmill.provenance.verify import verify

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)
BEHIND_PREPROCESS = {"shards", "snapshot", "train_brainmass", "evaluate"}


def stale(**over: object) -> dict[str, set[str]]:
    """Return stage -> reasons, with some keys of the configuration changed."""
    write_json("over.json", over)
    found: dict[str, set[str]] = {}
    for stage, reasons in find(Ledger.load(RESULTS), Current(load("config.yaml", "over.json"))).files.values():
        found.setdefault(stage, set()).update(reasons)
    return found


def test_nothing_is_stale_after_a_run(project, capsys) -> None:
    assert stale() == {}
    assert main(["audit", "stale"]) == 0
    assert capsys.readouterr().out.strip().endswith(" 0 stale")


def test_a_changed_key_is_named_and_everything_behind_it_follows(project, capsys) -> None:
    found = stale(clean={"band_high": 0.08})
    assert found["preprocess"] == {"clean.band_high changed 0.1 -> 0.08"}
    assert set(found) == {"preprocess"} | BEHIND_PREPROCESS
    assert found["shards"] == {"made from what preprocess wrote, which is stale"}
    assert main(["audit", "stale", "--config", "config.yaml", "over.json"]) == 1
    assert "preprocess: 9 of 9 outputs, because clean.band_high changed 0.1 -> 0.08" in capsys.readouterr().out


def test_a_key_of_a_late_stage_leaves_the_earlier_ones_alone(project) -> None:
    assert set(stale(evaluate={"bootstrap": 777})) == {"evaluate"}


def test_a_key_no_stage_here_reads_makes_nothing_stale(project) -> None:
    assert stale(report={}, project="another name") == {}


def test_a_new_data_set_makes_only_the_index_stale(project) -> None:
    found = stale(datasets=[*project.raw["datasets"], {"name": "more", "root": "raw"}])
    assert set(found) == {"ingest"}


def test_an_override_of_one_of_two_data_sets_is_named(project) -> None:
    """The other one's settings, without it, are those that the outputs were made with."""
    over = {"name": "demo", "root": "raw", "overrides": {"clean": {"band_high": 0.08}}}
    found = stale(datasets=[over, {"name": "other", "root": "raw"}])
    assert any("demo.clean.band_high" in reason for reason in found["preprocess"])


def test_settings_of_a_bucket_hold_the_overrides_of_those_who_are_in_it() -> None:
    names = {"aa": 0.07, "bb": 0.08, "cc": 0.09}
    config = parse(
        {
            "datasets": [
                {"name": name, "root": "raw", "overrides": {"clean": {"band_high": high}}}
                for name, high in names.items()
            ]
        }
    )
    index = SimpleNamespace(datasets_in=lambda bucket: frozenset({"aa", "bb"} if bucket == 0 else {"cc"}))
    current = Current(config, index)  # type: ignore[arg-type]
    text = stages.stage_json(config, "preprocess", {"aa", "bb"})
    path = "results/preprocess/bucket-{}.json"
    assert current.reasons("preprocess", path.format("000"), text, f"{path.format('000')}.prov.json") == ()
    assert current.reasons("preprocess", path.format("001"), text, f"{path.format('001')}.prov.json") != ()
    own = stages.Settings(text).for_dataset("aa")
    subject = "results/preprocess/aa/sub-1.json"
    assert current.reasons("preprocess", subject, own, f"{subject}.prov.json") == ()
    assert current.reasons("preprocess", "results/derivatives/aa/x", text, f"{subject}.prov.json") != ()


def test_a_raised_stage_version_is_named(project, monkeypatch) -> None:
    import dataclasses

    version = stages.STAGES["shards"].version
    monkeypatch.setitem(stages.STAGES, "shards", dataclasses.replace(stages.STAGES["shards"], version=version + 1))
    found = stale()
    assert found["shards"] == {f"stage version {version} -> {version + 1}"}
    assert set(found) == {"shards", "snapshot", "train_brainmass", "evaluate"}


def test_a_changed_raw_file_is_named_and_a_touched_one_is_not(project) -> None:
    os.utime(project.bold("01"))
    assert stale() == {}
    project.bold("01").write_text("bold of 99")  # one byte more
    project.bold("02").write_text("bold of XX")  # the same size
    found = stale()
    assert found["preprocess"] == {f"changed on disk: {project.bold('01')}", f"changed on disk: {project.bold('02')}"}
    assert set(found) == {"preprocess"} | BEHIND_PREPROCESS
    listed = find(Ledger.load(RESULTS), Current(None)).files
    assert str(LAYOUT.subject("demo", "03")) not in listed and str(LAYOUT.subject("demo", "01")) in listed


def test_a_raw_file_that_is_gone_is_named(project) -> None:
    project.bold("01").unlink()
    assert stale()["preprocess"] == {f"gone: {project.bold('01')}"}


def test_an_output_made_again_makes_its_readers_stale(project) -> None:
    project.bold("01").write_text("another bold")
    project.preprocess("01")
    project.ledger()
    found = stale()
    assert found["shards"] == {f"made again since: {LAYOUT.subject('demo', '01')}"}
    assert "preprocess" not in found


def test_frozen_shards_and_what_was_trained_on_them_do_not_follow(project) -> None:
    shard, kept = LAYOUT.shard("fc", 0, "atlas"), RESULTS / "datasets" / "first" / "shards" / "fc.parquet"
    with Recorder(project.settings("freeze_shards"), out=kept.parent.with_suffix(".json"), inputs=[shard]) as record:
        kept.parent.mkdir(parents=True)
        kept.write_bytes(shard.read_bytes())
        record.add_output(kept)
        write_json(kept.parent.with_suffix(".json"), [])
    project.families["01"] = "F9"  # rewrites shards of scans
    project.bold("01").write_text("another bold")
    project.preprocess("01")
    project.shards(0)
    shard.write_bytes(shard.read_bytes() + b"x")
    with Recorder(project.settings("shards"), out=shard):
        pass
    project.ledger()
    listed = find(Ledger.load(RESULTS), Current(load("config.yaml"))).files
    assert str(LAYOUT.snapshot("latest")) in listed
    assert not [path for path in listed if path.startswith("results/datasets/first")]
    assert not [f for f in verify(RESULTS).findings if f.path.startswith("results/datasets/first")]


def test_a_lost_intermediate_is_no_reason(project) -> None:
    LAYOUT.subject("demo", "01").unlink()
    assert stale() == {}


def test_a_model_that_is_no_longer_configured_is_named(project) -> None:
    found = stale(models={"train": ["fmri_mae"]})
    assert found["train_brainmass"] == {"models/brainmass is no longer in the configuration"}


def test_without_a_configuration_it_says_that_settings_were_not_compared(project, capsys) -> None:
    Path("config.yaml").unlink()
    assert main(["audit", "stale", "--results", "results"]) == 0
    assert "settings were not compared" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--list", "--json"])
def test_every_file_can_be_listed(project, option: str, capsys) -> None:
    project.bold("01").unlink()
    assert main(["audit", "stale", option]) == 1
    assert str(LAYOUT.subject("demo", "01")) in capsys.readouterr().out


def test_a_raw_file_replaced_by_one_with_an_older_time_is_named(project) -> None:
    """As `rsync -a` and `cp -p` do; of the same size, as images of one grid are."""
    raw = project.bold("01")
    state = raw.stat()
    Path("copy").write_text("bold of 99")
    os.utime("copy", ns=(state.st_atime_ns, state.st_mtime_ns - 10**12))
    Path("copy").replace(raw)
    assert stale()["preprocess"] == {f"changed on disk: {raw}"}


def test_a_raw_file_nobody_may_read_is_named(project, monkeypatch) -> None:
    raw, real = project.bold("01"), Path.stat

    def stat(self: Path, **options: bool) -> os.stat_result:
        if self == raw:
            raise PermissionError(13, "Permission denied")
        return real(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert stale()["preprocess"] == {f"cannot be read: Permission denied: {raw}"}


def test_a_changed_member_of_an_archive_is_named_and_its_neighbours_are_not(project) -> None:
    archive = Path("raw/series.npz")
    np.savez(archive, one=np.ones((4, 3)), two=np.zeros((4, 3)))
    for name in ("one", "two"):
        out = RESULTS / "parcellate" / f"{name}.json"
        known = {"sha256": look(f"{archive}::{name}").sha256, "size": None}
        with Recorder(project.settings("parcellate"), out=out) as record:
            write_json(out, {})
            record.add_input(f"{archive}::{name}", known)
    project.ledger()
    assert stale() == {}
    np.savez(archive, one=np.full((4, 3), 2.0), two=np.zeros((4, 3)))
    assert stale() == {"parcellate": {f"changed on disk: {archive}::one"}}
