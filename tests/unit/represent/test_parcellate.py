from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from boldmill.errors import DataFault, MachineFault
from boldmill.represent.morphometry import FEATURES, morphometry
from boldmill.represent.operators import membership
from boldmill.represent.parcellate import number, parcel_series, rows_tsv, series_tsv
from boldmill.represent.series import Series, surface_series, volume_series

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def _write(folder: Path, data: np.ndarray, mask: np.ndarray) -> tuple[Path, Path]:
    nib.save(nib.Nifti1Image(data.astype(np.float32), AFFINE), folder / "clean.nii.gz")
    nib.save(nib.Nifti1Image(mask.astype(np.uint8), AFFINE), folder / "mask.nii.gz")
    return folder / "clean.nii.gz", folder / "mask.nii.gz"


def _case(seed: int = 0, volumes: int = 70) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, (8, 9, 7))
    return rng.standard_normal((8, 9, 7, volumes)), rng.random((8, 9, 7)) > 0.3, labels


def test_same_as_a_plain_loop_over_parcels(tmp_path: Path) -> None:
    data, mask, labels = _case()
    series = volume_series(*_write(tmp_path, data, mask), AFFINE, labels.shape)
    ids = [1, 2, 3, 4, 5]
    found = parcel_series(membership(labels.ravel(order="F"), ids), series, 0.1)
    assert found.values.shape == (70, 5) and found.values.dtype == np.float32  # 70 volumes: three blocks
    for column, label in enumerate(ids):
        inside = (labels == label) & mask
        assert np.abs(found.values[:, column] - data[inside].mean(0)).max() < 1e-6
        assert np.isclose(found.coverage[column], inside.sum() / (labels == label).sum())


def test_same_as_nilearn(tmp_path: Path) -> None:
    from nilearn.maskers import NiftiLabelsMasker

    data, mask, labels = _case(1, 20)
    clean, mask_path = _write(tmp_path, data, mask)
    masker = NiftiLabelsMasker(
        nib.Nifti1Image(labels.astype(np.int16), AFFINE),
        mask_img=str(mask_path),
        standardize=None,
        keep_masked_labels=False,
    )
    expected = masker.fit_transform(str(clean))
    series = volume_series(clean, mask_path, AFFINE, labels.shape)
    found = parcel_series(membership(labels.ravel(order="F"), [1, 2, 3, 4, 5]), series, 0.0)
    assert np.abs(found.values - expected).max() < 1e-5


def test_little_coverage_is_nan_and_never_zero(tmp_path: Path) -> None:
    data, mask, labels = _case(2, 10)
    mask[labels == 3] = False
    series = volume_series(*_write(tmp_path, data, mask), AFFINE, labels.shape)
    found = parcel_series(membership(labels.ravel(order="F"), [1, 2, 3, 4, 5]), series, 0.5)
    assert np.isnan(found.values[:, 2]).all() and found.coverage[2] == 0
    assert np.isfinite(np.delete(found.values, 2, axis=1)).all()
    text = series_tsv(list("abcde"), found.values).splitlines()
    assert text[0] == "a\tb\tc\td\te" and all(line.split("\t")[2] == "n/a" for line in text[1:])
    assert rows_tsv("parcel", ["a"], ["x"], np.array([[np.nan]])).splitlines() == ["parcel\tx", "a\tn/a"]


def test_rows_are_written_as_their_numbers() -> None:
    values = np.array([[1e-30, -0.0, np.nan, 123456789.0], [1 / 3, 2.5, -1e8, np.nan]], np.float32)
    expected = ["\t".join(number(v) for v in row) for row in values.tolist()]
    assert series_tsv(list("abcd"), values).splitlines()[1:] == expected
    assert expected[0].split("\t") == ["1e-30", "-0", "n/a", "1.234568e+08"]


def test_text_keeps_float32(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    read = np.array([[float(v) for v in row.split("\t")] for row in series_tsv(list("abc"), values).splitlines()[1:]])
    assert np.abs(read / values - 1).max() < 5e-7


def test_faults_of_the_data_and_of_the_line_are_told_apart(tmp_path: Path) -> None:
    data, mask, labels = _case(3, 40)
    operator = membership(labels.ravel(order="F"), [1, 2, 3, 4, 5])
    x, y, z = np.argwhere(mask & (labels == 2))[0]
    data[x, y, z, 35] = np.nan
    series = volume_series(*_write(tmp_path, data, mask), AFFINE, labels.shape)
    with pytest.raises(DataFault, match="volume 35"):
        parcel_series(operator, series, 0.1)
    with pytest.raises(DataFault, match="mask is empty"):
        volume_series(*_write(tmp_path, data, np.zeros(labels.shape)), AFFINE, labels.shape)
    with pytest.raises(DataFault, match="no parcel"):
        parcel_series(operator, volume_series(*_write(tmp_path, data, labels == 0), AFFINE, labels.shape), 0.1)
    with pytest.raises(MachineFault, match="operators"):
        volume_series(*_write(tmp_path, data, mask), np.diag([3.0, 3, 3, 1]), labels.shape)


def test_surface_files_of_the_wrong_mesh_or_length_are_refused(tmp_path: Path) -> None:
    def write(name: str, vertices: int, volumes: int) -> Path:
        arrays = [
            nib.gifti.GiftiDataArray(np.ones(vertices, np.float32) * t, datatype="NIFTI_TYPE_FLOAT32")
            for t in range(volumes)
        ]
        nib.save(nib.gifti.GiftiImage(darrays=arrays), tmp_path / name)
        return tmp_path / name

    good = write("a.func.gii", 10242, 4)
    assert surface_series(good, good).mask.all()
    with pytest.raises(DataFault, match="32492"):
        surface_series(good, write("b.func.gii", 32492, 4))
    with pytest.raises(DataFault, match="4 volumes on the left, 3"):
        surface_series(good, write("c.func.gii", 10242, 3))


def test_a_series_is_read_once_in_time_order() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)

    def read(columns: np.ndarray) -> Iterator[np.ndarray]:
        yield values[columns, :3]
        yield values[columns, 3:]

    series = Series(where=Path("x"), n_volumes=4, mask=np.ones(3, bool), read=read)
    found = parcel_series(membership(np.array([1, 1, 2]), [1, 2]), series, 0.5)
    assert found.values.T.tolist() == [[2.0, 3.0, 4.0, 5.0], [8.0, 9.0, 10.0, 11.0]]


def test_morphometry_in_closed_form() -> None:
    labels = np.repeat([0, 1, 2, 3], [40, 10, 20, 5])
    gm = np.select([labels == 1, labels == 2], [0.5, 0.75], 0.0)
    wm = np.select([labels == 0, labels == 1, labels == 2], [0.95, 0.5, 0.25], 0.0)
    jacobian = np.select([labels == 1, labels == 2], [2.0, 0.5], 1.0)
    t1w = np.where(labels == 0, 200.0, 100.0)
    first = np.flatnonzero(labels == 1)
    gm[first[:5]], wm[first[:5]], t1w[first[:5]] = 0.0, 0.8, 180.0  # half of parcel 1 is white matter
    images = {"gm": gm, "wm": wm, "csf": np.where(labels == 3, 0.0, 0.1), "jacobian": jacobian, "t1w": t1w}
    table = morphometry(membership(labels, [1, 2, 3]), images, 8.0)
    assert table.shape == (3, len(FEATURES))
    one = dict(zip(FEATURES, table[0], strict=True))
    assert np.isclose(one["gm_volume"], 5 * 0.5 * 2.0 * 8) and np.isclose(one["gm_mean"], 0.25)
    assert np.isclose(one["t1w_mean"], (0.5 + 0.9) / 2) and np.isclose(one["t1w_sd"], 0.2)
    assert np.isclose(one["logjac_mean"], np.log(2)) and np.isclose(one["logjac_sd"], 0, atol=1e-9)
    white = (5 * 0.5 * 0.5 + 5 * 0.8 * 0.9) / (5 * 0.5 + 5 * 0.8)
    assert np.isclose(one["gm_wm_contrast"], (white - 0.5) / ((white + 0.5) / 2))
    assert np.isnan(table[2]).all()  # parcel 3 has no tissue: NaN, not 0
    with pytest.raises(DataFault, match="white matter"):
        morphometry(membership(labels, [1, 2, 3]), {**images, "wm": np.zeros(75)}, 8.0)
