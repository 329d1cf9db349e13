"""Why each stage will run, in words: Snakemake's reasons, and what the records say was different."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from boldmill.plan.past import LISTS, PARTICIPANTS, is_settings, past_of, past_tickets
from boldmill.plan.words import settings_changes, title

if TYPE_CHECKING:
    from boldmill.plan.dryrun import Job

NEW, CHANGED, LEFT, GONE = "new", "changed", "left", "gone"
"""What can happen to a scan; ``gone`` holds the subjects that left with all of their scans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why one job will run.

    Parameters
    ----------
    phrases : tuple of str
        Causes that need no count of scans, e.g. a setting that changed.
    scans : mapping of str to frozenset of str
        Scan ids (subjects where ``gone``) by what happened to them; empty where nothing is known of scans.
    follows : tuple of str
        Stages it waits for.
    missing, first : bool
        Whether an output is gone, and whether it was never there.
    """

    phrases: tuple[str, ...] = ()
    scans: Mapping[str, frozenset[str]] = field(default_factory=dict)
    follows: tuple[str, ...] = ()
    missing: bool = False
    first: bool = False

    @property
    def only_scans(self) -> frozenset[str] | None:
        """The scans to do again, where nothing else makes the job run; None where all of them are."""
        if self.phrases or self.missing or self.first or self.follows or not self.scans:
            return None
        return self.scans.get(NEW, frozenset()) | self.scans.get(CHANGED, frozenset())


def why(job: Job, tickets: Mapping[str, str], results: Path) -> Why:
    """Return why a job will run.

    Parameters
    ----------
    job : Job
        A job of the dry run.
    tickets : mapping of str to str
        sha256 of every ticket it will read, by scan id; empty where it reads none.
    results : Path
        Results folder.
    """
    past = past_of(job)
    if (job.missing or job.temporary) and not past.known:
        return Why(first=True)
    phrases: list[str] = ["asked for (forced)"] if "forced" in job.changed else []
    if is_settings(past.settings) and is_settings(job.settings):
        phrases += settings_changes(past.settings, job.settings)
    lists = {path for path in job.inputs if Path(path).parent.name in LISTS} | {*past.changed(*LISTS)}
    scans = _scans(tickets, past_tickets(past, job.output, results)) if lists and tickets else {}
    if lists and not scans:
        phrases.append("scans of the bucket changed")
    if past.changed(PARTICIPANTS) or any(Path(path).parent.name == PARTICIPANTS for path in job.inputs):
        phrases.append("participants.tsv changed")
    phrases += [f"{path} changed" for path in job.inputs if Path(path).parent.name not in (*LISTS, PARTICIPANTS)]
    told = bool(phrases or scans)
    if "params" in job.changed and not told:
        phrases.append("settings changed")
    if "input" in job.changed and not (told or job.after):
        phrases.append("its list of inputs changed")
    phrases += ["the command of its rule changed"] if "code" in job.changed else []
    phrases += ["its software environment changed"] if "software" in job.changed else []
    if job.temporary and not (phrases or scans or job.after or job.missing):
        phrases.append("its temporary output is needed again")
    return Why(phrases=tuple(dict.fromkeys(phrases)), scans=scans, follows=tuple(job.after), missing=bool(job.missing))


def _scans(now: Mapping[str, str], then: Mapping[str, str] | None) -> dict[str, frozenset[str]]:
    if then is None:
        return {}
    left = then.keys() - now.keys()
    stay = {_subject(scan) for scan in now}
    found = {
        NEW: now.keys() - then.keys(),
        CHANGED: {scan for scan in now.keys() & then.keys() if now[scan] != then[scan]},
        LEFT: {scan for scan in left if _subject(scan) in stay},
        GONE: {who for scan in left if (who := _subject(scan)) not in stay},
    }
    return {name: frozenset(ids) for name, ids in found.items() if ids}


def _subject(scan_id: str) -> str:
    """Return data set and subject of a scan id: ``alpha_sub-01`` of ``alpha_sub-01_task-rest``."""
    return "_".join(scan_id.split("_")[:2])


def in_words(reasons: Iterable[Why], implied: frozenset[str] = frozenset()) -> str:
    """Return the causes of all jobs of a stage as one clause.

    ``implied`` are stages that others it follows wait for anyway: not named.

    >>> in_words([Why(phrases=("clean.band_high changed 0.1 -> 0.08",)), Why(missing=True)])
    'clean.band_high changed 0.1 -> 0.08 (1 of 2 jobs); output is missing (1 of 2 jobs)'
    """
    reasons = list(reasons)
    settings: Counter[str] = Counter(phrase for one in reasons for phrase in one.phrases)
    scans = {name: frozenset[str]().union(*(one.scans.get(name, frozenset()) for one in reasons)) for name in WORDS}
    counted = [text(len(scans[name])) for name, text in WORDS.items() if scans[name]]
    other: Counter[str] = Counter()
    other["not made yet"] = sum(one.first for one in reasons)
    other["output is missing"] = sum(one.missing for one in reasons)
    before = sorted({stage for one in reasons for stage in one.follows} - implied)
    if before:
        other[f"follows {', '.join(map(title, before))}"] = sum(bool(one.follows) for one in reasons)

    def told(count: Counter[str]) -> list[str]:
        of = len(reasons)
        return [text if n == of else f"{text} ({n} of {of} jobs)" for text, n in count.items() if n]

    return "; ".join([*told(settings), *counted, *told(other)])


def _of(n: int, one: str, many: str) -> str:
    return f"1 {one}" if n == 1 else f"{n} {many}"


WORDS: dict[str, Callable[[int], str]] = {
    NEW: lambda n: _of(n, "scan is new", "scans are new"),
    CHANGED: lambda n: f"raw files of {_of(n, 'scan', 'scans')} changed",
    LEFT: lambda n: _of(n, "scan left", "scans left"),
    GONE: lambda n: _of(n, "subject left", "subjects left"),
}
"""What happened to n scans or subjects."""
