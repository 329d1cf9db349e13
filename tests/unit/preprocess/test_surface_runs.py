"""Ready-made surface runs: what is regressed, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from boldmill.errors import DataFault
from boldmill.preprocess.config import CleanConfig, PreprocessConfig
from boldmill.preprocess.confounds import Table, write
from boldmill.preprocess.derivatives import Derivatives
from boldmill.preprocess.images import Grid
from boldmill.preprocess.motion import AXES
from boldmill.preprocess.series_io import read_surface, write_surface
from boldmill.preprocess.subject import Job
from boldmill.preprocess.surface import VERTICES, process_surface_run

COUNT, TR = 150, 1.4


def job(root: Path, results: Path, **clean: Any) -> Job:
    return Job(
        derivatives=Derivatives(results=results, root=results / "derivatives" / "d", raw=root, dataset="d"),
        space="MNI152NLin6Asym",
        grid=Grid((2, 2, 2), np.eye(4)),
        template={},
        settings=PreprocessConfig(),
        clean=CleanConfig(**clean),
        seed=1,
    )


def written(root: Path, *, count: int = COUNT, rows: int = COUNT, vertices: int = VERTICES) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    nuisance = rng.normal(size=(rows, 4))
    np.savetxt(root / "conf.txt", nuisance)
    for side in "LR":
        series = (100 + rng.normal(size=(count, vertices))).astype(np.float32)
        if rows == count:
            series += (nuisance @ rng.normal(0, 3, (4, vertices))).astype(np.float32)
        series[:, :7] = 0.0
        write_surface(root / f"{side}.func.gii", series, side, TR, {})
    return {
        "scan_id": "d_sub-1_task-rest",
        "task": "rest",
        "root": str(root),
        "entities": {"sub": "1", "task": "rest"},
        "bold": [{"path": "L.func.gii"}, {"path": "R.func.gii"}],
        "confounds": {"path": "conf.txt"},
        "metadata": {"RepetitionTime": TR},
    }


def test_confounds_and_drift_are_removed(tmp_path: Path) -> None:
    ticket = written(tmp_path)
    result = process_surface_run(job(tmp_path, tmp_path / "r"), ticket)
    assert set(result.files) == {"clean_lh", "clean_rh", "confounds"}
    assert all(path.exists() for path in (*result.files.values(), *result.extra))
    left = read_surface(result.files["clean_lh"])
    assert left.shape == (COUNT, VERTICES) and left.dtype == np.float32
    assert not left[:, :7].any() and left[:, 7:].any(axis=0).all()
    assert np.abs(left.mean(axis=0)).max() < 1e-4
    power = np.abs(np.fft.rfft(left[:, 7:200], axis=0)) ** 2
    frequency = np.fft.rfftfreq(COUNT, TR)
    assert power[frequency > 0.15].sum() / power.sum() < 5e-3
    assert result.qc["mean_fd"] is None and result.qc["n_regressors"] == 4
    assert result.qc["censored_share"] is None and result.qc["minutes_kept"] is None  # not 0: motion is not known
    assert result.facts == {"tr": TR, "n_volumes": COUNT, "space": "fsaverage5"}
    header = (result.files["confounds"]).read_text().splitlines()[0].split("\t")
    assert header[:4] == [f"confound_{k:02d}" for k in range(4)]
    image = nibabel.load(result.files["clean_rh"])
    assert image.meta["AnatomicalStructurePrimary"] == "CortexRight" and image.meta["TimeStep"] == "1400"


def test_same_bytes_twice(tmp_path: Path) -> None:
    ticket = written(tmp_path)
    one = process_surface_run(job(tmp_path, tmp_path / "a"), ticket).files
    two = process_surface_run(job(tmp_path, tmp_path / "b"), ticket).files
    for key in one:
        assert one[key].read_bytes() == two[key].read_bytes()


def test_a_column_is_regressed_once(tmp_path: Path) -> None:
    """Given confounds that hold cosines already do not get the drift's cosines of the same name again."""
    ticket = written(tmp_path)
    table = np.loadtxt(tmp_path / "conf.txt")
    header = "\t".join(["cosine_00", "cosine_01", "a", "b"])
    np.savetxt(tmp_path / "conf.txt", table, header=header, comments="")
    result = process_surface_run(job(tmp_path, tmp_path / "r", band_low=None, cosine_cutoff=100.0), ticket)
    sidecar = json.loads(next(p for p in result.extra if "hemi-L" in p.name).read_text())
    assert sidecar["Regressors"] == ["cosine_00", "cosine_01", "a", "b", "cosine_02", "cosine_03"]


def test_misfits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFault, match="149 rows, the series 150"):
        process_surface_run(job(tmp_path, tmp_path / "r"), written(tmp_path, rows=149))
    with pytest.raises(DataFault, match="vertices"):
        process_surface_run(job(tmp_path, tmp_path / "r"), written(tmp_path, vertices=642))
    with pytest.raises(DataFault, match="RepetitionTime"):
        process_surface_run(job(tmp_path, tmp_path / "r"), {**written(tmp_path), "metadata": {}})
    with pytest.raises(DataFault, match="degrees of freedom"):
        process_surface_run(job(tmp_path, tmp_path / "r", band_low=0.09, min_dof=5), written(tmp_path))
    # No setting chooses among confounds that came with the run: the fix must not propose motion models.
    with pytest.raises(DataFault, match="Fix: give fewer confounds with the run") as caught:
        process_surface_run(job(tmp_path, tmp_path / "r", band_low=0.09, min_dof=5), written(tmp_path))
    assert "motion" not in caught.value.fix
    broken = written(tmp_path)
    (tmp_path / "R.func.gii").write_bytes((tmp_path / "R.func.gii").read_bytes()[:5000])
    with pytest.raises(DataFault, match="cannot read surface"):
        process_surface_run(job(tmp_path, tmp_path / "r"), broken)


def named(root: Path, *, components: int = 5) -> dict[str, Any]:
    """A run with confounds as fMRIPrep names them, of which the strategy takes some."""
    ticket = written(root)
    rng = np.random.default_rng(4)
    columns = {name: rng.normal(0, 0.001, COUNT).cumsum() for name in AXES}
    columns |= {"csf": rng.normal(size=COUNT), "unrelated": rng.normal(size=COUNT)}
    columns |= {f"a_comp_cor_{k:02d}": rng.normal(size=COUNT) for k in range(components)}
    columns["trans_x"][70:] += 3.0
    write(Table(columns, {}), root / "conf.tsv", root / "conf.json")
    return {**ticket, "confounds": {"path": "conf.tsv"}}


def test_a_strategy_chooses_among_confounds_with_known_names(tmp_path: Path) -> None:
    ticket = named(tmp_path)
    result = process_surface_run(job(tmp_path, tmp_path / "r", motion="12", compcor=2, censor="interpolate"), ticket)
    sidecar = json.loads(next(p for p in result.extra if "hemi-L" in p.name).read_text())
    expected = {f"{axis}{form}" for axis in AXES for form in ("", "_derivative1")}
    assert set(sidecar["Regressors"]) == expected | {"a_comp_cor_00", "a_comp_cor_01"}
    assert result.qc["max_fd"] == pytest.approx(3.0, abs=0.2) and result.qc["censored_share"] == 1 / COUNT
    assert not any("not known" in flag for flag in result.flags)
    with pytest.raises(DataFault, match="asks for white_matter, global_signal, which the given confounds do not have"):
        process_surface_run(job(tmp_path, tmp_path / "r", strategy="36P"), ticket)
    with pytest.raises(DataFault, match="aCompCor components"):
        process_surface_run(job(tmp_path, tmp_path / "r"), named(tmp_path, components=0))
