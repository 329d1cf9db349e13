"""What every nipype node here has in common: faults that survive nipype, timed steps, a workflow run in-process.

nipype keeps only the text of an exception raised inside a node. :class:`Step` leaves the fault as a small JSON
file in the node's folder, and :func:`run_workflow` raises it again as what it was.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from boldmill.atomic import read_json, write_json
from boldmill.errors import BoldmillError, ConfigError, DataFault, MachineFault, disk_fault
from boldmill.preprocess.memory import Memory
from boldmill.preprocess.threads import algebra_threads

os.environ.setdefault("NIPYPE_NO_ET", "1")  # nipype asks for its latest version over the network otherwise
os.environ.setdefault("NO_ET", "1")

from nipype.interfaces.base import SimpleInterface
from nipype.pipeline import engine as pe

FAULT = "fault.json"
COST = "cost.json"
KINDS: dict[str, type[BoldmillError]] = {kind.__name__: kind for kind in (DataFault, MachineFault, ConfigError)}


class Step(SimpleInterface):  # type: ignore[misc]
    """A nipype interface over pure functions; subclasses define ``input_spec``, ``output_spec`` and :meth:`step`."""

    label: ClassVar[str] = ""
    memory: Memory | None = None
    """Where results of an earlier job are taken from, and these are kept."""

    def step(self, folder: Path) -> dict[str, Any]:
        """Do the work in ``folder`` and return the outputs by name."""
        raise TypeError(f"{type(self).__name__} has no step")

    def _run_interface(self, runtime: Any) -> Any:
        folder = Path(runtime.cwd)
        started, cpu = time.perf_counter(), _cpu()
        try:
            known = self.memory.recall(self.label, folder) if self.memory else None
            made = self.step(folder) if known is None else known
            if self.memory and known is None:
                self.memory.keep(self.label, made)
            self._results.update(made)
        except BoldmillError as fault:
            _leave(folder, fault)
            raise
        except OSError as error:
            if found := disk_fault(error, folder):
                _leave(folder, found)
            raise
        wall, used = time.perf_counter() - started, _cpu() - cpu
        write_json(folder / COST, {"step": self.label or type(self).__name__, "cpu_s": used, "wall_s": wall})
        said = f"{wall:.1f} s ({used:.1f} CPU-s)" if known is None else "unchanged, reused"
        print(f"  {self.label or type(self).__name__}: {said}", file=sys.stderr, flush=True)
        return runtime


def _leave(folder: Path, fault: BoldmillError) -> None:
    kind = type(fault).__name__ if type(fault).__name__ in KINDS else "MachineFault"
    write_json(folder / FAULT, {"kind": kind, "args": [fault.what, fault.where, fault.why, fault.fix]})


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run_workflow(workflow: Any, folder: str | Path) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Run a nipype workflow in this process, one node after the other, below ``folder``.

    Parameters
    ----------
    workflow : nipype Workflow
        Its ``base_dir`` is set to ``folder``.
    folder : path
        Scratch space; the caller removes it.

    Returns
    -------
    outputs : dict
        Fields of the workflow's ``outputnode``.
    costs : dict
        Cost of each step: ``{step: {"cpu_s": ..., "wall_s": ...}}``.

    Raises
    ------
    BoldmillError
        The fault a node raised, as the class it was.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("nipype.workflow", "nipype.interface", "nipype.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    workflow.base_dir = str(folder)
    workflow.config["execution"] = {
        **workflow.config.get("execution", {}),
        "crashdump_dir": str(folder),
        "crashfile_format": "txt",
        "create_report": "false",
        "hash_method": "timestamp",
        "remove_unnecessary_outputs": "false",
        "stop_on_first_crash": "true",
        "check_version": "false",
    }
    before = Path.cwd()
    try:
        with algebra_threads():
            graph = workflow.run(plugin="Linear")
    except Exception:
        os.chdir(before)
        for path in sorted(folder.rglob(FAULT)):
            fault = read_json(path)
            raise KINDS[fault["kind"]](*fault["args"]) from None
        raise
    costs = [read_json(path) for path in sorted(folder.rglob(COST))]
    shown = {c["step"]: {"cpu_s": round(c["cpu_s"], 2), "wall_s": round(c["wall_s"], 2)} for c in costs}
    return _outputs(workflow, graph), shown


def _outputs(workflow: Any, executed: Any) -> dict[str, Any]:
    """Follow each field of ``outputnode`` to the node that feeds it: nipype runs no identity nodes."""
    done = {node.fullname: node.result.outputs for node in executed.nodes()}
    found: dict[str, Any] = {}
    for source, _, data in workflow._graph.in_edges(workflow.get_node("outputnode"), data=True):
        for output, field in data["connect"]:
            found[field] = getattr(done[source.fullname], output)
    return found


__all__ = ["Step", "pe", "run_workflow"]
