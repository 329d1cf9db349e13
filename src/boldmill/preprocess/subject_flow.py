"""One subject: the T1w once, then every run; faults of the data end in the manifest, all others propagate."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boldmill.atomic import sha256_file
from boldmill.errors import DataFault
from boldmill.preprocess.cache import StepCache, key_of
from boldmill.preprocess.memory import Memory
from boldmill.preprocess.outputs import spaces_of
from boldmill.preprocess.raw import entries, identity
from boldmill.preprocess.recipe import rehome
from boldmill.preprocess.subject import Job, StepResult

Ticket = Mapping[str, Any]
READY_KEYS = ("layout", "stage", "space", "atlas")
"""What tickets of ready-made data say beyond the others."""
FIT_SETTINGS = (
    *("despike", "motion_before_slice_timing", "motion_reference", "slice_time_ref", "distortion", "deterministic"),
    "engines",
)
"""Settings that motion, distortion and coregistration of a run depend on."""
FIT_COMMON = ("boldmill", "version", "seed", "engines")
"""What they share with every step; not resolution and templates, which only the files of the anatomy carry."""
OTHER = "to_subject_"
"""Prefix of the anatomy's fields to further template spaces."""
ANAT = "anat"
"""Name of the anatomy's step; those of runs are their scan ids."""
NO_T1W = DataFault("no T1w image", "subject", "the subject has no T1w image", "add one, or exclude the subject")


@dataclass(kw_only=True)
class SubjectFlow:
    """Processing of one subject.

    Parameters
    ----------
    job : Job
        What the steps share.
    cache : StepCache
        Records of earlier runs.
    work : Path
        Scratch folder, removed by the caller.
    common : dict
        What every step's key holds: stage version, seed, resolution, template, versions of engines from wheels.
    """

    job: Job
    cache: StepCache
    work: Path
    common: dict[str, Any]
    outputs: list[Path] = field(default_factory=list)
    costs: dict[str, Any] = field(default_factory=dict)

    def manifest(self, tickets: Sequence[Ticket]) -> dict[str, Any]:
        """Process all tickets of the subject (sorted by scan id) and return its manifest."""
        first = tickets[0]
        spaces_of(self.job.settings.output_spaces, self.job.space, self.job.others)  # before anything is computed
        self.cache.retain({ANAT, *(str(t["scan_id"]) for t in tickets)})
        anat, entry, key = self.anatomy(tickets)
        scans = {str(t["scan_id"]): self.scan(t, anat, key) for t in tickets}
        return {
            "schema": 1,
            "dataset": first["dataset"],
            "subject": first["subject"],
            "space": self.job.space,
            "anat": entry,
            "scans": scans,
        }

    def anatomy(self, tickets: Sequence[Ticket]) -> tuple[StepResult | DataFault, dict[str, Any], str]:
        """Process the T1w of the first ticket that has any: the first of them, or all merged.

        Returns
        -------
        anat : StepResult or DataFault
        entry : dict
            The manifest's ``anat``.
        key : str
            Key of the step, part of the key of every volume run.
        """
        from boldmill.preprocess.anat import anat_settings, process_anat, t1w_of

        owner = next((t for t in tickets if t["t1w"]), None)
        if owner is None:
            self.cache.forget(ANAT)
            return NO_T1W, {"status": "absent", "files": {}, "qc": {}, "flags": []}, ""
        chosen = t1w_of(owner["t1w"], self.job.settings.t1w)
        names = [str(entry["path"]) for entry in chosen]
        entities = {"sub": str(owner["subject"]), "ses": str(chosen[0].get("session") or "")}
        content = [[entry["path"], identity(entry)] for entry in chosen]
        key = key_of(**self.common, step="anat", t1w=content, settings=anat_settings(self.job))
        raw = [Path(owner["root"]) / name for name in names]
        result = self._step(ANAT, key, lambda: process_anat(self.job, raw, entities, names, self.work / ANAT))
        if isinstance(result, DataFault):
            return result, {**_fault(result), "files": {}, "qc": {}, "flags": []}, key
        entry = self._entry(result)
        every = sorted({e["path"] for t in tickets for e in t["t1w"]})
        if len(every) > len(names):
            entry["flags"] = [*entry["flags"], f"several_t1w: used {', '.join(names)} of {len(every)}"]
        return result, entry, key

    def scan(self, ticket: Ticket, anat: StepResult | DataFault, anat_key: str) -> dict[str, Any]:
        """Process one scan and return its entry in the manifest."""
        kind, name = str(ticket["kind"]), str(ticket["scan_id"])
        base: dict[str, Any] = {"stage": "preprocess", "kind": kind}
        if isinstance(anat, DataFault) and kind in ("volume", "anat"):
            self.cache.forget(name)
            return {**base, **_fault(anat), "files": {}, "qc": {}, "flags": []}
        if kind == "anat":
            return {**base, "status": "ok", "files": {}, "qc": {}, "flags": []}
        key = key_of(
            **self.common,
            step=kind,
            anat=anat_key if kind == "volume" else "",
            ticket={k: ticket.get(k) for k in ("scan_id", "entities", "metadata", "task", "fmap", *READY_KEYS)},
            files=[[e["path"], identity(e)] for e in entries({**ticket, "t1w": []})],
            settings=self.job.settings.model_dump(mode="json"),
            clean=self.job.clean.model_dump(mode="json"),
        )
        result = self._step(name, key, lambda: self._run(ticket, anat))
        if isinstance(result, DataFault):
            return {**base, **_fault(result), "files": {}, "qc": {}, "flags": []}
        if "recipe" in result.files and rehome(result.files["recipe"], str(ticket["root"])):
            self.cache.save(name, key, result)
        return {**base, **self._entry(result)}

    def _run(self, ticket: Ticket, anat: StepResult | DataFault) -> StepResult:
        from boldmill.preprocess.bold import AnatInputs, process_volume_run
        from boldmill.preprocess.ready import is_ready, process_ready_run
        from boldmill.preprocess.surface import process_surface_run

        if is_ready(ticket):
            return process_ready_run(self.job, ticket)
        if ticket["kind"] == "surface":
            return process_surface_run(self.job, ticket)
        if isinstance(anat, DataFault):
            raise anat
        files = anat.files
        given = AnatInputs(
            t1w=files["t1w"],
            t1w_mask=files["t1w_mask"],
            gm=files["gm_native"],
            wm=files["wm_native"],
            csf=files["csf_native"],
            field=files["to_subject"],
            other_fields={k.removeprefix(OTHER): v for k, v in files.items() if k.startswith(OTHER)},
        )
        return process_volume_run(
            self.job, ticket, given, self.work / str(ticket["scan_id"]), self._memory(ticket, files)
        )

    def _memory(self, ticket: Ticket, anat: Mapping[str, Path]) -> Memory:
        """Return where motion, distortion and coregistration of a run are remembered, and what they depend on."""
        settings = self.job.settings.model_dump(mode="json")
        key = key_of(
            **{name: self.common[name] for name in FIT_COMMON},
            step="fit",
            anat={name: sha256_file(anat[name]) for name in ("t1w", "t1w_mask", "gm_native", "wm_native")},
            ticket={k: ticket.get(k) for k in ("scan_id", "metadata", "fmap")},
            files=[[e["path"], identity(e)] for e in ticket["bold"]],
            settings={name: settings[name] for name in FIT_SETTINGS},
            threads=self.job.threads,
        )
        return Memory(self.cache.memory_of(str(ticket["scan_id"])), key)

    def _step(self, name: str, key: str, compute: Callable[[], StepResult]) -> StepResult | DataFault:
        started = time.perf_counter()
        print(f"{name}: start", file=sys.stderr, flush=True)
        try:
            result, reused = self.cache.run(name, key, compute)
        except DataFault as fault:
            print(f"{name}: quarantined: {fault}", file=sys.stderr, flush=True)
            return fault
        finally:
            shutil.rmtree(self.work / name, ignore_errors=True)
        how = "unchanged, reused" if reused else "done"
        print(f"{name}: {how} in {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
        cost = result.facts.get("cost") or result.qc.get("cost_cpu_s")
        if cost and not reused:
            self.costs[name] = cost
        self.outputs += [*result.files.values(), *result.extra]
        return result

    def _entry(self, result: StepResult) -> dict[str, Any]:
        """The manifest's view of a step: costs are left out, because they differ from run to run."""
        relative = self.job.derivatives.relative
        return {
            "status": "ok",
            **{k: v for k, v in result.facts.items() if k != "cost"},
            "files": {k: relative(v) for k, v in sorted(result.files.items())},
            "qc": {k: v for k, v in result.qc.items() if k != "cost_cpu_s"},
            "flags": list(result.flags),
        }


def _fault(fault: DataFault) -> dict[str, Any]:
    return {"status": "quarantined", "reason": " ".join(f"{fault.what}: {fault.why}".split()), "fix": fault.fix}
