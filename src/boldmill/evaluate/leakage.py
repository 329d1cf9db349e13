"""No subject is tested by a model that was trained on it, or on a member of its family."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from boldmill.atomic import read_json
from boldmill.errors import ConfigError, LeakageError
from boldmill.train.checkpoint import HISTORY, SUBJECTS

SHOWN = 10


def pretraining_subjects(checkpoint: str | Path) -> frozenset[str]:
    """Return ``"<dataset>/<subject>"`` of everyone a checkpoint was trained on (``subjects.json`` beside it).

    Raises
    ------
    ConfigError
        The list is missing: without it nothing can be shown to be unseen.
    """
    path = Path(checkpoint).with_name(SUBJECTS)
    try:
        return frozenset(map(str, read_json(path)["subjects"]))
    except (OSError, KeyError, ValueError) as error:
        why = f"the list of pre-training subjects cannot be read ({type(error).__name__})"
        fix = "train with `boldmill train`, or give `boldmill import-weights` --subjects FILE or --unseen-data"
        raise ConfigError("cannot rule out leakage", path, why, fix) from error


def pretraining_epochs(checkpoint: str | Path) -> str:
    """Return the passes over the training scans that the last row of ``history.jsonl`` tells of, else ``n/a``."""
    path = Path(checkpoint).with_name(HISTORY)
    try:
        last = path.read_text().splitlines()[-1]
        return str(int(json.loads(last)["epoch"]) + 1)
    except (OSError, IndexError, KeyError, TypeError, ValueError):
        return "n/a"


def overlap(tested: Iterable[str], trained: Collection[str], group_of: Mapping[str, str] | None = None) -> list[str]:
    """Return the tested subjects that were trained on, or a relative of whom was, sorted."""
    groups = group_of or {}
    seen_groups = {groups.get(subject, subject) for subject in trained}
    return sorted(s for s in set(tested) if s in trained or groups.get(s, s) in seen_groups)


def refuse_overlap(
    tested: Iterable[str], trained: Collection[str], group_of: Mapping[str, str] | None = None, *, what: str
) -> None:
    """Raise :class:`LeakageError`, naming subjects, where a tested subject or its family was trained on.

    Parameters
    ----------
    tested, trained : iterable of str
        ``"<dataset>/<subject>"``.
    group_of : mapping, optional
        Subject -> family (or the subject itself).
    what : str
        The model or probe concerned.
    """
    both = overlap(tested, trained, group_of)
    if both:
        names = ", ".join(both[:SHOWN]) + (f" and {len(both) - SHOWN} more" if len(both) > SHOWN else "")
        raise LeakageError(
            "test subjects were seen in training",
            what,
            f"{len(both)} subjects (or members of their family): {names}",
            "evaluate with the snapshot the model was trained on, or train again on this one",
        )
