"""One person of one data set, as paths, keys and texts of a results folder name them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from boldmill.provenance.record import MEMBER

START, END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9+])"
OF_SOMEBODY = re.compile(r"^(?:[A-Za-z0-9]+_)?sub-[A-Za-z0-9+-]+(?:[_.]|$)")
"""A file or folder that belongs to one person."""
TEMPORARY = re.compile(r"^\.tmp-\d+-[0-9a-f]+-")
"""What a killed command leaves: this, and the name the file was to have."""
PLACES = {"derivatives": 1, "preprocess": 1, "reports": 1, "parcellate": 1, "flatmap": 1, "work": 1, "logs": 2,
          "benchmarks": 2}  # fmt: skip
"""Folder of the results -> which part of a path below it is the data set: one may be called like a stage."""
GONE = "[withdrawn]"


class Person:
    """A person to be found.

    Parameters
    ----------
    dataset, subject : str
        Name of the data set, label without ``sub-``.
    scans : iterable of str
        Scan ids that the index knows; others are told by their form.
    roots : iterable of str
        Folders of the raw data set (or the one file it is), as texts name them.
    only : bool
        No other data set has the label: it tells the person alone.
    files : iterable of str
        Raw files, members of archives (``archive::member``) and folders (``folder/``) of theirs whose names do not say
        ``sub-<label>``, as records name them.
    names : iterable of str
        Names of their series as written, where the label is another (``Pitt_0050003``, label ``Pitt0050003``).
    """

    def __init__(
        self,
        dataset: str,
        subject: str,
        scans: Iterable[str] = (),
        *,
        roots: Iterable[str] = (),
        only: bool = False,
        files: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        self.dataset, self.subject, self.scans = dataset, subject, frozenset(scans)
        self.files, self.names, self.only = frozenset(files), frozenset(names), only
        given = [Path(root) for root in roots]
        spelled = {str(form) for root in given for form in (root, root.absolute(), root.resolve())}
        self.roots = tuple(sorted(spelled))
        d, s = re.escape(dataset), re.escape(subject)
        self._name = re.compile(rf"^(?:{d}_)?sub-{s}(?:[_.]|$)")
        self._scan = re.compile(rf"^{d}_sub-{s}(?:_|$)")
        written = "|".join(re.escape(name) for name in sorted(self.names))
        self._relative = re.compile(
            rf"(?:^|/|::)sub-{s}(?:[_./]|$)|^{s}$"
            + (rf"|(?:^|/|::|: )(?:{written})(?:\.[A-Za-z0-9.]+)?$" if written else "")
        )
        forms = [rf"{START}{re.escape(scan)}{END}" for scan in sorted(self.scans, key=len, reverse=True)]
        forms += [rf"{START}{d}(?:_sub-|/sub-){s}{END}", rf"(?<![A-Za-z0-9/.-]){d}/{s}{END}(?!/)"]
        forms += [rf"{START}sub-{s}{END} of {d}{END}"]
        forms += [rf"{re.escape(root)}/sub-{s}{END}[^\s\"':,;]*" for root in self.roots]
        forms += [
            re.escape(file) + (r"[^\s\"':,;]*" if file.endswith("/") else r"(?![A-Za-z0-9_+-])")
            for file in sorted(self.files, key=len, reverse=True)
        ]
        if only:
            telling = [name for name in sorted(self.names, key=len, reverse=True) if not name.isalnum()]
            forms += [rf"{START}sub-{s}{END}", *(rf"{START}{re.escape(name)}(?![A-Za-z0-9_+-])" for name in telling)]
        self._text = re.compile("|".join(forms))

    @property
    def key(self) -> str:
        """``<dataset>/<subject>``."""
        return f"{self.dataset}/{self.subject}"

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """What a file that names the person holds: a cheap first look."""
        words = {f"sub-{self.subject}", self.key, *self.scans, *self.files, *self.names}
        return tuple(word.encode() for word in sorted(words))

    def owns(self, path: PurePosixPath) -> bool:
        """Return whether a file or folder, relative to the results, is of this person alone."""
        place = PLACES.get(path.parts[0])
        for number, part in enumerate(TEMPORARY.sub("", part) for part in path.parts):
            if self._name.match(part):
                above = path.parts[:number] if place is None else path.parts[:number][place : place + 1]
                return part.startswith(f"{self.dataset}_") or self.dataset in above
        return False

    def is_scan(self, scan_id: str) -> bool:
        """Return whether a scan is of this person."""
        return scan_id in self.scans or bool(self._scan.match(scan_id))

    def is_key(self, value: Any) -> bool:
        """Return whether a key or value names this person or a scan, and nothing else."""
        return isinstance(value, str) and (value == self.key or self.is_scan(value))

    def named_in(self, text: str) -> bool:
        """Return whether a text names the person, with the data set."""
        return bool(self._text.search(text))

    def relative(self, path: str) -> bool:
        """Return whether a path, relative to the data set, is of this person."""
        return bool(self._relative.search(path))

    def is_raw(self, path: str) -> bool:
        """Return whether a path, as records or caches name it, is one of the person's raw files."""
        if path in self.files or any(file.endswith("/") and path.startswith(file) for file in self.files):
            return True
        inside = (path[len(root) :] for root in self.roots if path.startswith((f"{root}/", f"{root}{MEMBER}")))
        return any(self.relative(part.removeprefix("/")) for part in inside)

    def redact(self, text: str) -> str:
        """Return a text without the person."""
        return self._text.sub(GONE, text)


def of_somebody(name: str) -> bool:
    """Return whether the name of a file or folder says that it belongs to one person."""
    return bool(OF_SOMEBODY.match(TEMPORARY.sub("", name)))
