from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill.errors import ConfigError
from boldmill.spaces.moves import MNI305, NLIN6, SYM09A, move_points, path_between
from boldmill.spaces.packages import package_file

coordinate = st.floats(-100, 100)


@given(st.tuples(coordinate, coordinate, coordinate))
def test_there_and_back_is_the_same_point(point: tuple[float, float, float]) -> None:
    start = np.array([point])
    there = move_points(start, MNI305, SYM09A)
    assert np.abs(move_points(there, SYM09A, MNI305) - start).max() < 1e-9
    assert np.linalg.norm(there - start) < 12  # "up to 10 mm apart", never more in the head


def test_the_chain_walks_along_known_moves_and_keeps_its_direction() -> None:
    names = [(m.source, m.target) for m in path_between(SYM09A, MNI305)]
    assert names == [(SYM09A, NLIN6), (NLIN6, MNI305)]
    assert path_between(NLIN6, NLIN6) == []


def test_published_example_of_the_mni305_move() -> None:
    # FreeSurfer wiki, CoordinateSystems: MNI305 (10, -20, 35) is MNI152 (10.695, -18.409, 36.137)
    moved = move_points(np.array([[10.0, -20.0, 35.0]]), MNI305, NLIN6)
    assert np.abs(moved - [10.695, -18.409, 36.137]).max() < 0.01


def test_an_unknown_space_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="Talairach"):
        path_between("Talairach", NLIN6)


def _sitk_image(data: np.ndarray, affine: np.ndarray, zoom: float) -> Any:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.astype(np.float32).T))
    image.SetSpacing([zoom] * 3)
    image.SetOrigin([-affine[0, 3], -affine[1, 3], affine[2, 3]])
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    return image


@pytest.mark.data
def test_the_measured_move_is_measured_again(data: Path) -> None:
    import nibabel as nib
    import SimpleITK as sitk

    folder = data / "templateflow" / "tpl-MNI152NLin6Asym"
    head: Any = nib.as_closest_canonical(nib.load(folder / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz"))
    mask: Any = nib.as_closest_canonical(nib.load(folder / "tpl-MNI152NLin6Asym_res-02_desc-brain_mask.nii.gz"))
    other: Any = nib.load(package_file("nilearn", "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))
    brain = np.asarray(mask.dataobj) > 0
    fixed = _sitk_image(np.asarray(head.dataobj) * brain, head.affine, 2.0)
    region = sitk.BinaryDilate(sitk.Cast(_sitk_image(brain, head.affine, 2.0), sitk.sitkUInt8), [3] * 3)
    moving = sitk.SmoothingRecursiveGaussian(_sitk_image(np.asarray(other.dataobj), other.affine, 1.0), 1.0)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(50)
        method.SetMetricFixedMask(region)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100, gradientMagnitudeTolerance=1e-8)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([2])
        method.SetSmoothingSigmasPerLevel([3])
        found = sitk.AffineTransform(3)
        method.SetInitialTransform(found, inPlace=True)
        method.Execute(fixed, moving)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    points = np.argwhere(brain)[::97] @ head.affine[:3, :3].T + head.affine[:3, 3]
    flip = np.array([-1, -1, 1])
    again = (points * flip) @ np.array(found.GetMatrix()).reshape(3, 3).T + np.array(found.GetTranslation())
    gap = np.linalg.norm(again * flip - move_points(points, NLIN6, SYM09A), axis=1)
    assert gap.mean() < 0.5 and gap.max() < 1.5


def test_the_move_to_the_symmetric_template_brings_cortex_into_grey_matter() -> None:
    import nibabel as nib
    from scipy.ndimage import map_coordinates

    from boldmill.spaces.embedded import fslr32k_labels
    from boldmill.spaces.surfaces import fslr32k

    image: Any = nib.load(package_file("nilearn", "datasets/data/mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz"))
    grey = np.asarray(image.dataobj, np.float32) / 255
    inverse = np.linalg.inv(image.affine)
    middle = np.vstack([fslr32k("midthickness", h).coords for h in "LR"])[fslr32k_labels() > 0]

    def share(points: np.ndarray) -> float:
        return float((map_coordinates(grey, (points @ inverse[:3, :3].T + inverse[:3, 3]).T, order=1) > 0.5).mean())

    before, after = share(middle), share(move_points(middle, NLIN6, SYM09A))
    assert after > before + 0.02 and after > 0.76
