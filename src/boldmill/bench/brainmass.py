"""BrainMass pre-training: our step beside the published one and beside the machine's rate of matrix products.

Everything of one size is measured in turns in one run, so that a busy machine slows all alike; medians count. CPU
time (of all threads) stands beside wall time: on a machine that does other work it is the fairer of the two.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from boldmill.bench.table import Row

if TYPE_CHECKING:
    from boldmill.bench.brainmass_case import Clock

OPTIONS = ("quick", "sizes")
SIZES = ("S", "B", "L")
RATIO_GOAL, RATE_GOAL, HOURS_GOAL = 2.0, 0.7, 12.0
RECIPE_SAMPLES = 2000 * 64_584
"""Scans seen by the published recipe: epochs x scans."""


def measure(repeats: int, *, quick: bool = False, sizes: Sequence[str] = SIZES) -> list[Row]:
    """Return the rows of every size; ``quick``: the tiny size, no goals."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in `boldmill train`, before torch is loaded
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for size in ("tiny",) if quick else sizes:
        rows += _size_rows(size, device, repeats, goals=not quick)
    return rows


def _size_rows(size: str, device: str, repeats: int, *, goals: bool) -> list[Row]:
    """Measure one size."""
    import torch

    from boldmill.bench import brainmass_case as case
    from boldmill.bench.brainmass_peer import PublishedStep
    from boldmill.models.brainmass.architecture import design
    from boldmill.train.device import environment

    data = case.series()
    batch = (case.GPU_BATCH if device == "cuda" else case.BATCH)[size]
    threads = min(2, os.cpu_count() or 1) if device == "cpu" else torch.get_num_threads()
    wait = torch.cuda.synchronize if device == "cuda" else int
    with environment(device, threads):
        ours = case.Ours(size, "fp32", batch, device, data)
        half = case.Ours(size, "bf16", batch, device, data)
        peer = PublishedStep(design(size, case.ROIS), device)
        scans = [data[name] for name in list(data) * -(-batch // len(data))][:batch]
        clocks = {name: case.Clock([], []) for name in ("ours", "half", "views", "peer", "square", "half square")}
        squares = {name: case.square(device, dtype) for name, dtype in case.DTYPES.items()}
        for turn in range(repeats + 1):
            if turn == 1:  # the first turn warms up
                for clock in clocks.values():
                    clock.clear()
            clocks["ours"].time(ours, wait)
            clocks["square"].time(squares["fp32"], wait)
            pair = clocks["views"].time(lambda: peer.views(scans), wait)
            clocks["peer"].time(partial(peer.step, *pair), wait)
            clocks["half"].time(half, wait)
            clocks["half square"].time(squares["bf16"], wait)
        name = torch.cuda.get_device_name() if device == "cuda" else f"{threads} CPU threads"
        note = f"BrainMass {size}, batch {batch}, {name}"
        return _rows(note, size, batch, clocks, ours.flops, device, goals=goals)


def _rows(
    note: str, size: str, batch: int, clocks: dict[str, Clock], flops: float, device: str, *, goals: bool
) -> list[Row]:
    """Return the rows of one size; ``flops`` of one step."""
    from boldmill.bench.brainmass_case import SQUARE

    kinds = ("wall", "CPU") if device == "cpu" else ("wall",)
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    made = []
    for kind in kinds:
        s: dict[str, float] = {name: statistics.median(getattr(clock, kind.lower())) for name, clock in clocks.items()}
        per = "samples/s" if kind == "wall" else "samples/CPU-s"
        goal = goals and kind == "wall"
        said = f"{note}, {kind} time{load}"

        def versus(what: str, ours: float, peer: float, bound: float | None, per: str = per) -> Row:
            return Row(
                name=what, ours=batch / ours, peer=batch / peer, unit=per, ratio=peer / ours,
                goal=f"ratio >= {bound:g}" if bound else "", met=peer / ours >= bound if bound else None,
            )  # fmt: skip

        def rate(what: str, ours: float, square: float, bound: float | None) -> Row:
            found, peak = flops / ours / 1e9, 2 * SQUARE**3 / square / 1e9
            return Row(
                name=what, ours=found, peer=peak, unit="GFLOP/s", ratio=found / peak,
                goal=f"ratio >= {bound:g}" if bound else "", met=found / peak >= bound if bound else None,
            )  # fmt: skip

        made += [
            versus(f"{said}, fp32 (peer: published step, nilearn views)", s["ours"], s["views"] + s["peer"],
                   RATIO_GOAL if goal and device == "cpu" else None),
            versus(f"{said}, fp32, views in ours only (peer: published step, its views given)", s["ours"], s["peer"],
                   None),
            rate(f"{said}, fp32, {flops / 1e9:.0f} GFLOP a step (peer: product of {SQUARE} x {SQUARE})", s["ours"],
                 s["square"], RATE_GOAL if goal and device == "cpu" else None),
            versus(f"{said}, bf16 (peer: ours in fp32)", s["half"], s["ours"], None),
            rate(f"{said}, bf16 (peer: the product in bf16)", s["half"], s["half square"], None),
        ]  # fmt: skip
    if device == "cuda" and size == "L":
        hours = RECIPE_SAMPLES / batch * statistics.median(clocks["half"].wall) / 3600
        made.append(
            Row(name=f"{note}, bf16: whole recipe, 2,000 epochs of 64,584 scans", ours=hours, peer=None, unit="h",
                ratio=None, goal=f"<= {HOURS_GOAL:g} h" if goals else "", met=hours <= HOURS_GOAL if goals else None)
        )  # fmt: skip
    return made
