"""FM-APP on held-out subjects: seen phenotypes against ridge, unseen ones up the zero-shot ladder.

Axes: S subjects, K seen phenotypes, D width of ROI features, E width of text vectors.

The ladder (section 6.4 of the fact sheet): (a) the nearest seen prediction by text, (b) the text-weighted mean of seen
predictions, (c) their plain mean, (d) the synthesiser, (f) controls of (d): texts permuted against weights, a random
vector, nonsense words; (h) ridge on the unseen labels themselves, the ceiling. Zero-shot is claimed only where (d) is
above (a), (b), (c) and (f) with signed r.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boldmill.evaluate.probes import Probe, probe_scores
from boldmill.rng import generator

if TYPE_CHECKING:
    from boldmill.models.fm_app.predictor import Modality, Predictor

Floats = NDArray[np.float64]

CONTROL_DRAWS = 20
"""Permutations of the texts, and random vectors, that a control is averaged over."""
TAU = 0.1
"""Temperature of the text-weighted mean (b)."""
NONSENSE = "florb wuggly snarf, tromp the quib dax blicket zib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """Scores of one rung of the ladder: (C, S), one row per draw of a control (C = 1 otherwise)."""

    name: str
    scores: Floats
    note: str


def nearest_seen(bank: Any, vector: NDArray[np.float32], seen: Floats) -> tuple[Floats, str]:
    """Return (a): the prediction (S,) of the seen phenotype with the nearest text, and its name."""
    name, cosine = bank.nearest(vector)[0]
    return seen[:, bank.ids.index(name)], f"nearest: {name} (cosine {cosine:.2f})"


def text_weighted(bank: Any, vector: NDArray[np.float32], seen: Floats, tau: float = TAU) -> Floats:
    """Return (b): softmax(cosine / tau)-weighted mean (S,) of the seen z-scores (S, K)."""
    logits = np.asarray(bank.matrix() @ bank.centre(vector), dtype=np.float64) / tau
    weight = np.exp(logits - logits.max())
    return np.asarray(seen @ (weight / weight.sum()))


def ladder(model: Predictor, inputs: Any, modality: Modality, name: str, text: str, seed: int) -> list[Rung]:
    """Return the rungs that need no label of the unseen phenotype.

    Parameters
    ----------
    model : Predictor
        Trained model.
    inputs : Tensor
        (S, R, R) FC or (S, R, 9) morphometry.
    name, text : str
        The unseen phenotype and its words.
    """
    import torch

    from boldmill.models.fm_app.synthesizer import Synthesizer

    bank, synthesizer = model.bank, model.synthesizer
    vector = model.text_vector(text)
    with torch.no_grad():
        seen = model.network.seen(model.roi(inputs, modality)).cpu().numpy().astype(np.float64)
    first, note = nearest_seen(bank, vector, seen)
    made = model.predict_unseen(inputs, modality, vector)
    # A control keeps image, map and seen weights, and breaks only the tie between words and weights.
    shuffled, random = [], []
    for draw in range(CONTROL_DRAWS):
        rng = generator("zero-shot control", name, draw, seed)
        order = rng.permutation(len(bank.ids))
        broken = Synthesizer(
            kind=synthesizer.kind,
            text=synthesizer.text[order],
            weights=synthesizer.weights,
            setting=synthesizer.setting,
        )
        shuffled.append(model.predict_unseen(inputs, modality, vector, broken))
        noise = rng.standard_normal(vector.size).astype(np.float32)
        random.append(
            model.predict_unseen(inputs, modality, bank.reference + noise / np.float32(np.linalg.norm(noise)))
        )
    nonsense = model.predict_unseen(inputs, modality, model.text_vector(NONSENSE))
    kind = synthesizer.kind
    return [
        Rung(name="zeroshot_a_nearest_text", scores=first[None], note=note),
        Rung(name="zeroshot_b_text_mean", scores=text_weighted(bank, vector, seen)[None], note=f"tau = {TAU}"),
        Rung(name="zeroshot_c_plain_mean", scores=seen.mean(axis=1)[None], note="unweighted mean of seen z-scores"),
        Rung(name=f"zeroshot_d_{kind}", scores=made[None], note=f"synthesiser setting {synthesizer.setting:.3g}"),
        Rung(name="zeroshot_f_permuted_text", scores=np.stack(shuffled), note=f"mean of {CONTROL_DRAWS} permutations"),
        Rung(name="zeroshot_f_random_vector", scores=np.stack(random), note=f"mean of {CONTROL_DRAWS} vectors"),
        Rung(name="zeroshot_f_nonsense_text", scores=nonsense[None], note="words without meaning"),
    ]


def ridge_baseline(train_x: Floats, train_y: Floats, test_x: Floats, *, scale: bool) -> Floats:
    """Return predictions (S,) of a ridge fitted on training subjects with a known label."""
    known = np.isfinite(train_y)
    features = np.concatenate([train_x[known], test_x])
    if not scale:
        features = np.nan_to_num(features, nan=0.0)
    truth = np.concatenate([train_y[known], np.zeros(len(test_x))])
    train = np.arange(len(features)) < known.sum()
    probe = Probe(kind="ridge", scale=scale)
    return np.asarray(probe_scores(probe, features, truth[None], train[None])[0][known.sum() :])
