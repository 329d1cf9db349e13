"""One person of one data set, as paths, keys and texts of a results folder name them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

START, END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9+])"
OF_SOMEBODY = re.compile(r"^(?:[A-Za-z0-9]+_)?sub-[A-Za-z0-9+-]+(?:[_.]|$)")
"""A file or folder that belongs to one person."""
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
        Folders of the raw data set, as texts name them.
    only : bool
        No other data set has the label: it tells the person alone.
    """

    def __init__(
        self, dataset: str, subject: str, scans: Iterable[str] = (), *, roots: Iterable[str] = (), only: bool = False
    ) -> None:
        self.dataset, self.subject, self.scans = dataset, subject, frozenset(scans)
        given = [Path(root) for root in roots]
        spelled = {str(form) for root in given for form in (root, root.absolute(), root.resolve())}
        self.roots = tuple(sorted(spelled))
        d, s = re.escape(dataset), re.escape(subject)
        self._name = re.compile(rf"^(?:{d}_)?sub-{s}(?:[_.]|$)")
        self._scan = re.compile(rf"^{d}_sub-{s}(?:_|$)")
        self._relative = re.compile(rf"(?:^|/|::)sub-{s}(?:[_./]|$)|^{s}$")
        forms = [rf"{START}{d}(?:_sub-|/sub-){s}{END}", rf"(?<![A-Za-z0-9/.-]){d}/{s}{END}(?!/)"]
        forms += [rf"{START}sub-{s}{END} of {d}{END}"]
        forms += [rf"{re.escape(root)}/sub-{s}{END}[^\s\"':,;]*" for root in self.roots]
        forms += [rf"{START}sub-{s}{END}"] if only else []
        self._text = re.compile("|".join(forms))

    @property
    def key(self) -> str:
        """``<dataset>/<subject>``."""
        return f"{self.dataset}/{self.subject}"

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """What a file that names the person holds: a cheap first look."""
        return f"sub-{self.subject}".encode(), f"{self.dataset}/{self.subject}".encode()

    def owns(self, path: PurePosixPath) -> bool:
        """Return whether a file or folder, relative to the results, is of this person alone."""
        for number, part in enumerate(path.parts):
            if self._name.match(part):
                return part.startswith(f"{self.dataset}_") or self.dataset in path.parts[:number]
        return False

    def is_scan(self, scan_id: str) -> bool:
        """Return whether a scan is of this person."""
        return scan_id in self.scans or bool(self._scan.match(scan_id))

    def is_key(self, value: Any) -> bool:
        """Return whether a key or value names this person or a scan, and nothing else."""
        return isinstance(value, str) and (value == self.key or self.is_scan(value))

    def named_in(self, text: str) -> bool:
        """Return whether a text names the person, with the data set."""
        return bool(self._text.search(text)) or any(scan in text for scan in self.scans)

    def relative(self, path: str) -> bool:
        """Return whether a path, relative to the data set, is of this person."""
        return bool(self._relative.search(path))

    def is_raw(self, path: str) -> bool:
        """Return whether a path, as records or caches name it, is one of the person's raw files."""
        return any(path.startswith(f"{root}/") and self.relative(path[len(root) + 1 :]) for root in self.roots)

    def redact(self, text: str) -> str:
        """Return a text without the person."""
        for scan in sorted(self.scans, key=len, reverse=True):
            text = text.replace(scan, GONE)
        return self._text.sub(GONE, text)


def of_somebody(name: str) -> bool:
    """Return whether the name of a file or folder says that it belongs to one person."""
    return bool(OF_SOMEBODY.match(name))
