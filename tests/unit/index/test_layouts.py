"""Which pipeline made a folder, and which form of a run is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boldmill.cli import main
from boldmill.config.load import load
from boldmill.errors import ConfigError
from boldmill.index.config import DatasetConfig
from boldmill.index.layout_bids import FMRIPREP, XCPD, read_bids, read_halfpipe
from boldmill.index.layouts import layout_files, recognise
from boldmill.index.listing import list_dataset
from boldmill.index.ready_files import Ready, Wanted, choose, ready_file
from boldmill.index.scans import build_scans

NLIN6 = "MNI152NLin6Asym"
RUN = "sub-01/func/sub-01_task-rest"


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("fMRIPrep", "fmriprep"),
        ("fMRIPrep - fMRI PREProcessing workflow", "fmriprep"),
        ("XCP-D", "xcpd"),
        ("xcp_d: A Robust Postprocessing Pipeline", "xcpd"),
        ("C-PAC", "cpac"),
        ("HALFpipe", "halfpipe"),
        ("HCPPipelines", "hcp"),
        ("my own scripts", "generic"),
    ],
)
@pytest.mark.parametrize("key", ["GeneratedBy", "PipelineDescription"])
def test_the_description_tells_the_pipeline(tmp_path: Path, name: str, layout: str, key: str) -> None:
    made = [{"Name": name}] if key == "GeneratedBy" else {"Name": name}
    (tmp_path / "dataset_description.json").write_text(json.dumps({key: made}))
    assert recognise(tmp_path).name == layout


@pytest.mark.parametrize(
    ("path", "layout"),
    [
        ("output/pipeline_cpac/sub-1_ses-1/func/x.nii.gz", "cpac"),
        ("pipeline_cpac/sub-1/func/x.nii.gz", "cpac"),
        ("100307/MNINonLinear/Results/rfMRI_REST1_LR/x.nii", "hcp"),
        (f"{RUN}_feature-f_atlas-a_timeseries.tsv", "halfpipe"),
        (f"{RUN}_space-{NLIN6}_desc-denoised_bold.nii.gz", "xcpd"),
        (f"{RUN}_space-{NLIN6}_seg-4S_stat-mean_timeseries.tsv", "xcpd"),
        (f"{RUN}_space-{NLIN6}_res-2_desc-preproc_bold.nii.gz", "fmriprep"),
        (f"{RUN}_space-fsLR_den-91k_bold.dtseries.nii", "fmriprep"),
        (f"{RUN}_hemi-L_space-fsaverage5_bold.func.gii", "generic"),
        (f"{RUN}_bold.nii.gz", "generic"),
    ],
)
def test_names_and_folders_tell_it_where_nothing_else_does(tmp_path: Path, path: str, layout: str) -> None:
    touch(tmp_path, path)
    assert recognise(tmp_path).name == layout
    (tmp_path / "dataset_description.json").write_text("{broken")
    assert recognise(tmp_path).name == layout


def test_only_the_layouts_own_folders_are_walked(tmp_path: Path) -> None:
    inside = "100307/MNINonLinear/Results/rfMRI_REST1_LR/a.txt"
    touch(tmp_path, inside, "100307/MNINonLinear/fsaverage_LR32k/b.gii", "100307/T1w/c.nii.gz")
    assert layout_files(tmp_path, recognise(tmp_path)) == [inside]


FORMS = (
    f"{RUN}_space-{NLIN6}_res-2_desc-preproc_bold.nii.gz",
    f"{RUN}_space-{NLIN6}_res-2_desc-brain_mask.nii.gz",
    f"{RUN}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz",
    f"{RUN}_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz",
    f"{RUN}_hemi-L_space-fsaverage5_bold.func.gii",
    f"{RUN}_hemi-R_space-fsaverage5_bold.func.gii",
    f"{RUN}_space-fsLR_den-91k_bold.dtseries.nii",
    f"{RUN}_desc-confounds_timeseries.tsv",
)


def taken(paths: tuple[str, ...], *, space: str = NLIN6, **more: object) -> tuple[Ready, dict[str, str]]:
    found, _ = read_bids(paths, FMRIPREP)
    dataset = DatasetConfig.model_validate({"name": "d", "root": "r", "kind": "derivative", **more})
    choices, ignored = choose(dataset, found, Wanted(space=space), "fmriprep")
    ((name, choice),) = choices.items()
    assert name == "d_sub-01_task-rest"
    return choice.taken, dict(ignored)


def test_links_that_lead_back_end_the_walk_and_nothing_else(tmp_path: Path) -> None:
    name = f"{RUN}_space-{NLIN6}_desc-preproc_bold.nii.gz"
    touch(tmp_path, name)
    (tmp_path / "sub-01" / "itself").symlink_to("itself")
    (tmp_path / "sub-01" / "func" / "back").symlink_to(tmp_path / "sub-01")
    found = layout_files(tmp_path, recognise(tmp_path))
    assert name in found and "sub-01/itself" in found and len(found) < 9


@pytest.mark.parametrize(
    ("space", "more", "path"),
    [
        (NLIN6, {}, FORMS[0]),
        ("MNI152NLin2009cAsym", {}, FORMS[2]),
        ("MNI152NLin2009aSym", {}, FORMS[4]),  # no volume there: the surface before a volume elsewhere
        (NLIN6, {"prefer": ["cifti"]}, FORMS[6]),
        (NLIN6, {"pick": {"space": "fsLR"}}, FORMS[6]),
        (NLIN6, {"prefer": ["surface"]}, FORMS[4]),
    ],
)
def test_one_form_is_read_and_the_others_say_so(space: str, more: dict[str, object], path: str) -> None:
    one, ignored = taken(FORMS, space=space, **more)
    assert one.path == path
    series = {p for p in FORMS if "_bold." in p} - {file.path for file in one.files}
    assert set(ignored) == series
    assert all(path in why or "pick asks for space-fsLR" in why for why in ignored.values())


def test_a_form_that_lacks_a_part_is_passed_over() -> None:
    one, _ = taken(tuple(p for p in FORMS if p != FORMS[1]))
    assert one.path == FORMS[4] and one.flags == [f"{FORMS[0]} passed over: its brain mask is missing"]


def test_two_files_for_one_run_are_refused() -> None:
    one, _ = taken((*FORMS, FORMS[0].removesuffix(".gz")))
    assert one.fault is not None and FORMS[0] in one.fault.why


def test_a_half_pair_and_two_tables_are_refused() -> None:
    found, _ = read_bids((FORMS[4], FORMS[7]), FMRIPREP)
    assert found[0].fault is not None and found[0].fault.why == "hemi-R is missing"
    found, _ = read_bids((*FORMS[4:6], FORMS[7], f"{RUN}_desc-confounds_regressors.tsv"), FMRIPREP)
    assert found[0].fault is not None and "several confounds tables" in found[0].fault.why


def test_what_is_not_read_has_a_reason() -> None:
    paths = {
        f"{RUN}_space-T1w_desc-preproc_bold.nii.gz": "in the person's own space",
        f"{RUN}_desc-preproc_bold.nii.gz": "in the person's own space",
        f"{RUN}_echo-1_space-{NLIN6}_desc-preproc_bold.nii.gz": "one echo of a run",
        f"{RUN}_space-{NLIN6}_desc-smoothAROMA_bold.nii.gz": "desc-smoothAROMA is not read; desc-preproc is",
        f"{RUN}_space-fsLR_den-170k_bold.dtseries.nii": "fsLR 170k is not fsLR 91k",
        f"{RUN}_hemi-L_space-fsaverage_den-164k_bold.func.gii": "space-fsaverage 164k is not read",
        f"{RUN}_space-fsaverage5_bold.func.gii": "a surface series needs hemi-L or hemi-R",
    }
    found, ignored = read_bids(paths, FMRIPREP)
    assert not found and set(dict(ignored)) == set(paths)
    for path, why in ignored:
        assert why.startswith(paths[path])


def test_the_atlas_of_the_configured_size_is_taken() -> None:
    names = ("4S456Parcels", "4S156Parcels", "Tian")
    paths = [f"{RUN}_space-fsLR_seg-{name}_stat-mean_timeseries.tsv" for name in names]
    found, _ = read_bids(paths, XCPD)
    dataset = DatasetConfig(name="d", root="r", kind="derivative")
    choices, _ = choose(dataset, found, Wanted(n_parcels=100), "xcpd")
    assert choices["d_sub-01_task-rest"].taken.path == paths[1]
    picked = DatasetConfig(name="d", root="r", kind="derivative", pick={"atlas": "Tian"})
    choices, ignored = choose(picked, found, Wanted(n_parcels=100), "xcpd")
    assert choices["d_sub-01_task-rest"].taken.path == paths[2] and len(ignored) == 2


def test_halfpipe_features_are_told_apart_by_name() -> None:
    folder = "derivatives/halfpipe/sub-01/func/task-rest/sub-01_task-rest"
    paths = [f"{folder}_feature-{name}_atlas-schaefer400_timeseries.tsv" for name in ("corrMatrix2", "corrMatrix1")]
    found, _ = read_halfpipe(paths)
    choices, ignored = choose(DatasetConfig(name="d", root="r"), found, Wanted(n_parcels=400), "halfpipe")
    assert choices["d_sub-01_task-rest"].taken.path == paths[1] and [path for path, _ in ignored] == [paths[0]]


def test_entities_bids_does_not_know_are_kept() -> None:
    file = ready_file(f"{RUN}_reg-36Parameter_space-X_desc-preproc-1_bold.nii.gz")
    assert file is not None and file.entities["reg"] == "36Parameter" and file.entities["desc"] == "preproc-1"
    assert ready_file("task-rest_bold.json") is None


def test_a_folder_without_a_readable_run_stops_with_an_example(tmp_path: Path) -> None:
    touch(tmp_path, f"{RUN}_space-T1w_desc-preproc_bold.nii.gz")
    with pytest.raises(ConfigError, match="folder of fMRIPrep") as caught:
        list_dataset(DatasetConfig(name="d", root=str(tmp_path), kind="derivative"))
    assert "space-T1w" in caught.value.why


def test_filters_apply_to_ready_made_runs(tmp_path: Path) -> None:
    touch(tmp_path, *FORMS, *(path.replace("-01", "-02") for path in FORMS))
    dataset = DatasetConfig.model_validate(
        {"name": "d", "root": str(tmp_path), "kind": "derivative", "filters": {"participant": ["02"]}}
    )
    scans = build_scans(dataset, list_dataset(dataset), Wanted(space=NLIN6))
    assert [scan.scan_id for scan in scans] == ["d_sub-02_task-rest"]
    wrong = dataset.model_copy(update={"filters": dataset.filters.model_copy(update={"task": ["reest"]})})
    with pytest.raises(ConfigError, match="filter matches nothing"):
        build_scans(wrong, list_dataset(wrong), Wanted())


def test_init_describes_a_folder_of_derivatives(tmp_path: Path) -> None:
    """HALFpipe writes no dataset_description: the layout alone makes it a data set of derivatives."""
    root = tmp_path / "study"
    stem = "derivatives/halfpipe/sub-01/func/task-rest/sub-01_task-rest_feature-f_atlas-schaefer100_timeseries"
    touch(root, f"{stem}.tsv", "spec.json")
    (root / f"{stem}.tsv").write_text("1\t2\n" * 30)
    (root / f"{stem}.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    out = tmp_path / "my.yaml"
    assert main(["init", str(root), "--out", str(out)]) == 0
    assert "1 x task-rest (30 volumes, TR 2 s)" in out.read_text()
    (dataset,) = load(out).datasets
    assert dataset.kind == "derivative" and not dataset.overrides
