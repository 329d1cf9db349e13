"""TemplateFlow files through the official client; a job never downloads, a missing file stops with what to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boldmill.errors import MachineFault

POINTER = 400
"""A NIfTI, GIFTI or TSV under this size that starts as a git-annex or LFS pointer is no data, bytes."""


def flow_files(template: str, **entities: Any) -> list[Path]:
    """Return the files of a TemplateFlow template that match, all present and real.

    Parameters
    ----------
    template : str
        TemplateFlow name, e.g. ``"MNI152NLin6Asym"``.
    **entities
        TemplateFlow entities, e.g. ``resolution=2, suffix="T1w"``; ``None`` means the entity is absent.

    Raises
    ------
    MachineFault
        No file matches, or one is empty (never fetched) or a pointer to data that is not there.
    """
    from templateflow import api, conf

    wanted = ", ".join(f"{key}={value!r}" for key, value in entities.items())
    fetch = f"""run once, with a network: python -c "from templateflow import api; api.get('{template}', {wanted})" """
    home = str(conf.TF_HOME)
    found = sorted(Path(p) for p in api.ls(template, **entities))
    if not found:
        raise MachineFault(
            "missing TemplateFlow file", f"{template} ({wanted})", f"no file matches below {home}", fetch.strip()
        )
    for path in found:
        if not path.is_file() or path.stat().st_size == 0:
            raise MachineFault("missing TemplateFlow file", path, "it was listed but never fetched", fetch.strip())
        refuse_pointer(path)
    return found


def refuse_pointer(path: Path) -> None:
    """Raise if a file is a git-annex or LFS pointer instead of data."""
    if path.stat().st_size > POINTER:
        return
    head = path.read_bytes()[:POINTER]
    if head.startswith((b"/annex/objects", b"version https://git-lfs", b"../.git/annex", b".git/annex")):
        raise MachineFault(
            "missing TemplateFlow file", path, "it is a pointer, not data", "run `datalad get` or api.get"
        )


def flow_file(template: str, **entities: Any) -> Path:
    """Return the one file that matches; with several, the one at the finest resolution, by name."""
    return flow_files(template, **entities)[0]
