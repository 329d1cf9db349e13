"""Generate the whole cohort: one process per subject at a time, then swap the finished folders into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boldmill.atomic import read_json, write_json, write_text
from boldmill.demo.parameters import Parameters, version_digest
from boldmill.errors import ConfigError, MachineFault

if TYPE_CHECKING:
    from boldmill.demo.cohort import Subject
    from boldmill.demo.signals import Edge

SCHEMA = 1
MANIFEST = "demo.json"
MARKER = ".boldmill-demo"
HEAD = "head.npz"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def is_current(out: Path, p: Parameters) -> bool:
    """Return whether ``out`` holds exactly this cohort: same parameters, same generator, every file there."""
    manifest = out / MANIFEST
    if not manifest.is_file():
        return False
    stored = read_json(manifest)
    if stored.get("parameters") != p.as_dict() or stored.get("version") != version_digest():
        return False
    return all((out / name).is_file() and (out / name).stat().st_size == size for name, size in stored["files"].items())


def claim(out: Path) -> None:
    """Take the output folder: create it, or make sure an earlier call of this command made it.

    Raises
    ------
    ConfigError
        The folder holds something else; nothing of it is touched.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / MARKER).is_file():
        raise ConfigError(
            "cannot write the demo cohort", out, "the folder holds something else", "give an empty folder with --out"
        )
    if not (out / MARKER).is_file():
        write_text(out / MARKER, "This folder is written by `boldmill demo-data`; a changed cohort replaces it.\n")


def build(out: Path, p: Parameters, jobs: int = 2) -> Path:
    """Generate the cohort and return the path of its manifest.

    The cohort is built aside and swapped in when it is complete; an interrupted build leaves no manifest, so the next
    call builds again.
    """
    claim(out)
    with _workshop(out) as building:
        _fill(building, p, jobs)
        (out / MANIFEST).unlink(missing_ok=True)
        for name in ("bids", "lemon", "template", "truth"):
            shutil.rmtree(out / name, ignore_errors=True)
            if (building / name).is_dir():
                (building / name).rename(out / name)
    return write_json(out / MANIFEST, manifest(out, p))


@contextmanager
def _workshop(out: Path) -> Iterator[Path]:
    for stale in out.glob(".building-*"):
        shutil.rmtree(stale)
    building = out / f".building-{os.getpid()}"
    building.mkdir()
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def manifest(out: Path, p: Parameters) -> dict[str, Any]:
    """Return what was generated: parameters, generator version, expected scans, every file with its size."""
    from boldmill import __version__
    from boldmill.demo.cohort import bad_runs, good_runs

    folders = [name for name in ("bids", "lemon", "template", "truth") if (out / name).is_dir()]
    files = sorted(path for name in folders for path in (out / name).rglob("*") if path.is_file())
    return {
        "schema": SCHEMA,
        "parameters": p.as_dict(),
        "version": version_digest(),
        "boldmill": __version__,
        "good_scans": sorted(run.scan_id for run in good_runs(p)),
        "bad_scans": sorted(run.scan_id for run in bad_runs(p).values()) if p.bad else [],
        "files": {path.relative_to(out).as_posix(): path.stat().st_size for path in files},
    }


def _fill(root: Path, p: Parameters, jobs: int) -> None:
    """Write all four folders below ``root``."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    from tqdm import tqdm

    from boldmill.demo.bids import write_tree
    from boldmill.demo.cohort import subjects
    from boldmill.demo.head import build_head
    from boldmill.demo.signals import planted_edges
    from boldmill.demo.truth import write_cohort_truth

    people = subjects(p)
    tasks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
    context = get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context, initializer=_one_thread) as pool:
        # The real run needs no head: it is written while this process builds the head.
        futures = [pool.submit(write_real, root)] if p.real else []
        head = build_head()
        head.save(root / HEAD)
        edges = planted_edges(p, head.centroids())
        tasks += [(write_head_template, (root,))]
        tasks += [(write_subject, (root, p, person, edges)) for person in people]
        write_tree(root / "bids", p, people)
        write_cohort_truth(root / "truth", p, people, edges)
        futures += [pool.submit(work, *given) for work, given in tasks]
        try:
            for done in tqdm(as_completed(futures), total=len(futures), desc="demo cohort", unit="part"):
                done.result()
        except BrokenProcessPool as error:
            raise MachineFault(
                "cannot generate the demo cohort", root, "a worker process was killed", "free memory, or give --jobs 1"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    (root / HEAD).unlink()


def _one_thread() -> None:
    """Keep a worker's linear algebra on one thread: same sums, and no more threads than ``--jobs``."""
    os.environ.update(dict.fromkeys(THREADS, "1"))


def write_real(root: Path) -> None:
    """Worker: write the derivative data set with the real run."""
    from boldmill.demo.surface_run import write_surface_run

    write_surface_run(root / "lemon")


def write_head_template(root: Path) -> None:
    """Worker: write the demo's head template."""
    from boldmill.demo.head import Head
    from boldmill.demo.template import write_template

    write_template(root / "template", Head.load(root / HEAD))


def write_subject(root: Path, p: Parameters, subject: Subject, edges: list[Edge]) -> None:
    """Worker: write one subject's T1w, all its runs (bad ones too) and their truth."""
    from boldmill.demo import anat, bad, bids, bold, cohort, geometry, signals, truth
    from boldmill.demo.head import Head

    head = Head.load(root / HEAD)
    anatomy = anat.build_anatomy(p, head, subject)
    runs = [run for run in cohort.good_runs(p) if run.subject == subject.label]
    image, affine = anat.t1w_image(p, subject, anatomy)
    t1w = root / "bids" / bids.t1w_path(subject, runs[0].session)
    geometry.save_nifti(t1w, image, affine)
    write_json(t1w.with_name(t1w.name.replace(".nii.gz", ".json")), bids.t1w_sidecar(subject))
    truth.write_shape(root / "truth", subject, head, anatomy)
    mixing = signals.subject_mixing(p, subject, edges, head.centroids())
    broken = {kind: run for kind, run in cohort.bad_runs(p).items() if p.bad and run.subject == subject.label}
    for run in runs:
        drawn = bold.draw_run(p, subject, anatomy, run, signals.run_spectrum(p, mixing, run.stem))
        path = root / "bids" / bids.bold_path(run)
        sidecar = bids.bold_sidecar(p, subject, drawn.truth.slice_times.tolist())
        geometry.save_nifti(path, drawn.stored, drawn.affine, tr=p.tr, slope=drawn.slope)
        write_json(path.with_name(f"{run.stem}_bold.json"), sidecar)
        truth.write_run_truth(root / "truth", p, run, drawn)
        for kind, bad_run in broken.items():
            bad.write_bad(root / "bids", kind, bad_run, path, drawn, p.tr, sidecar)
