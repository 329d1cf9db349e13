"""A thousand scans in sixteen buckets: a change stays in its bucket, and a killed writer tears no file.

The killed writers are processes of their own that run the real commands. They are forked from one that has imported all
there is to import, so that twenty kills fall into the work and not into twenty starts of Python.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from boldmill import tables
from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.paths import SHARD_TABLES
from boldmill.rng import generator
from boldmill.shards.reader import Snapshot

BUCKETS, SUBJECTS, KILLS = 16, 500, 20
TABLES = (*SHARD_TABLES, "pfc")

SERVER = """
import json, os, signal, sys, time
import numpy, pandas, pyarrow.parquet
import boldmill.provenance.record as record
import boldmill.represent.augment_command, boldmill.represent.config, boldmill.represent.pfc
import boldmill.shards.build, boldmill.shards.command, boldmill.shards.config, boldmill.shards.write
from boldmill.cli import main
record.environment()
for line in sys.stdin:
    words, delay = json.loads(line)
    start, child = time.perf_counter(), os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(words))
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)  # not yet waited for: no other process has its number
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.WTERMSIG(status), os.waitstatus_to_exitcode(status), time.perf_counter() - start]), flush=True)
"""


class Writers:
    """Runs commands in processes of their own, and kills them after some seconds where asked."""

    def __init__(self) -> None:
        words = [sys.executable, "-c", SERVER]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, words: list[str], delay: float | None = None) -> tuple[int, int, float]:
        """Return the signal that ended the process (0: none), its exit status, and the seconds it took."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([words, delay]) + "\n")
        self.process.stdin.flush()
        ended, code, seconds = json.loads(self.process.stdout.readline())
        return ended, code, seconds


@pytest.fixture
def writers() -> Iterator[Writers]:
    found = Writers()
    yield found
    assert found.process.stdin is not None
    found.process.stdin.close()
    assert found.process.wait(60) == 0


def hashes(cohort: Any) -> dict[str, dict[int, list[str]]]:
    """Table -> bucket -> sha256 of its shards."""
    return {t: {b: [sha256_file(p) for p in cohort.shards_of(t, b)] for b in range(BUCKETS)} for t in TABLES}


def change_scan(cohort: Any, scan: str) -> None:
    """Give a scan another raw file: another hash in its ticket, other series, other flat maps."""
    rng = generator("changed", scan)
    ticket = read_json(cohort.layout.ticket(scan))
    ticket["bold"][0]["sha256"] = "c" * 64
    write_json(cohort.layout.ticket(scan), ticket)
    for path in (cohort.results / "parcels").glob(f"{scan}_*.tsv"):
        head, *lines = path.read_text().splitlines()
        values = rng.standard_normal((len(lines), len(head.split("\t"))))
        path.write_text("\n".join([head, *("\t".join(f"{v:.7g}" for v in row) for row in values)]) + "\n")
    path = cohort.frames(scan)
    with np.load(path) as archive:
        flat = dict(archive)
    flat["frames"] = flat["frames"][::-1] * np.float16(0.5)
    np.savez(path, **flat)


def test_a_thousand_scans_change_by_bucket_and_survive_kills(make_cohort, tmp_path, writers: Writers) -> None:
    people = {f"{i:03d}": {"site": "ABCD"[i % 4], "scans": 2, "volumes": 30, "frames": 8} for i in range(SUBJECTS)}
    cohort = make_cohort(tmp_path / "results", people, n_buckets=BUCKETS)
    manifest = cohort.build()
    snapshot = Snapshot.load(manifest)
    assert len(snapshot.scans(having="pfc")) == len(snapshot.scans(having="flat_clips")) == 2 * SUBJECTS
    before = hashes(cohort)

    scan = cohort.tickets["123"][1]
    (bucket,) = (b for b, names in cohort.buckets.items() if "123" in names)
    old = tmp_path / "old"
    shutil.copytree(cohort.results / "shards", old)
    change_scan(cohort, scan)
    cohort.build()
    after = hashes(cohort)
    for table in TABLES:
        changed = {b for b in range(BUCKETS) if after[table][b] != before[table][b]}
        assert changed == {bucket}, table
    assert Snapshot.load(manifest).id != snapshot.id

    kill_writers(cohort, bucket, old, writers)
    assert hashes(cohort) == after


def kill_writers(cohort: Any, bucket: int, old: Path, writers: Writers) -> None:
    """Kill writers of the changed bucket at random moments; what stands at a final path is always whole."""
    shards = cohort.results / "shards"
    own = ("flat_clips", "pfc")
    commands = [(cohort.shard_words(bucket), tuple(t for t in SHARD_TABLES if t not in own))]
    commands += [(cohort.words_of(table, bucket), (table,)) for table in own]
    whole = {path: sha256_file(path) for table in TABLES for path in cohort.shards_of(table, bucket)}
    takes = [min(writers.run(words)[2] for _ in range(2)) for words, _ in commands]
    moments = generator("kill", 20).random(KILLS)
    killed = torn = 0
    for turn, moment in enumerate(moments):
        which = turn % 3
        words, written = commands[which]
        outs = [path for table in written for path in cohort.shards_of(table, bucket)]
        allowed = {}
        for path in outs:  # a first run, or one over what an earlier state of the scan left
            shutil.copy(old / path.relative_to(shards), path) if turn % 2 else path.unlink()
            allowed[path] = {whole[path], sha256_file(path) if turn % 2 else None}
        ended, code, _ = writers.run(words, float(moment * takes[which]))
        killed += ended == signal.SIGKILL
        assert ended == signal.SIGKILL or code == 0
        leftovers = list(shards.rglob(".tmp-*"))
        torn += bool(leftovers)
        for path in outs:
            assert (sha256_file(path) if path.exists() else None) in allowed[path], (turn, path)
            if path.exists():
                table = next(t for t in written if path in cohort.shards_of(t, bucket))
                tables.validate(pq.read_table(path), table)
        for path in shards.rglob("*.json"):
            json.loads(path.read_text())
        for path in leftovers:
            path.unlink()
        assert writers.run(words)[:2] == (0, 0)
        assert {path: sha256_file(path) for path in outs} == {path: whole[path] for path in outs}
    assert killed >= KILLS // 2, "hardly any writer was killed: the test saw nothing"
    assert torn >= KILLS // 4, "hardly any kill came in the middle of a file: the test saw nothing"
