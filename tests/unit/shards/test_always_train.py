"""Data sets that are always trained on."""

import pytest
from pydantic import ValidationError

from boldmill.shards.config import SnapshotConfig
from boldmill.shards.splits import Person, assign

PEOPLE = [Person(dataset="a", subject=f"{i:02d}", site="x") for i in range(10)]
ALONE = Person(dataset="lone", subject="01", site="y")


def test_nobody_of_them_is_held_out_and_all_others_fall_as_before() -> None:
    config = SnapshotConfig(heldout=0.3, validation=0.2, always_train=["lone"])
    splits = assign([*PEOPLE, ALONE], config, seed=1)
    assert splits["lone/01"] == "train"
    assert {k: v for k, v in splits.items() if k != "lone/01"} == assign(PEOPLE, config, seed=1)
    assert assign([*PEOPLE, ALONE], SnapshotConfig(heldout=0.3, validation=0.2), seed=1)["lone/01"] != "train"


def test_a_site_held_out_by_name_wins() -> None:
    config = SnapshotConfig(always_train=["lone"], heldout_sites=["y"])
    assert assign([*PEOPLE, ALONE], config, seed=1)["lone/01"] == "heldout"


def test_data_sets_held_out_by_name_are_held_out_whole_and_all_others_fall_as_before() -> None:
    config = SnapshotConfig(heldout=0.3, validation=0.2, heldout_datasets=["lone"])
    splits = assign([*PEOPLE, ALONE], config, seed=1)
    assert splits["lone/01"] == "heldout"
    assert {k: v for k, v in splits.items() if k != "lone/01"} == assign(PEOPLE, config, seed=1)


def test_a_data_set_cannot_be_trained_on_and_held_out() -> None:
    with pytest.raises(ValidationError, match="lone: both in always_train and in heldout_datasets"):
        SnapshotConfig(always_train=["lone", "a"], heldout_datasets=["lone"])
