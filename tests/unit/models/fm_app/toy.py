"""Subjects in memory whose phenotypes depend, or do not depend, on the words that describe them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from boldmill.atomic import canonical_json, sha256_text
from boldmill.errors import DataFault
from boldmill.models.fm_app.config import FmAppConfig
from boldmill.represent.fc import vectorise
from boldmill.stages import Settings

ROIS = 12
TOPICS = {
    "memory": ("recall of word lists", "picture sequence recall", "delayed recall of stories", "list sorting recall"),
    "strength": ("grip strength of the hand", "walking endurance", "leg strength", "arm strength and endurance"),
}


class ToySnapshot:
    """What FM-APP reads of a snapshot, from arrays; subject i is in ``split[i]``."""

    def __init__(self, *, n: int = 60, linked: bool = True, seed: int = 0, reverse: bool = False) -> None:
        rng = np.random.default_rng(seed)
        latent = rng.standard_normal((n, 2))
        pattern = rng.standard_normal((2, ROIS, ROIS)) * 0.12
        pattern = (pattern + pattern.transpose(0, 2, 1)) / 2
        z = np.einsum("nt,tij->nij", latent, pattern) + 0.05 * _symmetric(rng, n)
        self.matrix = np.tanh(z).astype(np.float32)
        self.matrix[:, np.arange(ROIS), np.arange(ROIS)] = 1.0
        self.morph = (latent @ rng.standard_normal((2, ROIS * 9)) + 0.5 * rng.standard_normal((n, ROIS * 9))).reshape(
            n, ROIS, 9
        )
        self.columns: dict[str, Any] = {}
        words = {}
        owner = rng.permutation(8)  # which latent a phenotype follows where words say nothing
        for t, (topic, names) in enumerate(TOPICS.items()):
            for k, text in enumerate(names):
                follows = t if linked else int(owner[4 * t + k] % 2)
                self.columns[f"{topic}{k}"] = latent[:, follows] + 0.3 * rng.standard_normal(n) + 50
                words[f"{topic}{k}"] = {"Description": f"{topic} test: {text}", "LongName": f"{topic} {k}"}
        order = list(reversed(self.columns)) if reverse else list(self.columns)
        self.table = pd.DataFrame({name: self.columns[name] for name in order})
        self.descriptions = {"toy": {name: words[name] for name in order}}
        self.split = ["train" if i < 0.6 * n else "validation" if i < 0.7 * n else "heldout" for i in range(n)]
        self.ids = [f"toy_sub-{i:02d}_task-rest" for i in range(n)]
        self.subjects = {f"toy/{i:02d}": split for i, split in enumerate(self.split)}
        self.order = list(rng.permutation(n)) if reverse else list(range(n))

    @property
    def id(self) -> str:
        """Digest of the labels and the FC: another cohort is another snapshot."""
        return sha256_text(f"{self.table.sort_index(axis=1).to_json()}{self.matrix.tobytes().hex()}")[:16]

    def parcels(self) -> list[str]:
        return [f"p{i}" for i in range(ROIS)]

    def scans(self, split: Any = None, having: str | None = None) -> pd.DataFrame:
        rows = [i for i in self.order if split is None or self.split[i] == split]
        return pd.DataFrame(
            {"scan_id": [self.ids[i] for i in rows], "dataset": "toy", "subject": [f"{i:02d}" for i in rows]}
        )

    def phenotypes(self, scan_ids: Any) -> pd.DataFrame:
        out = self.table.iloc[[self.ids.index(s) for s in scan_ids]].copy()
        out.index = pd.Index(list(scan_ids))
        return out

    def fc(self, scan_ids: Any) -> Any:
        return np.stack([vectorise(self.matrix[self.ids.index(s)]) for s in scan_ids])

    def morphometry(self, scan_id: str) -> Any:
        index = self.ids.index(scan_id)
        if index == 1:
            raise DataFault("no morphometry", scan_id, "no usable T1w", "leave it out")
        return self.morph[index].astype(np.float32)


def _symmetric(rng: np.random.Generator, n: int) -> Any:
    noise = rng.standard_normal((n, ROIS, ROIS))
    return (noise + noise.transpose(0, 2, 1)) / 2


def settings(seed: int = 3, **values: Any) -> Settings:
    """Settings of the training stage."""
    config = {"models": {"fm_app": FmAppConfig(**values).model_dump(mode="json")}}
    return Settings(
        canonical_json({"stage": "train_fm_app", "version": 1, "config": config, "overrides": {}, "seed": seed})
    )
