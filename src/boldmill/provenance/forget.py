"""List, and with --delete remove, everything that holds a person's data: withdrawal of consent.

Without --delete nothing is changed. With it, files that are theirs alone are deleted, their rows and entries are cut
out of shards, snapshots (frozen ones too), manifests, tables, predictions and logs, records and ledger follow, and a
tombstone stays (results/provenance/forgotten.tsv: a salted hash, the date, counts). The next ingest of the same raw
folder refuses them: quarantined, "consent withdrawn". A shard is written as if they had never been in it; no other file
changes, and no job is run again for it. Pages of everybody (cohort, report) are removed: the next run makes them again.

Weights trained on them cannot be cut: they are named, and marked (withdrawn.json beside them; evaluation, report and
`audit stale` show it) until they are trained again. --delete-models removes them with their evaluation, and the next
run trains them again. States of interrupted trainings that knew them are deleted: nothing can go on from them. Figures
of a whole group (metrics, maps) stay: they hold no person.

Run it where Snakemake runs, while it does not. Not touched: the raw data, releases that were exported (export again,
with --also they are looked through), weights outside the results (named), backups. The same person under another label,
or in another data set, is not found: name them too.

Exit status: 0 nothing is left (with --delete) or listed, 1 something is left or could not be read, 2 the command line
is wrong, Snakemake runs, or this is not the folder it runs in.

Examples:
  boldmill audit forget demo/01
  boldmill audit forget demo/01 --delete
  boldmill audit forget demo/01 --delete --delete-models --yes
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from boldmill.errors import EXIT_FAILURE, EXIT_OK, BoldmillError, ConfigError
from boldmill.provenance.holdings import (
    AGAIN,
    CUT,
    DELETE,
    MARK,
    RECORD,
    REDACT,
    REPORT,
    Holding,
    find,
    snakemake_files,
)
from boldmill.provenance.known import namesakes, person_of
from boldmill.provenance.person import Person

WORDS = {
    DELETE: "theirs alone: deleted",
    CUT: "shared: their part is cut out",
    REDACT: "text: their name is taken out",
    RECORD: "records: follow",
    AGAIN: "of everybody: removed, the next run makes it again",
    MARK: "models trained on them: must be trained again",
    REPORT: "cannot be helped here",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("person", metavar="DATASET/SUBJECT", help="name of the data set, label without sub-")
    parser.add_argument("--results", metavar="DIR", help="results folder (default: the configuration's, else results)")
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, later ones winning")
    parser.add_argument("--workdir", type=Path, default=Path(), metavar="DIR", help="where Snakemake runs (.snakemake)")
    parser.add_argument("--also", nargs="+", type=Path, default=[], metavar="DIR", help="releases to look through")
    parser.add_argument("--delete", action="store_true", help="really remove them")
    parser.add_argument("--delete-models", action="store_true", help="with --delete: also models trained on them")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """List what there is; remove it where asked."""
    from boldmill.setup.status import results_of

    results = results_of(args.config, args.results).results
    if not results.is_dir():
        raise ConfigError("no results", results, "there is no such folder", "give --results DIR")
    if args.delete_models and not args.delete:
        raise ConfigError("nothing is deleted", "--delete-models", "it needs --delete", "add --delete")
    person = person_of(results, args.person)
    holdings = find(results, person)
    own = list(snakemake_files(args.workdir, person))
    show(holdings, own, results)
    for other in sorted(namesakes(results, person.subject) - {person.dataset}):
        print(f"{other}/{person.subject} has the same label: if it is the same person, forget it too")
    for path in lists_elsewhere(results, person):
        print(f"{path}: weights beside it were trained on them, outside the results: remove or replace them by hand")
    for folder in args.also:
        show_release(folder, person)
    if not (holdings or own or person.scans):
        print(f"nobody of the name {person.key} is known here: is it the label of the index?")
    if not args.delete:
        print("nothing was changed (add --delete)")
        return EXIT_OK
    check_place(results, args.workdir)
    if not (args.yes or _confirmed(person)):
        print("nothing was changed")
        return EXIT_FAILURE
    return delete(results, person, holdings, own, workdir=args.workdir, delete_models=args.delete_models)


def check_place(results: Path, workdir: Path) -> None:
    """Refuse to change anything while Snakemake runs, or from a folder where records name files otherwise.

    Raises
    ------
    ConfigError
        It is so.
    """
    from boldmill.atomic import read_json
    from boldmill.cluster.events import locks
    from boldmill.paths import Layout
    from boldmill.provenance.record import prov_path, shown

    if held := [path for path in locks(workdir) if path.stat().st_size]:
        why = "Snakemake runs here, and would write their data again"
        raise ConfigError("not now", held[0], why, "wait for it; if none runs any more: snakemake --unlock")
    index = Layout.at(results).index
    named = [item["path"] for item in read_json(prov_path(index))["outputs"]] if prov_path(index).is_file() else []
    if named and shown(index) not in named:
        why = f"records name the index otherwise than {shown(index)}, and could not follow"
        raise ConfigError("not from here", Path.cwd(), why, "run it in the folder where Snakemake runs")
    home = workdir / ".snakemake"
    if not home.is_dir():
        print(f"{home}: is not there, so Snakemake's logs are not looked through (--workdir DIR)")


def show(holdings: list[Holding], own: list[Path], results: Path) -> None:
    """Print what there is, by what becomes of it."""
    for action, words in WORDS.items():
        chosen = [holding for holding in holdings if holding.action == action]
        if chosen:
            print(f"{words} ({len(chosen)})")
            for holding in chosen:
                print(f"  {results / holding.path}  ({holding.what})")
    if own:
        print(f"of Snakemake: their name is taken out, or the file with it ({len(own)})")
        for path in own:
            print(f"  {path}")
    number = Counter(holding.action for holding in holdings)
    print(f"{len(holdings) + len(own)} artefacts; {number[MARK]} of models that were trained on them")


def show_release(folder: Path, person: Person) -> None:
    """Print what a release holds; it is never changed: its hashes are its own."""
    import pyarrow.parquet as pq

    from boldmill.provenance.crate import FILES

    path = folder / FILES
    if not path.is_file():
        raise BoldmillError("cannot look through", folder, "it is no release", "name a folder of `audit export`")
    rows = pq.read_table(path, columns=["path", "dataset"]).to_pylist()
    named = [
        r for r in rows if person.named_in(r["path"]) or (r["dataset"] == person.dataset and person.relative(r["path"]))
    ]
    if named:
        print(
            f"{folder}: {len(named)} files of theirs are listed; export it again, and withdraw copies that were given"
        )


def lists_elsewhere(results: Path, person: Person) -> list[str]:
    """Return the lists of pre-training outside the results (imported weights) that name the person."""
    from boldmill.atomic import read_json
    from boldmill.paths import Layout
    from boldmill.provenance.ledger import Ledger
    from boldmill.provenance.record import shown
    from boldmill.train.checkpoint import SUBJECTS

    if not Layout.at(results).ledger.is_file():
        return []
    try:
        paths = Ledger.load(results).paths
    except BoldmillError as error:  # it is written anew in the end
        print(f"weights outside the results were not looked for: {error}")
        return []
    found = []
    for path in map(Path, paths):
        if path.name == SUBJECTS and path.is_file() and not path.is_relative_to(shown(results)):
            with suppress(ValueError, KeyError, TypeError):
                found += [path.as_posix()] if person.key in read_json(path)["subjects"] else []
    return found


def delete(
    results: Path, person: Person, holdings: list[Holding], own: list[Path], *, workdir: Path, delete_models: bool
) -> int:
    """Remove the person, say what follows, and look once more; exit 1 where something is left."""
    from boldmill.provenance.remove import carry_out

    date = datetime.now(UTC).isoformat(timespec="seconds")
    outcome = carry_out(results, person, holdings, date=date, delete_models=delete_models)
    _clean_snakemake(own, workdir, person)
    print(f"{outcome.deleted} files and folders deleted, {outcome.rewritten} rewritten, {outcome.records} records too")
    again = ["the pages of everybody (cohort, report) and the ledger"]
    if outcome.emptied:
        print(f"buckets nobody is in any more: {', '.join(map(str, outcome.emptied))}")
        again.append("the snapshot, which has fewer shards, and what follows it")
    if outcome.models and delete_models:
        again.append(f"training and evaluation of {', '.join(outcome.models)}")
    elif outcome.models:
        print(f"marked, to be trained again: {', '.join(outcome.models)} (--delete-models removes them)")
    print(f"the next run makes again: {'; '.join(again)}; nothing else")
    left = [holding for holding in find(results, person) if holding.action != MARK]
    left += [Holding(REPORT, PurePosixPath(path), "of Snakemake") for path in snakemake_files(workdir, person)]
    for holding in left:
        print(f"LEFT: {holding.path} ({holding.what})")
    return EXIT_FAILURE if left else EXIT_OK


def _confirmed(person: Person) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("not confirmed", person.key, "nobody can be asked here", "add --yes")
    return input(f"Remove {person.key} for good? Write the name again: ").strip() == person.key


def _clean_snakemake(paths: Iterable[Path], workdir: Path, person: Person) -> None:
    """Take the name out of Snakemake's logs; remove its records of files that are gone."""
    from boldmill.provenance.cut import redact_text

    for path in paths:
        inside = path.relative_to(workdir).as_posix()
        if {"log", "slurm_logs"} & set(path.relative_to(workdir).parts) and not person.named_in(inside):
            redact_text(path, person)
        else:
            path.unlink()
