"""Ready-made fsaverage5 series of a derivative data set."""

import pytest


@pytest.fixture
def surfaces(tree):
    tree.surface("01")
    return tree


def rows(tree, **more):
    return tree.rows(kind="derivative", **more)


def test_a_pair_with_confounds_is_one_surface_scan(surfaces):
    row = rows(surfaces)["sub-01_task-rest"]
    assert (row.status, row.kind, row.tr, row.n_volumes, row.has_t1w) == ("ok", "surface", 1.4, 22, False)
    ticket = surfaces.ticket("sub-01_task-rest")
    assert [entry["path"].split("hemi-")[1][0] for entry in ticket["bold"]] == ["L", "R"]
    assert ticket["confounds"]["path"].endswith("desc-confounds_timeseries.tsv")
    assert ticket["t1w"] == []
    assert ticket["sidecars"] == ["sub-01/func/sub-01_task-rest_space-fsaverage5_bold.json"]


def test_without_confounds_the_scan_is_kept_and_flagged(surfaces):
    next(surfaces.root.rglob("*confounds*")).unlink()
    assert rows(surfaces)["sub-01_task-rest"].flags.startswith("no confounds table")
    assert surfaces.ticket("sub-01_task-rest")["confounds"] is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: next(t.root.rglob("*hemi-R*")).unlink(), "hemi-R is missing"),
        (lambda t: t.surface("01", vertices=100), "hemi-L has 100 vertices, fsaverage5 has 10242"),
        (lambda t: t.surface("01", volumes=3), "3 volumes, fewer than the 20 of index.min_volumes"),
        (lambda t: t.surface("01", volumes=25, sides="L"), "hemi-L has 25 volumes, hemi-R 22"),
        (
            lambda t: next(t.root.rglob("*hemi-L*")).write_bytes(next(t.root.rglob("*hemi-L*")).read_bytes()[:5000]),
            "the GIFTI file ends early: the file is truncated",
        ),
        (
            lambda t: next(t.root.rglob("*confounds*")).write_text("a\tb\n1\t2\n"),
            "1 rows for 22 volumes",
        ),
        (
            lambda t: t.write(
                "sub-01/func/sub-01_task-rest_hemi-L_space-fsaverage5_bold.json", {"RepetitionTime": 2.0}
            ),
            "their sidecars differ",
        ),
        (
            lambda t: next(t.root.rglob("*_bold.json")).unlink(),
            "RepetitionTime is missing from its sidecars; the header has none either",
        ),
    ],
)
def test_faults_are_refused_by_name(surfaces, spoil, reason):
    rows(surfaces)
    spoil(surfaces)
    surfaces.surface("02")
    found = rows(surfaces)
    assert (found["sub-01_task-rest"].status, found["sub-01_task-rest"].reason) == ("quarantined", reason)
    assert found["sub-02_task-rest"].status == "ok"


def test_other_spaces_and_volumes_are_reported(surfaces):
    base = "sub-01/func/sub-01_task-rest"
    surfaces.write(f"{base}_hemi-L_space-fsaverage6_bold.func.gii", b"x")
    surfaces.write(f"{base}_space-MNI152NLin6Asym_desc-smooth_bold.nii.gz", b"x")
    surfaces.write(f"{base}_space-fsaverage5_bold.func.gii", b"x")
    assert set(rows(surfaces)) == {"sub-01_task-rest"}
    assert {row["reason"] for row in surfaces.table("ignored.tsv")} == {
        "space-fsaverage6 is not read; only fsaverage5 is",
        "derivative data sets are read as fsaverage5 surfaces (hemi-L and hemi-R .func.gii) only",
        "a surface series needs hemi-L or hemi-R",
    }


def test_the_validators_ignore_list_does_not_hide_series_of_a_pipeline(surfaces):
    """fMRIPrep lists its own series there, because the validator has no name for them."""
    surfaces.write(".bidsignore", "*_bold.func.gii\n*_timeseries.tsv\n")
    assert rows(surfaces)["sub-01_task-rest"].status == "ok"
