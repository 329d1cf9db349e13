"""Files, conversion and grids."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from boldmill.errors import DataFault, MachineFault
from boldmill.preprocess.images import (
    Grid,
    bounding_box,
    crop_volume,
    from_sitk,
    read_volume,
    regrid,
    to_sitk,
    write_volume,
)


def oblique(angle: float = 0.3, zooms: tuple[float, float, float] = (2.0, 2.5, 3.0)) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(zooms)
    affine[:3, 3] = [-30, 12, 5]
    return affine


def test_same_bytes_whatever_the_name_and_the_time(tmp_path: Path) -> None:
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    first = write_volume(tmp_path / "a.nii.gz", data, oblique()).read_bytes()
    second = write_volume(tmp_path / "b.nii.gz", data, oblique()).read_bytes()
    assert first == second
    assert first[4:8] == b"\0\0\0\0"  # gzip mtime


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8"])
def test_round_trip(tmp_path: Path, dtype: str) -> None:
    data = np.arange(120).reshape(2, 3, 4, 5)
    path = write_volume(tmp_path / "x.nii.gz", data, oblique(), dtype=dtype, tr=2.5, template=True)
    raw = nibabel.load(path)
    assert raw.get_data_dtype() == np.dtype(dtype)
    assert raw.header["sform_code"] == 4
    back = read_volume(path, ndim=4)
    np.testing.assert_array_equal(back.data, data)
    np.testing.assert_allclose(back.affine, oblique(), atol=1e-5)
    assert back.tr == pytest.approx(2.5)


def test_milliseconds_in_the_header(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((3, 3, 3, 4)).astype(np.float32), np.eye(4))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((1, 1, 1, 2520))
    nibabel.save(image, tmp_path / "ms.nii.gz")
    assert read_volume(tmp_path / "ms.nii.gz", ndim=4).tr == pytest.approx(2.52)


def test_canonical_keeps_world_points(tmp_path: Path) -> None:
    data = np.random.default_rng(1).random((4, 5, 6)).astype(np.float32)
    affine = np.array([[0, 0, -2.0, 9], [-1.5, 0, 0, 4], [0, 3.0, 0, -7], [0, 0, 0, 1]])
    write_volume(tmp_path / "x.nii.gz", data, affine)
    ras = read_volume(tmp_path / "x.nii.gz", canonical=True)
    assert nibabel.aff2axcodes(ras.affine) == ("R", "A", "S")
    world = affine @ [1, 2, 3, 1]
    index = np.linalg.inv(ras.affine) @ world
    assert ras.data[tuple(np.rint(index[:3]).astype(int))] == data[1, 2, 3]


def test_broken_files_are_faults_of_the_data(tmp_path: Path) -> None:
    data = np.random.default_rng(2).random((20, 20, 20)).astype(np.float32)
    good = write_volume(tmp_path / "good.nii.gz", data, np.eye(4)).read_bytes()
    for name, content in {
        "cut.nii.gz": good[: len(good) // 2],
        "short.nii.gz": gzip.compress(gzip.decompress(good)[:5000]),
        "text.nii.gz": b"not an image",
        "flip.nii.gz": good[:200] + bytes(255 - b for b in good[200:260]) + good[260:],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataFault, match=name):
            read_volume(tmp_path / name, what="T1w image")
    with pytest.raises(MachineFault):
        read_volume(tmp_path / "absent.nii.gz")
    with pytest.raises(DataFault, match="dimensions"):
        read_volume(write_volume(tmp_path / "4d.nii.gz", np.ones((2, 2, 2, 3)), np.eye(4)))
    with pytest.raises(DataFault, match="equal"):
        read_volume(write_volume(tmp_path / "flat.nii.gz", np.ones((2, 2, 2)), np.eye(4)))


def test_sitk_agrees_on_world_points() -> None:
    data = np.random.default_rng(3).random((4, 5, 6)).astype(np.float32)
    image = to_sitk(data, oblique())
    assert image.GetPixel(1, 2, 3) == pytest.approx(float(data[1, 2, 3]))
    world = oblique() @ [1, 2, 3, 1]
    np.testing.assert_allclose(
        image.TransformIndexToPhysicalPoint([1, 2, 3]), [-world[0], -world[1], world[2]], atol=1e-5
    )
    back = from_sitk(image)
    np.testing.assert_array_equal(back.data, data)
    np.testing.assert_allclose(back.affine, oblique(), atol=1e-5)


def test_sheared_affine_is_refused() -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    with pytest.raises(DataFault, match="orthogonal"):
        to_sitk(np.zeros((2, 2, 2)), affine)


def test_regrid_and_crop() -> None:
    grid = Grid((91, 109, 91), np.diag([2.0, 2, 2, 1]))
    assert regrid(grid, 2.0).same_as(grid)
    assert regrid(grid, 3.0).shape == (61, 73, 61)
    volume = crop_volume(
        from_sitk(to_sitk(np.arange(120, dtype=np.float32).reshape(4, 5, 6), oblique())), [1, 2, 3], [3, 9, 5]
    )
    assert volume.data.shape == (2, 3, 2)
    np.testing.assert_allclose(volume.affine[:3, 3], (oblique() @ [1, 2, 3, 1])[:3], atol=1e-5)
    low, high = bounding_box(np.pad(np.ones((2, 2, 2), bool), 3), 1)
    assert low.tolist() == [2, 2, 2] and high.tolist() == [6, 6, 6]
