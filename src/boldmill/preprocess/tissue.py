"""Tissue classes: a Gaussian mixture of CSF, GM and WM whose mixing weights are the warped template priors.

Ashburner and Friston 2005, without their bias and deformation terms. Axes: N voxels, K = 3 classes (CSF, GM, WM).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boldmill.errors import DataFault
from boldmill.preprocess.images import Array, Float
from boldmill.rng import generator

CLASSES = ("csf", "gm", "wm")
FLOOR = 0.02
"""Least prior of each class: anatomy that the template lacks stays possible."""
SAMPLE = 60_000
STEPS = 30


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Means and standard deviations (K,) of the intensities, in the order CSF, GM, WM."""

    mean: Float
    sd: Float


def with_floor(priors: Array) -> Float:
    """Return priors (N, K) that are at least :data:`FLOOR` and sum to 1."""
    lifted = np.clip(priors, 0, None).astype(np.float64)
    lifted = lifted / np.maximum(lifted.sum(axis=1, keepdims=True), 1e-6) + FLOOR
    return np.asarray(lifted / lifted.sum(axis=1, keepdims=True))


def posterior(values: Array, priors: Float, mixture: Mixture) -> Float:
    """Probability of each class (N, K) given intensity and prior."""
    z = (values[:, np.newaxis] - mixture.mean) / mixture.sd
    log = -0.5 * z**2 - np.log(mixture.sd) + np.log(priors)
    log -= log.max(axis=1, keepdims=True)
    weight = np.exp(log)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def fit(values: Array, priors: Array, *, key: tuple[str | int, ...] = (), steps: int = STEPS) -> Mixture:
    """Fit the mixture by expectation-maximisation on a fixed random sample of at most 60,000 voxels.

    Parameters
    ----------
    values : array (N,)
        T1w intensities of the brain.
    priors : array (N, K)
        Prior probabilities in the order CSF, GM, WM.
    key : tuple
        Key of the random choice (image and seed).
    steps : int
        EM steps.

    Raises
    ------
    DataFault
        The classes collapse, or do not end in the order CSF < GM < WM that a T1w must show.
    """
    chosen = np.arange(len(values))
    if len(chosen) > SAMPLE:
        chosen = np.sort(generator("tissue", "sample", *key).choice(len(values), SAMPLE, replace=False))
    x, prior = np.asarray(values[chosen], dtype=np.float64), with_floor(priors[chosen])
    smallest = 1e-3 * (x.std() + 1e-12)
    weight = prior  # starting from the priors, not from the order of intensities, lets a wrong contrast show
    for _ in range(steps):
        total = weight.sum(axis=0) + 1e-12
        mean = (weight * x[:, np.newaxis]).sum(axis=0) / total
        sd = np.sqrt((weight * (x[:, np.newaxis] - mean) ** 2).sum(axis=0) / total)
        mixture = Mixture(mean, np.maximum(sd, smallest))
        weight = posterior(x, prior, mixture)
    csf, gm, wm = (float(m) for m in mixture.mean)
    if not csf < gm < wm:
        why = f"mean intensities are CSF {csf:.3g}, GM {gm:.3g}, WM {wm:.3g}, not rising as in a T1w"
        raise DataFault("cannot segment the brain", "T1w image", why, "check that the image is T1-weighted")
    return mixture


def segment(values: Array, priors: Array, *, key: tuple[str | int, ...] = ()) -> tuple[Array, Mixture]:
    """Return class probabilities (N, K) float32 of brain voxels, and the fitted mixture (arguments of :func:`fit`)."""
    mixture = fit(values, priors, key=key)
    out = np.empty((len(values), 3), dtype=np.float32)
    for start in range(0, len(values), SAMPLE):
        part = slice(start, start + SAMPLE)
        out[part] = posterior(np.asarray(values[part], dtype=np.float64), with_floor(priors[part]), mixture)
    return out, mixture
