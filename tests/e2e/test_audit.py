"""The audit of the finished demo: every file on its own is caught, every question gets an answer."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boldmill.provenance.files import CACHE_FILES, CACHES, NO_ARTEFACTS
from boldmill.provenance.fold import LOST, SEEN

pytestmark = pytest.mark.e2e

LEDGER = ("provenance/ledger.parquet", "provenance/ledger.parquet.prov.json", "provenance/inputs.parquet")


def artefacts(results: Path) -> list[Path]:
    """Every file below the results but logs, benchmarks, scratch and caches."""
    found = []
    for path in sorted(results.rglob("*")):
        relative = path.relative_to(results)
        left_out = relative.parts[0] in NO_ARTEFACTS or set(relative.parts) & set(CACHES)
        if path.is_file() and not path.is_symlink() and not left_out and relative.as_posix() not in CACHE_FILES:
            found.append(path)
    return found + [results / name for name in LEDGER]


@contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """Put files back, with their times, whatever happened to them."""
    before = {path: (path.read_bytes(), path.stat()) for path in paths}
    try:
        yield
    finally:
        for path, (data, state) in before.items():
            path.write_bytes(data)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def flip(path: Path, place: int) -> None:
    """Flip one bit in place; the size stays, and the time is set back."""
    state = path.stat()
    with open(path, "r+b") as handle:
        handle.seek(place)
        byte = handle.read(1)[0]
        handle.seek(place)
        handle.write(bytes([byte ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def problems(line, *words: str) -> dict[str, list[str]]:
    done = line.run("boldmill", "audit", "verify", "--json", *words, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, list[str]] = {}
    for text in done.stdout.splitlines():
        one = json.loads(text)
        found.setdefault(one["path"], []).append(one["problem"])
    assert bool(found) == (done.returncode == 1)
    return found


@pytest.fixture(scope="module")
def audited(demo):
    """The demo with a ledger of all that was written so far; whole before the tests and after them."""
    demo.snakemake("audit", "--forcerun", "ledger")
    assert problems(demo) == {}
    yield demo
    assert problems(demo) == {}, "a test did not put everything back"


def test_one_flipped_byte_in_every_artefact_is_named(audited) -> None:
    """In all of them at once, at a place that differs from file to file; empty files have no byte to flip."""
    victims = [path for path in artefacts(audited.results) if path.stat().st_size]
    assert len(victims) > 1000
    with restored(*victims):
        for number, path in enumerate(victims):
            flip(path, (number * 7919) % path.stat().st_size)
        named = problems(audited, "--outputs-only")
    assert [p for p in victims if p.relative_to(audited.folder).as_posix() not in named] == []


def test_tampering_is_named_for_what_it_is(audited) -> None:
    metrics = audited.results / "evaluate" / "brainmass" / "metrics.tsv"
    one, two, *_ = sorted(audited.results.glob("shards/fc/*/bucket-*.parquet"))
    old = sorted(audited.results.glob("derivatives/demo/sub-*/func/*_boldref.nii.gz"))[0]
    stranger = audited.results / "shards" / "mine.parquet"
    with restored(metrics, old):
        rows = metrics.read_text().splitlines(keepends=True)
        metrics.write_text("".join([rows[0], rows[1].replace("\tauc\t", "\tauc\t0."), *rows[2:]]))
        swap(one, two)  # by name: written in place, the frozen shards, which are links, would change too
        os.utime(old, (1_000_000_000, 1_000_000_000))
        stranger.write_text("mine")
        try:
            named = {name: "; ".join(said) for name, said in problems(audited, "--outputs-only").items()}
        finally:
            stranger.unlink()
            swap(one, two)

    def said(path: Path) -> str:
        return named.get(path.relative_to(audited.folder).as_posix(), "nothing")

    assert "content changed" in said(metrics)
    assert f"swapped with {two.relative_to(audited.folder)}" in said(one)
    assert f"swapped with {one.relative_to(audited.folder)}" in said(two)
    assert "was frozen with" in said(audited.results / "datasets" / "latest" / "manifest.json")
    assert said(old).startswith("backdated")
    assert said(stranger) == "no record knows it"
    assert len([name for name in named if not name.startswith("results/datasets/")]) == 5


def swap(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def test_a_changed_raw_file_is_named_and_said_to_make_things_stale(audited) -> None:
    raw = audited.folder / "resources/demo/bids/sub-01/func/sub-01_task-rest_bold.nii.gz"
    with restored(raw):
        flip(raw, 1000)
        os.utime(raw)
        assert list(problems(audited)) == [raw.relative_to(audited.folder).as_posix()]
        done = audited.run("boldmill", "audit", "stale", "--list", check=False)
        assert done.returncode == 1 and f"changed on disk: {raw.relative_to(audited.folder)}" in done.stdout


def test_nothing_is_stale_or_an_orphan_and_nobody_leaks(audited) -> None:
    assert audited.run("boldmill", "audit", "stale").stdout.strip().endswith(" 0 stale")
    assert audited.run("boldmill", "audit", "orphans").stdout.strip() == "0 orphans"
    table = audited.run("boldmill", "audit", "leakage").stdout
    for model in ("brainmass", "fmri_mae", "fm_app"):
        row = re.search(rf"^ *(\d+) +(\d+) +(\d+)  .*/{model}/.* -> .*/{model}/metrics.tsv$", table, re.M)
        assert row is not None and int(row[1]) > 0 and int(row[2]) > 0 and int(row[3]) == 0, table


def test_a_checkpoint_is_traced_to_every_raw_file_of_its_training(audited) -> None:
    text = audited.run("boldmill", "audit", "trace", "results/models/brainmass/model.safetensors", "--full").stdout
    seen = {name.partition("/") for name in audited.json("results/models/brainmass/subjects.json")["subjects"]}
    for dataset, _, subject in seen:
        if dataset == "demo":
            assert f"resources/demo/bids/sub-{subject}/" in text
    assert "[source, " not in text and "stale" not in text


def test_a_metric_is_traced_with_its_row(audited) -> None:
    target = "results/evaluate/brainmass/metrics.tsv#task=group,method=fc_logistic,metric=auc,protocol=cv"
    value = json.loads(audited.run("boldmill", "audit", "trace", target, "--json").stdout)
    assert value["rows"]["count"] == 1 and value["tree"]["stage"] == "evaluate"
    assert float(value["rows"]["rows"][0]["value"]) > 0.7


def test_every_command_recorded_what_an_auditor_asks(audited) -> None:
    records = sorted(audited.results.rglob("*.prov.json"))
    assert len(records) > 40
    for path in records:
        record = json.loads(path.read_text())
        assert record["schema"] == 2 and len(record["environment"]["code_sha256"]) == 64, path
        assert all(len(item["sha256"]) == 64 for item in (*record["inputs"], *record["outputs"])), path
        assert all(item["mtime_ns"] for item in record["outputs"]), path
        assert record["peak_rss_mib"] > 10 and record["environment"]["user"], path


def test_the_ledger_has_no_cache_of_its_own_bytes(audited) -> None:
    """Read anew or taken over, the same records give the same ledger."""
    before = (audited.results / LEDGER[0]).read_bytes()
    for name in (SEEN, LOST):
        (audited.results / "provenance" / name).unlink()
    audited.snakemake("audit", "--forcerun", "ledger")
    assert (audited.results / LEDGER[0]).read_bytes() == before
