"""ShardDataset: order, ranks, workers, tails, resuming, filters, projection, reading by scan, reading ahead."""

import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from boldmill.errors import BoldmillError, ConfigError
from boldmill.shards.datasets import ShardDataset
from boldmill.shards.loader import loader, to_device
from boldmill.shards.reader import Snapshot

Batches = list[list[tuple[str, int]]]


@pytest.fixture
def clips(snapshot: Snapshot) -> list[str]:
    return list(snapshot.scans(having="flat_clips")["scan_id"])


def keys(batch) -> list[tuple[str, int]]:
    return list(zip(batch["scan_id"], batch["clip"].tolist(), strict=True))


def ranks_of(snapshot, *, ranks=1, workers=0, epoch=0, position=0, batch_size=4, **more) -> list[Batches]:
    """Return, for every rank, the clips of its batches."""
    found = []
    for rank in range(ranks):
        data = ShardDataset(
            snapshot, "flat_clips", seed=5, batch_size=batch_size, rank=rank, ranks=ranks, tail=more.get("tail", "keep")
        )
        data.seek(epoch, position)
        number = len(data)
        batches = [keys(batch) for batch in (loader(data, workers=workers) if workers else data)]
        assert len(batches) == number
        assert (data.epoch, data.position) == (epoch + 1, 0)
        found.append(batches)
    return found


def flat(batches: Batches) -> list[tuple[str, int]]:
    return [clip for batch in batches for clip in batch]


def test_an_epoch_is_every_clip_once_in_a_keyed_order(snapshot, clips) -> None:
    (first,), (again,), (following,) = (ranks_of(snapshot, epoch=epoch) for epoch in (0, 0, 1))
    expected = [(scan, clip) for scan in sorted(clips) for clip in range(2)]
    assert sorted(flat(first)) == expected
    assert first == again
    assert flat(first) != expected
    assert sorted(flat(following)) == expected
    assert flat(following) != flat(first)
    other = ShardDataset(snapshot, "flat_clips", seed=6, batch_size=4)
    assert [keys(batch) for batch in other] != first


def test_the_order_does_not_depend_on_workers(snapshot) -> None:
    (alone,) = ranks_of(snapshot)
    (shared,) = ranks_of(snapshot, workers=2)
    assert shared == alone
    plain = DataLoader(ShardDataset(snapshot, "flat_clips", seed=5, batch_size=4), batch_size=None, num_workers=2)
    assert [keys(batch) for batch in plain] == alone
    plain.dataset.seek(1)  # nobody counts what such processes give
    assert [[keys(batch) for batch in plain]] == ranks_of(snapshot, epoch=1)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_step_sees_the_same_clips_however_many_ranks_share_it(snapshot, ranks) -> None:
    (alone,) = ranks_of(snapshot)
    shared = ranks_of(snapshot, ranks=ranks, batch_size=4 // ranks)
    assert sorted(clip for rank in shared for clip in flat(rank)) == sorted(flat(alone))  # none lost, none twice
    for step, whole in enumerate(alone):
        parts = [clip for rank in shared if step < len(rank) for clip in rank[step]]
        assert sorted(parts) == sorted(whole)


def test_two_ranks_of_two_workers_share_all_clips(snapshot) -> None:
    (alone,) = ranks_of(snapshot)
    ranks = ranks_of(snapshot, ranks=2, workers=2, batch_size=2)
    assert ranks == ranks_of(snapshot, ranks=2, batch_size=2)
    assert sorted(flat(ranks[0]) + flat(ranks[1])) == sorted(flat(alone))


def test_dropping_the_tail_gives_every_rank_equally_many_full_batches(snapshot, clips) -> None:
    ranks = ranks_of(snapshot, ranks=2, batch_size=3, tail="drop")
    assert len(ranks[0]) == len(ranks[1]) == len(clips) * 2 // 6
    assert {len(batch) for batches in ranks for batch in batches} == {3}
    assert not set(flat(ranks[0])) & set(flat(ranks[1]))


@pytest.mark.parametrize(("ranks", "batch_size"), [(2, 3), (3, 20), (1, 7)])
def test_padding_the_tail_counts_every_clip_once(snapshot, clips, ranks, batch_size) -> None:
    counted, steps = [], set()
    for rank in range(ranks):
        data = ShardDataset(snapshot, "flat_clips", seed=5, batch_size=batch_size, rank=rank, ranks=ranks, tail="pad")
        batches = list(data)
        steps.add(len(batches))
        assert {len(batch["scan_id"]) for batch in batches} == {batch_size}
        assert {tuple(batch["values"].shape) for batch in batches} == {(batch_size, 4, 53)}
        counted += [key for b in batches for key, valid in zip(keys(b), b["valid"].tolist(), strict=True) if valid]
    assert len(steps) == 1  # no rank waits for another
    assert sorted(counted) == [(scan, clip) for scan in sorted(clips) for clip in range(2)]


@pytest.mark.parametrize("tail", ["keep", "drop", "pad"])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (1, 2)])
def test_resuming_equals_going_on(snapshot, ranks, workers, tail) -> None:
    whole = ranks_of(snapshot, ranks=ranks, workers=workers, batch_size=3, tail=tail)
    rest = ranks_of(snapshot, ranks=ranks, workers=workers, batch_size=3, tail=tail, position=2 * 3 * ranks)
    assert rest == [batches[2:] for batches in whole]
    assert rest[0]


@pytest.mark.parametrize(
    "how", [{}, {"threads": 2}, {"workers": 2}, {"workers": 1, "device": "cpu"}, {"device": "cpu"}]
)
def test_a_state_counts_what_was_given_not_what_was_read_ahead(snapshot, how) -> None:
    def fresh() -> ShardDataset:
        return ShardDataset(snapshot, "flat_clips", seed=5, batch_size=3)

    whole = [keys(batch) for data in [fresh()] for _ in range(2) for batch in data]
    reader, given, state = loader(fresh(), prefetch=3, **how), [], None
    for batch in reader:
        given.append(keys(batch))
        if len(given) == 2:
            state = json.loads(json.dumps(reader.state_dict()))
            break
    assert given == whole[:2]
    assert len(reader) == len(whole) // 2 - 2
    given += [keys(batch) for batch in reader]  # leaving a loop loses nothing
    given += [keys(batch) for batch in reader]  # and the next epoch follows, with the same workers
    assert given == whole
    resumed = loader(fresh(), **how)
    resumed.load_state_dict(state)
    assert [keys(batch) for _ in range(2) for batch in resumed] == whole[2:]


def test_a_state_is_refused_for_other_data(snapshot, cohort, clips) -> None:
    state = ShardDataset(snapshot, "flat_clips", seed=5).state_dict()
    for other, key in (
        (ShardDataset(snapshot, "flat_clips", seed=6), "seed"),
        (ShardDataset(snapshot, "flat_clips", seed=5, scan_ids=clips[1:]), "scans"),
        (ShardDataset(snapshot, "fc", seed=5), "table"),
        (ShardDataset(Snapshot({**snapshot.manifest, "id": "x"}, snapshot.folder), "flat_clips", seed=5), "snapshot"),
    ):
        with pytest.raises(ConfigError, match=f"its {key} is"):
            other.load_state_dict(state)


def test_without_shuffling_clips_come_sorted(snapshot, clips) -> None:
    data = ShardDataset(snapshot, "flat_clips", batch_size=4, shuffle=False)
    assert flat([keys(batch) for batch in data]) == [(scan, clip) for scan in sorted(clips) for clip in range(2)]


def frames_of(cohort, scan: str) -> np.ndarray:
    return np.load(cohort.frames(scan))["frames"]


@pytest.mark.parametrize("how", [{}, {"workers": 2}, {"device": "cpu"}])
def test_values_are_the_frames_and_stay_so(cohort, snapshot, how) -> None:
    batches = list(loader(ShardDataset(snapshot, "flat_clips", seed=5, batch_size=4), **how))
    for batch in batches:  # after all were read: buffers are not used twice
        assert batch["values"].dtype == torch.float16
        for (scan, clip), values in zip(keys(batch), batch["values"], strict=True):
            np.testing.assert_array_equal(values.numpy(), frames_of(cohort, scan)[4 * clip :][:4])


def test_single_rows(cohort, snapshot) -> None:
    for row in ShardDataset(snapshot, "flat_clips", seed=5):
        np.testing.assert_array_equal(
            row["values"].numpy(), frames_of(cohort, row["scan_id"])[4 * int(row["clip"]) :][:4]
        )


def test_series_fc_and_views_by_scan(cohort, snapshot) -> None:
    series, fc, pfc = (ShardDataset(snapshot, table) for table in ("timeseries", "fc", "pfc"))
    assert series.scan_ids == list(snapshot.scans(having="timeseries")["scan_id"])
    for scan in series.scan_ids:
        np.testing.assert_array_equal(series[scan]["values"].numpy(), snapshot.timeseries(scan))
        np.testing.assert_array_equal(fc[scan]["values"].numpy(), snapshot.fc([scan])[0])
    for scan in pfc.scan_ids:
        assert pfc[scan]["view"].tolist() == [0, 1, 2]
        np.testing.assert_array_equal(pfc[scan]["values"].numpy(), snapshot.pfc(scan))
    other = ShardDataset(snapshot, "timeseries", atlas="Toy-4")
    assert other[other.scan_ids[0]]["values"].shape[1] == 4
    with pytest.raises(BoldmillError, match="did you mean"):
        series[series.scan_ids[0][:-1]]


def test_series_of_several_lengths_make_a_list(snapshot) -> None:
    data = ShardDataset(snapshot, "timeseries", columns=["scan_id", "tr", "values"], batch_size=50, shuffle=False)
    (batch,) = loader(data, workers=1)
    assert {len(series) for series in batch["values"]} == {22, 40}
    assert batch["tr"].tolist() == [2.0] * len(batch["scan_id"])
    for scan, series in zip(batch["scan_id"], batch["values"], strict=True):
        np.testing.assert_array_equal(series.numpy(), snapshot.timeseries(scan))


def test_missing_arrays_are_none(snapshot) -> None:
    data = ShardDataset(snapshot, "flat_clips", columns=["clip", "mean"], batch_size=100)
    (batch,) = data
    assert {clip: mean is None for clip, mean in zip(batch["clip"].tolist(), batch["mean"], strict=True)} == {
        0: False,
        1: True,
    }


def test_only_asked_columns_are_read(cohort, monkeypatch) -> None:
    asked = set()
    for name in ("read", "read_row_group"):
        original = getattr(pq.ParquetFile, name)

        def spy(self, *args, original=original, **kwargs):
            asked.update(kwargs["columns"])
            return original(self, *args, **kwargs)

        monkeypatch.setattr(pq.ParquetFile, name, spy)
    snapshot = Snapshot.load(cohort.layout.snapshot("latest"))
    list(ShardDataset(snapshot, "fc", columns=["values"], batch_size=4))
    assert asked == {"scan_id", "values"}  # scan ids say which rows are whose
    with pytest.raises(ConfigError, match="did you mean 'values'"):
        ShardDataset(snapshot, "fc", columns=["value"])


def test_filters(snapshot) -> None:
    data = ShardDataset(snapshot, "fc", split=["train", "validation"], site="A")
    assert data.scan_ids == list(snapshot.scans(split=["train", "validation"], site="A", having="fc")["scan_id"])
    moved = ShardDataset(snapshot, "fc", max_mean_fd=0.5)
    assert [s for s in moved.left_out if "sub-07" in s] == list(moved.left_out)
    assert set(moved.left_out.values()) == {"mean_fd 0.9 > 0.5"}
    assert not set(moved.left_out) & set(moved.scan_ids)
    assert [len(ShardDataset(snapshot, "fc", min_volumes=n)) for n in (22, 23, 41)] == [11, 10, 0]
    assert ShardDataset(snapshot, "fc", min_tsnr=50).left_out == {}
    assert set(ShardDataset(snapshot, "fc", min_tsnr=51).left_out.values()) == {"tsnr 50 < 51"}
    chosen = ShardDataset(snapshot, "fc", where=lambda scans: scans["run"] == "2")
    assert chosen.scan_ids and all(scan.endswith("run-2") for scan in chosen.scan_ids)
    with pytest.raises(ConfigError, match="did you mean 'max_mean_fd'"):
        ShardDataset(snapshot, "fc", max_meanfd=0.5)
    with pytest.raises(ConfigError, match="one bool per row"):
        ShardDataset(snapshot, "fc", where=lambda scans: [True])
    with pytest.raises(ConfigError, match="unknown scan"):
        ShardDataset(snapshot, "fc", scan_ids=["toy_sub-99"])


def test_a_scan_of_unknown_quality_does_not_pass_a_limit(snapshot, monkeypatch) -> None:
    scans = snapshot.scans()
    scans.loc[0, "mean_fd"] = np.nan
    monkeypatch.setattr(Snapshot, "scans", lambda self, **more: scans)
    assert ShardDataset(snapshot, "fc", max_mean_fd=1.0).left_out == {scans.loc[0, "scan_id"]: "mean_fd unknown"}


def test_nothing_chosen_is_an_empty_stream(snapshot) -> None:
    for tail in ("keep", "drop", "pad"):
        data = ShardDataset(snapshot, "flat_clips", dataset="other", batch_size=4, tail=tail)
        assert len(data) == 0 and list(loader(data)) == []


@pytest.mark.parametrize(
    "wrong", [{"rank": 2, "ranks": 2}, {"tail": "cut"}, {"batch_size": 0}, {"columns": ["nothing"]}]
)
def test_wrong_arguments_are_refused(snapshot, wrong) -> None:
    with pytest.raises(ConfigError):
        ShardDataset(snapshot, "flat_clips", **wrong)


def test_it_can_be_sent_to_another_process(snapshot) -> None:
    data = ShardDataset(snapshot, "flat_clips", seed=5, batch_size=4)
    first = [keys(batch) for batch in pickle.loads(pickle.dumps(data))]
    assert first == [keys(batch) for batch in data]


def test_a_fault_while_reading_ahead_reaches_the_caller(snapshot, monkeypatch) -> None:
    data = ShardDataset(snapshot, "flat_clips", seed=5, batch_size=4)

    def broken(step, pin=False):
        raise BoldmillError("shard is cut short", "x", "y", "z")

    monkeypatch.setattr(data, "batch", broken)
    with pytest.raises(BoldmillError, match="cut short"):
        next(iter(loader(data)))


def test_the_next_batch_is_on_its_way_while_one_is_used() -> None:
    taken = []

    def source():
        for number in range(3):
            taken.append(number)
            yield {"x": torch.tensor([number]), "y": [torch.tensor(number), None], "z": ["a"]}

    seen = []
    for batch in to_device(source(), "cpu"):
        seen.append(batch["x"].item())
        assert taken[-1] == min(seen[-1] + 1, 2)
        assert batch["y"][0].item() == seen[-1] and batch["y"][1] is None and batch["z"] == ["a"]
    assert seen == [0, 1, 2]
