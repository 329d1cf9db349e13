"""Fetching against a local server that stands for TemplateFlow's bucket: nothing here reaches a real network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from boldmill.cli import main
from boldmill.config.model import Config
from boldmill.setup import checksums, download
from boldmill.setup.checksums import LOCK, Known, Lock
from boldmill.setup.fetch import alone
from boldmill.spaces.flow_needs import config_needs

SPACE = "MNI152NLin6Asym"
VOLUME = f"tpl-{SPACE}/tpl-{SPACE}_res-02_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
TABLE = f"tpl-{SPACE}/tpl-{SPACE}_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.tsv"
HEAD = f"tpl-{SPACE}/tpl-{SPACE}_res-02_T1w.nii.gz"
MASK = f"tpl-{SPACE}/tpl-{SPACE}_res-02_desc-brain_mask.nii.gz"
SPHERES = [f"tpl-fsLR/tpl-fsLR_space-fsaverage_hemi-{side}_den-32k_sphere.surf.gii" for side in "LR"]
FETCHED = [HEAD, MASK, VOLUME, *SPHERES]


class Bucket:
    """A server of made-up bytes, with byte ranges, ETags and faults on demand."""

    def __init__(self) -> None:
        self.files = {name: hashlib.sha256(name.encode()).digest() * 5000 for name in FETCHED}
        self.asked: list[tuple[str, str]] = []
        self.cut: dict[str, int] = {}
        self.codes: dict[str, list[int]] = {}
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                bucket.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.lstrip("/")
        span = handler.headers.get("Range", "")
        self.asked.append((name, span))
        code = self.codes[name].pop(0) if self.codes.get(name) else 200 if name in self.files else 404
        if code != 200:
            handler.send_error(code)
            return
        content = self.files[name]
        mark = f'"{hashlib.md5(content).hexdigest()}"'
        start = int(span[6:-1]) if span and handler.headers.get("If-Range") == mark else 0
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("ETag", mark)
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        end = self.cut.pop(name, len(content))
        handler.wfile.write(content[start:end])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    made = Bucket()
    monkeypatch.setenv("BOLDMILL_TEMPLATEFLOW_URL", made.url + "/")
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "WAIT", 0.0)
    table = {
        name: {"bytes": len(content), "md5": hashlib.md5(content).hexdigest()}
        for name, content in made.files.items()
        if name != MASK
    }
    monkeypatch.setattr(checksums, "shipped", lambda: table)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.yaml").write_text("project: x\n")

    def call(*more: str) -> tuple[int, str, str]:
        code = main(["fetch", "--config", str(tmp_path / "config.yaml"), *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_every_file_comes_is_compared_and_is_not_asked_for_again(bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    code, out, err = fetch()
    assert code == 0, err
    home = tmp_path / "home"
    assert all((home / name).read_bytes() == content for name, content in bucket.files.items())
    assert (home / TABLE).read_bytes() == checksums.carried(TABLE) and TABLE not in {name for name, _ in bucket.asked}
    assert f"{HEAD} (0.16 MB): as TemplateFlow has it" in out and f"{MASK} (0.16 MB): noted now" in out
    assert "6 files" in out and "0 faults, 0 warnings" in out
    assert not list(home.rglob(".boldmill-*"))
    assert all(need.found() for need in config_needs(Config()))
    bucket.asked.clear()
    code, out, _ = fetch()
    assert code == 0 and bucket.asked == [] and out.count("as at its first fetch") == 6


def test_a_part_that_is_whole_already_is_no_fault(bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    """Ended after its last byte and before it was compared: the server has no further byte to send."""
    part = tmp_path / "home" / Path(HEAD).parent / f".boldmill-{Path(HEAD).name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bucket.files[HEAD])
    mark = hashlib.md5(bucket.files[HEAD]).hexdigest()
    part.with_suffix(".etag").write_text(f'"{mark}"')
    code, _, err = fetch()
    assert code == 0, err
    assert (tmp_path / "home" / HEAD).read_bytes() == bucket.files[HEAD]


def test_a_file_of_unknown_checksum_is_compared_with_its_first_fetch(
    bucket: Bucket, fetch: Any, tmp_path: Path
) -> None:
    fetch()
    lock = json.loads((tmp_path / "home" / LOCK).read_text())["files"]
    assert lock[MASK]["sha256"] == hashlib.sha256(bucket.files[MASK]).hexdigest()
    path = tmp_path / "home" / MASK
    content = bytearray(bucket.files[MASK])
    content[77] ^= 1
    path.write_bytes(content)
    code, _, err = fetch()
    assert code == 1 and err.count("\n") == 1
    assert "brain mask: not the file it should be" in err and "its first fetch" in err and "--accept" in err
    path.unlink()  # fetched again: the same bytes as at first are accepted, others are not
    assert fetch()[0] == 0
    path.unlink()
    bucket.files[MASK] = bytes(content)
    code, _, err = fetch()
    assert code == 1 and "cannot use what was fetched" in err and not path.exists()
    assert fetch("--accept")[0] == 0 and path.read_bytes() == content  # a new version, taken knowingly
    assert fetch()[0] == 0


def test_a_damaged_transfer_never_takes_the_files_place(bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    bucket.files[VOLUME] = b"x" * len(bucket.files[VOLUME])
    code, out, err = fetch()
    assert code == 1 and "its md5 is" in err and VOLUME in err
    assert not (tmp_path / "home" / VOLUME).exists()
    assert (tmp_path / "home" / HEAD).exists() and "5 files" in out  # the others came


def test_a_broken_transfer_is_continued_where_it_broke(bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    bucket.cut[HEAD] = 100_000
    code, _, err = fetch()
    assert code == 0, err
    assert [span for name, span in bucket.asked if name == HEAD] == ["", "bytes=100000-"]
    assert (tmp_path / "home" / HEAD).read_bytes() == bucket.files[HEAD]


def test_a_part_of_another_version_is_not_continued(
    bucket: Bucket, fetch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TRIES", 1)
    monkeypatch.setattr(checksums, "shipped", dict)
    bucket.cut[HEAD] = 100_000
    code, _, err = fetch()
    assert code == 1 and "broke off after 100000 of 160000 bytes" in err
    bucket.files[HEAD] = bucket.files[HEAD][::-1]
    assert fetch()[0] == 0
    assert (tmp_path / "home" / HEAD).read_bytes() == bucket.files[HEAD]


def test_a_busy_server_is_asked_again_a_missing_file_is_not(bucket: Bucket, fetch: Any) -> None:
    bucket.codes[HEAD] = [503, 503]
    del bucket.files[MASK]
    code, out, err = fetch()
    assert code == 1 and f"fetched  {HEAD}" in out
    assert [name for name, _ in bucket.asked].count(HEAD) == 3
    assert [name for name, _ in bucket.asked].count(MASK) == 1
    assert err.count("\n") == 1 and "brain mask: cannot fetch" in err and "404" in err


def test_without_a_network_one_try_is_enough_and_the_line_says_what_to_do(
    bucket: Bucket, fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOLDMILL_TEMPLATEFLOW_URL", "http://127.0.0.1:9")
    tried: list[str] = []
    real = download._transfer

    def counted(url: str, *more: Any) -> None:
        tried.append(url)
        real(url, *more)

    monkeypatch.setattr(download, "_transfer", counted)
    code, out, err = fetch()
    assert code == 1 and len(tried) == download.TRIES  # the first file only
    first = err.splitlines()[0]
    assert "no connection (Connection refused), 4 tries" in first and "login node" in first and "https_proxy" in first
    assert "there" not in out.split()[0] and TABLE in out  # what the client carries needs no network


def test_a_store_that_cannot_be_written_is_named(bucket: Bucket, fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(13, "Permission denied", "/store/tpl-X")

    monkeypatch.setattr(download, "_transfer", refuse)
    code, _, err = fetch()
    assert code == 1 and "cannot write: /store/tpl-X: Permission denied" in err and "TEMPLATEFLOW_HOME" in err


def test_a_second_call_waits_for_the_first(bucket: Bucket, tmp_path: Path) -> None:
    """Both would append to the same unfinished file, and each would write its own list of checksums."""
    (tmp_path / "config.yaml").write_text("project: x\n")
    command = [sys.executable, "-m", "boldmill", "fetch", "--config", str(tmp_path / "config.yaml"), "--accept"]
    with alone(tmp_path / "home"):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert second.stderr is not None
        assert "another call fills" in second.stderr.readline()
        assert bucket.asked == [] and second.poll() is None
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and "6 files" in out


def test_a_look_neither_asks_the_network_nor_writes(bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    code, _, err = fetch("--check")
    assert code == 1 and bucket.asked == [] and not (tmp_path / "home").exists()
    assert err.count("snakemake fetch") == 6


def test_other_bytes_are_kept_only_when_accepted(bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    fetch()
    (tmp_path / "home" / HEAD).write_bytes(b"mine" * 1000)
    (tmp_path / "home" / LOCK).unlink()
    code, _, err = fetch()
    assert code == 1 and "it has 4000 bytes, TemplateFlow has 160000" in err
    assert HEAD not in json.loads((tmp_path / "home" / LOCK).read_text())["files"]
    code, out, _ = fetch("--accept")
    assert code == 0 and "accepted, though not TemplateFlow's own bytes" in out
    assert fetch()[0] == 0


def test_an_atlas_that_templateflow_does_not_have_is_named_with_the_nearest(
    bucket: Bucket, fetch: Any, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("spaces: {atlas_desc: 100Parcel7Network}\n")
    code, _, err = fetch()
    assert code == 1 and "did you mean 'Schaefer2018 100Parcels7Networks'?" in err


def test_a_link_into_a_dataset_is_left_alone(bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    path = tmp_path / "home" / HEAD
    path.parent.mkdir(parents=True)
    path.symlink_to(".git/annex/objects/gone")
    code, _, err = fetch()
    assert code == 1 and "datalad get" in err and path.is_symlink()


def test_only_web_addresses_are_asked(fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOLDMILL_TEMPLATEFLOW_URL", "file:///etc")
    code, _, err = fetch()
    assert code == 2 and "not an address" in err


def test_nothing_is_fetched_for_tables_of_their_own_atlas(bucket: Bucket, tmp_path: Path, capsys: Any) -> None:
    assert main(["fetch", "--config-json", '{"config": {}}']) == 0
    assert "nothing to fetch" in capsys.readouterr().out and bucket.asked == []


def test_the_shipped_table_knows_files_that_exist_and_the_default_configuration(data: Path) -> None:
    table = checksums.shipped()
    assert all(checksums.skeleton()[name] == 0 for name in table)
    assert all(set(entry) <= {"bytes", "md5", "sha256"} and entry["bytes"] > 400 for entry in table.values())
    asked = {name for need in config_needs(Config()) for name in need.among(checksums.skeleton()) or []}
    assert asked - {TABLE} <= set(table)
    home = data / "templateflow"
    proven = {name for name, entry in table.items() if "sha256" in entry}
    assert len(proven) == 3
    for name in proven:
        known = Lock(home).known(name)
        assert known is not None and known.md5 and known.difference(home / name) == ""


def test_a_difference_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert Known("S", 4).difference(tmp_path / "a") == "it has 3 bytes, S has 4"
    good = hashlib.md5(b"abc").hexdigest()
    assert Known("S", 3, good).difference(tmp_path / "a") == ""
    assert "its md5 is 900150983cd2" in Known("S", 3, "0" * 32).difference(tmp_path / "a")


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_notes_are_refused_in_one_line(content: str, bucket: Bucket, fetch: Any, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / LOCK).write_text(content)
    code, _, err = fetch("--check")
    assert code == 2 and LOCK in err and "Fix: delete it" in err
