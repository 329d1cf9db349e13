"""Runs `boldmill train` on ranks that are forks of one warm process: nothing is imported twice.

What a rank had to import, the process imports before the next run. Read from stdin, a line per run:
{"words": [...], "ranks": 2, "log": "...", ...}; answered by the exit status of each rank. What a run does beside
training (:func:`prepare`):

exact    float64, no dropout: what is equal in exact arithmetic is equal to 1e-9
stop     [rank, step]: that rank gets a real SIGUSR1 once so many steps are done
seconds  CHECKPOINT_SECONDS of the loop
full     from so many steps done on, no file of this process may grow above 8 KB
pace     [folder, seconds]: a file named by the number of steps done is written after each, then a pause
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any


def prepare(job: dict[str, Any]) -> None:
    """Change this process as a job asks."""
    import resource

    from boldmill.train import loop

    if job.get("exact"):
        exact()
    loop.CHECKPOINT_SECONDS = job.get("seconds", 600.0)
    step, done = loop.train_step, [0]

    def watched(*given: Any) -> Any:
        found = step(*given)
        done[0] += 1
        if "stop" in job and [int(os.environ.get("RANK", "0")), done[0]] == job["stop"]:
            os.kill(os.getpid(), signal.SIGUSR1)
        if done[0] == job.get("full"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        if "pace" in job:
            (Path(job["pace"][0]) / f"{done[0]}-rank-{os.environ.get('RANK', '0')}").touch()
            time.sleep(job["pace"][1])
        return found

    loop.train_step = watched


def exact() -> None:
    """Let all models train in float64 and without dropout."""
    from boldmill.models.brainmass import start, views
    from boldmill.models.brainmass import train as brainmass
    from boldmill.models.fm_app import architecture, data, network
    from boldmill.models.fmri_mae import train as fmri_mae

    design, module, pair = start.design, brainmass.start_module, views.FlyViews.pair
    start.design = lambda *given, **how: replace(design(*given, **how), dropout=0.0)

    def double(*given: Any) -> Any:
        found = module(*given)
        found.module.double()
        return found

    brainmass.start_module = double
    views.FlyViews.pair = lambda *given: tuple(view.double() for view in pair(*given))

    mae, batch = fmri_mae.FmriMae, fmri_mae.Clips.batch
    fmri_mae.FmriMae = lambda *given: mae(*given).double()
    fmri_mae.Clips.batch = lambda *given: batch(*given).double()

    app, read = network.FmApp, data.read_scans
    architecture.PRESETS["tiny"] |= {"dropout_in": 0.0, "dropout": 0.0}
    network.FmApp = lambda arch: app(arch).double()

    def wide(*given: Any) -> Any:
        scans = read(*given)
        morphometry = {name: value.astype("float64") for name, value in scans.morphometry.items()}
        return replace(scans, fc=scans.fc.astype("float64"), morphometry=morphometry)

    data.read_scans = wide


def rank(job: dict[str, Any], number: int, port: int) -> int:
    """Be one rank."""
    from boldmill.cli import main

    with open(job["log"], "a") as log:
        os.dup2(log.fileno(), 2)
    if job["ranks"] > 1:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(job["ranks"])}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    prepare(job)
    return main(job["words"])


def serve() -> None:
    """Fork ranks for each line until stdin ends."""
    for line in sys.stdin:
        job = json.loads(line)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = []
        for number in range(job["ranks"]):
            if (child := os.fork()) == 0:
                status = 99
                try:
                    status = rank(job, number, port)
                except SystemExit as end:
                    status = int(end.code or 0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    Path(f"{job['log']}.modules").write_text("\n".join(sys.modules))
                    sys.stderr.flush()
                    os._exit(status)
            ranks.append(child)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks]), flush=True)
        for name in Path(f"{job['log']}.modules").read_text().splitlines():
            if name not in sys.modules and not name.startswith("__"):
                with suppress(Exception):
                    importlib.import_module(name)


if __name__ == "__main__":
    if sys.argv[1:]:  # a rank of torchrun: the job as JSON
        from boldmill.cli import main as boldmill

        given = json.loads(sys.argv[1])
        prepare(given)
        sys.exit(boldmill(given["words"]))
    serve()
