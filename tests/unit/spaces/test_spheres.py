"""Carrying series between spheres: weights by closed forms, and the published labels as reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldmill.spaces.spheres import adaptive, barycentric, unit
from boldmill.spaces.surfaces import fsaverage5, read_surface

OCTAHEDRON = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
FACES = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])


def test_barycentric_weights_in_an_octahedron() -> None:
    """The ray through (a, b, c) meets the face a + b + c = 1 at weights proportional to a, b, c."""
    inside = np.array([[0.2, 0.3, 0.5], [0.6, -0.3, 0.1], [-0.1, -0.1, -0.8], [1.0, 0.0, 0.0]])
    found = barycentric(unit(inside), OCTAHEDRON, FACES).toarray()
    truth = np.zeros((4, 6))
    truth[0, [0, 2, 4]], truth[1, [0, 3, 4]] = [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]
    truth[2, [1, 3, 5]], truth[3, 0] = [0.1, 0.1, 0.8], 1.0
    assert np.abs(found - truth).max() < 1e-12


@pytest.mark.parametrize("side", ["L", "R"])
def test_fslr_labels_meet_the_published_ones_on_fsaverage5(data: Path, side: str) -> None:
    name = f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii"
    path = data / "templateflow" / "tpl-fsLR" / name
    there, here = read_surface(path, name="fsLR", space="sphere", source="test"), fsaverage5("sphere", side)
    load: Any = nib.load
    cortex = load(data / "surfaces" / "fsLR-32k" / f"{side}.atlasroi.32k_fs_LR.shape.gii").agg_data() > 0
    operator = adaptive(there.coords, there.faces, here.coords, here.faces, cortex)
    total = np.asarray(operator.sum(axis=1)).ravel()
    assert set(np.round(total, 9)) == {0.0, 1.0} and operator.data.min() > 0
    assert (np.asarray(operator.sum(axis=0)).ravel()[cortex] > 0).all()  # nothing of the finer mesh is left out
    assert not np.asarray(operator.sum(axis=0)).ravel()[~cortex].any()
    labels = load(data / "surfaces" / "fsLR-32k" / f"{side}.Schaefer2018_7Networks_100.32k_fs_LR.label.gii").agg_data()
    onehot = np.eye(101)[np.asarray(labels, int)]
    published = nib.freesurfer.read_annot(
        data / "surfaces" / "fsaverage5" / f"{side.lower()}h.Schaefer2018_100Parcels_7Networks.annot"
    )[0]
    published = np.where(published > 0, published + 50 * (side == "R"), 0)
    live = (published > 0) & (total > 0)
    assert (total[published > 0] > 0).mean() > 0.98
    assert ((operator @ onehot).argmax(axis=1) == published)[live].mean() > 0.92
