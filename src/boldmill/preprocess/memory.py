"""Small results of estimating steps, kept from job to job: a change of grids or cleaning does not redo them.

Everything lies below one folder per run: ``<label>/record.json`` and the files it names.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from boldmill.atomic import atomic, read_json, sha256_file, write_json
from boldmill.preprocess.derivatives import sidecar_of

SIDECAR = ".json"


@dataclass(frozen=True, slots=True)
class Memory:
    """Results in ``folder`` that hold for ``key``, the digest of all they depend on."""

    folder: Path
    key: str

    def recall(self, label: str, target: Path) -> dict[str, str] | None:
        """Return copies in ``target`` of what a step left under this key, or None where something is missing."""
        home = self.folder / label.replace(" ", "_")
        if not (home / "record.json").is_file():
            return None
        record = read_json(home / "record.json")
        files = record["files"]
        if record["key"] != self.key:
            return None
        if any(not (home / f).is_file() or sha256_file(home / f) != digest for f, digest in files.values()):
            return None
        copies = {output: str(shutil.copyfile(home / name, target / name)) for output, (name, _) in files.items()}
        return {output: path for output, path in copies.items() if not output.endswith(SIDECAR)}

    def keep(self, label: str, results: Mapping[str, str]) -> None:
        """Keep the files a step returned, with the sidecars that lie beside its images."""
        home = self.folder / label.replace(" ", "_")
        files: dict[str, tuple[str, str]] = {}
        images = {output: Path(path) for output, path in results.items() if path.endswith(".nii.gz")}
        sides = {f"{output}{SIDECAR}": sidecar_of(path) for output, path in images.items()}
        everything = {**results, **{output: str(path) for output, path in sides.items() if path.is_file()}}
        for output, path in sorted(everything.items()):
            name = Path(path).name
            with atomic(home / name) as temporary:
                shutil.copyfile(path, temporary)
            files[output] = (name, sha256_file(path))
        write_json(home / "record.json", {"key": self.key, "files": files})
