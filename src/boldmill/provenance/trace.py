"""Show what made a file, a row of a table or a metric: the tree down to the raw files, with hashes and settings.

FILE may be anything a command wrote: a derivative, a shard, a checkpoint, a table of metrics. `FILE#column=value,...`
chooses rows of a .tsv or .parquet file (`#scan=ID` is short for `#scan_id=ID`); they are shown with a sha256 of their
values, and of a shard only the branch of that scan's subject is followed. Each file of the tree says by which stage,
version, settings and code it was made, and what is wrong with it:

  gone        it is no longer there: a temporary file, or a raw one that was moved
  CHANGED     its bytes are not those that were recorded
  stale       it was made again since it was read here, or the present configuration or code would give another

Of files that are alike (same stage, same name but for labels and numbers) the first 20 are shown; --full shows all.

Exit status: 0 the tree was shown, 1 the file or row is unknown, 2 the command line is wrong.

Examples:
  boldmill audit trace results/models/brainmass/model.safetensors
  boldmill audit trace 'results/shards/fc/Schaefer2018embedded/bucket-003.parquet#scan=demo_sub-01_task-rest'
  boldmill audit trace 'results/evaluate/brainmass/metrics.tsv#task=group,method=fc_logistic,metric=auc' --depth 2
  boldmill audit trace 'results/evaluate/brainmass/predictions.parquet#subject=demo/08' --json
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill.atomic import read_json
from boldmill.errors import EXIT_OK, BoldmillError
from boldmill.provenance.current import Current
from boldmill.provenance.hashing import look
from boldmill.provenance.ledger import Ledger
from boldmill.provenance.record import member_path, shown
from boldmill.provenance.selection import Rows, choose, parse
from boldmill.provenance.stale import open_config, open_current

SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")
SCAN = re.compile(r"([A-Za-z0-9]+)_sub-([A-Za-z0-9]+)(?:_|$)")
ALIKE = 20
"""Files shown of those that are alike."""
OF_ONE_SCAN = ("preprocess", "parcellate", "flatmap", "augment", "shards", "import")
"""Stages each row of whose tables, and each scan of whose manifests, was made from one scan."""


@dataclass(kw_only=True)
class Node:
    """One file of the tree.

    Parameters
    ----------
    made : dict or None
        Row of the ledger; None for a source, which no command recorded as its output.
    state : list of str
        What is wrong with it, in words.
    inputs : list of Node
        What it was made from, in the order of paths.
    more : dict
        What was left out: description -> number of files.
    seen : str
        File of the same command whose inputs are shown further up; empty where they follow here.
    """

    path: str
    sha256: str
    made: dict[str, Any] | None
    state: list[str] = field(default_factory=list)
    inputs: list[Node] = field(default_factory=list)
    more: dict[str, int] = field(default_factory=dict)
    seen: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the tree as plain values."""
        value: dict[str, Any] = {"path": self.path, "sha256": self.sha256, "state": self.state}
        if self.made is not None:
            named = ("stage", "stage_version", "settings_digest", "seed", "git_commit", "git_dirty", "git_diff_sha256")
            also = ("code_sha256", "packages_digest", "host", "slurm_job", "cards", "started", "ended", "record")
            value |= {name: self.made.get(name) for name in (*named, *also)}
            value["settings"] = json.loads(self.made["settings"])
        if self.seen:
            value["inputs_shown_at"] = self.seen
        if self.more:
            value["left_out"] = self.more
        return {**value, "inputs": [node.as_json() for node in self.inputs]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The root, the files the same command wrote beside it, and the chosen rows."""

    root: Node
    beside: list[str]
    rows: Rows | None


class Tracer:
    """Walk from a file down to its sources.

    Parameters
    ----------
    ledger : Ledger
        The ledger.
    current : Current
        Judges settings and stage versions.
    depth : int
        Levels shown below the root; negative for all.
    full : bool
        Show all files that are alike.
    """

    def __init__(self, ledger: Ledger, current: Current, *, depth: int = -1, full: bool = False) -> None:
        self.ledger, self.current, self.depth, self.full = ledger, current, depth, full
        self._seen: dict[str, str] = {}  # record -> the file its inputs are shown at
        self._files: set[str] = set()
        self._alike: Counter[str] = Counter()
        self._now: dict[str, str | None] = {}  # path -> hash on disk

    def trace(self, target: str) -> Tree:
        """Return the tree of ``PATH`` or ``PATH#column=value,...``.

        Raises
        ------
        BoldmillError
            Nobody recorded the file as an output, or there is no such row.
        """
        path, sign, selection = target.partition("#")
        row = self.ledger.row(shown(path)) or self.ledger.row(Path(path).as_posix())
        if row is None:
            fix = "name a file below the results; run `snakemake audit -R ledger` if it is new"
            raise BoldmillError("cannot trace", path, "no recorded command wrote it", fix)
        rows, only = None, None
        if sign:
            rows = choose(Path(row["path"]), parse(selection, target), target)
            scan = SCAN.match(str(rows.rows[0].get("scan_id", ""))) if row["stage"] in OF_ONE_SCAN else None
            if scan and "scan_id" in rows.where:
                only = (scan[1], scan[2])
        root = self._node(row["path"], row["sha256"], row, only, 0)
        beside = [name for name in self.ledger.made_with(row["record"]) if name != row["path"]]
        return Tree(root=root, beside=beside, rows=rows)

    def _node(self, path: str, read: str, row: dict[str, Any] | None, only: tuple[str, str] | None, depth: int) -> Node:
        self._files.add(path)
        state = list(self._state(path, read, row))
        node = Node(path=path, sha256=row["sha256"] if row else read, made=row, state=state)
        if row is None:
            return node
        node.seen = self._seen.get(row["record"], "")
        if node.seen:
            return node
        if depth != self.depth:  # at the last level none of its inputs are shown
            self._seen[row["record"]] = path
        inputs = self.ledger.inputs_of(row["record"])
        tickets = _tickets_of_series(inputs) if only else {}
        for item in inputs:
            told = tickets.get(item["path"], item["path"])
            of = self.ledger.row(item["path"])
            if only is not None and not is_of(told, *only, recorded=told in tickets.values() or of is not None):
                continue
            kind = alike(item["path"], of["stage"] if of else "source")
            if depth == self.depth:
                node.more["below"] = node.more.get("below", 0) + 1
            elif not self.full and item["path"] not in self._files and self._alike[kind] >= ALIKE:
                node.more[kind] = node.more.get(kind, 0) + 1
            else:
                self._alike[kind] += item["path"] not in self._files
                node.inputs.append(self._node(item["path"], item["sha256"], of, only, depth + 1))
        return node

    def _state(self, path: str, read: str, row: dict[str, Any] | None) -> Iterator[str]:
        if path not in self._now:
            self._now[path] = look(path).sha256
        found = self._now[path]
        written = row["sha256"] if row else read
        if found is None:
            yield "gone, as temporary files go" if row is not None and row["temporary"] else "gone"
        elif found != written:
            yield f"CHANGED: its sha256 is {found[:12]}"
        if written != read:
            yield f"stale: made again since; what was read had sha256 {read[:12]}"
        if row is not None:
            yield from (
                f"stale: {why}" for why in self.current.reasons(row["stage"], path, row["settings"], row["record"])
            )


def alike(path: str, stage: str) -> str:
    """Return the kind of a file: files of one kind differ in labels and numbers only.

    >>> alike("results/preprocess/demo/sub-01.json", "preprocess")
    'preprocess sub-*.json'
    """
    name = Path(path).name
    if scan := SCAN.match(name):
        name = name[scan.end(1) + 1 :]
    return f"{stage} {re.sub(r'(?<=-)[A-Za-z0-9]+|[0-9]+', '*', name)}"


def is_of(path: str, dataset: str, subject: str, *, recorded: bool) -> bool:
    """Return whether a file belongs to a subject, or to nobody in particular.

    Our own files name their data set, as a folder or at the start of a scan id; labels alone are not unique. A raw file
    need not name it, and is reached through its own subject's record only.
    """
    labels = SUBJECT.findall(path)  # the last one counts: data may lie below a folder like `sub-projects`
    if not labels:
        return True
    *folders, name = Path(path).parts
    return labels[-1] == subject and (not recorded or dataset in folders or name.startswith(f"{dataset}_"))


def _tickets_of_series(inputs: list[dict[str, Any]]) -> dict[str, str]:
    """Return source -> ticket of the tables of parcel series among the inputs: their own names tell nobody."""
    found: dict[str, str] = {}
    for item in inputs:
        path = Path(item["path"])
        if path.parent.name == "tickets" and path.is_file():
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # the tree says that it changed
                ticket = read_json(path)
                for one in ticket.get("series", []):
                    found[shown(member_path(Path(ticket["root"]) / one["path"], one["member"]))] = item["path"]
    return found


def lines(tree: Tree) -> Iterator[str]:
    """Yield the text of a tree, one line per file, settings below it."""
    if tree.rows is not None:
        chosen = ", ".join(f"{name}={value}" for name, value in tree.rows.where.items())
        yield f"{tree.rows.count} rows with {chosen}; sha256 of their values {tree.rows.sha256[:12]}"
        for row in tree.rows.rows:
            yield "  " + ", ".join(f"{name}={value}" for name, value in row.items())
        if tree.rows.count > len(tree.rows.rows):
            yield f"  ... and {tree.rows.count - len(tree.rows.rows):,} more rows"
    if tree.beside:
        yield f"the same command also wrote {len(tree.beside):,} files:"
        yield from (f"  {path}" for path in tree.beside[:ALIKE])
        if len(tree.beside) > ALIKE:
            yield f"  ... and {len(tree.beside) - ALIKE:,} more"
    yield from _lines(tree.root, "")


def _lines(node: Node, indent: str) -> Iterator[str]:
    state = "".join(f", {word}" for word in node.state)
    if node.made is None:
        yield f"{indent}{node.path}  sha256 {node.sha256[:12]}  [source{state}]"
        return
    row = node.made
    commit = (row["git_commit"] or row["code_sha256"] or "unknown")[:10]
    dirty = f"+dirty {str(row['git_diff_sha256'])[:10]}" if row["git_dirty"] else ""
    made = f"{row['stage']} v{row['stage_version']}, settings {row['settings_digest']}, code {commit}{dirty}"
    again = (" (above)" if node.seen == node.path else f" (made with {node.seen}, above)") if node.seen else ""
    yield f"{indent}{node.path}  sha256 {node.sha256[:12]}  [{made}{state}]{again}"
    if node.seen:
        return
    yield f"{indent}  settings: {row['settings']}"
    for child in node.inputs:
        yield from _lines(child, indent + "  ")
    for kind, number in node.more.items():
        rest = f"made from {number:,} files (--depth)" if kind == "below" else f"and {number:,} more like it: {kind}"
        yield f"{indent}  ... {rest}"


def trace(ledger: Ledger, target: str, current: Current | None = None, **options: Any) -> list[str]:
    """Return the text of :meth:`Tracer.trace`."""
    return list(lines(Tracer(ledger, current or Current(None), **options).trace(target)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("target", metavar="FILE[#column=value,...]", help="what to trace")
    parser.add_argument("--results", type=Path, help="results folder (default: the configuration's, else results)")
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files (default: config.yaml)")
    parser.add_argument("--depth", type=int, default=-1, help="levels below the file (default: all)")
    parser.add_argument("--full", action="store_true", help="show all files that are alike")
    parser.add_argument("--json", action="store_true", help="print the tree as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the tree."""
    config = open_config(args.config)
    results = args.results or Path(config.results if config else "results")
    tracer = Tracer(Ledger.load(results), open_current(config, results), depth=args.depth, full=args.full)
    tree = tracer.trace(args.target)
    if args.json:
        rows = None if tree.rows is None else {
            "where": tree.rows.where, "count": tree.rows.count, "sha256": tree.rows.sha256, "rows": tree.rows.rows
        }  # fmt: skip
        print(json.dumps({"rows": rows, "written_with": tree.beside, "tree": tree.root.as_json()}, indent=1))
    else:
        print("\n".join(lines(tree)))
    return EXIT_OK
