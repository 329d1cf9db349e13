"""Nine features of the T1w per parcel, from the anatomical images on the output grid.

| feature | unit | what |
|---|---|---|
| gm_volume | mm3 | grey matter in the subject's own space: sum of GM x Jacobian x voxel volume |
| gm_mean, wm_mean, csf_mean | 0..1 | mean tissue probability |
| t1w_mean, t1w_sd | - | T1w intensity, divided by its median in white matter |
| logjac_mean, logjac_sd | - | log of the Jacobian determinant (> 0: the subject is larger than the template there) |
| gm_wm_contrast | - | (WM - GM) / mean of both, of the GM- and WM-weighted T1w intensity |

Axes: X voxels (i fastest), P parcels in id order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boldmill.errors import DataFault

FEATURES = (
    "gm_volume",
    "gm_mean",
    "wm_mean",
    "csf_mean",
    "t1w_mean",
    "t1w_sd",
    "logjac_mean",
    "logjac_sd",
    "gm_wm_contrast",
)
SURE_WM = 0.9
ANY_TISSUE = 0.5


def morphometry(operator: Any, images: dict[str, NDArray[np.float64]], voxel_volume: float) -> NDArray[np.float64]:
    """Return the nine features per parcel.

    Parameters
    ----------
    operator : csr_array, (P, X)
        Parcel membership.
    images : dict of str to (X,) array
        ``t1w``, ``gm``, ``wm``, ``csf`` and ``jacobian``, on the output grid. Voxels with tissue are brain. The
        Jacobian determinant is of the map from template to subject: it turns template volume into the subject's own.
    voxel_volume : float
        mm3.

    Returns
    -------
    (P, 9) array of float
        NaN for a parcel without a voxel of the brain, and a contrast without both tissues.

    Raises
    ------
    DataFault
        No white matter to normalise the intensity by.
    """
    gm, wm, csf, jacobian = (images[k] for k in ("gm", "wm", "csf", "jacobian"))
    finite = np.all([np.isfinite(v) for v in images.values()], axis=0)
    mask = (gm + wm + csf >= ANY_TISSUE) & finite & (jacobian > 0)
    sure = mask & (wm >= SURE_WM)
    level = float(np.median(images["t1w"][sure])) if sure.any() else 0.0
    if level <= 0:
        raise DataFault(
            "no white matter", "T1w in template space", "no voxel has WM >= 0.9 with signal", "check the T1w and its QC"
        )
    columns = np.flatnonzero(mask & (np.asarray(operator.sum(axis=0)) > 0))
    inner = operator[:, columns].astype(np.float64)
    t1w = images["t1w"][columns] / level
    logjac = np.log(jacobian[columns])
    g, w = gm[columns], wm[columns]
    count = np.asarray(inner.sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):

        def mean(x: NDArray[np.float64], weight: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
            below = count if weight is None else inner @ weight
            average: NDArray[np.float64] = (inner @ (x if weight is None else x * weight)) / np.where(
                below > 0, below, np.nan
            )
            return average

        def sd(x: NDArray[np.float64]) -> NDArray[np.float64]:
            centred = x - inner.T @ np.nan_to_num(mean(x))
            spread: NDArray[np.float64] = np.sqrt(mean(centred**2))
            return spread

        grey, white = mean(t1w, g), mean(t1w, w)
        volume = np.where(count > 0, inner @ (g * jacobian[columns]) * voxel_volume, np.nan)
        contrast = (white - grey) / ((white + grey) / 2)
        rows = [volume, mean(g), mean(w), mean(csf[columns]), mean(t1w), sd(t1w), mean(logjac), sd(logjac), contrast]
    return np.column_stack(rows)
