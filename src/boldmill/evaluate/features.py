"""Frozen features of every scan from a trained model, and from the same network with fresh random weights.

Axes: N scans, P parcels, C clips of a scan, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.cohort import Cohort

if TYPE_CHECKING:
    from boldmill.shards.reader import Snapshot

Floats = NDArray[np.float64]

BATCH = 16
"""Scans or clips per forward pass."""


def scan_features(
    name: str,
    model: Any,
    snapshot: Snapshot,
    cohort: Cohort,
    device: str,
    *,
    max_clips: int = 64,
    progress: bool = False,
) -> Floats:
    """Return features (N, D); a row of NaN is a scan the model has no input for.

    BrainMass and FM-APP read the full-length FC (:func:`fc_input`), never a random view. fMRI-MAE reads up to
    ``max_clips`` clips of a scan, evenly spaced, and its mean patch embeddings are averaged over them.
    """
    import torch

    with torch.no_grad():
        if name == "fmri_mae":
            return _clip_features(model, snapshot, cohort, device, progress, max_clips)
        return _fc_features(name, model, snapshot, cohort, device)


def t1w_features(model: Any, snapshot: Snapshot, cohort: Cohort, device: str) -> Floats:
    """Return FM-APP's frozen T1w features (N, D); NaN rows are scans of subjects without T1w."""
    import torch

    from boldmill.models.fm_app.data import morphometry_of

    out = np.full((len(cohort), model.network.arch.d), np.nan)
    with torch.no_grad():
        for i, scan_id in enumerate(cohort.scan_ids):
            values = morphometry_of(snapshot, scan_id)
            if values is not None:
                out[i] = model.network.features_t1w(torch.from_numpy(values)[None].to(device))[0].cpu().numpy()
    return out


def random_twin(name: str, model: Any, seed: int) -> Any:
    """Return the same network with fresh weights: what the architecture gives without any training.

    Settings that are fitted to data and are no weights (pixel mask, input scales) are kept.
    """
    from boldmill.train.device import seed_step

    seed_step("random twin", name, seed)
    if name == "brainmass":
        from boldmill.models.brainmass.model import BrainMass

        return BrainMass(model.arch).eval()
    if name == "fmri_mae":
        from boldmill.models.fmri_mae.model import FmriMae

        return FmriMae(model.arch, model.grid.mask.cpu().numpy()).eval()
    from boldmill.models.fm_app.network import FmApp

    twin = FmApp(model.network.arch)
    buffers = dict(model.network.named_buffers())
    for key, value in twin.named_buffers():
        value.copy_(buffers[key])
    return twin.eval()


def untrained_note(name: str, note: str) -> str:
    """Return what must be said of the features of :func:`random_twin`; ``note`` is said of the checkpoint.

    It holds for twins that keep settings fitted to training scans, but not for BrainMass, of which nothing is kept.
    """
    words = "same network, random weights"
    return f"{words}; {note}" if note and name != "brainmass" else words


def fc_input(name: str, model: Any, snapshot: Snapshot, scan_ids: Sequence[str]) -> NDArray[np.float32]:
    """Return the full-length FC a model is given: (B, P, P), diagonal 1.

    BrainMass: by the estimator its views had (``model.arch.estimator``), 0 where a parcel has no data, as in its
    training. FM-APP: the one stored, NaN kept.
    """
    from boldmill.represent.fc import unvectorise

    if name != "brainmass":
        return np.asarray(unvectorise(snapshot.fc(scan_ids)), dtype=np.float32)
    fc = np.nan_to_num(np.asarray(unvectorise(snapshot.fc_by(model.arch.estimator, scan_ids)), dtype=np.float32))
    diagonal = np.arange(fc.shape[-1])
    fc[:, diagonal, diagonal] = 1.0
    return fc


def _fc_features(name: str, model: Any, snapshot: Snapshot, cohort: Cohort, device: str) -> Floats:
    import torch

    parts = []
    for start in range(0, len(cohort), BATCH):
        fc = fc_input(name, model, snapshot, cohort.scan_ids[start : start + BATCH])
        parts.append(model.features(torch.from_numpy(fc).to(device)).cpu().numpy())
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros((0, 1))


def _clip_features(
    model: Any, snapshot: Snapshot, cohort: Cohort, device: str, progress: bool, max_clips: int
) -> Floats:
    from tqdm import tqdm

    from boldmill.shards.clips import clip_batch

    rows = snapshot.rows("flat_clips")
    filmed = set(snapshot.scans(having="flat_clips")["scan_id"])
    model.check_mask(snapshot.flat_mask)
    out: list[Floats | None] = []
    for scan_id in tqdm(cohort.scan_ids, disable=not progress, desc="features", unit="scan"):
        own = rows.all_of(scan_id) if scan_id in filmed else []
        if len(own) > max_clips:
            own = [own[place] for place in np.linspace(0, len(own) - 1, max_clips).round().astype(int)]
        total, count = np.zeros(0), 0
        for start in range(0, len(own), BATCH):
            clips = clip_batch(rows, own[start : start + BATCH], device)
            embedded = model.features(clips).cpu().numpy().astype(np.float64)
            total = embedded.sum(axis=0) + (total if count else 0.0)
            count += len(embedded)
        out.append(total / count if count else None)
    width = next((row.size for row in out if row is not None), 1)
    return np.stack([np.full(width, np.nan) if row is None else row for row in out]) if out else np.zeros((0, 1))
