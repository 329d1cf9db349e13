"""One scan in, one index row and one ticket out: all checks that need no image data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boldmill.errors import DataFault
from boldmill.index.checks import (
    check_shape,
    check_slice_timing,
    check_surface,
    check_t1w,
    check_volumes,
    repetition_time,
)
from boldmill.index.config import IndexConfig
from boldmill.index.content import Facts
from boldmill.index.fmap import Finder
from boldmill.index.names import BidsFile
from boldmill.index.scans import Scan
from boldmill.index.sidecars import Sidecars, shareable

TICKET_SCHEMA = 1


class Evaluator:
    """Checks the scans of one data set against the facts of their files.

    Parameters
    ----------
    root : str
        Root of the data set, as configured.
    sidecars : Sidecars
        Its JSON sidecars.
    facts : mapping
        Facts by absolute path (:func:`boldmill.index.content.examine`).
    settings : IndexConfig
        Limits, with the overrides of this data set.
    """

    def __init__(self, root: str, sidecars: Sidecars, facts: Mapping[str, Facts], settings: IndexConfig) -> None:
        self.base = absolute_root(root)
        self.sidecars, self.facts, self.settings = sidecars, facts, settings

    def evaluate(self, scan: Scan, site: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the index row holds beyond identity, and the content part of the ticket.

        Returns
        -------
        row : dict
            ``tr`` (s or None), ``n_volumes`` (or None), ``flags``.
        ticket : dict
            ``bold``, ``t1w``, ``confounds``, ``metadata``, ``sidecars``.

        Raises
        ------
        DataFault
            The scan fails a check.
        """
        if scan.fault is not None:
            raise scan.fault
        if scan.ready is not None:
            from boldmill.index.evaluate_ready import evaluate_ready

            return evaluate_ready(self, scan, scan.ready)
        return {"volume": self._volume, "surface": self._surface, "anat": self._anat}[scan.kind](scan)

    def facts_of(self, file: BidsFile) -> Facts:
        """Return the facts of a file of this data set."""
        return self.facts[f"{self.base}/{file.path}"]

    def sound(self, file: BidsFile) -> Facts:
        """Return the facts of a file; raise its fault where it has one."""
        facts = self.facts_of(file)
        if facts.fault:
            raise DataFault("cannot use file", file.path, facts.fault, facts.fix)
        return facts

    def entry(self, file: BidsFile) -> dict[str, Any]:
        """Return what a ticket says of a file."""
        facts = self.facts_of(file)
        entry: dict[str, Any] = {"path": file.path, "size": facts.size, "sha256": facts.sha256 or None}
        return {**entry, "annex_key": facts.key} if facts.key else entry

    def _volume(self, scan: Scan) -> tuple[dict[str, Any], dict[str, Any]]:
        file, where = scan.files[0], scan.files[0].path
        flags = list(scan.flags)
        facts = self.sound(file)
        n_volumes = check_shape(facts.shape, where, self.settings.min_volumes)
        metadata, used = self.sidecars.resolve(file)
        tr, remarks = repetition_time(metadata, facts.header_tr, where, self.settings.tr_range)
        check_slice_timing(metadata, facts.shape, tr, where)
        if metadata.get("SliceTiming") is None:
            flags.append("no slice timing")
        if not facts.oriented:
            flags.append("no orientation in the header")
        t1w, said = self._choose_t1w(scan, where)
        fmap, passed = Finder(self.sidecars, self.facts_of, self.entry).find(file, metadata, scan.fmaps)
        row = {"tr": tr, "n_volumes": n_volumes, "flags": flags + remarks + said + passed}
        ticket = self.ticket([file], t1w, None, metadata, used)
        return row, {**ticket, "fmap": fmap} if fmap else ticket

    def _choose_t1w(self, scan: Scan, where: str) -> tuple[list[BidsFile], list[str]]:
        """Return the sound T1w of the first session that has one, the preferred first, and what was passed over.

        Further images are those of the same contrast agent, reconstruction and part as the preferred one.
        """
        if not scan.t1w:
            raise DataFault(
                "no T1w", where, "no T1w", "add a T1w image of the subject; it carries the run to the template"
            )
        flags, first = [], ""
        chosen: list[BidsFile] = []
        for file in scan.t1w:
            if chosen and any(file.entities.get(k) != chosen[0].entities.get(k) for k in ("ses", "ce", "rec", "part")):
                continue
            try:
                check_t1w(self.sound(file).shape, file.path)
            except DataFault as fault:
                flags.append(f"T1w {file.path} passed over: {fault.why}")
                first = first or f"{file.path}: {fault.why}"
                fix = fault.fix
                continue
            chosen.append(file)
        if not chosen:
            raise DataFault("no usable T1w", where, f"no usable T1w ({first})", fix)
        session = chosen[0].entities.get("ses", "")
        if session != scan.label("ses"):
            flags.append(f"T1w of session {session}" if session else "T1w without session")
        if len(chosen) > 1:
            flags.append(f"{len(chosen)} T1w images, {chosen[0].path} first")
        return chosen, flags

    def _anat(self, scan: Scan) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            t1w, flags = self._choose_t1w(scan, scan.t1w[0].path)
        except DataFault as fault:
            raise DataFault(fault.what, scan.t1w[0].path, fault.why, fault.fix) from fault
        metadata, used = self.sidecars.resolve(t1w[0])
        return {"tr": None, "n_volumes": None, "flags": scan.flags + flags}, self.ticket([], t1w, None, metadata, used)

    def _surface(self, scan: Scan) -> tuple[dict[str, Any], dict[str, Any]]:
        left, right = scan.files
        sizes = self.sound(left).shape, self.sound(right).shape
        n_volumes = check_volumes(check_surface(*sizes, left.path), left.path, self.settings.min_volumes)
        metadata, used = self.sidecars.resolve(left)
        other, more = self.sidecars.resolve(right)
        # Each names its own source file; all that is said of the series itself must agree.
        if {**metadata, "Sources": None} != {**other, "Sources": None}:
            raise DataFault("hemispheres differ", left.path, "their sidecars differ", "give both the same sidecar")
        tr, remarks = repetition_time(metadata, 0.0, left.path, self.settings.tr_range)
        if scan.confounds is not None:
            rows = self.sound(scan.confounds).shape[0]
            if rows != n_volumes:
                why = f"{rows} rows for {n_volumes} volumes"
                raise DataFault("confounds do not fit", scan.confounds.path, why, "restore the table")
        row = {"tr": tr, "n_volumes": n_volumes, "flags": scan.flags + remarks}
        return row, self.ticket([left, right], [], scan.confounds, metadata, sorted({*used, *more}))

    def ticket(
        self,
        bold: list[BidsFile],
        t1w: list[BidsFile],
        confounds: BidsFile | None,
        metadata: dict[str, Any],
        used: list[str],
    ) -> dict[str, Any]:
        """Return the content part of a ticket."""
        return {
            "bold": [self.entry(file) for file in bold],
            "t1w": [{**self.entry(file), "session": file.entities.get("ses", "")} for file in t1w],
            "confounds": self.entry(confounds) if confounds else None,
            "metadata": shareable(metadata),
            "sidecars": used,
        }


def absolute_root(root: str) -> str:
    """Return the absolute folder of a data set, links not resolved: ``<it>/<path>`` is the key of a file's facts."""
    return str(Path(root).absolute())
