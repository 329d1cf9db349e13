r"""Preprocess the subjects of a bucket, or one subject: T1w, then every run, to cleaned series in template space.

A fault of the data quarantines a scan in its subject's manifest (its reason and fix are kept) and the job succeeds; any
other error fails it. Subjects and steps whose input, settings and outputs did not change are reused.

Examples:
  boldmill preprocess --bucket results/index/buckets/bucket-003.json --threads 4 \
    --template results/templates/template.json --results results \
    --out results/preprocess/bucket-003.json --config-json "$(cat preprocess.settings.json)"
  boldmill preprocess --tickets results/index/tickets/pumi_sub-001_task-rest.json \
    --template results/templates/template.json --results results \
    --out results/preprocess/pumi/sub-001.json --config-json "$(cat preprocess.settings.json)"
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from boldmill.preprocess.scratch import scratch

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``boldmill preprocess``."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--bucket", type=Path, help="list of a bucket's tickets: everybody in it")
    who.add_argument("--tickets", nargs="+", type=Path, help="tickets of one subject")
    parser.add_argument("--template", required=True, type=Path, help="template manifest")
    parser.add_argument("--results", required=True, type=Path, help="results folder")
    parser.add_argument("--out", required=True, type=Path, help="manifest to write: of the bucket, or of the subject")
    parser.add_argument("--config-json", required=True, help="settings of the stage, as JSON text")
    parser.add_argument("--threads", type=int, default=1, help="subjects at a time; for one subject, most threads")


def run(args: argparse.Namespace) -> int:
    """Process a bucket, or one subject."""
    if args.bucket is None:
        return _run_subject(args)
    from boldmill.preprocess.bucket import Plan, run_bucket
    from boldmill.stages import Settings

    plan = Plan(template=args.template, results=args.results, settings=Settings(args.config_json), threads=1)
    reused = run_bucket(args.bucket, args.out, plan, args.threads)
    print(f"{args.out}: {reused} subjects unchanged")
    return 0


def _run_subject(args: argparse.Namespace) -> int:
    """Process the subject and write its manifest."""
    from boldmill.atomic import write_json
    from boldmill.errors import ConfigError
    from boldmill.preprocess.config import CleanConfig, PreprocessConfig
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings

    settings = Settings(args.config_json)
    read = {path: path.read_bytes() for path in args.tickets}
    tickets = sorted(map(json.loads, read.values()), key=lambda t: str(t["scan_id"]))
    people = sorted({(str(t["dataset"]), str(t["subject"]), str(t["root"])) for t in tickets})
    if len(people) != 1:
        raise ConfigError("not one subject", "--tickets", f"they are of {people}", "give the tickets of one subject")
    dataset, subject, root = people[0]
    preprocess = settings.section("preprocess", PreprocessConfig, dataset)
    threads = 1 if preprocess.deterministic else max(1, args.threads)
    for name in THREAD_VARIABLES:  # before numpy is imported
        os.environ[name] = str(threads)

    from boldmill.preprocess import engines, raw
    from boldmill.preprocess.n4 import one_thread

    one_thread(threads)
    engines.check(preprocess)
    raw.verify(tickets)
    results = args.results.resolve()
    with Recorder(settings, out=args.out, inputs=[args.template]) as record:
        for path, content in read.items():  # as they were read: ingest may write others before this is over
            record.add_input(path, {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        with scratch(results / "work", dataset, f"sub-{subject}") as work:
            flow = _flow(args, settings, dataset, subject, Path(root), preprocess, CleanConfig, threads, work)
            manifest = flow.manifest(tickets)
        write_json(args.out, manifest)
        for path in flow.job.derivatives.describe():
            record.add_output(path)
        further = (path for files in flow.job.others.values() for path in files.values())
        for path in sorted([*flow.job.template.values(), *further]):
            record.add_input(path)
        for ticket in tickets:
            for entry in raw.entries(ticket):
                path = Path(root) / entry["path"]
                known = {"path": str(path), "size": entry["size"], "sha256": entry.get("sha256")}
                record.add_input(path, known if entry.get("sha256") else None)
        for path in flow.outputs:
            record.add_output(path)
        record.note(cost_cpu_s=flow.costs, threads=threads)
    counts = [entry["status"] for entry in manifest["scans"].values()]
    print(f"{args.out}: {counts.count('ok')} of {len(counts)} scans ok")
    return 0


def _flow(
    args: argparse.Namespace,
    settings: Any,
    dataset: str,
    subject: str,
    root: Path,
    preprocess: Any,
    clean: Any,
    threads: int,
    work: Path,
) -> Any:
    """Put together what the subject's steps share."""
    from boldmill import __version__
    from boldmill.atomic import read_json, sha256_file
    from boldmill.paths import Layout
    from boldmill.preprocess import engines
    from boldmill.preprocess.cache import StepCache
    from boldmill.preprocess.derivatives import Derivatives
    from boldmill.preprocess.images import Grid
    from boldmill.preprocess.subject import Job
    from boldmill.preprocess.subject_flow import SubjectFlow
    from boldmill.spaces.flow_needs import further_templates
    from boldmill.spaces.grid import output_grid

    layout = Layout.at(args.results.resolve())
    template = read_json(args.template)
    resolution = float(settings.raw("spaces.resolution"))
    affine, shape = output_grid(args.template, resolution)
    derivatives = Derivatives(
        results=layout.results,
        root=layout.derivatives(dataset),
        raw=root.resolve(),
        dataset=dataset,
        references={
            str(space): f"bids:template:{entry['files']['head']}"
            for space, entry in {template["space"]: template, **template.get("others", {})}.items()
        },
    )
    files = {key: (args.template.parent / name).resolve() for key, name in template["files"].items()}
    others = {
        space: {key: (args.template.parent / name).resolve() for key, name in entry["files"].items()}
        for space, entry in template.get("others", {}).items()
        if space in further_templates(preprocess.output_spaces, str(template["space"]))
    }
    job = Job(
        derivatives=derivatives,
        space=str(template["space"]),
        grid=Grid(shape, affine),
        template=files,
        settings=preprocess,
        clean=settings.section("clean", clean, dataset),
        seed=settings.seed,
        threads=threads,
        others=others,
    )
    return SubjectFlow(
        job=job,
        cache=StepCache(
            folder=layout.subject(dataset, subject).parent / ".cache" / f"sub-{subject}", results=layout.results
        ),
        work=work,
        common={
            "boldmill": __version__,
            "version": settings.version,
            "seed": settings.seed,
            "resolution": resolution,
            "engines": engines.wheels(preprocess.engines),
            "template": [sha256_file(args.template), *(sha256_file(files[key]) for key in sorted(files))],
            **({"others": {s: {k: sha256_file(p) for k, p in f.items()} for s, f in others.items()}} if others else {}),
        },
    )
