"""The two standard meshes: sizes, cortex, folds, and carrying series between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boldmill.errors import ConfigError, MachineFault
from boldmill.spaces import meshes


@pytest.fixture
def spheres(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    folder = data / "templateflow" / "tpl-fsLR"
    paths = [folder / f"tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii" for side in "LR"]
    monkeypatch.setattr(meshes, "sphere_files", lambda: paths)
    return paths


def test_the_cortex_of_fslr_is_that_of_the_grayordinates(data: Path) -> None:
    import nibabel as nib

    for side, half, count in zip("LR", np.split(meshes.cortex("fsLR"), 2), (29696, 29716), strict=True):
        roi = nib.load(data / f"surfaces/fsLR-32k/{side}.atlasroi.32k_fs_LR.shape.gii").agg_data() > 0  # type: ignore[attr-defined]
        assert half.sum() == count and np.array_equal(half, roi)


@pytest.mark.parametrize("mesh", ["fsaverage5", "fsLR"])
def test_sulci_are_positive_and_deeper_points_lie_further_inside(mesh: str) -> None:
    depth, cortex = meshes.folds(mesh), meshes.cortex(mesh)
    assert depth.shape == cortex.shape == (2 * meshes.N_VERTICES[mesh],)
    pial = np.concatenate([np.abs(meshes.surface(mesh, "pial", h).coords - _middle(mesh, h)) for h in "LR"])
    assert np.corrcoef(depth[cortex], np.linalg.norm(pial[cortex], axis=1))[0, 1] < -0.1


def _middle(mesh: str, hemisphere: str) -> np.ndarray:
    middle: np.ndarray = meshes.surface(mesh, "white", hemisphere).coords.mean(0)
    return middle


@pytest.mark.data
@pytest.mark.parametrize(("source", "target"), [("fsLR", "fsaverage5"), ("fsaverage5", "fsLR")])
def test_a_map_keeps_its_shape_on_the_other_mesh(spheres: list[Path], source: str, target: str) -> None:
    operator = meshes.between(source, target)
    assert operator.shape == (2 * meshes.N_VERTICES[target], 2 * meshes.N_VERTICES[source])
    total = np.asarray(operator.sum(axis=1)).ravel()
    there = total > 0
    assert np.abs(total[there] - 1).max() < 1e-6 and there[meshes.cortex(target)].mean() > 0.98
    assert not np.asarray(operator.sum(axis=0)).ravel()[~meshes.cortex(source)].any()
    both = there & meshes.cortex(target)
    assert np.corrcoef((operator @ meshes.folds(source))[both], meshes.folds(target)[both])[0, 1] > 0.95
    half = meshes.N_VERTICES[source]
    assert not operator[: meshes.N_VERTICES[target], half:].nnz  # nothing crosses to the other hemisphere


def test_an_unknown_mesh_is_refused() -> None:
    with pytest.raises(ConfigError, match="fsaverage6"):
        meshes.cortex("fsaverage6")


def test_without_the_spheres_the_file_to_fetch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    with pytest.raises(MachineFault, match="no such file below") as caught:
        meshes.sphere_files()
    assert "snakemake fetch" in caught.value.fix and "suffix sphere" in caught.value.where
