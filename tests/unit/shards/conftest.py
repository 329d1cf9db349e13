"""A small generated cohort as the earlier stages would leave it: tickets, manifests, series, flat maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boldmill.atomic import canonical_json, write_json
from boldmill.cli import main
from boldmill.paths import ATLAS_TABLES, SHARD_TABLES, Layout
from boldmill.rng import bucket_of, generator
from boldmill.shards.reader import Snapshot

ATLASES = {"Toy-6": 6, "Toy-4": 4}
"""Label -> parcels; the series of the second are the first columns of the first."""
FIRST = "Toy-6"
PARCELS = ATLASES[FIRST]
GRID = (8, 10)
MASK = np.arange(80).reshape(GRID) % 3 != 0
FEATURES = ["volume", "gm", "wm", "csf", "thickness", "t1w_mean", "t1w_sd", "jacobian", "asymmetry"]


def settings(stage: str, *, seed: int = 7, **config: Any) -> str:
    return canonical_json({"stage": stage, "version": 1, "config": config, "overrides": {}, "seed": seed})


CUT = {"n_buckets": 3, "clip_frames": 4, "clip_stride": 4, "row_group_rows": 3}
CLIPS = settings("clips", shards=CUT)
SHARDS = settings("shards", shards=CUT, parcellate={"fc_estimator": "pearson"})
AUGMENT = settings("augment", augment={"n_views": 3, "min_timepoints": 20})
SNAPSHOT = settings("snapshot", snapshot={}, inclusion={})


class Cohort:
    """Subjects ``name -> {"site", "family", "scans", "volumes", "mean_fd"}`` of data set ``toy``."""

    def __init__(self, results: Path, subjects: dict[str, dict[str, Any]], *, n_buckets: int = 3) -> None:
        self.layout, self.n_buckets = Layout.at(results), n_buckets
        self.results = results
        self.buckets: dict[int, list[str]] = {b: [] for b in range(n_buckets)}
        for name in sorted(subjects):
            self.buckets[bucket_of("toy", name, n_buckets)].append(name)
        self.tickets: dict[str, list[str]] = {}
        for bucket, names in self.buckets.items():
            atlases = {a: {"name": a, "parcels": [f"p{i}" for i in range(n)]} for a, n in ATLASES.items()}
            parcellated: dict[str, Any] = {"schema": 2, "configured": list(ATLASES), "atlases": atlases}
            parcellated |= {"scans": {}, "subjects": {}}
            grid = {"name": "toy", "mask_sha256": "0", "n_pixels": int(MASK.sum()), "shape": list(GRID)}
            flat: dict[str, Any] = {"scans": {}, "grid": grid}
            people: dict[str, Any] = {}
            for name in names:
                self._subject(bucket, name, subjects[name], parcellated, flat, people)
            words = {"toy": {"age": {"Description": "age at scan", "Units": "years"}}}
            write_json(
                self.layout.participants(bucket),
                {"subjects": people, "descriptions": words, "licences": {"toy": "CC0"}},
            )
            write_json(self.layout.parcellated(bucket), parcellated)
            write_json(self.layout.flat(bucket), flat)

    def _subject(self, bucket: int, name: str, facts: dict[str, Any], parcellated: Any, flat: Any, people: Any) -> None:
        key = f"toy/{name}"
        people[key] = {
            "site": facts.get("site", "A"),
            "family": facts.get("family", ""),
            "phenotypes": {"age": 20 + len(name), "group": facts.get("group", "x"), "missing": None},
        }
        table = self.results / "parcels" / f"{name}_morphometry.tsv"
        table.parent.mkdir(parents=True, exist_ok=True)
        values = generator("morphometry", name).random((PARCELS, 9)).astype(np.float32)
        lines = ["\t".join(["parcel", *FEATURES])]
        lines += ["\t".join([f"p{i}", *(repr(float(v)) for v in row)]) for i, row in enumerate(values)]
        table.write_text("\n".join(lines) + "\n")
        if facts.get("t1w", True):
            parcellated["subjects"][key] = {"morphometry": table.relative_to(self.results).as_posix()}
        scans = {}
        self.tickets[name] = []
        for run in range(1, facts.get("scans", 0 if facts.get("anat") else 1) + 1):
            scan_id = f"toy_sub-{name}_task-rest_run-{run}"
            self.tickets[name].append(scan_id)
            image = {"path": f"{scan_id}.nii.gz", "size": 1, "sha256": f"{run:064d}"}
            ticket = {
                "schema": 1,
                "scan_id": scan_id,
                "dataset": "toy",
                "subject": name,
                "session": "",
                "task": "rest",
                "run": str(run),
                "kind": "volume",
                "bucket": bucket,
                "root": ".",
                "entities": {"sub": name, "task": "rest", "run": str(run)},
                "bold": [image],
                "t1w": [],
                "confounds": None,
                "metadata": {},
                "sidecars": [],
            }
            write_json(self.layout.ticket(scan_id), ticket)
            status = facts.get("status", "ok")
            volumes = facts.get("volumes", 40)
            qc = {"mean_fd": facts.get("mean_fd", 0.1), "tsnr": 50.0}
            scans[scan_id] = {"status": status, "tr": 2.0, "n_volumes": volumes, "space": "toy", "qc": qc, "flags": []}
            if status == "ok":
                parcellated["scans"][scan_id] = self._series(scan_id, volumes)
                flat["scans"][scan_id] = self._flat(scan_id, facts.get("frames", 10))
        if facts.get("anat"):
            self._anat_ticket(bucket, name)
        anat = {"status": "ok" if facts.get("t1w", True) else "quarantined", "qc": {"cnr": 3.0, "note": "x"}}
        manifest = {"schema": 1, "dataset": "toy", "subject": name, "space": "toy", "anat": anat}
        write_json(self.layout.subject("toy", name), {**manifest, "scans": scans})

    def _anat_ticket(self, bucket: int, name: str) -> None:
        scan_id = f"toy_sub-{name}_T1w"
        self.tickets[name].append(scan_id)
        image = {"path": f"{scan_id}.nii.gz", "size": 1, "sha256": "1" * 64}
        ticket: dict[str, Any] = {"schema": 1, "scan_id": scan_id, "dataset": "toy", "subject": name, "kind": "anat"}
        ticket |= {"session": "", "task": "", "run": "", "entities": {"sub": name}, "bold": [], "t1w": [image]}
        write_json(self.layout.ticket(scan_id), {**ticket, "bucket": bucket, "confounds": None})

    def _series(self, scan_id: str, volumes: int) -> dict[str, Any]:
        series = generator("series", scan_id).standard_normal((volumes, PARCELS)).astype(np.float32)
        atlases = {}
        for atlas, parcels in ATLASES.items():
            path = self.results / "parcels" / f"{scan_id}_{atlas}.tsv"
            lines = ["\t".join(f"p{i}" for i in range(parcels))]
            lines += [
                "\t".join("n/a" if i == 2 else repr(float(v)) for i, v in enumerate(row[:parcels])) for row in series
            ]
            path.write_text("\n".join(lines) + "\n")
            files = {"timeseries": path.relative_to(self.results).as_posix()}
            atlases[atlas] = {"status": "ok", "files": files}
        return {"status": "ok", "tr": 2.0, "n_volumes": volumes, "atlases": atlases}

    def _flat(self, scan_id: str, frames: int) -> dict[str, Any]:
        path = self.frames(scan_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = generator("flat", scan_id)
        pixels = int(MASK.sum())
        np.savez(
            path,
            frames=rng.standard_normal((frames, pixels)).astype(np.float16),
            mean=rng.random(pixels).astype(np.float32),
            std=rng.random(pixels).astype(np.float32),
            mask=MASK,
            tr=np.float64(1.0),
            tr_in=np.float64(2.0),
        )
        files = {"frames": path.relative_to(self.results).as_posix()}
        return {"status": "ok", "tr": 1.0, "n_frames": frames, "method": "as published", "files": files}

    def frames(self, scan_id: str) -> Path:
        """Flat-map frames of a scan."""
        name = scan_id.removeprefix("toy_sub-").split("_")[0]
        return self.layout.frames(bucket_of("toy", name, self.n_buckets)) / f"{scan_id}.npz"

    def series(self, scan_id: str, volumes: int = 40) -> np.ndarray:
        series = generator("series", scan_id).standard_normal((volumes, PARCELS)).astype(np.float32)
        series[:, 2] = np.nan
        return series

    def who(self, bucket: int) -> list[str]:
        """Options that name the tickets and the subjects of a bucket."""
        names = self.buckets[bucket]
        words = ["--bucket", str(bucket), "--results", str(self.results)]
        words += ["--tickets", *(str(self.layout.ticket(s)) for n in names for s in self.tickets[n])]
        return [*words, "--subjects", *(str(self.layout.subject("toy", n)) for n in names)]

    def clips_words(self, bucket: int) -> list[str]:
        words = ["clips", *self.who(bucket), "--flat", str(self.layout.flat(bucket)), "--config-json", CLIPS]
        return [*words, "--out", str(self.layout.shard("flat_clips", bucket))]

    def shard_words(self, bucket: int) -> list[str]:
        layout = self.layout
        words = ["shards", *self.who(bucket), "--config-json", SHARDS]
        words += ["--participants", str(layout.participants(bucket)), "--parcellated", str(layout.parcellated(bucket))]
        words += ["--clips", str(layout.shard("flat_clips", bucket))]
        for table in ("scans", *ATLAS_TABLES[:2]):
            words += [f"--out-{table}", *map(str, self.shards_of(table, bucket))]
        return words

    def words_of(self, table: str, bucket: int) -> list[str]:
        """The command that writes a table."""
        return {"pfc": self.augment_words, "flat_clips": self.clips_words}.get(table, self.shard_words)(bucket)

    def make(self, bucket: int) -> int:
        """Run clips, then shards; return the first exit status that is not 0."""
        return main(self.clips_words(bucket)) or main(self.shard_words(bucket))

    def shard(self, table: str, bucket: int, atlas: str = FIRST) -> Path:
        return self.layout.shard(table, bucket, atlas if table in ATLAS_TABLES else "")

    def shards_of(self, table: str, bucket: int) -> list[Path]:
        labels = ATLASES if table in ATLAS_TABLES else [""]
        return [self.layout.shard(table, bucket, label) for label in labels]

    def augment_words(self, bucket: int) -> list[str]:
        layout = self.layout
        words = ["augment", "--parcellated", str(layout.parcellated(bucket)), "--results", str(self.results)]
        return [*words, "--out", *map(str, self.shards_of("pfc", bucket)), "--config-json", AUGMENT]

    def build(self, *, snapshot: str = SNAPSHOT) -> Path:
        """Run shards, augment and snapshot; return the path of the manifest."""
        for bucket in range(self.n_buckets):
            assert self.make(bucket) == 0
            assert main(self.augment_words(bucket)) == 0
        return self.snapshot(snapshot)

    def shards(self) -> list[Path]:
        tables = (*SHARD_TABLES, "pfc")
        return [path for table in tables for bucket in range(self.n_buckets) for path in self.shards_of(table, bucket)]

    def snapshot(self, config: str = SNAPSHOT) -> Path:
        out = self.layout.snapshot("latest")
        assert main([*self.snapshot_words(), "--out", str(out), "--config-json", config]) == 0
        return out

    def snapshot_words(self) -> list[str]:
        scans = [str(self.layout.shard("scans", bucket)) for bucket in range(self.n_buckets)]
        return ["snapshot", "--scans", *scans, "--atlases", *ATLASES]


@pytest.fixture(scope="session")
def make_cohort() -> type[Cohort]:
    return Cohort


@pytest.fixture(scope="session")
def subjects() -> dict[str, dict[str, Any]]:
    """Nine subjects of two sites; two are a family, one too short for pFC, one refused by preprocessing."""
    people: dict[str, dict[str, Any]] = {f"{i:02d}": {"site": "AB"[i % 2], "scans": 1 + i % 2} for i in range(9)}
    people["03"]["family"] = people["06"]["family"] = "f1"
    people["04"]["volumes"] = 22
    people["05"]["status"] = "quarantined"
    people["07"] |= {"frames": 3, "mean_fd": 0.9, "t1w": False}
    return people


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory, subjects: dict[str, dict[str, Any]]) -> Cohort:
    """The cohort with its shards and its snapshot; not to be changed by a test."""
    cohort = Cohort(tmp_path_factory.mktemp("cohort") / "results", subjects)
    cohort.build()
    return cohort


@pytest.fixture
def snapshot(cohort: Cohort) -> Snapshot:
    return Snapshot.load(cohort.layout.snapshot("latest"))
