"""Names of output spaces in the configuration: ``SPACE[:res-N]``, N in mm."""

from __future__ import annotations

import re
from dataclasses import dataclass

OWN = ("T1w", "boldref", "fsaverage5")
"""Spaces that are there for every subject, beside its templates."""
WORDS = re.compile(r"(?P<space>[A-Za-z0-9]+)(:res-(?P<res>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Space:
    """One entry of ``preprocess.output_spaces``: name and, where given, voxel size in mm."""

    name: str
    res: int | None

    @property
    def label(self) -> str:
        """Name in scratch files and manifest keys."""
        return self.name if self.res is None else f"{self.name}_res-{self.res}"


def parse_space(text: str) -> Space:
    """Return an entry of ``preprocess.output_spaces``.

    Raises
    ------
    ValueError
        Not ``SPACE`` or ``SPACE:res-N``, or a voxel size where the grid is fixed.

    >>> parse_space("MNI152NLin6Asym:res-3")
    Space(name='MNI152NLin6Asym', res=3)
    """
    found = WORDS.fullmatch(text)
    if not found or (found["res"] and int(found["res"]) == 0):
        raise ValueError(f"'{text}' is not an output space: write SPACE or SPACE:res-N (N in mm)")
    space = Space(found["space"], int(found["res"]) if found["res"] else None)
    if space.name in ("boldref", "fsaverage5") and space.res is not None:
        raise ValueError(f"'{text}' is not an output space: {space.name} has a grid of its own, leave out `:res-N`")
    return space
