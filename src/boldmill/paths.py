"""Where everything lies below the results folder: one table used by the rules and by the commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Paths below ``results``. Bucket numbers are zero-padded to three digits."""

    results: Path

    @classmethod
    def at(cls, results: str | Path) -> Layout:
        """Return the layout of a results folder."""
        return cls(results=Path(results))

    @property
    def index(self) -> Path:
        """The index Snakemake parses: one row per scan."""
        return self.results / "index" / "runs.parquet"

    @property
    def index_unfinished(self) -> Path:
        """There while ingest writes, and after one that was stopped: tickets, lists and index may not fit together."""
        return self.results / "index" / ".unfinished"

    @property
    def index_quarantine(self) -> Path:
        """Scans refused at ingest, with reason and fix."""
        return self.results / "index" / "quarantine.tsv"

    @property
    def quarantine(self) -> Path:
        """All quarantined scans of the run, whichever stage refused them."""
        return self.results / "quarantine.tsv"

    def ticket(self, scan_id: str) -> Path:
        """The content ticket of one scan: small, and changed only when the scan's content changed."""
        return self.results / "index" / "tickets" / f"{scan_id}.json"

    def bucket(self, bucket: int) -> Path:
        """Tickets of one bucket's scans that are preprocessed, with their hashes."""
        return self.results / "index" / "buckets" / f"bucket-{bucket:03d}.json"

    def bucket_tables(self, bucket: int) -> Path:
        """Tickets of one bucket's tables of parcel series, with their hashes."""
        return self.results / "index" / "tables" / f"bucket-{bucket:03d}.json"

    def participants(self, bucket: int) -> Path:
        """Phenotypes of one bucket's subjects: read by the shard stage only."""
        return self.results / "index" / "participants" / f"bucket-{bucket:03d}.json"

    @property
    def template(self) -> Path:
        """Manifest of the head template, its mask and its tissue priors."""
        return self.results / "templates" / "template.json"

    def atlas(self, label: str) -> Path:
        """Manifest of an atlas: volume on the output grid, surface labels, names."""
        return self.results / "atlas" / label / "atlas.json"

    def operator(self, name: str) -> Path:
        """Manifest of sparse operators: ``parcels-<atlas label>``, ``ribbon``, ``flat`` or ``meshes``."""
        return self.results / "operators" / f"{name}.json"

    def derivatives(self, dataset: str) -> Path:
        """Root of the BIDS derivatives of one data set."""
        return self.results / "derivatives" / dataset

    def subject(self, dataset: str, subject: str) -> Path:
        """Manifest of one preprocessed subject."""
        return self.results / "preprocess" / dataset / f"sub-{subject}.json"

    def preprocessed(self, bucket: int) -> Path:
        """Subject manifests of one bucket, with their hashes."""
        return self.results / "preprocess" / f"bucket-{bucket:03d}.json"

    def preprocess_log(self, dataset: str, subject: str) -> Path:
        """What the preprocessing of one subject printed."""
        return self.results / "logs" / "preprocess" / dataset / f"sub-{subject}.log"

    def figures(self, dataset: str, name: str) -> Path:
        """Arrays of the subject page: of a scan (its id) or of a T1w (``sub-X_anat``)."""
        return self.results / "preprocess" / dataset / "figures" / f"{name}.npz"

    def subject_page(self, dataset: str, subject: str) -> Path:
        """The page of one subject; its methods text lies beside it."""
        return self.results / "reports" / dataset / f"sub-{subject}.html"

    def pages(self, bucket: int) -> Path:
        """Manifest of one bucket's subject pages."""
        return self.results / "reports" / f"bucket-{bucket:03d}.json"

    def parcellated(self, bucket: int) -> Path:
        """Manifest of one bucket's parcel time series."""
        return self.results / "parcellate" / f"bucket-{bucket:03d}.json"

    def flat(self, bucket: int) -> Path:
        """Manifest of one bucket's flat maps."""
        return self.results / "flatmap" / f"bucket-{bucket:03d}.json"

    def flat_scan(self, dataset: str, scan_id: str, suffix: str) -> Path:
        """Flat-map still (``.png``) or movie (``.webp``) of one scan."""
        return self.results / "flatmap" / dataset / f"{scan_id}{suffix}"

    def frames(self, bucket: int) -> Path:
        """Folder of one bucket's flat-map frames, one ``.npz`` per scan; gone once they are clips."""
        return self.results / "flatmap" / f"bucket-{bucket:03d}.frames"

    def shard(self, table: str, bucket: int, atlas: str = "") -> Path:
        """One Parquet shard; tables of parcels (:data:`ATLAS_TABLES`) have a folder per atlas label."""
        return self.results / "shards" / table / atlas / f"bucket-{bucket:03d}.parquet"

    def snapshot(self, name: str) -> Path:
        """Manifest of a data snapshot: shards, hashes, splits, schema version."""
        return self.results / "datasets" / name / "manifest.json"

    def frozen(self, name: str) -> Path:
        """List of the shards a named snapshot froze; they lie beside it."""
        return self.results / "datasets" / name / "shards.json"

    def checkpoint(self, model: str) -> Path:
        """Weights of a trained model; its configuration and history lie beside it."""
        return self.results / "models" / model / "model.safetensors"

    def metrics(self, model: str) -> Path:
        """Evaluation table of one model and its baselines."""
        return self.results / "evaluate" / model / "metrics.tsv"

    def interpretation(self, model: str) -> Path:
        """Regions a model uses, by task and map; edges, summary and pictures lie beside it."""
        return self.results / "interpret" / model / "regions.tsv"

    @property
    def report(self) -> Path:
        """The self-contained report."""
        return self.results / "report" / "index.html"

    @property
    def cohort(self) -> Path:
        """Cohort page: quality figures of all scans, outliers, inclusion; its table lies beside it."""
        return self.results / "reports" / "cohort.html"

    def few_shot(self, model: str) -> Path:
        """Few-shot curves of one model."""
        return self.results / "evaluate" / model / "few_shot.tsv"

    def zero_shot(self, model: str) -> Path:
        """Zero-shot transfers of one model."""
        return self.results / "evaluate" / model / "zero_shot.tsv"

    def variant(self, name: str) -> Path:
        """Weights of one variant of the ablation; its evaluation lies beside it."""
        return self.results / "ablation" / name / "model.safetensors"

    def variant_metrics(self, name: str) -> Path:
        """Evaluation table of one variant of the ablation."""
        return self.results / "ablation" / name / "metrics.tsv"

    @property
    def ablation(self) -> Path:
        """All variants of the ablation in one table."""
        return self.results / "ablation" / "table.tsv"

    @property
    def ledger(self) -> Path:
        """All provenance records, one row per output."""
        return self.results / "provenance" / "ledger.parquet"


def in_braces(folder: str | Path, numbers: Iterable[int], suffix: str) -> str:
    """Return the files of these buckets as one short word for bash, which writes them out.

    A shell line is one argument, and Linux takes 128 KiB of it: the paths of a large study would not fit.

    >>> in_braces("results/shards/scans", [0, 1, 2, 4, 999, 1000, 1001], ".parquet")
    'results/shards/scans/bucket-{{000..002},004,999,{1000..1001}}.parquet'
    >>> in_braces("my results", [7], ".parquet"), in_braces("results", [], ".parquet")
    ("'my results'/bucket-007.parquet", '')
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1 and number != 1000:  # bash pads a range to one width
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [f"{a:03d}" if a == b else f"{{{a:03d}..{b:03d}}}" for a, b in runs]
    names = ",".join(parts) if len(parts) < 2 else f"{{{','.join(parts)}}}"
    return f"{shlex.quote(str(folder))}/bucket-{names}{suffix}" if parts else ""


SHARD_TABLES = ("scans", "timeseries", "fc", "flat_clips")
"""Tables written by the shards and clips stages; ``pfc`` is written by the augment stage."""

ATLAS_TABLES = ("timeseries", "fc", "pfc")
"""Tables with one shard per bucket and atlas: their rows have the length of that atlas."""

ROLLING = "latest"
"""Name of the snapshot that follows every data update."""

MODELS = ("brainmass", "fmri_mae", "fm_app")
