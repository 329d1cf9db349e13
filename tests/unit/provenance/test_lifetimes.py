"""Frozen shards outlive what they were made from: no mismatch, and nothing stale."""

from pathlib import Path

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.cli import main
from boldmill.config.load import load
from boldmill.paths import Layout
from boldmill.provenance.current import Current
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import Recorder
from boldmill.provenance.stale import find
from boldmill.provenance.verify import verify

RESULTS = Path("results")
LAYOUT = Layout.at(RESULTS)


def snapshot(project) -> None:
    """The rolling manifest, with all that freezing reads."""
    out, shards = LAYOUT.snapshot("latest"), sorted((RESULTS / "shards").rglob("*.parquet"))
    with Recorder(project.settings("snapshot"), out=out, inputs=shards):
        listed = [
            {
                "table": path.relative_to(RESULTS / "shards").parts[0],
                "bucket": path.stem,
                "path": f"../../{path.relative_to(RESULTS)}",
                "size": path.stat().st_size,
                "sha256": sha256_file(path),
                **({"atlas": "atlas"} if path.parent.name == "atlas" else {}),
            }
            for path in shards
        ]
        subjects = {f"demo/0{n}": "train" for n in range(1, 4)} | {"demo/04": "heldout"}
        write_json(
            out, {"id": "rolling", "name": "latest", "atlases": ["atlas"], "shards": listed, "subjects": subjects}
        )


def freeze(project) -> None:
    """What `freeze_shards` and `freeze` do; then a model on it."""
    words = ["--snapshot", str(LAYOUT.snapshot("latest")), "--out", str(LAYOUT.frozen("first"))]
    assert main(["freeze", *words, "--config-json", project.settings("freeze_shards").text]) == 0
    held = read_json(LAYOUT.frozen("first"))["shards"]
    inputs = [LAYOUT.frozen("first"), *(LAYOUT.frozen("first").parent / shard["path"] for shard in held)]
    with Recorder(project.settings("freeze"), out=LAYOUT.snapshot("first"), inputs=inputs):
        known = read_json(LAYOUT.snapshot("latest"))
        write_json(LAYOUT.snapshot("first"), {**known, "id": "id-first", "name": "first", "shards": held})
    project.model(snapshot="first")


def update(project) -> None:
    """New raw bytes of one person, as far as the rolling snapshot."""
    project.bold("01").write_text("other bytes")
    project.ingest()
    project.preprocess("01")
    shard = LAYOUT.shard("scans", 0)
    for path in (shard, LAYOUT.shard("fc", 0, "atlas")):
        path.unlink()  # as Snakemake does before a job
    project.shards(0)
    snapshot(project)
    assert sha256_file(shard) != sha256_file(LAYOUT.frozen("first").parent / "shards" / "scans" / "bucket-000.parquet")


def test_newer_shards_make_no_frozen_one_stale_and_no_model(project) -> None:
    snapshot(project)
    freeze(project)
    project.evaluate()
    project.ledger()
    assert verify(RESULTS).findings == []
    update(project)
    project.evaluate()
    project.ledger()
    assert [f for f in verify(RESULTS, fresh=True).findings if f.path != "results/evaluate/brainmass/metrics.tsv"] == []
    found = find(Ledger.load(RESULTS), Current(load("config.yaml"))).files
    assert not {path for path in found if "datasets" in path or "models" in path}, found


def test_frozen_shards_whose_sources_are_gone_for_good_are_no_finding(project) -> None:
    snapshot(project)
    freeze(project)
    project.evaluate()
    for path in (LAYOUT.shard("scans", 1), LAYOUT.shard("fc", 1, "atlas")):
        path.unlink()
        Path(f"{path}.prov.json").unlink()
    snapshot(project)
    project.ledger()
    assert not [finding for finding in verify(RESULTS).findings if "shards/" in finding.path]


def test_a_flipped_byte_in_a_frozen_shard_is_named(project) -> None:
    snapshot(project)
    freeze(project)
    project.ledger()
    path = LAYOUT.frozen("first").parent / "shards" / "fc" / "atlas" / "bucket-001.parquet"
    content = path.read_bytes()
    path.unlink()  # the live one keeps its bytes
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [f.path for f in verify(RESULTS).findings if "content" in f.problem] == [path.as_posix()]


def test_a_snapshot_the_configuration_no_longer_names_stays_as_it_is(project) -> None:
    snapshot(project)
    freeze(project)
    project.ledger()
    write_json("over.json", {"snapshot": {"name": "second", "heldout": 0.5}})
    found = find(Ledger.load(RESULTS), Current(load("config.yaml", "over.json"))).files
    assert not {path for path in found if "datasets/first" in path}
    write_json("over.json", {"snapshot": {"heldout": 0.5}})
    found = find(Ledger.load(RESULTS), Current(load("config.yaml", "over.json"))).files
    assert {path for path in found if "datasets/first" in path} == {"results/datasets/first/manifest.json"}
