from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from boldmill.shards.datasets import FlatClipDataset, SeriesDataset
from boldmill.shards.reader import Snapshot

Batches = list[list[tuple[str, int]]]


@pytest.fixture
def clips(snapshot: Snapshot) -> list[str]:
    return list(snapshot.scans(having="flat_clips")["scan_id"])


def stream(
    snapshot: Snapshot, scans: list[str], *, ranks: int = 1, workers: int = 0, epoch: int = 0, start: int = 0, **more
) -> Iterator[Batches]:
    """Yield, for every rank, the clips of its batches."""
    for rank in range(ranks):
        batch_size = more.pop("batch_size", 4) if rank == 0 else batch_size  # noqa: F821
        data = FlatClipDataset(snapshot, scans, seed=5, batch_size=batch_size, rank=rank, ranks=ranks, **more)
        data.set_position(epoch, start)
        loader = DataLoader(data, batch_size=batch_size, num_workers=workers)
        batches = [list(zip(b["scan_id"], b["clip"].tolist(), strict=True)) for b in loader]
        assert sum(map(len, batches)) == len(data)
        yield batches


def flat(batches: Batches) -> list[tuple[str, int]]:
    return [clip for batch in batches for clip in batch]


def test_an_epoch_is_every_clip_once_in_a_keyed_order(snapshot, clips) -> None:
    (first,) = stream(snapshot, clips)
    (again,) = stream(snapshot, clips)
    (next_epoch,) = stream(snapshot, clips, epoch=1)
    expected = [(scan, clip) for scan in sorted(clips) for clip in range(2)]
    assert sorted(flat(first)) == expected
    assert first == again
    assert flat(first) != expected
    assert sorted(flat(next_epoch)) == expected
    assert flat(next_epoch) != flat(first)


def test_the_order_does_not_depend_on_workers(snapshot, clips) -> None:
    (alone,) = stream(snapshot, clips)
    (shared,) = stream(snapshot, clips, workers=2)
    assert shared == alone


def test_two_ranks_of_two_workers_share_all_clips(snapshot, clips) -> None:
    (alone,) = stream(snapshot, clips)
    ranks = list(stream(snapshot, clips, ranks=2, workers=2, batch_size=2))
    assert sorted(flat(ranks[0]) + flat(ranks[1])) == sorted(flat(alone))
    assert not set(flat(ranks[0])) & set(flat(ranks[1]))
    for step, whole in enumerate(alone):  # a step sees the same clips, however many ranks share it
        parts = [clip for rank in ranks if step < len(rank) for clip in rank[step]]
        assert sorted(parts) == sorted(whole)


def test_resuming_equals_going_on(snapshot, clips) -> None:
    for ranks, workers in ((1, 0), (2, 0), (1, 2)):
        whole = list(stream(snapshot, clips, ranks=ranks, workers=workers, batch_size=2))
        done = 2
        rest = list(stream(snapshot, clips, ranks=ranks, workers=workers, batch_size=2, start=done * 2 * ranks))
        assert rest == [batches[done:] for batches in whole]
        assert rest[0]


def test_drop_last_gives_every_rank_equally_many_full_batches(snapshot, clips) -> None:
    ranks = list(stream(snapshot, clips, ranks=2, batch_size=3, drop_last=True))
    assert len(ranks[0]) == len(ranks[1]) == len(clips) * 2 // 6
    assert {len(b) for batches in ranks for b in batches} == {3}


def test_without_shuffling_clips_come_sorted(snapshot, clips) -> None:
    (batches,) = stream(snapshot, clips, shuffle=False)
    assert flat(batches) == [(scan, clip) for scan in sorted(clips) for clip in range(2)]


def test_values_are_the_frames(cohort, snapshot, clips) -> None:
    for item in FlatClipDataset(snapshot, clips[:2], seed=5, batch_size=1):
        frames = np.load(cohort.layout.flat_scan("toy", item["scan_id"]))["frames"]
        assert item["values"].dtype == torch.float16
        np.testing.assert_array_equal(item["values"].numpy(), frames[4 * item["clip"] :][:4])


def test_a_rank_outside_is_refused(snapshot, clips) -> None:
    with pytest.raises(ValueError, match="rank 2 of 2"):
        FlatClipDataset(snapshot, clips, seed=5, batch_size=1, rank=2, ranks=2)


def test_series_by_scan(cohort, snapshot) -> None:
    scans = list(snapshot.scans(split="train")["scan_id"])
    data = SeriesDataset(snapshot, scans)
    assert len(data) == len(scans)
    for scan, series in DataLoader(data, batch_size=None, num_workers=1):
        np.testing.assert_array_equal(series.numpy(), snapshot.timeseries(scan))
