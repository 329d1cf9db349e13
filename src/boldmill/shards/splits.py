"""Which subjects are held out of pre-training: deterministic, by subject or family, balanced within sites.

Data sets are taken to hold different people: of two that share some (raw runs and a table of their series), build one
snapshot each, or their subjects may cross a split.

Data sets of ``always_train`` keep everybody in training, unless their site is held out by name; those of
``heldout_datasets`` are held out whole, as sites of ``heldout_sites`` are.

A unit is a family where it is known, else a subject. Units of a site are ranked by a stable hash keyed by the seed,
and the first ``ceil(share n)`` are taken, so that a small cohort gets its share too (a threshold on the hash would
often take none of 6 subjects). Sites with fewer than ``1 / share`` units are ranked together, and one unit always stays
for training. The price of ranking instead of a threshold: a new subject may move one other of its site across a border.
It touches no other site, where sites ranked together count as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from boldmill.rng import key128
from boldmill.shards.config import SnapshotConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One subject.

    Parameters
    ----------
    dataset, subject, site : str
        Where the subject belongs.
    family : str
        Family within the data set; empty where unknown.
    """

    dataset: str
    subject: str
    site: str
    family: str = ""

    @property
    def key(self) -> str:
        """``"<dataset>/<subject>"``."""
        return f"{self.dataset}/{self.subject}"

    @property
    def unit(self) -> tuple[str, str, str]:
        """What is never cut."""
        return (self.dataset, "family", self.family) if self.family else (self.dataset, "subject", self.subject)


def assign(people: Iterable[Person], cfg: SnapshotConfig, seed: int) -> dict[str, str]:
    """Return ``"<dataset>/<subject>"`` -> ``train``, ``validation`` or ``heldout``, sorted by subject."""
    units: dict[tuple[str, str, str], list[Person]] = {}
    for person in sorted(set(people), key=lambda p: (p.key, p.site, p.family)):
        units.setdefault(person.unit, []).append(person)
    heldout = {unit for unit, members in units.items() if {m.site for m in members} & set(cfg.heldout_sites)}
    heldout |= {unit for unit in units if unit[0] in cfg.heldout_datasets}
    fixed = {unit for unit in units if unit[0] in cfg.always_train} - heldout
    site_of = {unit: members[0].site for unit, members in units.items() if unit not in heldout | fixed}
    heldout |= _first(site_of, cfg.heldout, "heldout", seed)
    rest = {unit: site for unit, site in site_of.items() if unit not in heldout}
    validation = _first(rest, cfg.validation, "validation", seed)
    splits = {}
    for unit, members in units.items():
        split = "heldout" if unit in heldout else "validation" if unit in validation else "train"
        splits.update({member.key: split for member in members})
    return dict(sorted(splits.items()))


def _first(
    site_of: Mapping[tuple[str, str, str], str], share: float, purpose: str, seed: int
) -> set[tuple[str, str, str]]:
    exact = Fraction(str(share))
    if not exact:
        return set()
    by_site: dict[str, list[tuple[str, str, str]]] = {}
    for unit, site in site_of.items():
        by_site.setdefault(site, []).append(unit)
    groups = [units for units in by_site.values() if len(units) * exact >= 1]
    small = [unit for units in by_site.values() if len(units) * exact < 1 for unit in units]
    taken: set[tuple[str, str, str]] = set()
    for group in [*groups, small]:
        taken |= set(_ranked(group, purpose, seed)[: math.ceil(len(group) * exact)])
    if taken and len(taken) == len(site_of):  # never all: something must be left to learn from
        taken.discard(_ranked(sorted(taken), purpose, seed)[-1])
    return taken


def _ranked(units: Sequence[tuple[str, str, str]], purpose: str, seed: int) -> list[tuple[str, str, str]]:
    return sorted(units, key=lambda unit: (key128("split", purpose, seed, *unit), unit))
