"""Carry out a withdrawal: delete what is theirs, cut them out of what is shared, and let records and ledger follow.

The journal (:mod:`boldmill.provenance.journal`) and the tombstone come first: a call that was killed is made again and
goes on.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from boldmill.atomic import canonical_json, read_json, sha256_file, write_text
from boldmill.paths import Layout
from boldmill.provenance import journal, withdrawn
from boldmill.provenance.claims import WEIGHTS, checkpoints, renamed, snapshot_of
from boldmill.provenance.cut import cached, cut_json, cut_lines, cut_rows, folders_of, is_json, redact_text, same_time
from boldmill.provenance.follow import Changed, follow, rewrite, sound
from boldmill.provenance.holdings import AGAIN, CUT, DELETE, MARK, REDACT, ROWS, Holding
from boldmill.provenance.person import Person, of_somebody
from boldmill.provenance.record import Recorder, prov_path, render, shown
from boldmill.provenance.recount import is_snapshot, recount
from boldmill.stages import Settings

SETTINGS = canonical_json({"stage": "forget", "version": 1, "config": {}, "overrides": {}})


@dataclass(kw_only=True)
class Outcome:
    """What was done."""

    deleted: int = 0
    rewritten: int = 0
    records: int = 0
    models: list[str] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)


def carry_out(results: Path, person: Person, holdings: Iterable[Holding], *, date: str, delete_models: bool) -> Outcome:
    """Remove a person from a results folder.

    Parameters
    ----------
    date : str
        Now, ISO 8601: of the tombstone and the marks.
    delete_models : bool
        Remove models that were trained on the person, instead of marking them.
    """
    holdings = list(holdings)
    counts = Counter(holding.action for holding in holdings)
    knew = {_model_of(results / holding.path) for holding in holdings if holding.action == MARK}
    work = _Work(results, person, Changed(), knew)
    models = sorted(folder for folder in work.models if folder.is_dir())
    numbers = {"scans": len(person.scans), "deleted": counts[DELETE], "rewritten": counts[CUT], "models": len(models)}
    withdrawn.bury(results, person.dataset, person.subject, date=date, counts=numbers)
    for holding in holdings:
        if holding.action in (CUT, REDACT):
            work.cut(results / holding.path)
    work.empty_buckets()
    facts = recount(results, person, work.before, work.changed, work.identities, work.rename)
    for holding in holdings:
        if holding.action in (DELETE, AGAIN):
            work.delete(results / holding.path)
    for folder in models:
        if delete_models:
            work.delete(folder)
        if delete_models and folder.parent == results / "models":  # a variant of the ablation has its own beside it
            work.delete(results / "evaluate" / folder.name)
            work.delete(results / "interpret" / folder.name)
    outcome = work.outcome
    outcome.models = [folder.relative_to(results).as_posix() for folder in models]
    marks = _mark(results, person, [] if delete_models else models, date, work.identities)
    outcome.records = follow(results, person, work.changed, date=date, facts=facts)
    _record(results, marks)
    _ledger(results)
    journal.path_of(results).unlink(missing_ok=True)
    return outcome


def _model_of(weights: Path) -> Path:
    """Return the folder of a model: that of its list of subjects, above its checkpoints."""
    return next(folder for folder in weights.parents if (folder / "subjects.json").is_file())


class _Work:
    """The files of one withdrawal; what a call that was killed knew and did is read from its journal.

    Attributes
    ----------
    models : set of Path
        Folders of the models that were trained on the person: their lists of subjects no longer tell it.
    identities : dict
        Identity of a snapshot before -> after the cut.
    buckets : set of int
        Buckets they were in.
    """

    def __init__(self, results: Path, person: Person, changed: Changed, models: Iterable[Path]) -> None:
        self.results, self.person, self.changed = results, person, changed
        self.models, self.identities, self.buckets = set(models), dict[str, str](), set[int]()
        self.outcome = Outcome()
        self._twins: dict[tuple[int, int], Path] = {}
        known = journal.read(results)
        for path, said in (line for line in known if isinstance(line, list)):
            if said not in (journal.FILE, journal.FOLDER):
                changed.rewrote(Path(path), said)
            elif not Path(path).exists():  # one that was made again since is as it is
                (changed.removed if said == journal.FILE else changed.folders).add(shown(path))
        if Layout.at(results).index.is_file():
            from boldmill.index.read import read_index

            self.buckets |= {scan.bucket for scan in read_index(results).scans if person.is_scan(scan.scan_id)}
        for line in (line for line in known if isinstance(line, dict)):
            self.buckets |= set(line.get("buckets", ()))
            self.models |= {results / folder for folder in line.get("models", ())}
            self.identities |= line.get("renamed", {})
        about = {name: sorted(getattr(person, name)) for name in ("scans", "files", "names")}
        folders = sorted(folder.relative_to(results).as_posix() for folder in self.models)
        journal.note(results, {"person": person.key, **about, "models": folders, "buckets": sorted(self.buckets)})

    def rename(self, before: str, after: str) -> None:
        """Note that a snapshot is about to get another identity."""
        self.identities[before] = after
        journal.note(self.results, {"renamed": {before: after}})

    def before(self, path: Path) -> str:
        """Return the hash of a file that is about to change, and write it down."""
        digest = sha256_file(path)
        journal.note(self.results, [path.as_posix(), digest])
        return digest

    def cut(self, path: Path) -> None:
        """Cut the person out of a shared file; two names of one file (a frozen shard) stay one.

        Snapshots wait until their shards are cut (:func:`boldmill.provenance.recount.recount`).
        """
        if is_snapshot(self.results, path):
            return
        stat = path.stat()
        digest = self.before(path)
        twin = self._twins.get((stat.st_dev, stat.st_ino))
        if twin is not None:
            _link(twin, path)
        elif path.suffix == ".parquet" and path.parent == Layout.at(self.results).index.parent:
            self._cut_index(path)
        elif path.suffix == ".parquet":
            cut_rows(path, self.person, self._texts(path))
        elif path.suffix == ".json" and is_json(path):
            cut_json(path, self.person, _tidy(path))
        elif path.relative_to(self.results).as_posix() in ROWS:
            cut_lines(path, self.person)
        else:
            redact_text(path, self.person)
        if stat.st_nlink > 1 and twin is None:
            self._twins[stat.st_dev, stat.st_ino] = path
        self.changed.rewrote(path, digest)
        self.outcome.rewritten += 1

    def _cut_index(self, path: Path) -> None:
        import pyarrow.parquet as pq

        from boldmill.atomic import atomic

        with same_time(path):
            if path == Layout.at(self.results).index:
                from boldmill.index.read import read_index
                from boldmill.index.write import write_index

                index = read_index(self.results)
                kept = [scan for scan in index.scans if not self.person.is_scan(scan.scan_id)]
                write_index(path, kept, index.digest, index.n_buckets)
                return
            table = pq.read_table(path)
            own = cached(path, self.person)
            with atomic(path) as temporary:
                pq.write_table(table.filter([not theirs for theirs in own]), temporary, compression="zstd")

    def _texts(self, path: Path) -> Any:
        """Return what tidies the texts of a shard: those of data sets that are no longer in it."""
        number = re.search(r"bucket-(\d+)", path.name)
        flat = self.results / "flatmap" / path.with_suffix(".json").name

        def tidy(texts: dict[bytes, bytes], left: set[str]) -> dict[bytes, bytes]:
            found = dict(texts)
            for key in (b"phenotype_descriptions", b"estimators", b"fisher_z"):
                if key in found:
                    of_tickets = number and key == b"phenotype_descriptions"
                    present = left | (self._present(int(number[1])) if number and of_tickets else set())
                    kept = {name: value for name, value in json.loads(found[key]).items() if name in present}
                    found[key] = canonical_json(kept).encode()
            if found.get(b"table") == b"flat_clips" and flat.is_file():
                scans = [e for s, e in read_json(flat)["scans"].items() if not self.person.is_scan(s)]
                methods = {e["method"] for e in scans if e.get("status") == "ok" and e.get("method")}
                found[b"method"] = "; ".join(sorted(methods)).encode()
                if not methods:
                    found.pop(b"mask", None)
            return found

        return tidy

    def _present(self, bucket: int) -> set[str]:
        """Return the data sets of a bucket's tickets."""
        layout = Layout.at(self.results)
        lists = [path for path in (layout.bucket(bucket), layout.bucket_tables(bucket)) if path.is_file()]
        scans = (scan for path in lists for scan in read_json(path)["tickets"] if not self.person.is_scan(scan))
        return {scan.partition("_")[0] for scan in scans}

    def empty_buckets(self) -> None:
        """Remove files of their buckets that nobody is in any more (or nobody with images).

        Buckets they never were in stay, whatever the index says of them: they are other people's.
        """
        layout = Layout.at(self.results)
        if not layout.index.is_file():
            return
        from boldmill.index.read import read_index

        index = read_index(self.results)
        alive, images = set(index.buckets()), set(index.preprocessed_buckets())
        for kind in ("preprocess", "parcellate", "flatmap", "reports", "shards"):
            gone = self.buckets - (alive if kind in ("parcellate", "shards") else images)
            for path in sorted((self.results / kind).rglob("bucket-*")):
                number = re.match(r"bucket-(\d+)\.", path.name)
                if number and int(number[1]) in gone:
                    self.delete(path)
                    self.outcome.emptied.append(int(number[1]))
        self.outcome.emptied = sorted(set(self.outcome.emptied))
        if self.person.dataset in {scan.dataset for scan in index.ok}:
            return
        for kind in ("derivatives", "preprocess", "parcellate", "flatmap", "reports"):
            if not self._others(kind):
                self.delete(self.results / kind / self.person.dataset)

    def _others(self, kind: str) -> bool:
        """Return whether somebody else has files in a folder of the data set: one that is no longer indexed, say."""
        for folder, folders, names in folders_of(self.results / kind / self.person.dataset):
            base = PurePosixPath(folder.relative_to(self.results).as_posix())
            if any(of_somebody(name) and not self.person.owns(base / name) for name in (*folders, *names)):
                return True
        return False

    def delete(self, path: Path) -> None:
        """Remove a file or folder below the results; records follow later: they may tell of other files too."""
        if path.is_dir() and not path.is_symlink():
            journal.note(self.results, [path.as_posix(), journal.FOLDER])
            self.changed.folders.add(shown(path))
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            journal.note(self.results, [path.as_posix(), journal.FILE])
            self.changed.removed.add(shown(path))
            path.unlink()
        else:
            return
        self.outcome.deleted += 1


def _link(first: Path, path: Path) -> None:
    """Make a path another name of a file, atomically."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        os.link(first, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _tidy(path: Path) -> Any:
    """Return what tidies a JSON file after the cut: lists that are empty go, as ingest and the stages remove them."""

    def tidy(value: Any) -> Any:
        kind = path.parent.name
        if kind == "participants" and path.parent.parent.name == "index":
            left = {who.partition("/")[0] for who in value["subjects"]}
            for part in ("descriptions", "licences"):
                value[part] = {name: words for name, words in value[part].items() if name in left}
            return value if value["subjects"] else None
        if kind in ("buckets", "tables") and path.parent.parent.name == "index":
            return value if value["tickets"] else None
        return value

    return tidy


def _mark(results: Path, person: Person, models: list[Path], date: str, identities: dict[str, str]) -> list[Path]:
    """Mark the models that knew the person, and tell all others under which identity their snapshot goes on."""
    salt = withdrawn.salt_file(results).read_text(encoding="utf-8").strip()
    who = withdrawn.fingerprint(salt, person.dataset, person.subject)
    marks = [withdrawn.mark(folder, who, date=date, snapshots=identities) for folder in models]
    for folder in (weights.parent for weights in checkpoints(results) if weights.parent not in models):
        now = renamed(folder / WEIGHTS, snapshot_of(folder / WEIGHTS))
        if now in identities or now in identities.values():  # these a call that was killed has told already
            marks.append(withdrawn.mark(folder, None, date=date, snapshots=identities))
    return marks


def _record(results: Path, marks: list[Path]) -> None:
    """Record tombstones and marks; the command line, which names the person, is not kept."""
    out = withdrawn.tombstones(results)
    known = read_json(prov_path(out))["outputs"] if prov_path(out).is_file() else []
    earlier = [Path(item["path"]) for item in known if Path(item["path"]).name == withdrawn.MARK]
    with Recorder(Settings(SETTINGS), out=out) as record:
        for path in (withdrawn.salt_file(results), *marks, *(path for path in earlier if path.is_file())):
            record.add_output(path)
    made = read_json(prov_path(out))
    write_text(prov_path(out), render({**made, "command": ["boldmill", "audit", "forget"]}))


def _ledger(results: Path) -> None:
    """Write the ledger anew from the records, at its old time; where there was none, there is none."""
    from boldmill.provenance.fold import INPUTS
    from boldmill.provenance.ledger import write_ledger

    path = Layout.at(results).ledger
    files = [one for one in (path, path.with_name(INPUTS)) if one.is_file()]
    if path not in files:
        return
    with ExitStack() as stack:
        for one in files:
            stack.enter_context(same_time(one))
        write_ledger(results, path, fresh=True)
    record = prov_path(path)
    if record.is_file():
        kept = read_json(record)
        was_sound = sound(kept)
        now = {shown(one): {"sha256": sha256_file(one), "size": one.stat().st_size} for one in files}
        kept["outputs"] = [{**item, **now.get(item["path"], {})} for item in kept["outputs"]]
        rewrite(record, kept, sound=was_sound)
