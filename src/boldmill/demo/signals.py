"""Parcel signals with a realistic connectivity and planted effects on known edges.

A parcel's signal is ``sqrt(g) global + sqrt(n) network + sqrt(s) spatial + sqrt(o) own``; the spatial part is shared
by neighbours and by homotopic parcels. A planted edge shares the *own* parts of its two parcels:
``own_i = sqrt(1 - a) own_i + sqrt(a) common``, likewise for j, so the covariance of i and j rises by ``a o`` and no
other covariance moves, and the covariance stays positive semi-definite. ``a`` depends on group, age or ability.

All parts are sums of sinusoids inside the signal band with Gaussian amplitudes: the signal can be evaluated at any
time, e.g. at each slice's acquisition time.

Axis legend: P parcels, E planted edges, K frequencies, C components (global, networks, spatial, own, common), N times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boldmill.demo.cohort import Subject
from boldmill.demo.parameters import SIGNAL_BAND_HZ, Parameters
from boldmill.rng import generator

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

N_PARCELS = 100
NETWORKS = ("Vis", "SomMot", "DorsAttn", "SalVentAttn", "Limbic", "Cont", "Default")

SHARES = {"global": 0.06, "network": 0.17, "spatial": 0.19, "own": 0.58}
SPATIAL_MM = 22.0
INDIVIDUAL = 0.15
"""SD of a subject's own deviation of each loading, relative to the loading."""
EDGES = {"group": 16, "age": 10, "cognition": 10}
FARTHER_MM = 40.0
BACKGROUND_SHARE = 0.5
LIMBIC = 4


def networks() -> Ints:
    """Return the network index (0..6, in the order of ``NETWORKS``) of parcels 1..100, shape (P,)."""
    from boldmill.spaces.parcels import schaefer100

    return np.array([NETWORKS.index(parcel.network) for parcel in schaefer100()])


def base_covariance(centroids: Floats) -> Floats:
    """Return the population covariance before planting, shape (P, P), unit diagonal.

    Parameters
    ----------
    centroids : array (P, 3)
        Parcel centroids in a left-right symmetric space, mm.
    """
    mixing = _mixing(centroids)
    return np.asarray(mixing @ mixing.T)


def _mixing(centroids: Floats) -> Floats:
    """Loadings of the shared components and of the own parts, shape (P, 1 + 7 + P + P)."""
    folded = centroids.copy()
    folded[:, 0] = np.abs(folded[:, 0])
    squared = ((folded[:, None] - folded[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-squared / (2 * SPATIAL_MM**2)) + 1e-6 * np.eye(len(folded))
    kernel /= 1 + 1e-6
    member = np.eye(len(NETWORKS))[networks()]
    return np.hstack(
        [
            np.full((N_PARCELS, 1), np.sqrt(SHARES["global"])),
            np.sqrt(SHARES["network"]) * member,
            np.sqrt(SHARES["spatial"]) * np.linalg.cholesky(kernel),
            np.sqrt(SHARES["own"]) * np.eye(N_PARCELS),
        ]
    )


Effect = Literal["group", "age", "cognition"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A planted edge between parcels ``first < second`` (ids from 1); ``sign`` +1 rises with the effect, -1 falls."""

    first: int
    second: int
    effect: Effect
    sign: int

    def share(self, subject: Subject, group_effect: float) -> float:
        """Return the share ``a`` of the own variance that the two parcels have in common in this subject."""
        drive = {
            "group": group_effect * (1.0 if subject.is_patient else -1.0),
            "age": subject.age_z / 1.75,
            "cognition": subject.ability / 1.9,
        }[self.effect]
        return float(np.clip(BACKGROUND_SHARE * (1 + 0.96 * self.sign * drive), 0.02, 0.98))


def planted_edges(p: Parameters, centroids: Floats) -> list[Edge]:
    """Return the planted edges: parcels used once, of different networks, far apart, outside the limbic network.

    Half of each kind rise with their effect and half fall.
    """
    draw = generator("demo", p.seed, "edges")
    member = networks()
    free = [int(i) for i in draw.permutation(N_PARCELS) if member[i] != LIMBIC]
    chosen: list[Edge] = []
    for effect, count in EDGES.items():
        for number in range(count):
            first = free.pop(0)
            second = next(
                j
                for j in free
                if member[j] != member[first] and np.linalg.norm(centroids[j] - centroids[first]) > FARTHER_MM
            )
            free.remove(second)
            low, high = sorted((first, second))
            sign = 1 if number % 2 == 0 else -1
            chosen.append(Edge(first=low + 1, second=high + 1, effect=effect, sign=sign))  # type: ignore[arg-type]
    return chosen


def subject_mixing(p: Parameters, subject: Subject, edges: list[Edge], centroids: Floats) -> Floats:
    """Return one subject's loadings, shape (P, C): population, individual deviation, planted edges; unit row norm."""
    mixing = _mixing(centroids)
    draw = generator("demo", p.seed, "mixing", subject.label)
    shared = mixing[:, :-N_PARCELS]
    shared = shared * (1 + INDIVIDUAL * draw.standard_normal(shared.shape))
    own = np.sqrt(1 - (shared**2).sum(axis=1).clip(max=0.9))
    keep, common = np.ones(N_PARCELS), np.zeros((N_PARCELS, len(edges)))
    for column, edge in enumerate(edges):
        share = edge.share(subject, p.effect)
        for parcel in (edge.first - 1, edge.second - 1):
            keep[parcel] = np.sqrt(1 - share)
            common[parcel, column] = np.sqrt(share) * own[parcel]
    loadings = np.hstack([shared, np.diag(keep * own), common])
    return np.asarray(loadings / np.linalg.norm(loadings, axis=1, keepdims=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """Signals as sums of sinusoids: ``sum_k cos(2 pi f_k t) a_k + sin(2 pi f_k t) b_k``.

    ``frequencies`` (K,) in Hz, ``cosine`` and ``sine`` (K, P).
    """

    frequencies: Floats
    cosine: Floats
    sine: Floats

    def at(self, times: Floats) -> Floats:
        """Return the signals at times in s of any shape (...), shape (..., P)."""
        phase = 2 * np.pi * np.asarray(times)[..., None] * self.frequencies
        return np.asarray(np.cos(phase) @ self.cosine + np.sin(phase) @ self.sine)

    def scaled(self, factor: Floats) -> Spectrum:
        """Return the spectrum with every parcel multiplied by ``factor`` (P,)."""
        return Spectrum(frequencies=self.frequencies, cosine=self.cosine * factor, sine=self.sine * factor)


def run_spectrum(p: Parameters, mixing: Floats, *key: str | int) -> Spectrum:
    """Return the parcel signals of one run, each of unit SD over the volumes' middle times.

    Frequencies are spaced a little finer than the run's own resolution, so that the signal is not periodic in the run;
    amplitudes fall gently towards the upper edge of the band.
    """
    low, high = SIGNAL_BAND_HZ
    draw = generator("demo", p.seed, "signals", *key)
    spacing = 1.0 / (1.3 * p.volumes * p.tr)
    frequencies = np.arange(low, high, spacing)
    frequencies = np.clip(frequencies + draw.uniform(0, spacing, frequencies.shape), low, high)
    weight = 1.0 / np.sqrt(1 + (frequencies / 0.08) ** 2)
    amplitude = draw.standard_normal((2, len(frequencies), mixing.shape[1])) * weight[:, None]
    spectrum = Spectrum(frequencies=frequencies, cosine=amplitude[0] @ mixing.T, sine=amplitude[1] @ mixing.T)
    return spectrum.scaled(1.0 / spectrum.at(np.array(p.times())).std(axis=0))
