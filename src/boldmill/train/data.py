"""Which scans of a snapshot a model may see: splits `train` and `validation`, never `heldout`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boldmill.atomic import canonical_json, sha256_text
from boldmill.errors import LeakageError

if TYPE_CHECKING:
    import pandas as pd

    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingScans:
    """Scans of the two splits a training run reads, each one row per scan, sorted by scan id."""

    train: pd.DataFrame
    validation: pd.DataFrame
    snapshot_id: str

    @property
    def subjects(self) -> list[str]:
        """``"<dataset>/<subject>"`` of everyone seen: also of the validation split, by which a run is watched."""
        both = (self.train, self.validation)
        return sorted({f"{row.dataset}/{row.subject}" for table in both for row in table.itertuples()})

    @property
    def digest(self) -> str:
        """Digest of what is read: the snapshot's content and the scans of each split."""
        splits = [list(self.train["scan_id"]), list(self.validation["scan_id"])]
        return sha256_text(canonical_json([self.snapshot_id, *splits]))[:16]

    def metadata(self) -> dict[str, Any]:
        """Return the entries of ``config.json`` that describe the data."""
        return {
            "subjects": self.subjects,
            "data_digest": self.digest,
            "n_train": len(self.train),
            "n_validation": len(self.validation),
        }


def identity(model: str, settings: Settings, scans: TrainingScans) -> dict[str, Any]:
    """Return what makes a run this run and no other, by which its saved state is known: settings, seed, data."""
    run = {"model": model, "seed": settings.seed, "settings": json.loads(settings.text)}
    return run | {"snapshot": scans.snapshot_id, "data": scans.digest}


def training_scans(snapshot: Snapshot, having: str) -> TrainingScans:
    """Return the scans with rows in table ``having`` of the splits `train` and `validation`.

    Raises
    ------
    LeakageError
        The two splits share a subject, or one of their subjects is held out.
    """
    train = snapshot.scans(split="train", having=having)
    validation = snapshot.scans(split="validation", having=having)
    split_of = snapshot.subjects
    for name, table in (("train", train), ("validation", validation)):
        for subject in sorted(set(table["dataset"] + "/" + table["subject"])) if len(table) else []:
            if split_of.get(subject) != name:
                raise LeakageError("subject in the wrong split", subject,
                                   f"its scan is in {name}, the manifest says {split_of.get(subject)}",
                                   "take a new snapshot")  # fmt: skip
    return TrainingScans(train=train, validation=validation, snapshot_id=snapshot.id)
