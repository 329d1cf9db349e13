"""ComBat: location and scale of each site, shrunk by empirical Bayes, estimated on training rows only.

Johnson, Li and Rabinovic 2007, Biostatistics 8(1):118-127; in imaging: Fortin et al. 2018, NeuroImage 167:104-120; for
connectivity: Yu et al. 2018, Hum Brain Mapp 39:4213-4227. Feature g of scan j at site i, with covariates x to be kept:

    y_ijg = alpha_g + x_j beta_g + gamma_ig + delta_ig e_ijg,    e_ijg ~ N(0, sigma_g^2)

Axes: N scans, P features, S sites with training scans, C covariates, K = S + C columns of the regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_SCANS = 2
"""Fewest training scans of a site: a variance needs two."""
TOLERANCE = 1e-4
"""Largest relative change of the estimates at which the iteration stops, as in the published code."""
MAX_ITERATIONS = 200
FLAT = 1e-6
"""Variance within a site, as a share of the pooled one, below which it is no scale: its scans are copies of another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combat:
    """Estimates of a training fold.

    Parameters
    ----------
    sites : (S,) int array
        Codes of the sites that are harmonised, sorted.
    middle : (C,) array
        Training means of the covariates.
    beta : (C, P) array
        Effect of the covariates, which stays in the features.
    alpha, sigma : (P,) array
        Mean over sites and pooled standard deviation.
    gamma, delta : (S, P) array
        Shrunk shift and variance of each site, in units of sigma and sigma squared.
    """

    sites: NDArray[np.int64]
    middle: Floats
    beta: Floats
    alpha: Floats
    sigma: Floats
    gamma: Floats
    delta: Floats


def fit_combat(features: Floats, site: NDArray[np.int64], covariates: Floats, train: Mask) -> Combat:
    """Estimate the site effects on the training rows.

    Parameters
    ----------
    features : (N, P) array
        NaN where missing: left out of every sum.
    site : (N,) int array
        Site codes; negative: unknown.
    covariates : (N, C) array
        Kept through harmonisation; NaN becomes the training mean. The target of a task must not be among them.
    train : (N,) bool array
        Training rows.
    """
    sites = known_sites(site, train)
    rows = train & np.isin(site, sites)
    y, x = features[rows], covariates[rows]
    member = (site[rows][:, None] == sites).astype(np.float64)  # (n, S)
    known = np.isfinite(x)
    middle = np.where(known, x, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    kept = np.where(known, x - middle, 0.0)
    spread = np.sqrt((kept**2).mean(axis=0)) if len(kept) else np.ones(kept.shape[1])
    scale = np.where(spread > 0, spread, 1.0)
    seen = np.isfinite(y)
    filled = np.where(seen, y, 0.0)
    weight = seen.astype(np.float64)
    beta_all = _regression(np.column_stack([member, kept / scale]), filled, weight)
    shift, beta = beta_all[: len(sites)], beta_all[len(sites) :] / scale[:, None]
    count = member.T @ weight  # (S, P)
    total = np.maximum(count.sum(axis=0), 1)
    alpha = (count * shift).sum(axis=0) / total
    left = (filled - member @ shift - kept @ beta) * weight
    sigma = np.sqrt((left**2).sum(axis=0) / total)
    sigma = np.where(sigma > 1e-9 * (1 + np.abs(alpha)), sigma, 0.0)
    safe = np.where(sigma > 0, sigma, 1.0)
    standard = np.where(sigma > 0, (filled - alpha - kept @ beta) / safe, 0.0) * weight
    gamma, delta = _shrink(member.T @ standard, member.T @ standard**2, count, sigma > 0)
    return Combat(sites=sites, middle=middle, beta=beta, alpha=alpha, sigma=sigma, gamma=gamma, delta=delta)


def apply_combat(fitted: Combat, features: Floats, site: NDArray[np.int64], covariates: Floats) -> Floats:
    """Return harmonised features (N, P); scans of any other site than those fitted come back unchanged."""
    if len(fitted.sites) < 2:  # nothing to bring together
        return features
    out = features.copy()
    rows = np.isin(site, fitted.sites)
    which = np.searchsorted(fitted.sites, site[rows])
    x = covariates[rows]
    kept = np.where(np.isfinite(x), x - fitted.middle, 0.0) @ fitted.beta + fitted.alpha
    safe = np.where(fitted.sigma > 0, fitted.sigma, 1.0)
    standard = (features[rows] - kept) / safe
    standard = (standard - fitted.gamma[which]) / np.sqrt(fitted.delta[which])
    out[rows] = np.where(fitted.sigma > 0, standard * safe + kept, features[rows])
    return out


def known_sites(site: NDArray[np.int64], train: Mask) -> NDArray[np.int64]:
    """Return the codes of sites with enough training scans, sorted."""
    names, counts = np.unique(site[train & (site >= 0)], return_counts=True)
    return np.asarray(names[counts >= MIN_SCANS])


def harmonised_rows(site: NDArray[np.int64], train: Mask) -> Mask:
    """Return which scans (N,) a fit on these training rows harmonises."""
    sites = known_sites(site, train)
    return np.asarray(np.isin(site, sites) & (len(sites) > 1))


def _regression(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Return least-squares coefficients (K, P) of each feature over the scans that have it.

    A column without scans, or one that others hold already, gets the solution of least norm.
    """
    columns = x.shape[1]
    if weight.all():
        return np.asarray(np.linalg.pinv(x.T @ x, hermitian=True) @ (x.T @ y))
    pairs = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    gram = (weight.T @ pairs).reshape(-1, columns, columns)
    right = (weight * y).T @ x
    return np.asarray((np.linalg.pinv(gram, hermitian=True) @ right[:, :, None])[:, :, 0].T)


def _shrink(total: Floats, square: Floats, count: Floats, usable: Mask) -> tuple[Floats, Floats]:
    """Return shrunk shifts and variances (S, P) from sums, sums of squares and counts of standardised features.

    A feature that a site has fewer than twice keeps its values: shift 0, variance 1.
    """
    gamma, delta = np.zeros(total.shape), np.ones(total.shape)
    for s in range(len(total)):
        good = usable & (count[s] >= MIN_SCANS)
        if good.sum() == 0:
            continue
        n = count[s, good]
        mean = total[s, good] / n
        variance = np.maximum(square[s, good] - n * mean**2, 0) / (n - 1)
        gamma[s, good], delta[s, good] = _posterior(n, mean, variance, total[s, good], square[s, good])
    return gamma, delta


def _posterior(n: Floats, mean: Floats, variance: Floats, total: Floats, square: Floats) -> tuple[Floats, Floats]:
    """Return the posterior means of one site, (P,) each: both conditional means, iterated to a fixed point.

    Where nothing varies within the site (copies of a scan) only its shift is taken out: any scale would be rounding.
    """
    centre, tau = mean.mean(), mean.var(ddof=1) if mean.size > 1 else 0.0
    level, noise = variance.mean(), variance.var(ddof=1) if mean.size > 1 else 0.0
    if tau <= 0 or noise <= 0 or level <= FLAT:  # nothing to learn a prior from
        return mean, np.where(variance > FLAT, variance, 1.0)
    shape, rate = (2 * noise + level**2) / noise, (level * noise + level**3) / noise
    gamma, delta = mean, np.maximum(variance, FLAT * level)
    for _ in range(MAX_ITERATIONS):
        new_gamma = (n * tau * mean + delta * centre) / (n * tau + delta)
        left = square - 2 * new_gamma * total + n * new_gamma**2
        new_delta = (0.5 * left + rate) / (0.5 * n + shape - 1)
        # The change is measured as in the published code, on the scale of the estimates themselves.
        change = max(
            float((np.abs(new_gamma - gamma) / np.maximum(np.abs(gamma), 1e-12)).max()),
            float((np.abs(new_delta - delta) / delta).max()),
        )
        gamma, delta = new_gamma, new_delta
        if change < TOLERANCE:
            break
    return gamma, delta
