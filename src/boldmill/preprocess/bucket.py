"""Preprocess the subjects of one bucket, each in a process of its own, several at a time.

A process that dies (memory, a crash in a library, a raw file that vanished) takes no other subject with it: the others
are finished first, then the job fails with one line per subject that failed, and a retry goes on with those alone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from boldmill.atomic import read_json, sha256_file, write_json
from boldmill.errors import MachineFault
from boldmill.index.buckets import listed, steady, subject_list
from boldmill.paths import Layout
from boldmill.provenance.record import Recorder, environment, prov_path, shown
from boldmill.stages import Settings

Subject = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the subjects of a bucket share: template manifest, results folder, settings, threads of each process."""

    template: Path
    results: Path
    settings: Settings
    threads: int


def run_bucket(bucket: Path, out: Path, plan: Plan, workers: int) -> int:
    """Preprocess everybody of a bucket and write the list of their manifests; return how many were reused whole.

    Raises
    ------
    MachineFault
        At least one subject failed for a reason that is not in its data; what it printed is in its own log.
    """
    layout = Layout.at(plan.results)
    with (
        Recorder(plan.settings, out=out, inputs=[bucket, plan.template]) as record,
        steady(bucket),
        _Children() as children,
    ):
        people: dict[Subject, list[Path]] = {}
        for path in listed([bucket], plan.results):
            ticket = read_json(path)
            people.setdefault((str(ticket["dataset"]), str(ticket["subject"])), []).append(path)
        done = _Progress(len(people))

        def one(item: tuple[Subject, list[Path]]) -> str | None:
            (dataset, subject), tickets = item
            manifest = layout.subject(dataset, subject)
            settings = plan.settings.for_dataset(dataset)
            if is_current(manifest, tickets, settings, plan.template):
                done.add(f"sub-{subject} of {dataset}: unchanged")
                return None
            log = layout.preprocess_log(dataset, subject)
            started = time.monotonic()
            code = children.run(_command(tickets, manifest, settings, plan), log)
            told = f"{time.monotonic() - started:.0f} s" if code == 0 else f"FAILED, {_ending(code)}, see {log}"
            done.add(f"sub-{subject} of {dataset}: {told}")
            return None if code == 0 else f"sub-{subject} of {dataset}: {_last_line(log) or _ending(code)}"

        with ThreadPoolExecutor(max(1, workers)) as pool:
            failed = [line for line in pool.map(one, sorted(people.items())) if line]
        if failed:
            for line in failed:
                print(line, file=sys.stderr)
            why = f"{len(failed)} of {len(people)} subjects failed; the others are finished and kept"
            raise MachineFault("preprocessing failed", bucket, why, "see the lines above, then run again")
        manifests = {f"{d}/{s}": layout.subject(d, s) for d, s in people}
        for path in manifests.values():
            record.add_input(path)
        write_json(out, subject_list(plan.results, manifests))
        record.note(subjects=len(people), reused=done.unchanged)
    return done.unchanged


def is_current(manifest: Path, tickets: Sequence[Path], settings: str, template: Path) -> bool:
    """Whether a subject's manifest was made of these tickets, settings and packages, and every output is unchanged."""
    try:
        known = read_json(prov_path(manifest))
        return _is_of(known, tickets, settings, template) and _is_whole(known)
    except (OSError, ValueError, KeyError, TypeError):  # no record, or a damaged one: made again
        return False


def _is_of(known: dict[str, Any], tickets: Sequence[Path], settings: str, template: Path) -> bool:
    if known["settings"] != settings:
        return False
    if known["environment"]["packages_digest"] != environment()["packages_digest"]:
        return False
    read = {item["path"]: item["sha256"] for item in known["inputs"]}
    wanted = [*tickets, template]
    if any(read.get(shown(path)) != sha256_file(path) for path in wanted):
        return False
    folders = {str(Path(shown(path)).parent) for path in tickets}
    return {path for path in read if str(Path(path).parent) in folders} == {shown(path) for path in tickets}


def _is_whole(known: dict[str, Any]) -> bool:
    return all(sha256_file(item["path"]) == item["sha256"] for item in known["outputs"])


def _command(tickets: Sequence[Path], out: Path, settings: str, plan: Plan) -> list[str]:
    words = [sys.executable, "-m", "boldmill", "preprocess", "--tickets", *map(str, tickets)]
    words += ["--template", str(plan.template), "--results", str(plan.results), "--threads", str(plan.threads)]
    return [*words, "--out", str(out), "--config-json", settings]


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed (most likely out of memory)"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.is_file() else []
    return lines[-1] if lines else ""


class _Progress:
    """Prints one line per subject that is finished."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.unchanged = total, 0, 0
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        with self._lock:
            self.count += 1
            self.unchanged += line.endswith("unchanged")
            print(f"{self.count} of {self.total}: {line}", flush=True)


class _Children:
    """Running processes; they are ended with this one when it is asked to stop."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._before: dict[int, Any] = {}

    def run(self, command: Sequence[str], log: Path) -> int:
        if self._asked():
            return -signal.SIGTERM
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as handle:
            with self._lock:
                child = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT)
                self._running.add(child)
            if self._asked():  # while it started
                child.terminate()
            try:
                return child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)

    def __enter__(self) -> _Children:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _asked(self) -> bool:
        return self._stopped

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        for child in list(self._running):
            child.terminate()
