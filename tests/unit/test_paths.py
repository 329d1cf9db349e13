"""Paths of many buckets on one shell line."""

import subprocess

import pytest

from boldmill.paths import Layout, in_braces
from boldmill.shards.config import MAX_BUCKETS


@pytest.mark.parametrize(
    "numbers",
    [[0], [12], range(4), [0, 2, 3, 9], range(998, 1003), [999, 1000], [0, *range(5, 1200), 3000], range(MAX_BUCKETS)],
    ids=lambda numbers: f"{len(numbers)} buckets",
)
def test_bash_writes_out_every_path_of_the_layout(numbers, tmp_path) -> None:
    layout = Layout.at(tmp_path / "my results")
    word = in_braces(layout.shard("scans", 0).parent, numbers, ".parquet")
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {word}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(layout.shard("scans", number)) for number in numbers]
    assert len(word) < 10_000
