"""A small project of parcel series, made by the real commands: what a withdrawal has to clean."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from boldmill.atomic import read_json, write_json, write_text
from boldmill.cli import main
from boldmill.config.load import parse
from boldmill.index.read import read_index
from boldmill.paths import Layout
from boldmill.provenance.record import Recorder
from boldmill.stages import Settings, stage_json
from boldmill.train.checkpoint import save_weights

PEOPLE = {"one": ["ada", "bea", "cyd", "dan", "eva", "fay"], "two": ["ada", "gus"]}
"""Two data sets; both have somebody called ada."""
RESULTS = Path("results")
LABEL = "HO111"


def people_without(dataset: str, name: str) -> dict[str, list[str]]:
    return {key: [one for one in names if (key, one) != (dataset, name)] for key, names in PEOPLE.items()}


def raw_data(people: dict[str, list[str]]) -> None:
    """Write one file of series per person, and a phenotype table."""
    for dataset, names in people.items():
        lines = ["participant_id\tage\tsite"]
        for name in names:
            number = sum(map(ord, f"{dataset}{name}"))
            folder = Path("raw") / dataset
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"sub-{name}_task-rest.npy", np.random.default_rng(number).normal(size=(40, 6)))
            lines.append(f"sub-{name}\t{20 + number % 50}\ts{number % 2}")
        write_text(Path("raw") / dataset / "participants.tsv", "\n".join(lines) + "\n")


def config(n_buckets: int = 2):
    datasets = [
        {"name": name, "root": f"raw/{name}", "kind": "tables", "atlas": LABEL, "phenotypes": "participants.tsv"}
        for name in PEOPLE
    ]
    return parse({"datasets": datasets, "shards": {"n_buckets": n_buckets, "row_group_rows": 2}, "results": "results"})


def ingest(n_buckets: int = 2) -> None:
    made = config(n_buckets)
    assert main(["ingest", "--results", "results", "--config-json", stage_json(made, "ingest")]) == 0


def stages(n_buckets: int = 2) -> None:
    """Parcellate, augment, shards of every bucket, snapshot."""
    made, layout = config(n_buckets), Layout.at(RESULTS)
    index = read_index(RESULTS)

    def call(stage: str, *words: object) -> None:
        assert main([stage, *map(str, words), "--config-json", stage_json(made, stage)]) == 0

    for bucket in index.buckets():
        lists = layout.bucket_tables(bucket)
        out = layout.parcellated(bucket)
        call("parcellate", "--subjects", "--tables", lists, "--operators", "--results", RESULTS, "--out", out)
        shard = {name: layout.shard(name, bucket, LABEL) for name in ("pfc", "timeseries", "fc")}
        call("augment", "--tickets", lists, "--parcellated", out, "--results", RESULTS, "--out", shard["pfc"])
        clips, who = layout.shard("flat_clips", bucket), ("--bucket", bucket, "--tickets", lists, "--subjects")
        call("clips", *who, "--flat", "--results", RESULTS, "--out", clips)
        call("shards", "--bucket", bucket, "--tickets", lists, "--participants", layout.participants(bucket),
             "--subjects", "--parcellated", out, "--clips", clips, "--results", RESULTS,
             "--out-scans", layout.shard("scans", bucket),
             "--out-timeseries", shard["timeseries"], "--out-fc", shard["fc"])  # fmt: skip
    scans = [layout.shard("scans", bucket) for bucket in index.buckets()]
    latest, frozen = layout.snapshot("latest"), layout.frozen("first")
    call("snapshot", "--scans", *scans, "--atlases", LABEL, "--out", latest)
    settings = stage_json(made, "freeze_shards")
    assert main(["freeze", "--snapshot", str(latest), "--out", str(frozen), "--config-json", settings]) == 0
    settings = stage_json(made, "freeze")
    out = str(layout.snapshot("first"))
    assert main(["snapshot", "--frozen", str(frozen), "--out", out, "--config-json", settings]) == 0


def model(name: str = "brainmass") -> None:
    """Weights, the list of who was trained on, predictions, metrics, with records."""
    layout = Layout.at(RESULTS)
    manifest = layout.snapshot("first")
    trained = [who for who, split in read_json(manifest)["subjects"].items() if split == "train"]
    weights = layout.checkpoint(name)
    settings = Settings(json.dumps({"stage": f"train_{name}", "version": 1, "config": {}, "overrides": {}}))
    with Recorder(settings, out=weights, inputs=[manifest]) as record:
        save_weights(weights, {"w": torch.zeros(2)}, model=name, architecture={})
        record.add_output(write_json(weights.with_name("subjects.json"), {"schema": 1, "subjects": sorted(trained)}))
    index = read_index(RESULTS)
    settings = Settings(json.dumps({"stage": "evaluate", "version": 1, "config": {}, "overrides": {}}))
    with Recorder(settings, out=layout.metrics(name), inputs=[manifest, weights]) as record:
        write_text(layout.metrics(name), "task\tvalue\ngroup\t0.5\n")
        predictions = layout.metrics(name).with_name("predictions.parquet")
        rows = [{"subject": f"{s.dataset}/{s.subject}", "scan_id": s.scan_id, "score": 0.5} for s in index.ok]
        pq.write_table(pa.Table.from_pylist(rows), predictions, compression="zstd")
        record.add_output(predictions)


def ledger() -> None:
    settings = json.dumps({"stage": "ledger", "version": 1, "config": {}, "overrides": {}})
    assert (
        main(["ledger", "--results", "results", "--out", str(Layout.at(RESULTS).ledger), "--config-json", settings])
        == 0
    )


def line(people: dict[str, list[str]], n_buckets: int = 2) -> None:
    """Everything, in the working directory."""
    raw_data(people)
    ingest(n_buckets)
    stages(n_buckets)
