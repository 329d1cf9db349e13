"""From tar files of flat maps to shards and a snapshot: the runs of a bucket sorted by scan, one read at a time.

Axes: H W grid, N pixels of the mask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boldmill.errors import BoldmillError, ConfigError, DataFault
from boldmill.rng import bucket_of
from boldmill.shards.webdataset import BROKEN, Run, Sample, entities_of, frames_shape, index_tar, read_mask, read_run

if TYPE_CHECKING:
    from boldmill.shards.config import ShardsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the tar files hold.

    Parameters
    ----------
    dataset : str
        Name the runs get.
    samples : dict
        Scan id -> sample, sorted.
    faults : dict
        Scan id, or file -> why it is left out; filled while runs are read.
    """

    dataset: str
    samples: dict[str, Sample]
    faults: dict[str, DataFault] = field(default_factory=dict)


def open_tars(paths: Sequence[Path], dataset: str) -> Source:
    """Index tar files; a file that is cut short is a fault of its own.

    Raises
    ------
    BoldmillError
        A file is no tar or unsafe, or two samples have one name.
    """
    samples: dict[str, Sample] = {}
    faults: dict[str, DataFault] = {}
    for path in paths:
        found, cut = index_tar(path)
        if cut:
            faults[path.name] = DataFault("cannot read all of", path, cut, "take the file from its publisher again")
        for sample in found:
            scan_id = f"{dataset}_{re.sub(r'[^A-Za-z0-9_+-]', '-', sample.key)}"
            if scan_id in samples:
                why = f"{samples[scan_id].tar.name} has a sample of this name"
                raise BoldmillError("sample is there twice", f"{path}: {sample.key}", why, "name each tar file once")
            samples[scan_id] = sample
    if not samples:
        raise ConfigError("nothing to import", paths[0], "the files have no samples", "name other tar files")
    return Source(dataset=dataset, samples=dict(sorted(samples.items())), faults=faults)


def read_grid(path: Path) -> npt.NDArray[np.bool_]:
    """Return the pixels (H, W) of a grid: ``mask`` or ``components != 0`` of an npz, or those of a snapshot.

    Raises
    ------
    ConfigError
        The file has neither.
    """
    if path.suffix == ".json":
        from boldmill.shards.reader import Snapshot

        return Snapshot.load(path).flat_mask
    try:
        with np.load(path, allow_pickle=False) as stored:
            name = next((name for name in ("mask", "components") if name in stored), "")
            values = stored[name] if name else np.empty(0)
    except BROKEN as error:
        raise ConfigError(
            "cannot read the grid", path, str(error), "give an .npz file or a snapshot manifest"
        ) from error
    if values.ndim == 3:
        values = (values != 0).any(axis=0)
    if values.ndim != 2 or not (values != 0).any():
        why = f"it has no image `mask` or `components` ({', '.join(stored.files) or 'empty'})"
        raise ConfigError("cannot read the grid", path, why, "give an .npz whose `mask` is 1 on the pixels of the grid")
    mask: npt.NDArray[np.bool_] = values != 0
    return mask


def check_grid(source: Source, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """Return the grid of all samples: the given one, or the one the samples carry.

    Raises
    ------
    ConfigError
        No grid is given and a sample carries none, or a sample carries another one.
    """
    for scan_id, sample in source.samples.items():
        try:
            own = read_mask(sample)
        except DataFault as fault:
            source.faults[scan_id] = fault
            continue
        if own is None and mask is None:
            why = f"sample {sample.key} carries no mask, so the grid must be named"
            raise ConfigError("unknown grid", sample.tar, why, "add --grid FILE: the mask the tar files were made on")
        if own is not None and mask is not None and not np.array_equal(own, mask):
            why = f"sample {sample.key} has {own.sum()} pixels of {own.shape}, the grid {mask.sum()} of {mask.shape}"
            raise ConfigError("another grid", sample.tar, why, "import tar files of different grids one by one")
        mask = own if mask is None else mask
    if mask is None:
        raise next(iter(source.faults.values()))
    found = {shape[1] for sample in source.samples.values() if len(shape := frames_shape(sample)) == 2}
    if found and int(mask.sum()) not in found:
        why = f"the runs have {' or '.join(map(str, sorted(found)))} pixels, the grid has {mask.sum()}"
        raise ConfigError(
            "another grid", next(iter(source.samples.values())).tar, why, "name the grid they were made on"
        )
    return mask


def write_bucket(
    source: Source, number: int, out: tuple[Path, Path], mask: npt.NDArray[np.bool_], grid: dict[str, Any],
    cfg: ShardsConfig, tr: float, digest: str, bar: Any,
) -> int:  # fmt: skip
    """Write the shards `flat_clips` and `scans` of a bucket and return its scans; a bad sample becomes a fault."""
    from boldmill import tables
    from boldmill.atomic import canonical_json
    from boldmill.shards.build import Bucket, common, scan_row
    from boldmill.shards.clips import clip_rows, encode_mask
    from boldmill.shards.write import shard_writer

    texts = {"grid": canonical_json(grid), "mask": encode_mask(mask), "method": "imported, as published"}
    clips = tables.schema("flat_clips", dtypes={"values": cfg.clip_dtype}, metadata=texts)
    scans = tables.schema("scans", metadata={"features": "[]", "phenotype_descriptions": "{}"})
    bucket = Bucket(number=number, results=out[0], tickets={}, subjects={}, participants={}, parcellated={}, flat={})
    written = 0
    with shard_writer(out[0], clips, cfg.row_group_rows) as clip_out, shard_writer(out[1], scans, 256) as scan_out:
        for scan_id, sample in source.samples.items():
            subject = entities_of(sample.key).get("sub", sample.key)
            if bucket_of(source.dataset, subject, cfg.n_buckets) != number:
                continue
            bar.update()
            if scan_id in source.faults:
                continue
            try:
                run = read_run(sample, int(mask.sum()))
                if len(run.frames) < cfg.clip_frames:
                    why = f"{len(run.frames)} frames, a clip has {cfg.clip_frames}"
                    raise DataFault("run too short for a clip", scan_id, why, "leave it out, or lower --clip-frames")
            except DataFault as fault:
                source.faults[scan_id] = fault
                continue
            ticket = _ticket(source.dataset, subject, run)
            bucket.digests[f"{source.dataset}/{subject}"] = {"import": digest}
            seconds = float(run.meta.get("tr", tr))
            n_clips = 0
            pixels = {"mean": run.mean, "std": run.std}
            flat: dict[str, Any] = {name: np.zeros(0) if v is None else v for name, v in pixels.items()}
            flat |= {"frames": run.frames, "tr": seconds, "tr_in": float(run.meta.get("tr_in", np.nan))}
            base = common(bucket, scan_id, ticket)
            for row in clip_rows(base, flat, length=cfg.clip_frames, stride=cfg.clip_stride, dtype=cfg.clip_dtype):
                clip_out.add({**row, **{name: None for name, values in pixels.items() if values is None}})
                n_clips += 1
            entry = {"tr": seconds, "n_volumes": len(run.frames), "space": str(grid["name"])}
            scan_out.add(scan_row(bucket, scan_id, ticket, entry, atlases=[], n_clips=n_clips, morphometry=None))
            written += 1
    return written


def _ticket(dataset: str, subject: str, run: Run) -> dict[str, Any]:
    """Return what a ticket would say of a run."""
    spelled = entities_of(run.key)
    names = {"session": "ses", "task": "task", "run": "run"}
    return {
        "dataset": dataset,
        "subject": subject,
        "kind": "surface",
        "entities": spelled,
        **{name: spelled.get(short, "") for name, short in names.items()},
        "bold": [{"sha256": run.sha256}],
    }
