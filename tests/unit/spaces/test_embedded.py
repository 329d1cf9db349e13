from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from boldmill.errors import ConfigError
from boldmill.spaces.embedded import drop_islands, fslr32k_labels, schaefer_volume
from boldmill.spaces.moves import NLIN6, SYM09A
from boldmill.spaces.transfer import by_position, by_sphere

RAS2 = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def test_small_islands_are_dropped_and_large_pieces_stay() -> None:
    # a strip of 12 triangles: label 1 twice (6 and 1 vertices), label 2 in two halves of 3
    faces = np.array([[i, i + 1, i + 2] for i in range(14)])
    labels = np.array([1] * 6 + [0, 0] + [2] * 3 + [0] + [2] * 3 + [1])
    kept = drop_islands(labels, faces)
    assert kept[:6].tolist() == [1] * 6 and kept[-1] == 0
    assert (kept == 2).sum() == 6


def test_parcel_87_loses_its_stray_vertices_and_no_parcel_is_lost() -> None:
    labels = fslr32k_labels()
    assert (labels == 87).sum() == 257  # the package's table says 393
    assert set(np.unique(labels)) == set(range(101))
    assert labels[:32492].max() == 50 and labels[32492:][labels[32492:] > 0].min() == 51


@pytest.mark.data
def test_surface_labels_agree_with_the_published_ones(data: Path) -> None:
    published = np.concatenate(
        [
            nib.load(data / f"surfaces/fsLR-32k/{h}.Schaefer2018_7Networks_100.32k_fs_LR.label.gii").agg_data()
            for h in "LR"
        ]
    )
    labels = fslr32k_labels()
    either = (labels > 0) | (published > 0)
    assert (labels == published)[either].mean() > 0.998


@pytest.mark.data
def test_the_grown_volume_resembles_the_published_one(data: Path) -> None:
    folder = data / "templateflow" / "tpl-MNI152NLin6Asym"
    name = "tpl-MNI152NLin6Asym_res-02_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
    image: Any = nib.as_closest_canonical(nib.load(folder / name))
    published = np.asarray(image.dataobj).astype(int)
    grown = schaefer_volume(NLIN6, image.affine, image.shape)
    both = (grown > 0) & (published > 0)
    dice = [
        2 * ((grown == k) & (published == k)).sum() / ((grown == k).sum() + (published == k).sum())
        for k in range(1, 101)
    ]
    print(f"agreement {(grown == published)[both].mean():.3f}, covered {(grown > 0)[published > 0].mean():.3f}")
    assert (grown == published)[both].mean() > 0.85
    assert (grown > 0)[published > 0].mean() > 0.88
    assert np.mean(dice) > 0.73 and min(dice) > 0.45


@pytest.mark.parametrize("space", [NLIN6, SYM09A])
def test_every_parcel_has_a_volume_on_its_own_side(space: str) -> None:
    labels = schaefer_volume(space, RAS2, (91, 109, 91))
    assert labels.dtype == np.int16 and not labels.flags.writeable
    x = np.argwhere(labels > 0)[:, 0] * 2.0 - 90
    left = labels[labels > 0] <= 50
    assert (x[left] <= 6).all() and (x[~left] >= -6).all()
    assert np.bincount(labels.ravel(), minlength=101)[1:].min() > 200


def test_a_coarse_grid_keeps_every_parcel() -> None:
    grid = np.diag([4.0, 4.0, 4.0, 1.0])
    grid[:3, 3] = RAS2[:3, 3]
    assert len(np.unique(schaefer_volume(SYM09A, grid, (46, 55, 46)))) == 101


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="colin27"):
        schaefer_volume("colin27", RAS2, (4, 4, 4))


@pytest.mark.data
def test_fsaverage5_labels_agree_with_the_published_annotation(data: Path) -> None:
    published = []
    for index, side in enumerate("lr"):
        path = data / f"surfaces/fsaverage5/{side}h.Schaefer2018_100Parcels_7Networks.annot"
        ids = nib.freesurfer.read_annot(path)[0]
        published.append(np.where(ids > 0, ids + 50 * index, 0))
    truth = np.concatenate(published)
    labels = fslr32k_labels()
    here = by_position(labels)
    folder = data / "templateflow" / "tpl-fsLR"
    name = "tpl-fsLR_space-fsaverage_hemi-{}_den-32k_sphere.surf.gii"
    sphere = by_sphere(labels, [folder / name.format(h) for h in "LR"])
    share = {k: float((t.labels == truth).mean()) for k, t in (("position", here), ("sphere", sphere))}
    print(f"agreement with the annotation: {share}; round trips {here.round_trip} {sphere.round_trip}")
    assert share["position"] > 0.905 and share["sphere"] > 0.92
    assert min(here.round_trip.values()) > 0.93 and min(sphere.round_trip.values()) > 0.94
    for found in (here, sphere):
        assert len(np.unique(found.labels)) == 101
        assert found.labels[:10242].max() <= 50
