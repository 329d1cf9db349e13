"""Train FM-APP in three stages on the training split, and load it again.

1. fMRI: encoder, active map and heads learn the seen phenotypes from functional connectivity (a scan is a sample).
2. T1w: adapter and a second encoder learn from morphometry (a subject is a sample) to give the frozen fMRI features,
   averaged over the subject's scans, and the phenotypes through the frozen map and heads.
3. Text: the synthesiser is fitted to the seen heads.

Axes: B scans, S subjects, R parcels, D width of ROI features, K seen phenotypes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.models.fm_app.config import FmAppConfig
from boldmill.train.machine import Machine
from boldmill.train.protocol import TrainResult

if TYPE_CHECKING:
    from torch import Tensor

    from boldmill.models.fm_app.predictor import Predictor
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings

MODEL = "fm_app"


def train(
    snapshot: Snapshot,
    settings: Settings,
    out_dir: Path,
    device: str,
    threads: int,
    progress: bool,
    machine: Machine | None = None,
) -> TrainResult:
    """Train on the snapshot's split ``train``, watch ``validation``, write ``model.safetensors``."""
    import numpy as np
    import torch

    from boldmill.models.fm_app.architecture import Architecture
    from boldmill.models.fm_app.data import read_scans
    from boldmill.models.fm_app.network import FmApp
    from boldmill.models.fm_app.phenotypes import choose, numbers
    from boldmill.models.fm_app.stages import Job, stage_fmri, stage_t1w
    from boldmill.models.fm_app.synthesizer import Synthesizer
    from boldmill.models.fm_app.text import TextBank, encoder
    from boldmill.train.checkpoint import WEIGHTS, save_weights
    from boldmill.train.data import identity, training_scans
    from boldmill.train.device import seed_step
    from boldmill.train.distributed import is_first
    from boldmill.train.order import require

    config = settings.section("models.fm_app", FmAppConfig)
    scans = training_scans(snapshot, "timeseries")
    learn, watch = read_scans(snapshot, "train"), read_scans(snapshot, "validation")
    chosen = choose(learn.table, snapshot.descriptions, config)
    seen = tuple(chosen.seen)
    truth = numbers(learn.table, seen, config.sentinels)  # one row per training subject
    mean, spread = np.nanmean(truth, axis=0), np.nanstd(truth, axis=0)

    def scores_of(table: Any, subjects: tuple[str, ...]) -> Tensor:
        values = (numbers(table.loc[list(subjects)], seen, config.sentinels) - mean) / spread
        return torch.tensor(values, dtype=network.text.dtype, device=device)

    require(len(learn.ids), 2, "scans with time series", MODEL)
    bank = TextBank.construct(chosen.seen, encoder(config.text_encoder))
    arch = Architecture.of(
        config.preset,
        rois=learn.fc.shape[1],
        features=next(iter(learn.morphometry.values())).shape[1] if len(learn.morphometry) > 1 else 0,
        text=bank.vectors.shape[1],
        seen=seen,
        map=config.map,
    )
    seed_step("init", MODEL, settings.seed)
    network = FmApp(arch).to(device)
    network.text.copy_(torch.from_numpy(bank.matrix(seen)))
    network.score_mean.copy_(torch.from_numpy(mean))
    network.score_sd.copy_(torch.from_numpy(spread))
    network.fit_fc(torch.from_numpy(learn.fc).to(device))
    job = Job(
        network=network,
        config=config,
        identity=identity(MODEL, settings, scans) | {"architecture": arch.as_dict()},
        learn=learn,
        watch=watch,
        scores_of=scores_of,
        out=out_dir,
        machine=machine or Machine(),
        progress=progress,
    )
    history = stage_fmri(job)
    if arch.features:
        history += stage_t1w(job)
    weights = network.heads.weight.detach().cpu().numpy()
    with torch.no_grad():
        roi = network.eval().roi_fmri(torch.from_numpy(learn.fc).to(device))
        pooled = network.pool(roi, network.text)[0].cpu().numpy().astype(np.float64)
    synthesizer = Synthesizer.fit(config.synthesizer, bank.matrix(seen), weights, pooled)
    architecture = {
        "network": arch.as_dict(),
        "bank": {"titles": list(bank.titles), "texts": list(bank.texts), "fingerprint": bank.fingerprint},
        "text_encoder": config.text_encoder,
        "unseen": {name: list(words) for name, words in chosen.unseen.items()},
        "synthesizer": {"kind": synthesizer.kind, "setting": synthesizer.setting},
        "sentinels": {name: list(codes) for name, codes in config.sentinels.items()},
    }
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    state["bank.vectors"] = torch.from_numpy(bank.vectors)
    state["bank.reference"] = torch.from_numpy(bank.reference)
    if is_first():
        save_weights(out_dir / WEIGHTS, state, model=MODEL, architecture=architecture)
    subjects = sorted({*learn.table.index, *watch.table.index})
    facts = {"architecture": architecture, "subjects": subjects}  # also subjects without FC: their labels were read
    return TrainResult(history=history, metadata=scans.metadata() | facts)


def load(checkpoint: Path, device: str = "cpu") -> Predictor:
    """Return the trained model in eval mode."""
    from boldmill.models.fm_app.predictor import Predictor
    from boldmill.train.checkpoint import load_weights

    state, architecture = load_weights(checkpoint, model=MODEL)
    return Predictor.build(state, architecture).to(device).eval()
