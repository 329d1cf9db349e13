"""Releases: a crate that conforms, says what the ledger says, and names no person, machine or folder."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boldmill.atomic import canonical_json, read_json, write_json
from boldmill.cli import main
from boldmill.errors import BoldmillError, ConfigError
from boldmill.paths import Layout
from boldmill.provenance.crate import FILES, METADATA
from boldmill.provenance.crate_check import check, leaks
from boldmill.provenance.export import export, private
from boldmill.provenance.ledger import write_ledger
from boldmill.provenance.record import Recorder
from boldmill.provenance.release import gather, public
from boldmill.provenance.terms import read_terms
from boldmill.stages import Settings

LABEL = "PRIVATE1"


def settings(stage: str, config: dict, **more) -> Settings:
    return Settings(canonical_json({"stage": stage, "version": 1, "config": config, "overrides": {}, **more}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two data sets: ingest, preprocess of two subjects, shards; with real records and a ledger."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    datasets = []
    for name in ("alpha", "beta"):
        root = tmp_path / "far" / name
        about = {"Name": f"{name} study", "License": "CC0", "DatasetDOI": f"doi:10.1/{name}", "DUA": "ask the owner"}
        write_json(root / "dataset_description.json", about if name == "alpha" else {"Name": "beta"})
        raw = root / f"sub-{LABEL}" / "func" / f"sub-{LABEL}_bold.nii.gz"
        raw.parent.mkdir(parents=True)
        raw.write_bytes(name.encode())
        datasets.append(
            {"name": name, "root": str(root), "kind": "raw", "licence": "", "filters": {"participant": [LABEL]}}
        )
    tickets = []
    with Recorder(settings("ingest", {"datasets": datasets}), out=Layout.at("results").index) as record:
        for entry in datasets:
            ticket = Layout.at("results").ticket(f"{entry['name']}_sub-{LABEL}_task-rest")
            tickets.append(write_json(ticket, {"scan": entry["name"]}))
            record.add_output(ticket)
            record.add_input(Path(entry["root"]) / "dataset_description.json")
        write_index(results)
    manifests = []
    for ticket, entry in zip(tickets, datasets, strict=True):
        out = Layout.at("results").subject(entry["name"], LABEL)
        raw = Path(entry["root"]) / f"sub-{LABEL}" / "func" / f"sub-{LABEL}_bold.nii.gz"
        config = {"preprocess": {"fd_radius": 50.0, "template": str(tmp_path / "secret" / "head.nii.gz")}}
        with Recorder(settings("preprocess", config, seed=7), out=out, inputs=[ticket, raw]) as record:
            write_json(out, {"subject": LABEL})
            about = Layout.at("results").derivatives(entry["name"]) / "dataset_description.json"
            here = f"file://{tmp_path}"
            made = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "boldmill", "Version": "1"}]}
            write_json(about, made | {"SourceDatasets": [{"URL": here}], "DatasetLinks": {"raw": here}})
            record.add_output(about)
        manifests.append(out)
    shard = Layout.at("results").shard("scans", 0)
    with Recorder(settings("shards", {"shards": {"n_buckets": 1}}), out=shard, inputs=manifests):
        shard.parent.mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), shard)
    write_ledger(Path("results"), Layout.at("results").ledger)
    return tmp_path


def write_index(results: Path) -> None:
    from boldmill.index.read import ScanRow
    from boldmill.index.write import write_index as write

    row = dict.fromkeys(ScanRow._fields, "") | {"subject": LABEL, "bucket": 0, "has_t1w": False}
    row |= {"tr": None, "n_volumes": None, "status": "ok", "scan_id": f"alpha_sub-{LABEL}_task-rest"}
    write(Layout.at(results).index, [ScanRow(**row)], "0" * 16, 1)


def graph(release: Path) -> dict[str, dict]:
    return {entity["@id"]: entity for entity in read_json(release / METADATA)["@graph"]}


def test_a_release_conforms_and_holds_nothing_private(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo")
    assert check(Path("release"), results=Path("results")) == []
    assert leaks(Path("release"), private(Path("results"))) == []
    text = (project / "release" / METADATA).read_text() + (project / "release" / "dataset_description.json").read_text()
    for secret in (LABEL, str(project), "secret/", "file://"):
        assert secret not in text


def test_one_action_per_stage_with_its_settings_and_times(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo")
    found = graph(project / "release")
    ledger = pq.read_table("results/provenance/ledger.parquet").to_pylist()
    runs = {name: entity for name, entity in found.items() if name.startswith("#run-")}
    assert sorted(name.split("-")[1] for name in runs) == ["ingest", "preprocess", "shards"]  # two subjects, one action
    run = next(entity for name, entity in runs.items() if name.startswith("#run-preprocess"))
    own = [row for row in ledger if row["stage"] == "preprocess"]
    assert run["startTime"] == min(row["started"] for row in own)
    assert run["endTime"] == max(row["ended"] for row in own)
    values = {found[v["@id"]]["name"]: found[v["@id"]]["value"] for v in run["object"] if "#value" in v["@id"]}
    assert values == {"preprocess.fd_radius": "50.0", "preprocess.template": "head.nii.gz", "seed": "7"}
    read = {
        v["@id"].partition("-")[0] + "-" + v["@id"].split("-")[1] for v in run["object"] if "#value" not in v["@id"]
    }
    assert read == {"#data-alpha", "#data-beta", "#files-ingest"}


def test_the_list_holds_every_output_and_every_source(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo")
    rows = pq.read_table("release/files.parquet").to_pylist()
    ledger = pq.read_table("results/provenance/ledger.parquet").to_pylist()
    assert {(f"results/{r['path']}", r["sha256"]) for r in rows if r["role"] == "output"} == {
        (r["path"], r["sha256"]) for r in ledger
    }
    sources = {(r["dataset"], r["path"]) for r in rows if r["role"] == "source"}
    bold = f"sub-{LABEL}/func/sub-{LABEL}_bold.nii.gz"
    assert sources == {(d, p) for d in ("alpha", "beta") for p in (bold, "dataset_description.json")}


def test_terms_of_use_travel(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo")
    about = read_json(project / "release" / "dataset_description.json")
    assert about["GeneratedBy"][0]["Name"] == "boldmill"
    assert about["SourceDatasets"] == [{"DOI": "doi:10.1/alpha"}, {"URL": "bids:beta:"}]
    assert about["License"] == "alpha: CC0; beta: not stated"
    found = graph(project / "release")
    assert found["#data-alpha"]["conditionsOfAccess"] == ["data use agreement: ask the owner"]
    assert "https://doi.org/10.1/alpha" in found["#data-alpha"]["identifier"]
    assert "alpha: CC0; data use agreement: ask the owner" in found["#terms-of-use"]["description"]


def test_a_licence_of_the_configuration_wins(tmp_path: Path) -> None:
    write_json(tmp_path / "d" / "dataset_description.json", {"License": "CC0"})
    (found,) = read_terms(tmp_path, [{"name": "d", "root": str(tmp_path / "d"), "licence": "by agreement only"}])
    assert found.licence == "by agreement only"


def test_the_same_ledger_gives_the_same_bytes(project: Path) -> None:
    export(Path("results"), Path("one"), project="demo")
    export(Path("results"), Path("two"), project="demo")
    files = sorted(p.relative_to("one") for p in Path("one").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to("two") for p in Path("two").rglob("*") if p.is_file())
    assert all((Path("one") / f).read_bytes() == (Path("two") / f).read_bytes() for f in files)


def test_carried_data_lie_below_data_without_addresses_of_the_machine(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo", patterns=["shards/*", "derivatives/*", "index/*"])
    lying = sorted(p.relative_to("release/data").as_posix() for p in Path("release/data").rglob("*") if p.is_file())
    about = [f"derivatives/{name}/dataset_description.json" for name in ("alpha", "beta")]
    assert lying == [*about, "shards/scans/bucket-000.parquet"]  # never the index
    made = read_json(Path("release/data") / about[0])
    assert made["SourceDatasets"] == [{"DOI": "doi:10.1/alpha"}] and "DatasetLinks" not in made
    assert read_json(Path("results") / about[0])["DatasetLinks"]  # the project's own is untouched
    assert check(Path("release"), results=Path("results")) == []
    assert leaks(Path("release"), private(Path("results"))) == []


def test_an_earlier_release_is_replaced_and_a_foreign_folder_is_not(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo", patterns=["shards/*"])
    export(Path("results"), Path("release"), project="demo")
    assert not Path("release/data").exists()
    Path("mine").mkdir()
    (Path("mine") / "notes.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="no release"):
        export(Path("results"), Path("mine"), project="demo")
    assert (Path("mine") / "notes.txt").read_text() == "keep me"


def test_what_no_export_wrote_is_never_lost(project: Path) -> None:
    """A release may be a repository by now, or a link to one."""
    export(Path("results"), Path("release"), project="demo")
    (Path("release") / ".git").mkdir()
    with pytest.raises(ConfigError, match=r"beside a release it holds \.git"):
        export(Path("results"), Path("release"), project="demo")
    assert (Path("release") / ".git").is_dir()
    (Path("release") / ".git").rmdir()
    Path("linked").symlink_to("release")
    Path("file").write_text("x")
    for name in ("linked", "file"):
        with pytest.raises(ConfigError, match="a link or a file"):
            export(Path("results"), Path(name), project="demo")


def carry(*files: tuple[str, str]) -> None:
    with Recorder(settings("train_brainmass", {}), out=Path("results") / files[0][0]) as record:
        for name, text in files:
            record.add_output(Path("results") / name)
            (Path("results") / name).parent.mkdir(parents=True, exist_ok=True)
            (Path("results") / name).write_text(text)
    write_ledger(Path("results"), Layout.at("results").ledger)


def test_carried_texts_are_searched_for_folders_of_this_machine(project: Path) -> None:
    config = canonical_json({"settings": {"init": str(project / "secret" / "w.safetensors")}})
    carry(("models/m/config.json", config), ("quarantine.tsv", str(project)), ("shards/x.quarantine.json", "{}"))
    export(Path("results"), Path("release"), project="demo", patterns=["*"])
    assert leaks(Path("release"), private(Path("results"))) == [
        "data/models/m/config.json: holds the working directory"
    ]
    assert (
        not Path("release/data/quarantine.tsv").exists() and not Path("release/data/shards/x.quarantine.json").exists()
    )


def test_a_model_that_knew_somebody_who_withdrew_is_no_sound_release(project: Path, capsys) -> None:
    from boldmill.provenance.withdrawn import mark

    carry(("models/m/model.safetensors", "w"))
    assert main(["audit", "export", "--out", "release", "--files", "models/*"]) == 0
    mark(Path("results/models/m"), "0" * 64, date="2999-01-01T00:00:00+00:00", snapshots={})
    assert main(["audit", "export", "--out", "release", "--files", "models/*"]) == 1
    assert "data/models/m: trained on 1 person who withdrew consent" in capsys.readouterr().out
    assert main(["audit", "export", "--out", "release", "--files", "shards/*"]) == 0


def test_terms_of_a_data_set_that_only_a_frozen_snapshot_holds_travel(project: Path) -> None:
    write_json(Layout.at("results").snapshot("first"), {"subjects": {"alpha/1": "train", "gamma/1": "train"}})
    frozen = Path("results/datasets/first/shards/scans/bucket-000.parquet")
    frozen.parent.mkdir(parents=True)
    pq.write_table(pa.table({"dataset": ["gamma"], "licence": ["by agreement only"]}), frozen)
    release = export(Path("results"), Path("release"), project="demo")
    assert {terms.dataset: terms.licence for terms in release.terms}["gamma"] == "by agreement only"
    assert check(Path("release"), results=Path("results")) == []


def test_without_a_ledger_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BoldmillError, match="snakemake audit"):
        gather(tmp_path, "demo")


def test_the_command_checks_what_it_wrote(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "export", "--out", "release", "--hash-files"]) == 0
    said = capsys.readouterr().out
    assert "0 problems" in said and "no terms of use are known" in said
    Path("results/shards/scans/bucket-000.parquet").write_bytes(b"other")
    assert main(["audit", "export", "--out", "release", "--check-only", "--hash-files"]) == 1
    assert "shards/scans/bucket-000.parquet: its content is not" in capsys.readouterr().out


def test_roc_validator_is_asked_only_where_it_is(project: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert main(["audit", "export", "--out", "release", "--validate"]) == 0
    assert "roc-validator is not installed" in capsys.readouterr().out


def test_values_lose_their_folders() -> None:
    assert public({"b": ["/home/ada/x.npz"], "a": "~/y", "root": "/z"}) == {"a": "y", "b": ["x.npz"]}


@pytest.mark.parametrize(
    ("prefix", "key", "value", "said"),
    [
        ("#run-shards", "instrument", None, "CreateAction without instrument"),
        ("#run-shards", "instrument", {"@id": "#terms-of-use"}, "instrument does not point at"),
        ("#run-shards", "instrument", {"@id": "#nobody"}, "which is not described"),
        ("#run-shards", "endTime", "yesterday", "no times in order"),
        ("#run-shards", "endTime", "1999-01-01T00:00:00+00:00", "no times in order"),
        ("#run-shards", "favouriteColour", "blue", "'favouriteColour' is no term"),
        ("#run-shards", "@type", "Miracle", "'Miracle' is no term"),
        ("#step-shards", "workExample", None, "HowToStep without workExample"),
        ("#files-shards", "identifier", "sha256:0", "its digest is not that of its rows"),
        ("#parameter-preprocess", "additionalType", None, "FormalParameter without additionalType"),
        ("./", "license", None, "has no license"),
        ("./", "datePublished", "soon", "datePublished is no date"),
        ("./", "conformsTo", [], "does not say that it conforms"),
        ("./", "mainEntity", {"@id": "files.parquet"}, "mainEntity is no ComputationalWorkflow"),
        ("./", "mentions", [], "mentions no run of its workflow"),
        ("files.parquet", "contentSize", "1", "the crate says 1"),
        ("files.parquet", "@id", "/etc/passwd", "is not below the crate"),
        ("files.parquet", "@id", "../files.parquet", "is not below the crate"),
        ("workflow/Snakefile", "step", None, "ComputationalWorkflow without step"),
        ("workflow/Snakefile", "hasPart", [{"@id": "files.parquet"}], "that is no part of the workflow"),
        ("#orchestration", "object", None, "OrganizeAction without object"),
    ],
)
def test_each_fault_of_a_crate_is_named(project: Path, prefix: str, key: str, value: object, said: str) -> None:
    export(Path("results"), Path("release"), project="demo")
    document = read_json(Path("release") / METADATA)
    entity = next(entity for entity in document["@graph"] if entity["@id"].startswith(prefix))
    if value is None:
        entity.pop(key)
    else:
        entity[key] = value
    (Path("release") / METADATA).write_text(json.dumps(document))
    assert any(said in line for line in check(Path("release"))), check(Path("release"))


def test_faults_of_the_files_are_named(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo", patterns=["shards/*"])
    (Path("release") / "stray.txt").write_text("x")
    (Path("release/data/shards/scans/bucket-000.parquet")).unlink()
    (Path("release/data/shards/scans/bucket-000.parquet")).write_bytes(b"other")
    (Path("release/data/more.txt")).write_text("x")
    (Path("release/workflow/Snakefile")).unlink()
    found = "\n".join(check(Path("release"), results=Path("results")))
    for said in ("stray.txt: lies in the release", "its content is not what", "data/more.txt: files.parquet does not",
                 "workflow/Snakefile: the file is not there"):  # fmt: skip
        assert said in found
    shutil.copyfile(Path("release") / METADATA, Path("release") / FILES)
    assert any("cannot be read" in line for line in check(Path("release")))
    pq.write_table(pa.table({"path": ["x"]}), Path("release") / FILES)
    assert any("cannot be read" in line or "has no column" in line for line in check(Path("release")))


def test_a_leak_is_named(project: Path) -> None:
    export(Path("results"), Path("release"), project="demo")
    path = Path("release") / METADATA
    path.write_text(path.read_text().replace("Run of Snakemake", f"Run for sub-{LABEL}"))
    assert leaks(Path("release"), private(Path("results"))) == [f"{METADATA}: holds the label of a subject"]


def test_terms_of_our_contexts_are_those_of_the_library() -> None:
    """The library carries RO-Crate 1.3; every schema.org term has the same IRI there."""
    import rocrate

    theirs = read_json(Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld")["@context"]
    import boldmill.provenance

    ours = read_json(Path(boldmill.provenance.__file__).parent / "contexts.json")["contexts"]
    for term, iri in ours["https://w3id.org/ro/crate/1.1/context"].items():
        if iri.startswith("http://schema.org/") or term == "conformsTo":
            assert theirs[term] == iri


def test_derivatives_without_a_source_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Layout.at("results").derivatives("alpha") / "dataset_description.json"
    about = read_json(path)
    about.pop("SourceDatasets")
    write_json(path, about)
    assert main(["audit", "export", "--out", "release"]) == 1
    assert "alpha/dataset_description.json: has no SourceDatasets" in capsys.readouterr().out
