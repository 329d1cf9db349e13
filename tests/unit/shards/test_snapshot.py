import json
import shutil
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boldmill.atomic import canonical_json, read_json, sha256_text
from boldmill.cli import main
from boldmill.shards.config import SnapshotConfig
from boldmill.shards.splits import Person, assign

SPLITS = {"train", "validation", "heldout"}


def people(n: int, *, sites: int = 1, family: int = 0) -> list[Person]:
    return [
        Person(
            dataset="d",
            subject=f"{i:03d}",
            site=f"s{i % sites}",
            family=f"f{i // family}" if family else "",
        )
        for i in range(n)
    ]


def count(splits: dict[str, str]) -> dict[str, int]:
    return {s: list(splits.values()).count(s) for s in ("train", "validation", "heldout")}


def test_shares_of_a_small_cohort() -> None:
    assert count(assign(people(12, sites=2), SnapshotConfig(), 1)) == {"train": 7, "validation": 1, "heldout": 4}
    assert count(assign(people(10), SnapshotConfig(), 1)) == {"train": 6, "validation": 1, "heldout": 3}
    assert count(assign(people(1000), SnapshotConfig(), 1)) == {"train": 630, "validation": 70, "heldout": 300}


def test_every_large_site_gives_its_share_and_small_ones_share() -> None:
    cohort = people(40, sites=2)
    cohort += [Person(dataset="d", subject=f"x{i}", site=f"tiny{i}") for i in range(10)]
    splits = assign(cohort, SnapshotConfig(heldout=0.25, validation=0), 1)
    by_site = {s: [splits[p.key] for p in cohort if p.site.startswith(s)] for s in ("s0", "s1", "tiny")}
    assert {s: v.count("heldout") for s, v in by_site.items()} == {"s0": 5, "s1": 5, "tiny": 3}


@pytest.mark.parametrize(("n", "expected"), [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1))])
def test_someone_is_always_left_to_learn_from(n: int, expected: tuple[int, int, int]) -> None:
    assert tuple(count(assign(people(n, sites=max(n, 1)), SnapshotConfig(), 1)).values()) == expected


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**9), st.randoms())
def test_families_are_never_cut_and_order_does_not_matter(n: int, sites: int, family: int, seed: int, random) -> None:
    cohort = people(n, sites=sites, family=family)
    splits = assign(cohort, SnapshotConfig(), seed)
    assert set(splits) == {p.key for p in cohort}
    assert set(splits.values()) <= SPLITS
    of_family: dict[str, set[str]] = {}
    for person in cohort:
        of_family.setdefault(person.family, set()).add(splits[person.key])
    assert all(len(found) == 1 for found in of_family.values())
    shuffled = list(cohort)
    random.shuffle(shuffled)
    assert assign(shuffled, SnapshotConfig(), seed) == splits


def test_families_of_two_data_sets_are_two_families() -> None:
    cohort = [Person(dataset=d, subject=f"{i}", site="s", family="f1") for d in "ab" for i in range(3)]
    splits = assign(cohort, SnapshotConfig(heldout=0.5, validation=0), 1)
    assert {s.split("/")[0]: v for s, v in splits.items()}.keys() == {"a", "b"}
    assert len(set(splits.values())) == 2


def test_held_out_sites_are_held_out_whole_and_families_with_them() -> None:
    cohort = [*people(20, sites=2), Person(dataset="d", subject="kin", site="s0", family="f")]
    cohort.append(Person(dataset="d", subject="other", site="s1", family="f"))
    splits = assign(cohort, SnapshotConfig(heldout=0, validation=0, heldout_sites=["s1"]), 1)
    assert {splits[p.key] for p in cohort if p.site == "s1"} == {"heldout"}
    assert splits["d/kin"] == "heldout"
    assert {splits[p.key] for p in people(20, sites=2) if p.site == "s0"} == {"train"}


def test_a_new_subject_moves_at_most_one_other_per_border() -> None:
    cohort = people(60, sites=2)
    before = assign(cohort, SnapshotConfig(), 1)
    for i in range(30):
        after = assign([*cohort, Person(dataset="d", subject=f"new{i}", site="s0")], SnapshotConfig(), 1)
        moved = [p for p in cohort if after[p.key] != before[p.key]]
        assert len(moved) <= 2
        assert all(p.site == "s0" for p in moved)


def test_the_seed_matters() -> None:
    assert assign(people(30), SnapshotConfig(), 1) != assign(people(30), SnapshotConfig(), 2)


def config(inclusion: Any = None, **snapshot: Any) -> str:
    return canonical_json(
        {
            "stage": "snapshot",
            "version": 1,
            "config": {"snapshot": snapshot, "inclusion": inclusion or {}},
            "overrides": {},
            "seed": 7,
        }
    )


def test_manifest_counts_and_id(cohort, snapshot) -> None:
    manifest = read_json(cohort.layout.snapshot("latest"))
    content = {k: v for k, v in manifest.items() if k != "id"}
    assert manifest["id"] == sha256_text(canonical_json(content))[:16] == snapshot.id
    assert sum(c["subjects"] for c in manifest["counts"].values()) == 8
    assert sum(c["scans"] for c in manifest["counts"].values()) == len(snapshot.scans())
    assert sum(c["clips"] for c in manifest["counts"].values()) == len(snapshot.rows("flat_clips"))
    assert manifest["subjects"]["toy/03"] == manifest["subjects"]["toy/06"]  # one family, two sites
    assert len(manifest["shards"]) == 3 * (2 + 3 * 2)  # two tables of scans, three of parcels in two atlases
    assert manifest["atlases"] == snapshot.atlases == ["Toy-6", "Toy-4"]


def test_the_same_shards_give_the_same_manifest(cohort) -> None:
    path = cohort.layout.snapshot("latest")
    before = path.read_bytes()
    cohort.snapshot()
    assert path.read_bytes() == before


def test_motion_filter_lists_what_it_left_out_and_moves_nobody(cohort, snapshot, tmp_path) -> None:
    out = tmp_path / "x" / "manifest.json"
    words = [*cohort.snapshot_words(), "--out", str(out)]
    assert main([*words, "--config-json", config(inclusion={"max_mean_fd": 0.5})]) == 0
    strict = type(snapshot).load(out)
    assert list(strict.excluded) == cohort.tickets["07"]
    assert "mean FD 0.9 mm is above 0.5 mm" in strict.excluded[cohort.tickets["07"][0]]
    assert set(snapshot.scans()["scan_id"]) - set(strict.scans()["scan_id"]) == set(cohort.tickets["07"])
    assert strict.subjects == snapshot.subjects
    assert strict.id != snapshot.id


def test_every_rule_reaches_the_snapshot_and_an_unknown_figure_excludes_nothing(cohort, snapshot, tmp_path) -> None:
    """The rows of ``scans`` carry tSNR 50 for every run, and no kept minutes."""
    out = tmp_path / "manifest.json"
    words = [*cohort.snapshot_words(), "--out", str(out)]
    assert main([*words, "--config-json", config(inclusion={"min_tsnr": 50.0, "min_minutes": 3.0})]) == 0
    manifest = read_json(out)
    assert manifest["excluded"] == {}
    runs = {scan for scan in snapshot.scans()["scan_id"] if not scan.endswith("T1w")}
    assert set(manifest["unchecked"]) == runs
    assert set(map(tuple, manifest["unchecked"].values())) == {("min_minutes not checked: minutes_kept is unknown",)}
    assert main([*words, "--config-json", config(inclusion={"min_tsnr": 50.1})]) == 0
    manifest = read_json(out)
    assert set(manifest["excluded"]) == runs
    assert set(manifest["excluded"].values()) == {"median tSNR 50 is below 50.1 (min_tsnr)"}
    assert manifest["inclusion"]["toy"]["min_tsnr"] == 50.1


def test_the_rules_of_a_data_set_win(cohort, tmp_path) -> None:
    out, text = tmp_path / "manifest.json", json.loads(config(inclusion={"min_tsnr": 60.0}))
    text["overrides"] = {"toy": {"inclusion": {"min_tsnr": 40.0}}}
    words = [*cohort.snapshot_words(), "--out", str(out)]
    assert main([*words, "--config-json", canonical_json(text)]) == 0
    assert read_json(out)["excluded"] == {}


def test_a_bucket_named_twice_is_refused(cohort, tmp_path, capsys) -> None:
    words = cohort.snapshot_words()
    words.insert(2, words[2])
    assert main([*words, "--out", str(tmp_path / "m.json"), "--config-json", config()]) == 1
    assert "two shards" in capsys.readouterr().err


def test_a_shard_that_is_not_there_is_named(cohort, tmp_path, capsys) -> None:
    words = [*cohort.snapshot_words(), "Other", "--out", str(tmp_path / "m.json"), "--config-json", config()]
    assert main(words) == 1
    assert "timeseries/Other/bucket-000.parquet" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["parcels", "features", "mask"])
def test_shards_of_another_atlas_or_flat_grid_are_refused(cohort, tmp_path, capsys, key: str) -> None:
    """The masks of two grids may hold equally many pixels: only their text tells them apart."""
    table = {"parcels": "timeseries", "features": "scans", "mask": "flat_clips"}[key]
    shutil.copytree(cohort.results / "shards", tmp_path / "shards")
    changed = [p for p in sorted((tmp_path / "shards" / table).rglob("*.parquet")) if pq.read_metadata(p).num_rows][-1]
    content = pq.read_table(changed)
    pq.write_table(content.replace_schema_metadata({**content.schema.metadata, key.encode(): b'["other"]'}), changed)
    words = [word.replace(str(cohort.results), str(tmp_path)) for word in cohort.snapshot_words()]
    assert main([*words, "--out", str(tmp_path / "m.json"), "--config-json", config()]) == 1
    assert "shards do not fit together" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


def test_a_held_out_site_that_does_not_exist_is_refused(cohort, tmp_path, capsys) -> None:
    """A misspelt site would be trained on."""
    words = [*cohort.snapshot_words(), "--out", str(tmp_path / "m.json"), "--config-json"]
    assert main([*words, config(heldout_sites=["A"])]) == 0
    assert main([*words, config(heldout_sites=["A", "a"])]) == 2
    assert "'a' is no site" in capsys.readouterr().err


def test_a_held_out_data_set_that_does_not_exist_is_refused(cohort, tmp_path, capsys) -> None:
    words = [*cohort.snapshot_words(), "--out", str(tmp_path / "m.json"), "--config-json"]
    assert main([*words, config(heldout_datasets=["nobody"])]) == 2
    assert "'nobody' is no data set" in capsys.readouterr().err
