"""Generate the demo cohort: raw BIDS data with known ground truth, deterministic from a seed.

Writes OUT/bids (raw data set `demo`), OUT/lemon (derivative data set with one real run), OUT/template (the demo's
head template), OUT/truth (ground truth) and OUT/demo.json. A second call with the same options does nothing.

example:
  boldmill demo-data --out resources/demo
  boldmill demo-data --out /tmp/tiny --tiny --no-real --jobs 1
"""

from __future__ import annotations

import argparse
from pathlib import Path

from boldmill.errors import EXIT_OK, ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; those not given take the default, or the value of ``--tiny``."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write (created; never one of your own)")
    parser.add_argument("--subjects", type=int, help="number of subjects, even, at least 4 (default 16; tiny 4)")
    parser.add_argument("--seed", type=int, help="seed of everything drawn (default 1)")
    parser.add_argument("--effect", type=float, help="size of the planted group effect, 0 to 1 (default 1; 0 = none)")
    parser.add_argument("--t1w-mm", type=float, help="T1w voxel size, mm (default 2; tiny 4)")
    parser.add_argument("--bold-mm", type=float, help="BOLD voxel size, mm (default 4; tiny 6)")
    parser.add_argument("--volumes", type=int, help="volumes per run (default 150; tiny 60)")
    parser.add_argument("--tr", type=float, help="repetition time, s (default 2)")
    parser.add_argument(
        "--tiny", action="store_true", help="small images of 4 subjects, to drive the workflow in tests"
    )
    parser.add_argument("--no-bad", action="store_true", help="leave out the runs that are broken on purpose")
    parser.add_argument("--no-real", action="store_true", help="leave out the real run (OUT/lemon)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default 2)")


def run(args: argparse.Namespace) -> int:
    """Generate the cohort, or say that it is there."""
    from boldmill.atomic import canonical_json
    from boldmill.demo.build import MANIFEST, build, is_current
    from boldmill.demo.parameters import parameters, version_digest
    from boldmill.demo.surface_run import sources
    from boldmill.provenance.record import Recorder
    from boldmill.stages import Settings

    if args.jobs < 1:
        raise ConfigError("cannot generate a demo cohort", "--jobs", f"{args.jobs} worker processes", "give 1 or more")
    p = parameters(
        tiny=args.tiny,
        subjects=args.subjects,
        seed=args.seed,
        effect=args.effect,
        t1w_mm=args.t1w_mm,
        bold_mm=args.bold_mm,
        volumes=args.volumes,
        tr=args.tr,
        bad=not args.no_bad,
        real=not args.no_real,
    )
    out: Path = args.out
    if is_current(out, p):
        print(f"demo cohort: {out} is complete and current; nothing to do")
        return EXIT_OK
    settings = Settings(
        canonical_json(
            {"stage": "demo-data", "version": 1, "seed": p.seed, "config": {"demo": p.as_dict()}, "overrides": {}}
        )
    )
    with Recorder(settings, out=out / MANIFEST, inputs=sources() if p.real else []) as record:
        build(out, p, jobs=args.jobs)
        files = sorted(path for path in out.rglob("*") if path.is_file() and path.parent != out)
        for path in files:
            record.add_output(path)
        record.note(generator=version_digest())
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"demo cohort: {p.subjects} subjects, {len(files)} files, {size:.0f} MB in {out}")
    return EXIT_OK
