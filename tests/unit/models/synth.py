"""A synthetic snapshot, written by the real shard commands from synthetic manifests, series and flat maps.

Axes: T time, P parcels, X valid pixels, H W flat grid.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from boldmill.config.load import parse
from boldmill.config.model import Config
from boldmill.paths import ATLAS_TABLES, SHARD_TABLES, Layout
from boldmill.represent import augment_command
from boldmill.rng import bucket_of, generator
from boldmill.shards import clips_command, snapshot_command
from boldmill.shards import command as shards_command
from boldmill.stages import stage_json

DATASET = "toy"
ATLAS = "Toy"
SHA = "0" * 64


def flat_mask(height: int = 64, width: int = 160) -> npt.NDArray[np.bool_]:
    """Two discs, as two hemispheres."""
    y, x = np.mgrid[:height, :width]
    one = ((y - height / 2) / (0.45 * height)) ** 2 + ((x - width / 4) / (0.22 * width)) ** 2 < 1
    return one | one[:, ::-1]


def config(**sections: Any) -> Config:
    """A configuration with small models; ``sections`` are merged into it."""
    base: dict[str, Any] = {
        "seed": 7,
        "shards": {"n_buckets": 3, "clip_frames": 8, "clip_stride": 8},
        "augment": {"n_views": 4, "dtype": "float32"},
        "snapshot": {"heldout": 0.3, "validation": 0.2},
        "models": {
            "brainmass": {"epochs": 2, "batch": 4},
            "fmri_mae": {"steps": 2, "batch": 2},
            "fm_app": {"epochs_fmri": 2, "epochs_t1w": 2, "batch": 4},
        },
    }
    for name, values in sections.items():
        base[name] = {**base.get(name, {}), **values} if isinstance(values, dict) else values
    return parse(base)


def _series(subject: int, parcels: int, length: int) -> npt.NDArray[np.float32]:
    rng = generator("synth-series", subject, length)
    load = generator("synth-load", subject % 2).standard_normal((5, parcels))
    return (rng.standard_normal((length, 5)) @ load + rng.standard_normal((length, parcels))).astype(np.float32)


def _write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, sort_keys=True))
    return path


def snapshot(
    root: Path,
    cfg: Config,
    *,
    n_subjects: int = 9,
    parcels: int = 20,
    lengths: Sequence[int] = (60, 48, 72),
    mask: npt.NDArray[np.bool_] | None = None,
    n_frames: int = 24,
    alter: Callable[[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]] | None = None,
    unlabelled: Sequence[int] = (),
) -> Path:
    """Write shards and snapshot below ``root`` and return the manifest's path.

    Scan ``i`` has ``lengths[i mod n]`` volumes and parcel 0 of subject 0 is not covered (NaN). ``alter(subject,
    array)`` may change a subject's series and frames. Subjects ``unlabelled`` have an age alone.
    """
    mask = flat_mask() if mask is None else mask
    changed = alter or (lambda subject, array: array)
    n_buckets = cfg.shards.n_buckets
    buckets: dict[int, list[int]] = {number: [] for number in range(n_buckets)}
    for number in range(n_subjects):
        buckets[bucket_of(DATASET, f"{number:02d}", n_buckets)].append(number)
    scans = [
        _bucket(root, cfg, bucket, members, parcels, lengths, mask, n_frames, changed, unlabelled)
        for bucket, members in buckets.items()
    ]
    manifest = root / "datasets" / "latest" / "manifest.json"
    words = ["--scans", *map(str, scans), "--atlases", ATLAS, "--out", str(manifest)]
    _call(snapshot_command, words, stage_json(cfg, "snapshot"))
    return manifest


def _call(module: Any, words: list[str], settings: str) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert module.run(parser.parse_args([*words, "--config-json", settings])) == 0


def _bucket(
    root: Path,
    cfg: Config,
    bucket: int,
    members: Sequence[int],
    parcels: int,
    lengths: Sequence[int],
    mask: npt.NDArray[np.bool_],
    n_frames: int,
    changed: Callable[[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    unlabelled: Sequence[int],
) -> Path:
    tickets, manifests, participants = [], [], {}
    names = [f"parcel-{i:03d}" for i in range(parcels)]
    atlases = {ATLAS: {"name": ATLAS, "parcels": names}}
    parcellated: dict[str, Any] = {"configured": [ATLAS], "atlases": atlases, "scans": {}, "subjects": {}}
    flat: dict[str, Any] = {"scans": {}, "grid": {"name": "toy", "n_pixels": int(mask.sum())}}
    for number in members:
        subject, scan = f"{number:02d}", f"{DATASET}_sub-{number:02d}_task-rest"
        length = lengths[number % len(lengths)]
        image = {"path": f"sub-{subject}/func/x_bold.nii.gz", "size": 1, "sha256": SHA}
        ticket = {"schema": 1, "scan_id": scan, "dataset": DATASET, "subject": subject, "task": "rest",
                  "kind": "volume", "bucket": bucket, "entities": {"sub": subject, "task": "rest"}, "bold": [image],
                  "t1w": [image]}  # fmt: skip
        tickets.append(_write_json(root / "index" / "tickets" / f"{scan}.json", ticket))
        entry = {"status": "ok", "stage": "preprocess", "kind": "volume", "tr": 2.0, "n_volumes": length,
                 "space": "MNI152NLin6Asym", "files": {}, "qc": {"mean_fd": 0.1}, "flags": []}  # fmt: skip
        manifests.append(
            _write_json(
                root / "preprocess" / DATASET / f"sub-{subject}.json",
                {"schema": 1, "dataset": DATASET, "subject": subject, "anat": {"status": "ok"}, "scans": {scan: entry}},
            )
        )
        participants[f"{DATASET}/{subject}"] = {
            "site": f"s{number % 2}",
            "family": "",
            "phenotypes": {"age": 20.0 + number, "score": float(number % 2) + 0.1 * number, "group": number % 2},
        }
        if number in unlabelled:
            participants[f"{DATASET}/{subject}"]["phenotypes"] = {"age": 20.0 + number}
        _subject_arrays(root, scan, subject, number, parcels, length, mask, n_frames, changed)
        series = {"status": "ok", "files": {"timeseries": f"parcellate/{scan}.tsv"}}
        parcellated["scans"][scan] = {"status": "ok", "tr": 2.0, "n_volumes": length, "atlases": {ATLAS: series}}
        parcellated["subjects"][f"{DATASET}/{subject}"] = {"morphometry": f"parcellate/sub-{subject}_morph.tsv"}
        flat["scans"][scan] = {"status": "ok", "tr": 1.0, "n_frames": n_frames,
                               "files": {"frames": f"flatmap/{scan}.npz"}}  # fmt: skip
    words = {"age": {"Description": "age in years"}, "score": {"Description": "cognitive score"},
             "group": {"Description": "diagnostic group"}}  # fmt: skip
    joined = _write_json(
        root / "index" / "participants" / f"bucket-{bucket:03d}.json",
        {"subjects": participants, "descriptions": {DATASET: words}},
    )
    at_parcels = _write_json(root / "parcellate" / f"bucket-{bucket:03d}.json", parcellated)
    at_flat = _write_json(root / "flatmap" / f"bucket-{bucket:03d}.json", flat)
    out = {table: Layout.at(root).shard(table, bucket, ATLAS if table in ATLAS_TABLES else "")
           for table in (*SHARD_TABLES, "pfc")}  # fmt: skip
    common = ["--results", str(root), "--tickets", *map(str, tickets)]
    who = [*common, "--bucket", str(bucket), "--subjects", *map(str, manifests)]
    words = [*who, "--flat", str(at_flat), "--out", str(out["flat_clips"])]
    _call(clips_command, words, stage_json(cfg, "clips"))
    words = [*who, "--parcellated", str(at_parcels), "--participants", str(joined), "--clips", str(out["flat_clips"])]
    words += [word for name in ("scans", "timeseries", "fc") for word in (f"--out-{name}", str(out[name]))]
    _call(shards_command, words, stage_json(cfg, "shards"))
    words = [*common, "--parcellated", str(at_parcels), "--out", str(out["pfc"])]
    _call(augment_command, words, stage_json(cfg, "augment"))
    return out["scans"]


def _subject_arrays(
    root: Path,
    scan: str,
    subject: str,
    number: int,
    parcels: int,
    length: int,
    mask: npt.NDArray[np.bool_],
    n_frames: int,
    changed: Callable[[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]],
) -> None:
    (root / "parcellate").mkdir(parents=True, exist_ok=True)
    (root / "flatmap").mkdir(parents=True, exist_ok=True)
    series = changed(subject, _series(number, parcels, length))
    if number == 0:
        series[:, 0] = np.nan
    names = [f"parcel-{i:03d}" for i in range(parcels)]
    pd.DataFrame(series, columns=names).to_csv(root / f"parcellate/{scan}.tsv", sep="\t", index=False, na_rep="n/a")
    morph = generator("synth-morph", number).standard_normal((parcels, 9)).astype(np.float32)
    table = pd.DataFrame(changed(subject, morph), columns=[f"feature-{i}" for i in range(9)])
    table.to_csv(root / f"parcellate/sub-{subject}_morph.tsv", sep="\t", index=False)
    # smooth in space and time, so that hidden patches can be learned from visible ones
    rng = generator("synth-flat", number)
    y, x = np.nonzero(mask)
    waves = np.stack([np.sin(0.05 * (k + 1) * (x + 2 * y)) for k in range(3)])
    frames = rng.standard_normal((n_frames, 3)).cumsum(0) @ waves + 0.3 * rng.standard_normal((n_frames, len(x)))
    frames = changed(subject, frames.astype(np.float32))
    mean, std = frames.mean(0), frames.std(0)
    np.savez(root / f"flatmap/{scan}.npz", frames=((frames - mean) / std).astype(np.float16), mean=mean, std=std,
             mask=mask, tr=np.float64(1.0), tr_in=np.float64(2.0))  # fmt: skip
