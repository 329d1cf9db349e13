"""Reuse of a subject's steps: a step whose key and whose outputs are unchanged is not run again.

The key is the sha256 of everything the step depends on: raw content, settings, stage version, template. The record of a
step holds its key, the sha256 of each output and the step's result; it lies in ``preprocess/<dataset>/.cache/``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boldmill.atomic import canonical_json, read_json, sha256_file, sha256_text, write_json
from boldmill.preprocess.subject import StepResult

SCHEMA = 1
MEMORY = ".fit"
"""Ending of the folder where a step's fit is remembered."""


def key_of(**parts: Any) -> str:
    """Return the key of a step: sha256 of the canonical JSON of what it depends on."""
    return sha256_text(canonical_json({"schema": SCHEMA, **parts}))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCache:
    """Records of one subject's steps in ``folder``; output paths are kept relative to ``results``."""

    folder: Path
    results: Path

    def run(self, step: str, key: str, compute: Callable[[], StepResult]) -> tuple[StepResult, bool]:
        """Return the result of a step and whether it was reused.

        Whatever an earlier run of the step wrote is removed before it is computed anew, so that a step that now ends
        in quarantine leaves nothing behind.
        """
        known = self._load(step, key)
        if known is not None:
            return known, True
        self.forget(step)
        result = compute()
        self.save(step, key, result)
        return result, False

    def retain(self, steps: Collection[str]) -> None:
        """Forget every step but these, memory of its fit included: scans that are no longer there leave no files."""
        for path in sorted(self.folder.glob("*.json")):
            if path.stem not in steps:
                self.forget(path.stem)
        for path in sorted(self.folder.glob(f"*{MEMORY}")):
            if path.name.removesuffix(MEMORY) not in steps:
                shutil.rmtree(path)

    def memory_of(self, step: str) -> Path:
        """Return the folder for what a step's fit remembers (:class:`boldmill.preprocess.memory.Memory`)."""
        return self.folder / f"{step}{MEMORY}"

    def forget(self, step: str) -> None:
        """Remove a step's record and the outputs it names."""
        path = self.folder / f"{step}.json"
        if not path.is_file():
            return
        for name in read_json(path)["outputs"]:
            (self.results / name).unlink(missing_ok=True)
        path.unlink()

    def _load(self, step: str, key: str) -> StepResult | None:
        path = self.folder / f"{step}.json"
        if not path.is_file():
            return None
        record = read_json(path)
        if record["key"] != key:
            return None
        for name, digest in record["outputs"].items():
            file = self.results / name
            if not file.is_file() or sha256_file(file) != digest:
                return None
        result = record["result"]
        return StepResult(
            files={k: self.results / v for k, v in result["files"].items()},
            extra=[self.results / v for v in result["extra"]],
            qc=result["qc"],
            flags=result["flags"],
            facts=result["facts"],
        )

    def save(self, step: str, key: str, result: StepResult) -> None:
        """Write the record of a step: its key, the sha256 of its outputs, its result."""

        def relative(path: Path) -> str:
            return path.relative_to(self.results).as_posix()

        outputs = sorted({*result.files.values(), *result.extra})
        write_json(
            self.folder / f"{step}.json",
            {
                "key": key,
                "outputs": {relative(path): sha256_file(path) for path in outputs},
                "result": {
                    "files": {k: relative(v) for k, v in result.files.items()},
                    "extra": sorted(relative(v) for v in result.extra),
                    "qc": result.qc,
                    "flags": result.flags,
                    "facts": result.facts,
                },
            },
        )
