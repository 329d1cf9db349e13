"""Train FM-APP in three stages on the training split, and load it again.

1. fMRI: encoder, active map and heads learn the seen phenotypes from functional connectivity (a scan is a sample).
2. T1w: adapter and a second encoder learn from morphometry (a subject is a sample) to give the frozen fMRI features,
   averaged over the subject's scans, and the phenotypes through the frozen map and heads.
3. Text: the synthesiser is fitted to the seen heads.

Axes: B scans, S subjects, R parcels, D width of ROI features, K seen phenotypes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.models.fm_app.config import FmAppConfig
from boldmill.train.protocol import TrainResult

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from boldmill.models.fm_app.predictor import Predictor
    from boldmill.shards.reader import Snapshot
    from boldmill.stages import Settings

MODEL = "fm_app"
CLIP_NORM = 4.0
"""Gradient norm of the published recipe."""


class Stage:
    """One supervised stage as the training loop wants it: inputs by index, a loss, nothing after a step.

    Parameters
    ----------
    module : nn.Module
        Its parameters with ``requires_grad`` are trained.
    loss : callable
        Indices of training samples -> loss and its parts.
    validation : callable
        The same over the validation samples; None without any.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        samples: int,
        batch: int,
        seed: int,
        loss: Callable[[np.ndarray[Any, Any]], dict[str, Tensor]],
        validation: Callable[[], dict[str, Tensor]] | None,
    ) -> None:
        from boldmill.train.order import batches_per_epoch

        self.module, self.name, self.samples, self.batch, self.seed = module, name, samples, batch, seed
        self.loss, self.validation = loss, validation
        self.per_epoch = batches_per_epoch(samples, batch)

    def epoch(self, step: int) -> int:
        """Return the pass over the data a step belongs to."""
        return step // self.per_epoch

    def losses(self, step: int) -> dict[str, Tensor]:
        """Return the losses of the batch of a step."""
        from boldmill.train.order import epoch_batches

        pieces = epoch_batches(self.samples, self.batch, MODEL, self.name, self.seed, self.epoch(step))
        return self.loss(pieces[step % self.per_epoch])

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def monitors(self) -> dict[str, float]:
        """No monitors beyond the losses."""
        return {}

    def validate(self) -> dict[str, float]:
        """Return the losses of the validation samples."""
        import torch

        if self.validation is None:
            return {}
        with torch.no_grad():
            return {f"validation_{name}": float(value) for name, value in self.validation().items()}


def train(
    snapshot: Snapshot, settings: Settings, out_dir: Path, device: str, threads: int, progress: bool
) -> TrainResult:
    """Train on the snapshot's split ``train``, watch ``validation``, write ``model.safetensors``."""
    import numpy as np
    import torch

    from boldmill.models.fm_app.architecture import Architecture
    from boldmill.models.fm_app.data import read_scans
    from boldmill.models.fm_app.network import FmApp
    from boldmill.models.fm_app.phenotypes import choose, numbers
    from boldmill.models.fm_app.synthesizer import Synthesizer
    from boldmill.models.fm_app.text import TextBank, encoder
    from boldmill.train.checkpoint import WEIGHTS, save_weights
    from boldmill.train.data import training_scans
    from boldmill.train.device import seed_step
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
        return torch.tensor(values, dtype=torch.float32, device=device)

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
    identity = {"seed": settings.seed, "settings": settings.digest, "data": scans.digest}
    identity |= {"architecture": arch.as_dict()}
    history = _stage_fmri(network, config, identity, learn, watch, scores_of, out_dir, progress)
    if arch.features:
        history += _stage_t1w(network, config, identity, learn, watch, scores_of, out_dir, progress)
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


def _stage_fmri(
    network: Any,
    config: FmAppConfig,
    identity: dict[str, Any],
    learn: Any,
    watch: Any,
    scores_of: Any,
    out: Path,
    bar: bool,
) -> list[dict[str, Any]]:
    """Stage 1: FC -> seen phenotypes."""
    import torch

    from boldmill.models.fm_app.losses import masked_mse

    device = network.text.device
    fc, truth = torch.from_numpy(learn.fc).to(device), scores_of(learn.table, learn.subjects)
    held, held_truth = torch.from_numpy(watch.fc).to(device), scores_of(watch.table, watch.subjects)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(("encoder_fmri.", "map.", "heads.")))

    def loss(rows: Any) -> dict[str, Tensor]:
        pick = torch.from_numpy(rows).to(device)
        return {"loss": masked_mse(network.seen(network.roi_fmri(fc[pick])), truth[pick])}

    def validation() -> dict[str, Tensor]:
        return {"loss": masked_mse(network.seen(network.roi_fmri(held)), held_truth)}

    stage = Stage(network, "fmri", len(fc), config.batch, identity["seed"], loss, validation if len(held) else None)
    return _fit(stage, config, identity, config.epochs_fmri, out, bar)


def _stage_t1w(
    network: Any,
    config: FmAppConfig,
    identity: dict[str, Any],
    learn: Any,
    watch: Any,
    scores_of: Any,
    out: Path,
    bar: bool,
) -> list[dict[str, Any]]:
    """Stage 2: morphometry -> frozen fMRI features and phenotypes; map and heads stay as they are."""
    import numpy as np
    import torch

    from boldmill.models.fm_app.losses import masked_mse, transfer_loss

    device = network.text.device
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(("adapter.", "encoder_t1w.")))

    def inputs(scans: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return morphometry, fMRI features (NaN without FC), their map, scores: one row per subject."""
        names = sorted(scans.morphometry)
        shape = (0, network.arch.rois, network.arch.features)
        x = np.stack([scans.morphometry[n] for n in names]) if names else np.zeros(shape, dtype=np.float32)
        roi = torch.full((len(names), network.arch.rois, network.arch.d), torch.nan, device=device)
        active = torch.zeros((len(names), network.arch.rois, len(network.arch.seen)), device=device)
        rows: dict[str, list[int]] = {}
        for row, subject in enumerate(scans.subjects):
            rows.setdefault(subject, []).append(row)
        network.eval()
        with torch.no_grad():
            for i, name in enumerate(names):
                if own := rows.get(name):
                    roi[i] = network.roi_fmri(torch.from_numpy(scans.fc[own]).to(device)).mean(dim=0)
                    active[i] = network.pool(roi[i : i + 1], network.text)[1][0]
        return torch.from_numpy(x).to(device), roi, active, scores_of(scans.table, tuple(names))

    def losses(data: tuple[Tensor, Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
        x, roi, active, truth = data
        learner = network.roi_t1w(x)
        label = masked_mse(network.seen(learner), truth)
        paired = torch.isfinite(roi[:, 0, 0])
        transfer = transfer_loss(roi[paired], learner[paired], active[paired]) if bool(paired.any()) else 0 * label
        return {"loss": label + config.transfer * transfer, "label": label, "transfer": transfer}

    training, held = inputs(learn), inputs(watch)
    network.adapter.fit(training[0])

    def loss(rows: Any) -> dict[str, Tensor]:
        pick = torch.from_numpy(rows).to(device)
        return losses((training[0][pick], training[1][pick], training[2][pick], training[3][pick]))

    validation = (lambda: losses(held)) if len(held[0]) else None
    stage = Stage(network, "t1w", len(training[0]), config.batch, identity["seed"], loss, validation)
    return _fit(stage, config, identity, config.epochs_t1w, out, bar)


def _fit(
    stage: Stage, config: FmAppConfig, identity: dict[str, Any], epochs: int, out: Path, bar: bool
) -> list[dict[str, Any]]:
    """Run the shared loop in a folder of the stage's own, so that each stage resumes from its own state."""
    from boldmill.train.loop import discard_resume, fit
    from boldmill.train.optim import Recipe

    recipe = Recipe(
        steps=epochs * stage.per_epoch,
        lr=config.lr,
        betas=(0.9, 0.999),
        weight_decay=config.weight_decay,
        warmup=stage.per_epoch,
        decay="cosine",
        clip=CLIP_NORM,
        clip_by="norm",
        validate_every=5 * stage.per_epoch,
    )
    identity = {**identity, "model": f"{MODEL}.{stage.name}", "samples": stage.samples}
    folder = out / f"stage-{stage.name}"
    folder.mkdir(parents=True, exist_ok=True)
    history = fit(stage, recipe, folder, identity, progress=bar)
    discard_resume(folder)
    folder.rmdir()
    return [{"stage": stage.name, **row} for row in history]
