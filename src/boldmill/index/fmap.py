"""Field maps of a run: which files in ``fmap/`` belong to it, and whether their sidecars say enough to use them.

A field map that cannot be used never costs a run: it is passed over with a flag that names the file and the key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boldmill.errors import DataFault
from boldmill.index.content import Facts
from boldmill.index.names import BidsFile, split_extension
from boldmill.index.sidecars import Sidecars

SUFFIXES = ("phasediff", "phase1", "phase2", "fieldmap", "magnitude", "magnitude1", "magnitude2", "epi")
ORDER = ("fieldmap", "phasediff", "phases", "epi")
"""Kinds, best first: a measured field needs no estimation."""
KEPT = (
    "PhaseEncodingDirection",
    "TotalReadoutTime",
    "EffectiveEchoSpacing",
    "ReconMatrixPE",
    "EchoTime",
    "EchoTime1",
    "EchoTime2",
    "Units",
)
"""Sidecar keys that tickets carry of a field map."""
UNITS = ("Hz", "rad/s", "T")
DIRECTIONS = ("i", "j", "k", "i-", "j-", "k-")


class Unusable(Exception):
    """Why a field map, or a run's own sidecar, does not allow a correction."""


@dataclass(frozen=True, slots=True)
class FieldMap:
    """Files of one field map by role, the first being the one whose sidecar says what it is for."""

    kind: str
    files: tuple[tuple[str, BidsFile], ...]

    @property
    def path(self) -> str:
        """Path of the first file."""
        return self.files[0][1].path


def is_field_map(file: BidsFile) -> bool:
    """Whether a file is part of a field map, or a single-band reference, which is an EPI of the run's polarity."""
    image = file.ext in (".nii", ".nii.gz") and "desc" not in file.entities and "space" not in file.entities
    own = file.datatype == "fmap" and file.suffix in SUFFIXES
    return image and (own or (file.datatype == "func" and file.suffix == "sbref"))


def phase_encoding(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """Return voxel axis (0, 1, 2) and polarity (1, -1) of ``PhaseEncodingDirection``.

    Raises
    ------
    Unusable
        The key is missing or no direction.
    """
    value = metadata.get("PhaseEncodingDirection")
    if value is None:
        raise Unusable("PhaseEncodingDirection is missing")
    if value not in DIRECTIONS:
        raise Unusable(f"PhaseEncodingDirection is {value!r}, not one of {', '.join(DIRECTIONS)}")
    return "ijk".index(value[0]), -1 if value.endswith("-") else 1


def seconds(metadata: Mapping[str, Any], key: str) -> float:
    """Return a duration below 1 s.

    Raises
    ------
    Unusable
        The key is missing, no positive number, or in another unit.
    """
    value = metadata.get(key)
    if value is None:
        raise Unusable(f"{key} is missing")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
        raise Unusable(f"{key} is {value!r}, not a duration in seconds")
    return float(value)


def readout_time(metadata: Mapping[str, Any], shape: Sequence[int]) -> float:
    """Return the total readout time, s: given, or ``EffectiveEchoSpacing * (ReconMatrixPE - 1)``.

    Without ``ReconMatrixPE`` the image's own size along the phase-encoding axis stands for it, as BIDS defines it.

    Raises
    ------
    Unusable
        Neither ``TotalReadoutTime`` nor ``EffectiveEchoSpacing`` is there, or one is no duration.
    """
    if metadata.get("TotalReadoutTime") is not None:
        return seconds(metadata, "TotalReadoutTime")
    if metadata.get("EffectiveEchoSpacing") is None:
        raise Unusable("TotalReadoutTime (or EffectiveEchoSpacing) is missing")
    lines = metadata.get("ReconMatrixPE") or int(shape[phase_encoding(metadata)[0]])
    if not isinstance(lines, int | float) or not lines > 1:
        raise Unusable(f"ReconMatrixPE is {lines!r}, not a number of lines")
    return seconds(metadata, "EffectiveEchoSpacing") * (float(lines) - 1.0)


def echo_times(kind: str, metadata: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return both echo times (s) of a phase difference (one sidecar) or of two phase images (two sidecars).

    Raises
    ------
    Unusable
        One is missing, or they are equal.
    """
    if kind == "phasediff":
        first, second = seconds(metadata[0], "EchoTime1"), seconds(metadata[0], "EchoTime2")
    else:
        first, second = seconds(metadata[0], "EchoTime"), seconds(metadata[1], "EchoTime")
    if math.isclose(first, second, abs_tol=1e-6):
        raise Unusable(f"both echo times are {first:g} s")
    return first, second


def group(files: Iterable[BidsFile]) -> list[FieldMap]:
    """Return the field maps that files make up, sorted by path; an EPI is one of its own until it meets a run."""
    sets: dict[Any, dict[str, BidsFile]] = {}
    for file in sorted(files, key=lambda f: f.path):
        if file.datatype == "fmap":
            sets.setdefault(file.identity, {}).setdefault(file.suffix, file)
    found = []
    for parts in sets.values():
        names = ("magnitude1", "magnitude", "magnitude2")
        magnitude = tuple(("magnitude", parts[name]) for name in names if name in parts)
        if "phasediff" in parts:
            found.append(FieldMap("phasediff", (("phasediff", parts["phasediff"]), *magnitude)))
        elif "phase1" in parts or "phase2" in parts:
            phases = tuple((name, parts[name]) for name in ("phase1", "phase2") if name in parts)
            found.append(FieldMap("phases", (*phases, *magnitude)))
        if "fieldmap" in parts:
            found.append(FieldMap("fieldmap", (("fieldmap", parts["fieldmap"]), *magnitude)))
        if "epi" in parts:
            found.append(FieldMap("epi", (("epi", parts["epi"]),)))
    return found


def labels(value: Any) -> set[str]:
    """Return identifiers or paths given as one text or a list of texts."""
    return {item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str) and item}


def intended(value: Any, run: BidsFile) -> bool:
    """Whether ``IntendedFor`` names a run: relative to its subject (or session), or a ``bids::`` URI."""
    own = split_extension(run.path)[0]
    subject = f"sub-{run.entities['sub']}/"
    session = f"ses-{run.entities['ses']}/" if run.entities.get("ses") else ""
    for text in labels(value):
        path = text
        if text.startswith("bids:"):
            _, name, path = [*text.split(":", 2), "", ""][:3]
            if name:  # another data set
                continue
        path = split_extension(path.removeprefix("./").lstrip("/"))[0]
        if own in (path, subject + path, subject + session + path):
            return True
    return False


class Finder:
    """Finds the field maps of the runs of one data set.

    Parameters
    ----------
    sidecars : Sidecars
        Its JSON sidecars.
    facts_of : callable
        Facts of a file.
    entry_of : callable
        The ticket's entry of a file (path, size, sha256).
    """

    def __init__(
        self,
        sidecars: Sidecars,
        facts_of: Callable[[BidsFile], Facts],
        entry_of: Callable[[BidsFile], dict[str, Any]],
    ) -> None:
        self.sidecars, self.facts_of, self.entry_of = sidecars, facts_of, entry_of

    def find(
        self, run: BidsFile, metadata: Mapping[str, Any], files: Sequence[BidsFile]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the ticket's ``fmap`` of a run, best first, and flags on what was passed over.

        Parameters
        ----------
        run : BidsFile
            The BOLD image.
        metadata : mapping
            Its sidecar.
        files : sequence of BidsFile
            Field-map images and single-band references of the subject.
        """
        matched, flags = self._match(run, metadata, group(files))
        if not matched:
            return [], flags
        try:
            phase_encoding(metadata)
            readout_time(metadata, self.facts_of(run).shape)
        except Unusable as why:
            return [], [*flags, f"field map {matched[0][1].path} not used: {why} in the sidecar of the run"]
        entries = []
        reference = [f for f in files if f.suffix == "sbref" and f.identity == run.identity]
        for by, found in sorted(matched, key=lambda pair: (ORDER.index(pair[1].kind), pair[1].path)):
            try:
                made = self._opposite(run, metadata, found, reference) if found.kind == "epi" else self._checked(found)
            except (Unusable, DataFault) as error:
                said = error.why if isinstance(error, DataFault) else str(error)
                flags.append(f"field map {found.path} not used: {said}")
            else:
                entries.append({"kind": found.kind, "by": by, "files": made})
        return entries, flags

    def _match(
        self, run: BidsFile, metadata: Mapping[str, Any], maps: Sequence[FieldMap]
    ) -> tuple[list[tuple[str, FieldMap]], list[str]]:
        """Return the field maps a run's B0FieldSource names; where none does, those that are intended for it."""
        source, flags = labels(metadata.get("B0FieldSource")), []
        named: list[tuple[str, FieldMap]] = []
        meant: list[tuple[str, FieldMap]] = []
        for found in maps:
            says: dict[str, Any] = {}
            for role, file in found.files:
                if role == "magnitude":
                    continue
                try:
                    says |= self._metadata(file)
                except DataFault as fault:
                    flags.append(f"field map {file.path} not used: {fault.why}")
            if source & labels(says.get("B0FieldIdentifier")):
                named.append(("B0FieldIdentifier", found))
            elif intended(says.get("IntendedFor"), run):
                meant.append(("IntendedFor", found))
        matched = named or meant
        if maps and not matched and not flags:
            flags.append(f"none of {len(maps)} field maps names this run (B0FieldIdentifier, IntendedFor)")
        epi = [pair for pair in matched if pair[1].kind == "epi"]
        rest = [pair for pair in matched if pair[1].kind != "epi"]
        if epi:
            merged = FieldMap("epi", tuple(part for _, found in epi for part in found.files))
            rest.append((epi[0][0], merged))
        return rest, flags

    def _metadata(self, file: BidsFile) -> dict[str, Any]:
        return self.sidecars.resolve(file)[0]

    def _entry(self, role: str, file: BidsFile) -> dict[str, Any]:
        facts = self.facts_of(file)
        if facts.fault:
            raise Unusable(f"{file.path}: {facts.fault}")
        spatial = [n for n in facts.shape if n > 1]
        if len(spatial) != 3 and not (len(spatial) == 4 and role in ("epi", "sbref")):
            raise Unusable(f"{file.path} is no 3D image {facts.shape}")
        metadata = self._metadata(file)
        return {
            **self.entry_of(file),
            "role": role,
            "metadata": {key: metadata[key] for key in KEPT if metadata.get(key) is not None},
        }

    def _checked(self, found: FieldMap) -> list[dict[str, Any]]:
        """Return the entries of a measured field, its sidecars being sufficient."""
        if not any(role == "magnitude" for role, _ in found.files):
            raise Unusable("its magnitude image is missing")
        made = [self._entry(role, file) for role, file in found.files]
        roles = {entry["role"] for entry in made}
        if found.kind == "phases" and not {"phase1", "phase2"} <= roles:
            raise Unusable(f"phase{2 if 'phase1' in roles else 1} is missing")
        if found.kind == "fieldmap":
            units = made[0]["metadata"].get("Units")
            if units not in UNITS:
                raise Unusable("Units is missing" if units is None else f"Units is {units!r}, not {', '.join(UNITS)}")
        else:
            echo_times(found.kind, [entry["metadata"] for entry in made])
        return made

    def _opposite(
        self, run: BidsFile, metadata: Mapping[str, Any], found: FieldMap, reference: Sequence[BidsFile]
    ) -> list[dict[str, Any]]:
        """Return an EPI of opposite polarity, then one of the run's polarity or its single-band reference, if any."""
        axis, sign = phase_encoding(metadata)
        same: list[dict[str, Any]] = []
        opposite: list[dict[str, Any]] = []
        wrong = ""
        for role, file in found.files:
            try:
                entry = self._entry(role, file)
                its, polarity = phase_encoding(entry["metadata"])
                readout_time(entry["metadata"], self.facts_of(file).shape)
            except Unusable as why:
                wrong = wrong or (str(why) if file.path in str(why) else f"{file.path}: {why}")
                continue
            if its == axis:
                (same if polarity == sign else opposite).append(entry)
        if not opposite:
            direction = metadata["PhaseEncodingDirection"]
            raise Unusable(wrong or f"no EPI of the polarity opposite to the run's ({direction})")
        if not same and reference:
            same = [self._entry("sbref", file) for file in reference[:1] if not self.facts_of(file).fault]
        return [opposite[0], *same[:1]]
