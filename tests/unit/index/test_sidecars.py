"""The inheritance principle against cases worked out by hand."""

import json

import pytest

from boldmill.errors import DataFault
from boldmill.index.names import read_path
from boldmill.index.sidecars import Sidecars, shareable

FILE = "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-1_bold.nii.gz"


def resolve(root, sidecars, file=FILE):
    for path, value in sidecars.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(json.dumps(value))
    image, _ = read_path(file)
    return Sidecars(root, sidecars).resolve(image)


def test_deeper_folders_win_and_every_file_is_recorded(tmp_path):
    metadata, used = resolve(
        tmp_path,
        {
            "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-1_bold.json": {"d": 4},
            "sub-01/ses-a/sub-01_ses-a_bold.json": {"c": 3, "d": 3},
            "sub-01/sub-01_task-rest_bold.json": {"b": 2, "c": 2, "d": 2},
            "task-rest_bold.json": {"a": 1, "b": 1, "c": 1, "d": 1},
        },
    )
    assert metadata == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert used == [
        "task-rest_bold.json",
        "sub-01/sub-01_task-rest_bold.json",
        "sub-01/ses-a/sub-01_ses-a_bold.json",
        "sub-01/ses-a/func/sub-01_ses-a_task-rest_run-1_bold.json",
    ]


def test_within_a_folder_more_entities_win(tmp_path):
    metadata, used = resolve(tmp_path, {"task-rest_run-1_bold.json": {"a": 2}, "task-rest_bold.json": {"a": 1, "b": 1}})
    assert metadata == {"a": 2, "b": 1}
    assert used == ["task-rest_bold.json", "task-rest_run-1_bold.json"]


@pytest.mark.parametrize(
    "other",
    [
        "task-nback_bold.json",
        "task-rest_run-2_bold.json",
        "task-rest_sbref.json",
        "task-rest_acq-x_bold.json",
        "sub-02/sub-02_bold.json",
        "sub-01/ses-b/sub-01_ses-b_bold.json",
    ],
)
def test_sidecars_of_other_files_do_not_apply(tmp_path, other):
    assert resolve(tmp_path, {other: {"a": 1}}) == ({}, [])


def test_equally_specific_sidecars_may_agree_but_not_disagree(tmp_path):
    pair = {"task-rest_bold.json": {"TR": 2}, "run-1_bold.json": {"TR": 2}}
    assert resolve(tmp_path, pair)[0] == {"TR": 2}
    pair["run-1_bold.json"] = {"TR": 3}
    with pytest.raises(DataFault, match=r"run-1_bold\.json and task-rest_bold\.json are equally specific .* TR"):
        resolve(tmp_path, pair)


def test_nan_becomes_null_and_a_byte_order_mark_is_read(tmp_path):
    path = "task-rest_bold.json"
    (tmp_path / path).write_text('\ufeff{"a": NaN, "b": [1, Infinity]}', encoding="utf-8")
    image, _ = read_path(FILE)
    assert Sidecars(tmp_path, [path]).resolve(image)[0] == {"a": None, "b": [1, None]}


def test_a_list_is_no_sidecar(tmp_path):
    with pytest.raises(DataFault, match="is not a JSON object"):
        resolve(tmp_path, {"task-rest_bold.json": [1]})


def test_what_identifies_a_person_stays_out_of_tickets():
    metadata = {
        "RepetitionTime": 2.0,
        "PatientName": "x",
        "SeriesInstanceUID": "1.2",
        "AcquisitionDateTime": "2020",
        "DeviceSerialNumber": "7",
        "AcquisitionTime": "10:00",
        "EchoTime": 0.03,
    }
    assert shareable(metadata) == {"EchoTime": 0.03, "RepetitionTime": 2.0}


def test_root_sidecar_change_reaches_the_tickets_it_applies_to(tree):
    tree.t1w("01")
    tree.t1w("02")
    tree.bold("01", sidecar={})
    tree.bold("02", rest="task-nback", sidecar={})
    tree.write("task-rest_bold.json", {"RepetitionTime": 2.0})
    tree.write("task-nback_bold.json", {"RepetitionTime": 2.0})
    tree.ingest()
    before = tree.snapshot()
    tree.write("task-rest_bold.json", {"RepetitionTime": 2.0, "EchoTime": 0.03})
    bucket = next(row.bucket for row in tree.ingest() if row.subject == "01")
    after = tree.snapshot()
    assert {name for name in after if after[name] != before[name]} == {
        "tickets/ds_sub-01_task-rest.json",
        f"buckets/bucket-{bucket:03d}.json",
        "runs.parquet",
    }
