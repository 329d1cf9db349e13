"""Describe the results for others: BIDS metadata, a list of all files, and a Workflow Run RO-Crate.

Writes into RELEASE_DIR ro-crate-metadata.json (Provenance Run Crate 0.5: one action per stage and settings, not per
job), files.parquet (every file with sha256, bytes, stage), dataset_description.json (GeneratedBy, SourceDatasets, terms
of use of every data set) and workflow/ (the Snakefile and its rules). All paths are relative; no user, host or folder
is named, and subjects only in the names of files. The same ledger gives the same bytes.

Run `snakemake audit` before, so that the ledger is up to date, and `boldmill audit verify`, so that it is true.

With --files the release carries data below data/ (hard links where the disk allows, else copies): those that match a
pattern, relative to the results folder. What others may do with them is what dataset_description.json says.

Exit status: 0 written and sound, 1 something is wrong with it (named), 2 the command line is wrong.

Examples:
  boldmill audit export --out release
  boldmill audit export --out release --files 'datasets/*' 'shards/*' 'models/*' 'evaluate/*'
  boldmill audit export --out release --check-only --hash-files
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import atomic, read_json, write_json
from boldmill.errors import EXIT_FAILURE, EXIT_OK, BoldmillError, ConfigError

if TYPE_CHECKING:
    from boldmill.provenance.release import Release

NEVER = ("index/*", "preprocess/*", "logs/*", "benchmarks/*", "provenance/*", "reports/*", "report/*", "*.prov.json",
         "quarantine.tsv", "*.quarantine.json")  # fmt: skip
"""Not carried, whatever a pattern says: they name folders of this machine, or show single subjects to people."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, required=True, metavar="RELEASE_DIR", help="folder to write")
    parser.add_argument("--results", metavar="DIR", help="results folder (default: the configuration's, else results)")
    parser.add_argument("--config", nargs="+", metavar="FILE", help="configuration files, later ones winning")
    parser.add_argument("--files", nargs="+", default=[], metavar="PATTERN", help="data to carry, e.g. 'shards/*'")
    parser.add_argument("--workflow", type=Path, metavar="DIR", help="folder with the Snakefile (default: the clone's)")
    parser.add_argument("--check-only", action="store_true", help="check a release that is there, write nothing")
    parser.add_argument("--hash-files", action="store_true", help="hash every file of the list that is within reach")
    parser.add_argument("--validate", action="store_true", help="also run roc-validator, where it is installed (needs "
                        "the network)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the release, check it, and say what is wrong with it."""
    from boldmill.provenance.crate_check import check, leaks
    from boldmill.provenance.terms import undescribed
    from boldmill.setup.status import results_of

    results = results_of(args.config, args.results).results
    if not args.check_only:
        release = export(results, args.out, project=_project(args.config), patterns=args.files, workflow=args.workflow)
        print(f"{args.out}: {len(release.steps)} steps, {len(release.files)} files, {len(release.terms)} data sets")
        for terms in release.terms:
            print(f"  {terms.sentence()}{f'; {terms.doi}' if terms.doi else ''}")
            if terms.licence == "not stated":
                print(f"  {terms.dataset}: no terms of use are known; set datasets[].licence before you share anything")
    found = check(args.out, results=results if args.hash_files else None) + leaks(args.out, private(results))
    found += [*undescribed(results), *withdrawn_models(results, args.out)]
    for problem in found:
        print(problem)
    print(f"{args.out}: {len(found)} problems (structure, profile, terms, paths{', hashes' * args.hash_files})")
    if args.validate:
        found += _validate(args.out)
    return EXIT_FAILURE if found else EXIT_OK


def export(
    results: Path, out: Path, *, project: str, patterns: Iterable[str] = (), workflow: Path | None = None
) -> Release:
    """Write a release and return what it says; an earlier one at ``out`` is replaced.

    Raises
    ------
    ConfigError
        ``out`` holds something that is no release, or the Snakefile is not found.
    BoldmillError
        There is no ledger.
    """
    from boldmill import __version__
    from boldmill.provenance.crate import DATA, DESCRIPTION, FILES, Crate
    from boldmill.provenance.release import gather
    from boldmill.provenance.terms import description

    refuse_foreign(out)
    release = gather(results, project)
    source = workflow or _clone()
    parts = {"workflow/Snakefile": source / "Snakefile"}
    parts |= {f"workflow/rules/{path.name}": path for path in sorted((source / "workflow" / "rules").glob("*.smk"))}
    if not parts["workflow/Snakefile"].is_file():
        raise ConfigError("cannot export", source, "there is no Snakefile", "name its folder with --workflow DIR")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".tmp-release-") as scratch:
        made, staged = Path(scratch) / "made", Path(scratch) / "staged"
        staged.mkdir()
        write_files(release.files, staged / FILES)
        about = description(f"{project}: results of boldmill", __version__, release.terms)
        write_json(staged / DESCRIPTION, about)
        parts |= {FILES: staged / FILES, DESCRIPTION: staged / DESCRIPTION}
        carried = {name: _placed(results, name, release, staged) for name in _chosen(release.files, patterns)}
        crate = Crate(release, parts, carried)
        crate.fill()
        crate.write(made)
        for name, path in carried.items():
            _link(path, made / DATA / name)
        if out.exists():
            shutil.rmtree(out)
        made.replace(out)
    return release


def refuse_foreign(out: Path) -> None:
    """Refuse to replace what is not a release, and nothing but one: a release is removed as a whole.

    Raises
    ------
    ConfigError
        ``out`` is a file, a link, or a folder with something that no export wrote.
    """
    from boldmill.provenance.crate import DATA, DESCRIPTION, FILES, METADATA

    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError("will not overwrite", out, "it is a link or a file", "choose another --out")
    lying = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if lying and METADATA not in lying:
        raise ConfigError("will not overwrite", out, "it holds something that is no release", "choose another --out")
    if more := sorted(lying - {METADATA, FILES, DESCRIPTION, DATA.rstrip("/"), "workflow"}):
        why = f"beside a release it holds {', '.join(more[:3])}, which would be lost"
        raise ConfigError("will not overwrite", out, why, "move it away, or choose another --out")


def write_files(rows: list[dict[str, Any]], out: Path) -> None:
    """Write the list of files; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from boldmill.provenance.release import FILES

    kinds = {"size": pa.int64(), "stage_version": pa.int32()}
    schema = pa.schema([pa.field(name, kinds.get(name, pa.string())) for name in FILES])
    with atomic(out) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")


def withdrawn_models(results: Path, out: Path) -> list[str]:
    """Return the models a release carries that were trained on people who withdrew consent since."""
    from boldmill.provenance.crate import DATA
    from boldmill.provenance.withdrawn import marked

    return [f"{DATA}{folder}: {words}" for folder, words in marked(results).items() if (out / DATA / folder).is_dir()]


def private(results: Path) -> dict[str, str]:
    """Return what no description of a release may hold -> what it is: this machine, this user, any subject."""
    from boldmill.index.read import read_index
    from boldmill.paths import Layout

    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    words = {platform.node(): "the name of this machine", user: "the name of the user"}
    words |= {str(Path.home()): "the user's folder", str(Path.cwd()): "the working directory"}
    if Layout.at(results).index.is_file():
        words |= {f"sub-{scan.subject}": "the label of a subject" for scan in read_index(results).scans}
    return {word: what for word, what in words.items() if word not in ("", "/", "root", "localhost")}


def _clone() -> Path:
    return Path(__file__).resolve().parents[3]


def _project(config: list[str] | None) -> str:
    """Return the name of the project, of the configuration that is named or lies in the working directory."""
    files = config or (["config.yaml"] if Path("config.yaml").is_file() else [])
    if not files:
        return "boldmill"
    from boldmill.config.load import load

    return str(load(*files).project)


def _chosen(files: list[dict[str, Any]], patterns: Iterable[str]) -> list[str]:
    """Return the paths of the outputs to carry."""
    wanted = list(patterns)
    outputs = [str(row["path"]) for row in files if row["role"] == "output"]
    chosen = [path for path in outputs if any(fnmatch(path, pattern) for pattern in wanted)]
    return [path for path in chosen if not any(fnmatch(path, pattern) for pattern in NEVER)]


def _placed(results: Path, name: str, release: Release, staged: Path) -> Path:
    """Return the file to carry: a description of derivatives without addresses of this machine, all else as it is."""
    path = results / name
    if not path.is_file():
        raise BoldmillError("cannot carry", path, "the file is gone", "run `boldmill audit verify`, then `snakemake`")
    parts = Path(name).parts
    if parts[0] != "derivatives" or len(parts) != 3 or parts[2] != "dataset_description.json":
        return path
    from boldmill.provenance.terms import description

    own = [terms for terms in release.terms if terms.dataset == parts[1]]
    kept = read_json(path)
    made = description(str(kept["Name"]), kept["GeneratedBy"][0]["Version"], own)
    cleaned = {**kept, **made, "GeneratedBy": kept["GeneratedBy"]}
    cleaned.pop("DatasetLinks", None)
    return write_json(staged / f"{parts[1]}.json", cleaned)


def _link(path: Path, target: Path) -> None:
    """Put a file into the release: a hard link where the disk allows, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)


def _validate(release: Path) -> list[str]:
    """Run roc-validator, or say that it was not run."""
    import subprocess

    command = shutil.which("rocrate-validator")
    if command is None:
        print("roc-validator is not installed, so only the checks above were made: pip install roc-validator")
        return []
    words = [command, "validate", "--no-paging", "--profile-identifier", "provenance-run-crate-0.5", str(release)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    print(done.stdout[-4000:])
    return ["roc-validator: see above"] if done.returncode else []
